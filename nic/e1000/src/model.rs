//! The 82540EM as its transport sees it: registers in, queues of a port out.
//!
//! # Role
//!
//! [`E1000`] is the register side, used by one thread. What workers need to know or to tell is in [`Shared`]. Its queues
//! are in the port's cells exactly while the ring may be used: the driver has enabled that direction and the VMM has given
//! memory.
//!
//! # Life cycle of a queue
//!
//! ```text
//!   TCTL.EN or RCTL.EN, with a map --> made, installed --> polled or delivered to
//!   EN cleared, CTRL.RST, reset, bus master off --> removed: when that returns, nothing is in flight
//!   another map --> removed and made anew; what the ring's registers and the contexts say stays
//! ```

use core::any::Any;
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map, MapError};
use fabnic_pci::{Bar, Description, Function, Interrupts, Pin, Reset, SharedBar, SoftwareInterrupts};
use fabnic_port::{Ingress, Port};
use fabnic_wire::MacAddr;
use parking_lot::Mutex;

use crate::eeprom::Eeprom;
use crate::filter::Filter;
use crate::interrupt::Taken;
use crate::receive::Receive;
use crate::registers::{StoredRegisters, canonical};
use crate::rescue::{Heads, Rescues};
use crate::ring::{RingPages, Side};
use crate::shared::Shared;
use crate::spec::phy::ADDRESS;
use crate::spec::register::{
    CTRL, CTRL_RESET, Cause, Ctrl, EECD, EERD, ICR, ICS, IMC, IMS, ITR, MDIC, MTA, Mdic, RA, RAH_MASK,
    RAH_VALID, RCTL, RECEIVE_PAGE, RECEIVE_RING, RXCSUM, Rctl, STATISTICS, STATUS, Status, TCTL, TCTL_EN,
    TDT, TRANSMIT_PAGE, TRANSMIT_RING, VET, VFTA, ring,
};
use crate::spec::{BAR_LEN, DEVICE, IO_BAR_LEN, REVISION, SUBSYSTEM, VENDOR};
use crate::state::{Reader, StateError, Writer};
use crate::statistics::StatisticsReader;
use crate::transmit::{Carry, Transmit};

/// The memory BAR.
const MEMORY_BAR: u8 = 0;
/// The I/O BAR.
const IO_BAR: u8 = 1;
/// Length of a page that a guest may map.
const PAGE: u64 = 0x1000;

/// What a port's configuration says of its NIC.
#[derive(Clone, Copy, Debug)]
pub struct E1000Config {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Whether the link is up.
    pub link_up: bool,
    /// The guest may map the pages with the rings' registers and moves the tails without being trapped. The transmit ring
    /// is polled all the time then, since nothing tells when it was filled.
    pub share_rings: bool,
}

/// What may change while a guest runs, shared with who configures the port.
#[derive(Clone, Debug)]
pub struct E1000Settings {
    shared: Arc<Shared>,
    mac: Arc<Mutex<MacAddr>>,
}

impl E1000Settings {
    /// The link goes up or down, and the driver is told.
    pub fn set_link(&self, up: bool) {
        self.shared.with_phy(|phy| phy.set_carrier(up));
    }

    /// The address in the EEPROM, which a driver sees when it next resets the device.
    pub fn set_mac(&self, mac: MacAddr) {
        *self.mac.lock() = mac;
    }

    /// Whether the driver sees a link.
    pub fn has_link(&self) -> bool {
        self.shared.has_link()
    }
}

/// A NIC on a port.
#[derive(Debug)]
pub struct E1000 {
    port: Arc<Port>,
    description: Description,
    shared: Arc<Shared>,
    mac: Arc<Mutex<MacAddr>>,
    is_shared: bool,
    memory: Option<Arc<Map>>,
    /// Time of the transport's clock, in nanoseconds.
    now: u64,
    ctrl: Ctrl,
    tctl: u32,
    itr: u32,
    eerd: u32,
    mdic: u32,
    eeprom: Eeprom,
    stored: StoredRegisters,
    reader: StatisticsReader,
    rescues: Rescues,
    /// IOADDR.
    io_address: u32,
    carry: Carry,
    transmits: bool,
    receives: bool,
    /// No queue is served and nothing changes by itself, while the state is carried to another host.
    is_stopped: bool,
}

