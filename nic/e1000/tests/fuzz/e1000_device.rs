//! A device whose driver does what the input says: registers, descriptors, time, memory that comes and goes, with frames
//! through both rings meanwhile.
//!
//! What must hold: the line only ever changes its level; what a queue says it has, it gives, refuses, or stops the port
//! for; each frame is delivered or dropped; and after a reset the device is as new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fabnic_e1000::{E1000, E1000Config};
use fabnic_memory::{Hint, Map};
use fabnic_pci::{Function, Interrupts, Reset};
use fabnic_port::{Burst, Port, PortId, PortKind, Tally};
use fabnic_wire::offload::{GSO_TCPV4, NEEDS_CSUM};
use fabnic_wire::{MacAddr, Offload};

/// Bytes of the guest's memory: transmit ring, receive ring, then buffers.
const MEMORY: u64 = 0x2_0000;
const TRANSMIT: u32 = 0x1000;
const RECEIVE: u32 = 0x2000;
const BUFFERS: u64 = 0x4000;
/// Descriptors of each ring.
const COUNT: u32 = 32;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

#[derive(Default)]
struct Line(AtomicBool);

impl Interrupts for Line {
    fn msix(&self, _vector: u16) {
        panic!("it has no vectors");
    }

    fn intx(&self, asserted: bool) {
        assert_ne!(self.0.swap(asserted, Ordering::SeqCst), asserted, "a level that is no change");
    }
}

thread_local! {
    static MAPPED: Arc<Map> = Map::anonymous(MEMORY).expect("memory").0;
    /// Frames of somebody else: a plain one and a large one.
    static OTHERS: Arc<Map> = others();
}

