//! Configuration space: the registers by which a VMM and a driver find a function and set it up.

use crate::registers::{
    BAR0, CACHE_LINE, CAPABILITIES, CLASS, COMMAND, CONVENTIONAL, DEVICE, EXTENDED, INTERRUPT_LINE,
    INTERRUPT_PIN, LATENCY, REVISION, STATUS, SUBSYSTEM, SUBSYSTEM_VENDOR, VENDOR, aer, command, express,
    msix, power, serial, status,
};
use crate::{Bar, Description, DescriptionError, Pin};

bitflags::bitflags! {
    /// What a write to configuration space changed that somebody must act upon.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Effects: u8 {
        /// [`ConfigSpace::may_master`] is another: bus mastering was switched, or power.
        const MASTER = 1 << 0;
        /// Memory or I/O decoding, or a base address.
        const DECODE = 1 << 1;
        /// [`ConfigSpace::intx_disabled`] is another.
        const INTX = 1 << 2;
        /// The power state is another.
        const POWER = 1 << 3;
        /// MSI-X was enabled, disabled, masked or unmasked as a whole.
        const MSIX = 1 << 4;
        /// The function must be reset: the driver asked for it, or it came back from D3hot.
        const RESET = 1 << 5;
    }
}

/// Power states of a function (PCI PM 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// It works.
    D0,
    /// It answers to configuration accesses only, and loses its state on the way back.
    D3hot,
}

/// What each bit of the space does when it is written. Every register has a mask; what has none is read-only.
#[derive(Clone, Debug)]
struct Masks {
    /// Takes what is written.
    writable: Vec<u8>,
    /// Is cleared by writing 1.
    clears: Vec<u8>,
}

/// The configuration space of one function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    description: Description,
    bytes: Vec<u8>,
    /// After power-on.
    fresh: Vec<u8>,
    masks: Masks,
}

/// Where a register's value and masks are put while the space is made.
struct Maker {
    bytes: Vec<u8>,
    masks: Masks,
}

