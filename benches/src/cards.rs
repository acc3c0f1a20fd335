//! Guests with PCI cards: the drivers of `fabnic-avf-driver` and of the testkit on models in this process.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fabnic_avf::{Avf, Settings};
use fabnic_avf_driver::{Driver as AvfDriver, InProcess, Options, Work};
use fabnic_e1000::{E1000, E1000Config};
use fabnic_memory::Map;
use fabnic_pci::{Function, Interrupts};
use fabnic_port::{Port, PortId, PortKind};
use fabnic_testkit::e1000::{Ask, Driver as E1000Driver, Layout, Registers};
use fabnic_testkit::memory::{Backing, GuestMemory};
use fabnic_wire::MacAddr;

use crate::{Case, Driver, RING, frame, shared_map};

const MEMORY: u64 = 16 << 20;

fn mac(id: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, id + 1]
}

/// Frames of different flows have addresses of their own, so a guest takes all.
struct AvfGuest {
    driver: AvfDriver<InProcess>,
    received: u64,
    started: bool,
}

impl Driver for AvfGuest {
    fn turn(&mut self) {
        if let Some((receive, bus)) = self.driver.receive(0) {
            self.received += receive.recycle(bus, 1, u16::MAX).frames;
        }
        if let Some((transmit, bus)) = self.driver.transmit(0) {
            if !std::mem::replace(&mut self.started, true) {
                transmit.ring(bus);
            }
            transmit.repeat(bus, u16::MAX);
        }
    }

    fn received(&self) -> u64 {
        self.received
    }
}

/// A guest with an AVF, and its port.
pub(crate) fn connect_avf(case: Case, id: u8) -> Result<(Box<dyn Driver>, Arc<Port>)> {
    let port = Arc::new(Port::new(PortId(id.into()), &format!("guest{id}"), PortKind::Avf, 1));
    let settings = Settings { mac: mac(id), trust: true, spoofchk: false, ..Settings::default() };
    let avf = Avf::new(Arc::clone(&port), settings).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let (map, _) = Map::anonymous(MEMORY)?;
    let options = Options { ring_len: RING, ..Options::default() };
    let mut driver = AvfDriver::open(InProcess::new(Box::new(avf), map, MEMORY), options)?;
    driver.start()?;
    driver.set_promiscuous(true, true)?;
    let (transmit, _) = driver.transmit(0).context("a driver has queues")?;
    transmit.prepare(&Work::default(), |n| frame(case, id, u32::from(n) % case.flows.max(1)).bytes)?;
    Ok((Box::new(AvfGuest { driver, received: 0, started: false }), port))
}

/// Register accesses and their clock.
#[derive(Debug)]
struct Local {
    device: E1000,
    now: u64,
}

impl Registers for Local {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.wait(100);
        self.device.read(bar, offset, data);
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.wait(100);
        self.device.write(bar, offset, data);
    }

    fn wait(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        self.device.expire(self.now);
    }
}

/// Nobody is interrupted.
struct Silent;

impl Interrupts for Silent {
    fn msix(&self, _vector: u16) {}
    fn intx(&self, _asserted: bool) {}
}

struct E1000Guest {
    driver: E1000Driver<Local>,
    received: u64,
    started: bool,
}

impl Driver for E1000Guest {
    fn turn(&mut self) {
        self.received += self.driver.recycle(1, u32::MAX).0;
        if !std::mem::replace(&mut self.started, true) {
            self.driver.kick();
        }
        self.driver.repeat(u32::MAX);
    }

    fn received(&self) -> u64 {
        self.received
    }
}

/// A guest with an e1000, and its port.
pub(crate) fn connect_e1000(case: Case, id: u8) -> Result<(Box<dyn Driver>, Arc<Port>)> {
    const PROMISCUOUS: u32 = 3 << 3;
    let port = Arc::new(Port::new(PortId(id.into()), &format!("guest{id}"), PortKind::E1000, 1));
    let config = E1000Config { mac: MacAddr(mac(id)), link_up: true, share_rings: false };
    let mut device = E1000::new(Arc::clone(&port), config)?;
    device.attach(Arc::new(Silent));
    let memory = GuestMemory::new(MEMORY, Backing::Ordinary)?;
    device.set_memory(Some(shared_map(&memory)?));
    let layout = Layout { transmit: RING.into(), receive: RING.into(), ..Layout::default() };
    let layout = Layout { rctl: layout.rctl | PROMISCUOUS, ..layout };
    let mut driver = E1000Driver::probe(Local { device, now: 0 }, memory, layout)?;
    driver.up()?;
    driver.registers.wait(1_000_000_000);
    driver.interrupt();
    let count = driver.prepare(&Ask::default(), 1, |n| frame(case, id, n % case.flows.max(1)).bytes);
    ensure!(count > 0, "a ring without packets");
    Ok((Box::new(E1000Guest { driver, received: 0, started: false }), port))
}