impl E1000 {
    /// A NIC on `port`, of which it uses the first pair of cells.
    ///
    /// # Errors
    /// There is no memory, or no descriptor.
    pub fn new(port: Arc<Port>, config: E1000Config) -> Result<E1000, MapError> {
        let shared = Arc::new(Shared::new(config.link_up, config.share_rings)?);
        let mut model = E1000 {
            port,
            description: description(),
            shared,
            mac: Arc::new(Mutex::new(config.mac)),
            is_shared: config.share_rings,
            memory: None,
            now: 0,
            ctrl: Ctrl::empty(),
            tctl: 0,
            itr: 0,
            eerd: 0,
            mdic: 0,
            eeprom: Eeprom::new(config.mac),
            stored: StoredRegisters::default(),
            reader: StatisticsReader::default(),
            rescues: Rescues::default(),
            io_address: 0,
            carry: Carry::default(),
            transmits: false,
            receives: false,
            is_stopped: false,
        };
        model.reset_registers();
        Ok(model)
    }

    /// What may change while a guest runs.
    pub fn settings(&self) -> E1000Settings {
        E1000Settings { shared: Arc::clone(&self.shared), mac: Arc::clone(&self.mac) }
    }

    /// Everything but the PHY and the map, as CTRL.RST does it (SDM 13.4.1).
    fn reset_registers(&mut self) {
        self.remove_queues();
        let mac = *self.mac.lock();
        self.ctrl = Ctrl::from_bits_retain(CTRL_RESET);
        (self.tctl, self.itr, self.eerd, self.mdic) = (0, 0, 0, Mdic::READY.bits());
        self.eeprom = Eeprom::new(mac);
        self.stored = StoredRegisters::default();
        self.reader = StatisticsReader::default();
        self.carry = Carry::default();
        self.shared.pages.reset();
        self.rescues.tell(self.heads());
        self.shared.statistics.reset();
        self.shared.set_looped_in_mac(false);
        // The wire is a bit of CTRL; the PHY itself goes on as it was.
        let now = self.now;
        self.shared.with_phy(|phy| phy.set_reset_wire(false, now));
        let [a, b, c, d, e, f] = mac.octets();
        let address = [u32::from_le_bytes([a, b, c, d]), RAH_VALID | u32::from_le_bytes([e, f, 0, 0])];
        self.change_filter(|filter| {
            *filter = Filter { ctrl: Ctrl::from_bits_retain(CTRL_RESET), vet: 0x8100, ..Filter::default() };
            if let Some(first) = filter.addresses.first_mut() {
                *first = address;
            }
        });
        self.shared.line.reset();
        // A driver that begins anew: what its predecessor broke is forgotten.
        if self.port.is_stopped() {
            self.port.restart();
        }
    }

    fn remove_queues(&mut self) {
        if core::mem::take(&mut self.receives)
            && let Some(cell) = self.port.egress().first()
        {
            drop(cell.remove());
            self.port.refresh_egress();
            self.port.guest_filter.set(None);
        }
        if core::mem::take(&mut self.transmits)
            && let Some(mut queue) = self.port.ingress().first().and_then(|cell| cell.remove())
        {
            let queue: &mut dyn Ingress = queue.as_mut();
            let queue: &mut dyn Any = queue;
            if let Some(transmit) = queue.downcast_mut::<Transmit>() {
                self.carry = transmit.carry;
            }
        }
    }

    fn change_filter(&self, change: impl FnOnce(&mut Filter)) {
        self.shared.change_filter(change);
        self.publish_filter();
    }

    /// Tells the port what is taken, so that nothing else is brought.
    fn publish_filter(&self) {
        if self.receives {
            self.port.guest_filter.set(Some(self.shared.filter(Filter::as_guest_filter)));
        }
    }

