//! A guest with a fabricated e1000, in this process, and a wire between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fabnic_e1000::{E1000, E1000Config};
use fabnic_memory::{Map, RegionSpec};
use fabnic_pci::{Function, Interrupts};
use fabnic_port::{Burst, DropReason, Port, PortId, PortKind, Tally};
use fabnic_testkit::e1000::{Driver, Layout, Registers};
use fabnic_testkit::memory::{Backing, GuestMemory};
use fabnic_wire::MacAddr;

/// The interrupt line of a guest.
#[derive(Debug, Default)]
pub(crate) struct Line {
    level: AtomicBool,
    pub(crate) edges: AtomicU64,
}

impl Line {
    pub(crate) fn is_high(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }
}

impl Interrupts for Line {
    fn msix(&self, vector: u16) {
        panic!("vector {vector} of a device without MSI-X");
    }

    fn intx(&self, asserted: bool) {
        assert_ne!(self.level.swap(asserted, Ordering::SeqCst), asserted, "no change of the level");
        if asserted {
            self.edges.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Register accesses as a transport makes them, and its clock.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) device: E1000,
    pub(crate) now: u64,
}

impl Transport {
    pub(crate) fn wait_for_deadline(&mut self) -> bool {
        let Some(due) = self.device.deadline() else { return false };
        self.now = self.now.max(due);
        self.device.expire(self.now);
        true
    }
}

impl Registers for Transport {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.now += 100;
        self.device.expire(self.now);
        self.device.read(bar, offset, data);
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.now += 100;
        self.device.expire(self.now);
        self.device.write(bar, offset, data);
    }

    fn wait(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        self.device.expire(self.now);
    }
}

pub(crate) struct Guest {
    pub(crate) driver: Driver<Transport>,
    pub(crate) port: Arc<Port>,
    pub(crate) line: Arc<Line>,
}

/// The guest's memory as its VMM shares it: other mappings of the same files.
pub(crate) fn shared_map(memory: &GuestMemory) -> Arc<Map> {
    let spec = |(index, region): (usize, &fabnic_testkit::memory::Region)| {
        let file = memory.file(index).unwrap().try_clone_to_owned().unwrap();
        RegionSpec {
            guest_addr: region.guest_addr,
            user_addr: region.user_addr,
            len: region.len,
            offset: 0,
            file,
        }
    };
    Map::new(memory.regions().iter().enumerate().map(spec).collect()).unwrap()
}

pub(crate) fn mac(id: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, id]
}

impl Guest {
    /// A guest whose driver has probed the device and is up.
    pub(crate) fn new(id: u8, layout: Layout) -> Guest {
        let mut guest = Guest::probed(id, layout);
        guest.driver.up().unwrap();
        guest.driver.interrupt();
        guest
    }

    /// As [`Guest::new`], with the pages of its rings' registers open to be mapped.
    pub(crate) fn with_shared_rings(id: u8) -> Guest {
        let mut guest = Guest::make(id, Layout::default(), true);
        guest.driver.up().unwrap();
        guest.driver.interrupt();
        guest
    }

    /// A guest whose driver has probed the device.
    pub(crate) fn probed(id: u8, layout: Layout) -> Guest {
        Guest::make(id, layout, false)
    }

    fn make(id: u8, layout: Layout, share_rings: bool) -> Guest {
        let port = Arc::new(Port::new(PortId(id.into()), &format!("guest{id}"), PortKind::E1000, 1));
        let config = E1000Config { mac: MacAddr(mac(id)), link_up: true, share_rings };
        let mut device = E1000::new(Arc::clone(&port), config).unwrap();
        let line = Arc::new(Line::default());
        device.attach(Arc::clone(&line) as _);
        let memory = GuestMemory::new(16 << 20, Backing::Ordinary).unwrap();
        device.set_memory(Some(shared_map(&memory)));
        let driver = Driver::probe(Transport { device, now: 0 }, memory, layout).unwrap();
        Guest { driver, port, line }
    }

    pub(crate) fn device(&mut self) -> &mut E1000 {
        &mut self.driver.registers.device
    }

    /// Queues one frame, shows it to the device, and takes what is done back.
    #[track_caller]
    pub(crate) fn send(&mut self, frame: &[u8], cuts: &[usize], ask: &fabnic_testkit::e1000::Ask) {
        assert!(self.driver.send(frame, cuts, ask), "no room");
        self.driver.kick();
    }
}

/// Moves everything that one port sent to another, as a worker does. What became of it.
#[track_caller]
pub(crate) fn forward(from: &Port, to: &Port) -> Tally {
    let mut total = Tally::default();
    let mut burst = Burst::new();
    let mut guard = from.ingress()[0].lock();
    let Some(ingress) = guard.as_mut() else { return total };
    for turn in 0.. {
        if ingress.backlog() == 0 {
            break;
        }
        assert!(turn < 100_000, "work that does not end");
        let received = ingress.receive(&mut burst);
        if !burst.is_empty() {
            let good = |index: &u8| burst.frames()[usize::from(*index)].marked().is_none();
            let picks: Vec<u8> = (0..burst.len() as u8).filter(good).collect();
            for frame in burst.frames() {
                if let Some(reason) = frame.marked() {
                    total.drop(reason, 1);
                }
            }
            match to.egress()[0].lock().as_mut() {
                Some(egress) => {
                    if let Err(fault) = egress.deliver(&mut burst, &picks, &mut total) {
                        to.stop(fault);
                    }
                }
                None => total.drop(DropReason::NotReady, picks.len()),
            }
            total.calls += u64::from(ingress.complete(&burst));
        }
        if let Err(fault) = received {
            from.stop(fault);
            break;
        }
    }
    total
}