impl Maker {
    fn put(into: &mut [u8], at: u16, value: &[u8]) {
        let at = usize::from(at);
        if let Some(place) = into.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    fn byte(&mut self, at: u16, value: u8, writable: u8) {
        Maker::put(&mut self.bytes, at, &[value]);
        Maker::put(&mut self.masks.writable, at, &[writable]);
    }

    fn word(&mut self, at: u16, value: u16, writable: u16) {
        Maker::put(&mut self.bytes, at, &value.to_le_bytes());
        Maker::put(&mut self.masks.writable, at, &writable.to_le_bytes());
    }

    fn dword(&mut self, at: u16, value: u32, writable: u32) {
        Maker::put(&mut self.bytes, at, &value.to_le_bytes());
        Maker::put(&mut self.masks.writable, at, &writable.to_le_bytes());
    }

    fn clears(&mut self, at: u16, bits: u16) {
        Maker::put(&mut self.masks.clears, at, &bits.to_le_bytes());
    }

    fn clears_dword(&mut self, at: u16, bits: u32) {
        Maker::put(&mut self.masks.clears, at, &bits.to_le_bytes());
    }

    fn header(&mut self, description: &Description) {
        let (vendor, device) = description.id;
        self.word(VENDOR, vendor, 0);
        self.word(DEVICE, device, 0);
        self.word(COMMAND, 0, command_bits(description));
        self.clears(STATUS, status::ERRORS);
        self.byte(REVISION, description.revision, 0);
        let [interface, subclass, class, _] = description.class.to_le_bytes();
        for (at, byte) in (CLASS..).zip([interface, subclass, class]) {
            self.byte(at, byte, 0);
        }
        self.byte(CACHE_LINE, 0, 0xff);
        // A bus of the past; PCI Express has no such timer (PCIe 4.0, section 7.5.1.1.7).
        self.byte(LATENCY, 0, if description.express.is_some() { 0 } else { 0xf8 });
        let (vendor, subsystem) = description.subsystem;
        self.word(SUBSYSTEM_VENDOR, vendor, 0);
        self.word(SUBSYSTEM, subsystem, 0);
        self.byte(INTERRUPT_LINE, 0, 0xff);
        self.byte(INTERRUPT_PIN, u8::from(description.pin == Pin::A), 0);
    }

    /// Base addresses: low bits say the kind, writable ones the size (PCI 3.0, section 6.2.5.1).
    fn bars(&mut self, description: &Description) {
        for (at, bar) in (BAR0..).step_by(4).zip(description.bars) {
            match bar {
                Bar::None => {}
                Bar::Io { size } => self.dword(at, 1, !(size.saturating_sub(1)) & !3),
                Bar::Memory32 { size, prefetchable } => {
                    self.dword(at, u32::from(prefetchable) << 3, !(size.saturating_sub(1)) & !0xf);
                }
                Bar::Memory64 { size, prefetchable } => {
                    let mask = !(size.saturating_sub(1)) & !0xf;
                    let [a, b, c, d, high @ ..] = mask.to_le_bytes();
                    self.dword(at, 4 | u32::from(prefetchable) << 3, u32::from_le_bytes([a, b, c, d]));
                    self.dword(at + 4, 0, u32::from_le_bytes(high));
                }
            }
        }
    }

    fn capabilities(&mut self, description: &Description) {
        // In the order in which they are chained.
        let mut last = CAPABILITIES;
        let mut link = |maker: &mut Maker, id: u8, at: u16| {
            let [low, _] = at.to_le_bytes();
            maker.byte(last, low, 0);
            maker.byte(at, id, 0);
            last = at + 1;
            maker.word(STATUS, status::CAPABILITIES, 0);
        };
        if description.power {
            link(self, power::ID, power::AT);
            self.word(power::AT + power::CAPABILITIES, power::VERSION, 0);
            self.word(power::AT + power::CONTROL, 0, power::STATE);
        }
        if let Some(table) = description.msix {
            link(self, msix::ID, msix::AT);
            self.word(
                msix::AT + msix::CONTROL,
                table.vectors.saturating_sub(1),
                msix::MASKED | msix::ENABLED,
            );
            self.dword(msix::AT + msix::TABLE, table.table.1 | u32::from(table.table.0), 0);
            self.dword(msix::AT + msix::PENDING, table.pending.1 | u32::from(table.pending.0), 0);
        }
        if let Some(offer) = description.express {
            link(self, express::ID, express::AT);
            self.express(offer.flr);
            self.extended(description);
        }
    }

    fn express(&mut self, flr: bool) {
        let at = |offset| express::AT + offset;
        // Version 2, endpoint.
        self.word(at(express::FLAGS), 2, 0);
        // Payloads of 256 bytes, 8-bit tags, role-based error reporting.
        let offers = 1 | 1 << 5 | 1 << 15 | if flr { express::FLR_OFFERED } else { 0 };
        self.dword(at(express::DEVICE_CAPABILITIES), offers, 0);
        // After a reset: relaxed ordering, no snoop, reads of 512 bytes. The bit that resets never sticks.
        self.word(at(express::DEVICE_CONTROL), 0x2810, 0x79ff);
        self.clears(at(express::DEVICE_STATUS), 0x000f);
        // Eight lanes at 8 GT/s, no power states of the link: what cards of this kind have.
        self.dword(at(express::LINK_CAPABILITIES), 3 | 8 << 4, 0);
        self.word(at(express::LINK_CONTROL), 0, 0x03cb);
        self.word(at(express::LINK_STATUS), 3 | 8 << 4, 0);
        // Completion time-outs can be switched off.
        self.dword(at(express::DEVICE_CAPABILITIES_2), 1 << 4, 0);
        self.word(at(express::DEVICE_CONTROL_2), 0, 1 << 4);
        self.dword(at(express::LINK_CAPABILITIES_2), 0x0e, 0);
        self.word(at(express::LINK_CONTROL_2), 3, 0x000f);
    }

    /// Extended capabilities; the chain begins at 0x100 (PCIe 4.0, section 7.6).
    fn extended(&mut self, description: &Description) {
        let next = if description.serial.is_some() { serial::AT } else { 0 };
        self.dword(aer::AT, u32::from(aer::ID) | 2 << 16 | u32::from(next) << 20, 0);
        let at = |offset| aer::AT + offset;
        self.clears_dword(at(aer::UNCORRECTABLE_STATUS), aer::UNCORRECTABLE);
        self.dword(at(aer::UNCORRECTABLE_MASK), 0, aer::UNCORRECTABLE);
        self.dword(at(aer::UNCORRECTABLE_SEVERITY), aer::FATAL, aer::UNCORRECTABLE);
        self.clears_dword(at(aer::CORRECTABLE_STATUS), aer::CORRECTABLE);
        self.dword(at(aer::CORRECTABLE_MASK), aer::ADVISORY, aer::CORRECTABLE);
        if let Some(number) = description.serial {
            self.dword(serial::AT, u32::from(serial::ID) | 1 << 16, 0);
            Maker::put(&mut self.bytes, serial::AT + 4, &number.to_le_bytes());
        }
    }
}

/// Bits of the command register that this function has.
fn command_bits(description: &Description) -> u16 {
    let mut bits = command::MASTER | command::PARITY | command::SERR;
    for bar in description.bars {
        bits |= match bar {
            Bar::None => 0,
            Bar::Io { .. } => command::IO,
            Bar::Memory32 { .. } | Bar::Memory64 { .. } => command::MEMORY,
        };
    }
    if description.pin == Pin::A {
        bits |= command::INTX_DISABLE;
    }
    bits
}

impl ConfigSpace {
    /// The configuration space of a function, as after power-on.
    ///
    /// # Errors
    /// If the description contradicts itself ([`Description::check`]).
    pub fn new(description: &Description) -> Result<ConfigSpace, DescriptionError> {
        description.check()?;
        let len = description.config_size();
        let mut maker =
            Maker { bytes: vec![0; len], masks: Masks { writable: vec![0; len], clears: vec![0; len] } };
        maker.header(description);
        maker.bars(description);
        maker.capabilities(description);
        let Maker { bytes, masks } = maker;
        Ok(ConfigSpace { description: description.clone(), fresh: bytes.clone(), bytes, masks })
    }