    /// Has the queues in their cells that the registers and the map allow.
    fn update_queues(&mut self) {
        let rctl = self.shared.filter(|filter| filter.rctl);
        let may_run = self.memory.is_some() && !self.is_stopped;
        let receives = rctl.contains(Rctl::EN) && may_run;
        let transmits = self.tctl & TCTL_EN != 0 && may_run;
        if (self.receives && !receives) || (self.transmits && !transmits) {
            self.remove_queues();
        }
        let Some(map) = &self.memory else { return };
        if receives
            && !self.receives
            && let Some(cell) = self.port.egress().first()
        {
            let queue = Receive::new(Arc::clone(&self.shared), Arc::clone(map));
            drop(cell.install(Box::new(queue)));
            self.port.refresh_egress();
            self.receives = true;
            self.publish_filter();
        }
        if transmits
            && !self.transmits
            && let Some(cell) = self.port.ingress().first()
        {
            let (shared, port) = (Arc::clone(&self.shared), Arc::clone(&self.port));
            let queue = Transmit::new(shared, port, Arc::clone(map), self.carry);
            drop(cell.install(Box::new(queue)));
            self.transmits = true;
        }
    }

    /// How long the interrupt after one that is taken now is held off. The absolute delays count where the relative ones
    /// are in use: RDTR by itself, TIDV by the descriptors that ask for it (IDE).
    fn taken(&self) -> Taken {
        let pages = &self.shared.pages;
        let delay = |side, is_used: bool| match is_used {
            // Masked once more: a guest may have written it by itself.
            true => u64::from(pages.register(side, ring::ABSOLUTE_DELAY) & ring::INDEX_MASK) * 1024,
            false => 0,
        };
        Taken {
            now: self.now,
            interval: u64::from(self.itr) * 256,
            receive_delay: delay(Side::Receive, pages.register(Side::Receive, ring::DELAY) != 0),
            transmit_delay: delay(Side::Transmit, self.shared.may_delay_transmit()),
        }
    }

    fn heads(&self) -> Heads {
        [Side::Receive, Side::Transmit].map(|side| self.shared.pages.register(side, ring::HEAD))
    }

    /// The driver asks for an interrupt.
    fn note_rescue(&mut self, asked: Cause) {
        let E1000 { shared, port, rescues, .. } = self;
        let head = |side| shared.pages.register(side, ring::HEAD);
        let look = || ([Side::Receive, Side::Transmit].map(head), shared.line.causes());
        rescues.ask(asked, shared.line.is_asserted(), look, || {
            port.ingress().iter().for_each(|cell| drop(cell.lock()));
            port.egress().iter().for_each(|cell| drop(cell.lock()));
        });
    }