fn others() -> Arc<Map> {
    let (map, _) = Map::anonymous(0x4000).expect("memory");
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    frame.extend([0x45, 0, 0x1f, 0x40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    frame.resize(14 + 8000, 7);
    write(&map, 0, &frame);
    map
}

fn write(map: &Map, addr: u64, bytes: &[u8]) {
    if let Some(slice) = map.translate(addr, bytes.len() as u32, &mut Hint::default()) {
        map.write(&slice, 0, bytes);
    }
}

struct Bench {
    device: E1000,
    port: Arc<Port>,
    map: Arc<Map>,
    others: Arc<Map>,
    burst: Burst,
    now: u64,
}

impl Bench {
    fn new() -> Bench {
        let port = Arc::new(Port::new(PortId(1), "fuzz", PortKind::E1000, 1));
        let config = E1000Config { mac: MacAddr(MAC), link_up: true, share_rings: false };
        let mut device = E1000::new(Arc::clone(&port), config).expect("a device");
        device.attach(Arc::new(Line::default()));
        let map = MAPPED.with(Arc::clone);
        let mut bench =
            Bench { device, port, map, others: OTHERS.with(Arc::clone), burst: Burst::new(), now: 0 };
        bench.begin();
        bench
    }

    /// A driver that does everything right.
    fn begin(&mut self) {
        write(&self.map, 0, &vec![0; MEMORY as usize]);
        for at in 0..COUNT {
            let buffer = BUFFERS + 2048 * u64::from(at);
            write(&self.map, u64::from(RECEIVE + 16 * at), &buffer.to_le_bytes());
        }
        self.device.set_memory(Some(Arc::clone(&self.map)));
        for (register, value) in [
            (0x0000, 1 << 26),
            (0x3800, TRANSMIT),
            (0x3808, 16 * COUNT),
            (0x0400, 2),
            (0x2800, RECEIVE),
            (0x2808, 16 * COUNT),
            (0x0100, 2 | 1 << 15),
            (0x2818, COUNT - 1),
            (0x00d0, 0xffff),
        ] {
            self.device.write(0, register, &u32::to_le_bytes(value));
        }
    }

    fn register(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(0, register, &mut data);
        u32::from_le_bytes(data)
    }

    fn deliver(port: &Port, burst: &mut Burst, picks: &[u8]) -> u64 {
        let mut tally = Tally::default();
        let mut guard = port.egress()[0].lock();
        let Some(egress) = guard.as_mut() else { return 0 };
        match egress.deliver(burst, picks, &mut tally) {
            Ok(()) => assert_eq!(tally.frames + tally.dropped(), picks.len() as u64, "{tally:?}"),
            Err(fault) => port.stop(fault),
        }
        tally.frames
    }

    /// A worker looks at the transmit ring; what it sends comes back to the receive ring. Gives the frames.
    fn transmit(&mut self) -> u64 {
        let port = Arc::clone(&self.port);
        let mut delivered = 0;
        for turn in 0.. {
            assert!(turn < 1000, "work that does not end");
            let mut guard = port.ingress()[0].lock();
            let Some(ingress) = guard.as_mut().filter(|_| !port.is_stopped()) else { break };
            if ingress.backlog() == 0 {
                // It would sleep now.
                assert!(!ingress.arm(), "nothing to do, and not to sleep");
                ingress.disarm();
                break;
            }
            let received = ingress.receive(&mut self.burst);
            if !self.burst.is_empty() {
                let picks: Vec<u8> = (0..self.burst.len() as u8)
                    .filter(|index| self.burst.frames()[usize::from(*index)].marked().is_none())
                    .collect();
                delivered += Bench::deliver(&port, &mut self.burst, &picks);
                ingress.complete(&self.burst);
            }
            if let Err(fault) = received {
                port.stop(fault);
            }
        }
        delivered
    }

    /// Somebody sends to the device: small frames, or one of 8000 bytes to be segmented.
    fn receive(&mut self, count: u8, gso_size: u16) {
        if self.port.is_stopped() {
            return;
        }
        self.burst.begin(&self.others);
        let len = if gso_size > 0 { 8014 } else { 60 + u32::from(count) * 16 };
        for _ in 0..=count % 40 {
            let first = self.burst.slices().len();
            let Some(slice) = self.others.translate(0, len, &mut Hint::default()) else { return };
            self.burst.slices_mut().push(slice);
            let Some(frame) = self.burst.push(first, 1, 0, len) else { return };
            if gso_size > 0 {
                frame.set_offload(Offload {
                    flags: NEEDS_CSUM,
                    gso_type: GSO_TCPV4,
                    hdr_len: 54,
                    gso_size,
                    csum_start: 34,
                    csum_offset: 16,
                });
            }
        }
        let picks: Vec<u8> = (0..self.burst.len() as u8).collect();
        Bench::deliver(&self.port, &mut self.burst, &picks);
    }

    /// Its state is taken and given back, as it is or with a byte changed.
    fn migrate(&mut self, change: Option<(u32, u8)>) {
        self.device.set_running(false);
        let saved = self.device.save().expect("it can be saved");
        let mut state = saved.clone();
        if let Some((at, byte)) = change {
            let at = at as usize % state.len();
            state[at] = byte;
        }
        let taken = self.device.restore(&state);
        if change.is_none() {
            assert_eq!(taken, Ok(()));
            assert!(self.device.save().expect("it can be saved") == saved, "it is another afterwards");
        }
        self.device.set_running(true);
    }

    fn step(&mut self, [op, a, b, c, v0, v1, v2, v3]: [u8; 8]) {
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let at = u64::from(u16::from_le_bytes([a, b])) * 4 % 0x2_0000;
        self.now += 1000;
        self.device.expire(self.now);
        match op % 9 {
            0 => self.device.write(c % 2, at, &value.to_le_bytes()),
            1 => drop(self.register(at)),
            // Both words of a descriptor, in two steps.
            2 | 3 => {
                write(&self.map, u64::from(u16::from_le_bytes([a, b])) * 2, &[v0, v1, v2, v3, c, 0][..4])
            }
            4 => {
                self.device.write(0, 0x3818, &u32::from(a).to_le_bytes());
                self.transmit();
            }
            5 => self.receive(a, if b % 4 == 0 { 0 } else { u16::from_le_bytes([v0, v1]) }),
            6 => {
                self.now += u64::from(value) << (a % 16);
                self.device.expire(self.now);
            }
            7 => self.device.write(0, 0x2818, &u32::from(a).to_le_bytes()),
            _ => match a % 6 {
                4 | 5 => self.migrate((a % 6 == 5).then_some((value, c))),
                0 => self.device.set_memory(None),
                1 => self.device.set_memory(Some(Arc::clone(&self.map))),
                2 => self.device.reset(Reset::FunctionLevel),
                _ => self.begin(),
            },
        }
    }
}

/// Steps of eight bytes each.
pub(crate) fn run(data: &[u8]) {
    let mut bench = Bench::new();
    let (steps, _) = data.as_chunks::<8>();
    for step in steps.iter().take(512) {
        bench.step(*step);
    }
    bench.transmit();

    // As new, whatever was before.
    bench.device.reset(Reset::Device);
    bench.begin();
    assert!(!bench.port.is_stopped());
    let mut frame = [9; 100];
    frame[..6].copy_from_slice(&MAC);
    write(&bench.map, BUFFERS + 0x1_8000, &frame);
    write(&bench.map, TRANSMIT.into(), &(BUFFERS + 0x1_8000).to_le_bytes());
    write(&bench.map, u64::from(TRANSMIT) + 8, &[100, 0, 0, 0xb]);
    bench.device.write(0, 0x3818, &1_u32.to_le_bytes());
    assert_eq!(bench.transmit(), 1);
    assert_eq!([bench.register(0x3810), bench.register(0x2810)], [1, 1]);
    let mut back = [0; 100];
    let slice = bench.map.translate(BUFFERS, 100, &mut Hint::default()).expect("inside");
    bench.map.read(&slice, 0, &mut back);
    assert_eq!(back, frame);
}