    /// What it was made from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// All of it: 256 bytes, or 4096 of a PCI Express function.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads from any offset, any length. What lies behind the end reads as ones, as on a bus where nobody answers.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some(from) = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)) else { return };
        for (to, from) in data.iter_mut().zip(from) {
            *to = *from;
        }
    }

    /// Writes to any offset, any length, and says what must be acted upon. Read-only bits stay as they are; what lies
    /// behind the end is lost.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effects {
        let Ok(start) = usize::try_from(offset) else { return Effects::empty() };
        let before = Watched::of(self);
        let flr = self.asks_for_reset(start, data);
        let state = self.power_bits();
        let places = self.bytes.iter_mut().zip(&self.masks.writable).zip(&self.masks.clears);
        for (((byte, writable), clears), new) in places.skip(start).zip(data) {
            *byte = (*byte & !writable & !(clears & new)) | (new & writable);
        }
        self.mend_power_state(state);
        let mut effects = before.compare(&Watched::of(self));
        if flr || (effects.contains(Effects::POWER) && self.power_state() == PowerState::D0) {
            // Both lose what the registers hold (PCIe 4.0, section 6.6.2; PCI PM 1.2, section 5.4.1).
            self.reset();
            effects = before.compare(&Watched::of(self)) | Effects::RESET;
        }
        effects
    }

    /// Takes over what a twin of the function had: every bit that can be written. `false` if `bytes` are not as many as
    /// there are.
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() != self.bytes.len() {
            return false;
        }
        self.reset();
        let fresh = self.fresh.iter().zip(&self.masks.writable).zip(bytes);
        for (byte, ((fresh, writable), saved)) in self.bytes.iter_mut().zip(fresh) {
            *byte = (fresh & !writable) | (saved & writable);
        }
        self.mend_power_state(0);
        true
    }

    /// The function as after power-on.
    pub fn reset(&mut self) {
        self.bytes.clone_from(&self.fresh);
    }

    /// Whether a write sets the bit that resets the function.
    fn asks_for_reset(&self, start: usize, data: &[u8]) -> bool {
        if !self.description.express.is_some_and(|express| express.flr) {
            return false;
        }
        // The bit lies in the upper byte of device control.
        let at = usize::from(express::AT + express::DEVICE_CONTROL) + 1;
        let [_, bit] = express::FLR.to_le_bytes();
        at.checked_sub(start).and_then(|index| data.get(index)).is_some_and(|byte| byte & bit != 0)
    }

    fn power_bits(&self) -> u16 {
        if self.description.power { self.word(power::AT + power::CONTROL) & power::STATE } else { 0 }
    }

    /// Writing a state that does not exist (D1, D2) changes nothing (PCI PM 1.2, section 3.2.4).
    fn mend_power_state(&mut self, before: u16) {
        if !self.description.power {
            return;
        }
        let at = power::AT + power::CONTROL;
        let control = self.word(at);
        if !matches!(control & power::STATE, 0 | power::D3HOT) {
            Maker::put(&mut self.bytes, at, &((control & !power::STATE) | before).to_le_bytes());
        }
    }

    /// A register of 16 bits.
    fn word(&self, at: u16) -> u16 {
        let mut word = [0; 2];
        self.read(u64::from(at), &mut word);
        u16::from_le_bytes(word)
    }

    /// A register of 32 bits.
    pub(crate) fn dword(&self, at: u16) -> u32 {
        let mut dword = [0; 4];
        self.read(u64::from(at), &mut dword);
        u32::from_le_bytes(dword)
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// The status register.
    pub fn status(&self) -> u16 {
        self.word(STATUS)
    }

    /// Whether the function may access memory: bus mastering is on and so is the power.
    pub fn may_master(&self) -> bool {
        self.command() & command::MASTER != 0 && self.power_state() == PowerState::D0
    }

    /// Whether the driver forbids the INTx line.
    pub fn intx_disabled(&self) -> bool {
        self.command() & command::INTX_DISABLE != 0
    }

    /// The power state.
    pub fn power_state(&self) -> PowerState {
        if self.power_bits() == power::D3HOT { PowerState::D3hot } else { PowerState::D0 }
    }

    /// Whether MSI-X is switched on.
    pub fn msix_enabled(&self) -> bool {
        self.msix_control() & msix::ENABLED != 0
    }

    /// Whether all vectors are masked together (function mask).
    pub fn msix_masked(&self) -> bool {
        self.msix_control() & msix::MASKED != 0
    }

    fn msix_control(&self) -> u16 {
        if self.description.msix.is_some() { self.word(msix::AT + msix::CONTROL) } else { 0 }
    }

    /// Where a BAR was put, in its address space; `None` if there is no such BAR.
    pub fn bar_address(&self, bar: u8) -> Option<u64> {
        let at = BAR0 + 4 * u16::from(bar.min(5));
        match self.description.bars.get(usize::from(bar))? {
            Bar::None => None,
            Bar::Io { .. } => Some(u64::from(self.dword(at) & !3)),
            Bar::Memory32 { .. } => Some(u64::from(self.dword(at) & !0xf)),
            Bar::Memory64 { .. } => {
                Some(u64::from(self.dword(at) & !0xf) | u64::from(self.dword(at + 4)) << 32)
            }
        }
    }

    /// Shows in the status register whether INTx is asserted, or would be if it were not disabled.
    pub fn show_interrupt(&mut self, asserted: bool) {
        let status = self.status() & !status::INTERRUPT | if asserted { status::INTERRUPT } else { 0 };
        Maker::put(&mut self.bytes, STATUS, &status.to_le_bytes());
    }
}