    fn read_register(&mut self, offset: u32) -> u32 {
        match canonical(offset) {
            CTRL => self.ctrl.bits(),
            STATUS => {
                let fixed = Status::FD | Status::SPEED_1000 | Status::ASDV_1000 | Status::MTXCKOK;
                let link = if self.shared.has_link() { Status::LU } else { Status::empty() };
                (fixed | link).bits()
            }
            EECD => self.eeprom.read(),
            EERD => self.eeprom.read_word(self.eerd),
            MDIC => self.mdic,
            VET => self.shared.filter(|filter| filter.vet.into()),
            ICR => {
                let causes = self.shared.line.take(self.taken());
                self.rescues.tell(self.heads());
                causes.bits()
            }
            ITR => self.itr,
            ICS => self.shared.line.causes().bits(),
            IMS => self.shared.line.mask().bits(),
            RCTL => self.shared.filter(|filter| filter.rctl.bits()),
            TCTL => self.tctl,
            RXCSUM => self.shared.filter(|filter| filter.rxcsum),
            offset if RingPages::holds(offset) => self.shared.pages.read(offset),
            offset => match table(offset) {
                Some(Table::Statistics(word)) => self.reader.read(&self.shared.statistics, word),
                Some(table) => self.shared.filter(|filter| table.of(filter).copied().unwrap_or(0)),
                None => self.stored.read(offset),
            },
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        match canonical(offset) {
            CTRL => self.write_ctrl(Ctrl::from_bits_retain(value)),
            EECD => self.eeprom.write(value),
            EERD => self.eerd = value,
            MDIC => self.write_mdic(value),
            VET => self.change_filter(|filter| filter.vet = (value & 0xffff) as u16),
            ICR => self.shared.line.clear(Cause::from_bits_truncate(value), self.taken()),
            ITR => self.itr = value & 0xffff,
            ICS => {
                self.note_rescue(Cause::from_bits_truncate(value));
                self.shared.line.raise(Cause::from_bits_truncate(value));
            }
            IMS => self.shared.line.unmask(Cause::from_bits_truncate(value)),
            IMC => self.shared.line.hide(Cause::from_bits_truncate(value), self.taken()),
            RCTL => {
                let rctl = Rctl::from_bits_truncate(value);
                self.change_filter(|filter| filter.rctl = rctl);
                self.shared.set_looped_in_mac(rctl.intersects(Rctl::LBM));
                self.update_queues();
            }
            TCTL => {
                self.tctl = value;
                self.update_queues();
            }
            RXCSUM => self.change_filter(|filter| filter.rxcsum = value & 0x3ff),
            offset if RingPages::holds(offset) => {
                self.shared.pages.write(offset, value);
                if [RECEIVE_RING, TRANSMIT_RING].map(|first| first + ring::HEAD).contains(&offset) {
                    self.rescues.tell(self.heads());
                }
                // Not the tail alone: with the others a ring may begin to hold what the tail said before.
                if (TRANSMIT_RING..=TDT).contains(&offset) {
                    self.shared.doorbell.ring();
                }
            }
            offset => match table(offset) {
                Some(Table::Statistics(_)) => {}
                Some(table) => self.change_filter(|filter| {
                    if let Some(place) = table.of_mut(filter) {
                        *place = value & table.bits();
                    }
                }),
                None => self.stored.write(offset, value),
            },
        }
    }

    fn write_ctrl(&mut self, value: Ctrl) {
        if value.contains(Ctrl::RST) {
            return self.reset_registers();
        }
        self.ctrl = value;
        self.change_filter(|filter| filter.ctrl = value);
        let now = self.now;
        self.shared.with_phy(|phy| phy.set_reset_wire(value.contains(Ctrl::PHY_RST), now));
    }

    fn write_mdic(&mut self, value: u32) {
        let asked = Mdic::from_bits_retain(value);
        let (register, address) = (((value >> 16) & 31) as usize, (value >> 21) & 31);
        let (data, now) = ((value & 0xffff) as u16, self.now);
        let mut answer = value & !(Mdic::ERROR | Mdic::READY).bits();
        if address != ADDRESS || !asked.intersects(Mdic::READ | Mdic::WRITE) {
            answer |= Mdic::ERROR.bits();
        } else if asked.contains(Mdic::READ) {
            answer = answer & !0xffff | u32::from(self.shared.with_phy(|phy| phy.read(register)));
        } else {
            self.shared.with_phy(|phy| phy.write(register, data, now));
        }
        self.mdic = answer | Mdic::READY.bits();
        if asked.contains(Mdic::INTERRUPT) {
            self.shared.line.raise(Cause::MDAC);
        }
    }

    fn read_bar(&mut self, bar: u8, offset: u64) -> u32 {
        match (bar, u32::try_from(offset)) {
            (MEMORY_BAR, Ok(offset)) => self.read_register(offset),
            (IO_BAR, Ok(0)) => self.io_address,
            (IO_BAR, Ok(4)) if self.io_address < BAR_LEN => self.read_register(self.io_address & !3),
            _ => 0,
        }
    }

    fn write_bar(&mut self, bar: u8, offset: u64, value: u32) {
        match (bar, u32::try_from(offset)) {
            (MEMORY_BAR, Ok(offset)) => self.write_register(offset, value),
            (IO_BAR, Ok(0)) => self.io_address = value,
            (IO_BAR, Ok(4)) if self.io_address < BAR_LEN => self.write_register(self.io_address & !3, value),
            _ => {}
        }
    }
}

/// An entry of a table of registers.
#[derive(Clone, Copy, Debug)]
enum Table {
    Statistics(usize),
    Multicast(usize),
    AddressLow(usize),
    AddressHigh(usize),
    Vlan(usize),
}

/// Which table a register is in.
fn table(offset: u32) -> Option<Table> {
    let word = |from: u32, words: u32| {
        let at = offset.checked_sub(from)? / 4;
        (at < words).then_some(at as usize)
    };
    if let Some(at) = word(STATISTICS, 64) {
        return Some(Table::Statistics(at));
    }
    if let Some(at) = word(RA, 32) {
        return Some(if at % 2 == 0 { Table::AddressLow(at / 2) } else { Table::AddressHigh(at / 2) });
    }
    word(MTA, 128).map(Table::Multicast).or_else(|| word(VFTA, 128).map(Table::Vlan))
}

impl Table {
    fn of(self, filter: &Filter) -> Option<&u32> {
        match self {
            Table::Statistics(_) => None,
            Table::Multicast(at) => filter.multicast.get(at),
            Table::AddressLow(at) => filter.addresses.get(at).map(|[low, _]| low),
            Table::AddressHigh(at) => filter.addresses.get(at).map(|[_, high]| high),
            Table::Vlan(at) => filter.vlans.get(at),
        }
    }