/// What others act upon, at one moment.
#[derive(PartialEq, Eq)]
struct Watched {
    master: bool,
    decode: u16,
    bars: [u32; 6],
    intx: bool,
    power: PowerState,
    msix: u16,
}

impl Watched {
    fn of(space: &ConfigSpace) -> Watched {
        Watched {
            master: space.may_master(),
            decode: space.command() & (command::IO | command::MEMORY),
            bars: [0, 1, 2, 3, 4, 5].map(|index| space.dword(BAR0 + 4 * index)),
            intx: space.intx_disabled(),
            power: space.power_state(),
            msix: space.msix_control() & (msix::ENABLED | msix::MASKED),
        }
    }

    fn compare(&self, now: &Watched) -> Effects {
        let mut effects = Effects::empty();
        effects.set(Effects::MASTER, self.master != now.master);
        effects.set(Effects::DECODE, self.decode != now.decode || self.bars != now.bars);
        effects.set(Effects::INTX, self.intx != now.intx);
        effects.set(Effects::POWER, self.power != now.power);
        effects.set(Effects::MSIX, self.msix != now.msix);
        effects
    }
}

impl Description {
    /// Bytes of its configuration space.
    pub const fn config_size(&self) -> usize {
        if self.express.is_some() { EXTENDED } else { CONVENTIONAL }
    }
}