    fn of_mut(self, filter: &mut Filter) -> Option<&mut u32> {
        match self {
            Table::Statistics(_) => None,
            Table::Multicast(at) => filter.multicast.get_mut(at),
            Table::AddressLow(at) => filter.addresses.get_mut(at).map(|[low, _]| low),
            Table::AddressHigh(at) => filter.addresses.get_mut(at).map(|[_, high]| high),
            Table::Vlan(at) => filter.vlans.get_mut(at),
        }
    }

    const fn bits(self) -> u32 {
        if let Table::AddressHigh(_) = self { RAH_MASK } else { u32::MAX }
    }
}

fn description() -> Description {
    let mut bars = [Bar::None; 6];
    for (number, bar) in [
        (MEMORY_BAR, Bar::Memory32 { size: BAR_LEN, prefetchable: false }),
        (IO_BAR, Bar::Io { size: IO_BAR_LEN }),
    ] {
        if let Some(place) = bars.get_mut(usize::from(number)) {
            *place = bar;
        }
    }
    Description {
        id: (VENDOR, DEVICE),
        subsystem: (VENDOR, SUBSYSTEM),
        class: 0x02_0000,
        revision: REVISION,
        pin: Pin::A,
        bars,
        msix: None,
        express: None,
        power: false,
        serial: None,
    }
}

impl Function for E1000 {
    fn description(&self) -> &Description {
        &self.description
    }

    fn attach(&mut self, interrupts: Arc<dyn Interrupts>) {
        self.port.restart();
        self.shared.line.attach(Some(interrupts));
    }

    fn set_memory(&mut self, memory: Option<Arc<Map>>) {
        self.remove_queues();
        self.memory = memory;
        self.update_queues();
    }

    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        // Registers are 32 bits wide (SDM 13.2). A narrower read gets its part of one, a wider one reads two.
        let mut at = offset & !3;
        let mut skip = usize::try_from(offset & 3).unwrap_or(0);
        let mut rest = data;
        while !rest.is_empty() {
            let bytes = self.read_bar(bar, at).to_le_bytes();
            let part = bytes.get(skip..).unwrap_or(&[]);
            let (now, later) = rest.split_at_mut(part.len().min(rest.len()));
            for (to, from) in now.iter_mut().zip(part) {
                *to = *from;
            }
            rest = later;
            (at, skip) = (at.wrapping_add(4), 0);
        }
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        // What a narrower write does is not defined; it does nothing.
        if !offset.is_multiple_of(4) {
            return;
        }
        let (words, _) = data.as_chunks::<4>();
        for (at, word) in (offset..).step_by(4).zip(words) {
            self.write_bar(bar, at, u32::from_le_bytes(*word));
        }
    }

    fn reset(&mut self, reset: Reset) {
        self.reset_registers();
        self.io_address = 0;
        self.shared.with_phy(|phy| phy.power_on());
        // What the PHY's reset did to the link is no news to a driver that is not there yet.
        self.shared.line.reset();
        if reset == Reset::Disconnect {
            self.shared.line.attach(None);
        }
    }

    fn faults(&self) -> u64 {
        self.shared.faults()
    }

    fn software_interrupts(&self) -> SoftwareInterrupts {
        self.rescues.count()
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> bool {
        self.shared.set_log(log.clone());
        if let Some(cell) = self.port.egress().first().filter(|_| self.receives) {
            cell.with(|queue| {
                let queue: &mut dyn Any = queue;
                queue.downcast_mut::<Receive>().map(|queue| queue.set_log(log.clone()))
            });
        }
        if let Some(cell) = self.port.ingress().first().filter(|_| self.transmits) {
            cell.with(|queue| {
                let queue: &mut dyn Any = queue;
                queue.downcast_mut::<Transmit>().map(|queue| queue.set_log(log))
            });
        }
        true
    }

    fn is_migratable(&self) -> bool {
        // A guest that has mapped the registers of its rings changes them without anybody knowing of it.
        !self.is_shared
    }

    fn set_running(&mut self, running: bool) {
        self.is_stopped = !running;
        if !running {
            self.remove_queues();
        }
        self.shared.line.set_stopped(!running);
        self.update_queues();
    }

    fn save(&mut self) -> Option<Vec<u8>> {
        let mut to = Writer::new();
        for word in [self.ctrl.bits(), self.tctl, self.itr, self.eerd, self.mdic, self.io_address] {
            to.u32(word);
        }
        self.stored.save(&mut to);
        self.eeprom.save(&mut to);
        self.shared.with_phy(|phy| phy.save(&mut to));
        self.shared.line.save(&mut to);
        self.shared.filter(|filter| filter.save(&mut to));
        self.shared.pages.save(&mut to);
        self.shared.statistics.save(&mut to);
        self.reader.save(&mut to);
        self.carry.save(&mut to);
        Some(to.into_bytes())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.remove_queues();
        self.restore_state(state).map_err(|error| {
            self.reset(Reset::Device);
            format!("the state of an e1000: {error}")
        })
    }

    fn shared(&self) -> Option<SharedBar> {
        let file = self.shared.pages.file()?.try_clone().ok()?;
        let areas = vec![(RECEIVE_PAGE.into(), PAGE), (TRANSMIT_PAGE.into(), PAGE)];
        Some(SharedBar { bar: MEMORY_BAR, file, areas })
    }

    fn deadline(&self) -> Option<u64> {
        if self.is_stopped {
            return None;
        }
        let link = self.shared.with_phy(|phy| phy.deadline());
        [link, self.shared.line.deadline()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: u64) {
        self.now = now;
        if self.is_stopped {
            return;
        }
        self.shared.with_phy(|phy| phy.expire(now));
        self.shared.line.expire(now);
    }
}

impl E1000 {
    fn restore_state(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut reader = Reader::new(state)?;
        let from = &mut reader;
        self.ctrl = Ctrl::from_bits_retain(from.u32()?);
        for place in [&mut self.tctl, &mut self.itr, &mut self.eerd, &mut self.mdic, &mut self.io_address] {
            *place = from.u32()?;
        }
        self.itr &= 0xffff;
        self.stored.restore(from)?;
        self.eeprom.restore(from)?;
        let now = self.now;
        let carrier = self.shared.with_phy(|phy| phy.carrier());
        self.shared.with_phy(|phy| phy.restore(from, now))?;
        self.shared.line.restore(from, now)?;
        let filter = Filter::restore(from)?;
        self.shared.set_looped_in_mac(filter.rctl.intersects(Rctl::LBM));
        self.change_filter(|place| *place = filter);
        self.shared.pages.restore(from)?;
        self.shared.statistics.restore(from)?;
        self.reader.restore(from)?;
        self.carry = Carry::restore(from)?;
        reader.end()?;
        // The partner here may be another: that is news to the driver.
        self.shared.with_phy(|phy| phy.set_carrier(carrier));
        Ok(())
    }
}

impl Drop for E1000 {
    fn drop(&mut self) {
        self.remove_queues();
    }
}
