//! A function for people to read: the words and the layout of `lspci -n -vvv` (pciutils), so that who knows the one
//! can read the other. What every fabricated function has alike is left out.

use core::fmt::{self, Display, Formatter};

use crate::registers::{aer, command, express, msix, power, serial, status};
use crate::{Bar, ConfigSpace, Pin, PowerState};

/// Shows a function; made by [`ConfigSpace::lspci`].
#[derive(Debug)]
pub struct Lspci<'a> {
    space: &'a ConfigSpace,
    slot: &'a str,
}

impl ConfigSpace {
    /// The function as `lspci -n -vvv` would show it at a place such as `00:03.0`.
    pub fn lspci<'a>(&'a self, slot: &'a str) -> Lspci<'a> {
        Lspci { space: self, slot }
    }
}

/// `Name+` or `Name-`.
struct Flag(&'static str, bool);

impl Display for Flag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, if self.1 { '+' } else { '-' })
    }
}

/// Flags in a row.
fn flags(f: &mut Formatter<'_>, start: &str, flags: &[(&'static str, bool)]) -> fmt::Result {
    f.write_str(start)?;
    for (index, (name, set)) in flags.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        write!(f, "{space}{}", Flag(name, *set))?;
    }
    writeln!(f)
}

/// A size as lspci says it: with the largest unit that divides it.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        match UNITS.iter().find(|(_, bits)| self.0 >= 1 << bits && self.0.trailing_zeros() >= *bits) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Display for Lspci<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.regions(f)?;
        let description = self.space.description();
        if description.power {
            self.power(f)?;
        }
        if description.msix.is_some() {
            self.msix(f)?;
        }
        if description.express.is_some() {
            self.express(f)?;
            self.extended(f)?;
        }
        Ok(())
    }
}

impl Lspci<'_> {
    fn word(&self, at: u16) -> u16 {
        let mut word = [0; 2];
        self.space.read(u64::from(at), &mut word);
        u16::from_le_bytes(word)
    }

    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let description = self.space.description();
        let (vendor, device) = description.id;
        let class = description.class >> 8;
        write!(f, "{} {class:04x}: {vendor:04x}:{device:04x}", self.slot)?;
        writeln!(f, " (rev {:02x})", description.revision)?;
        let (vendor, subsystem) = description.subsystem;
        writeln!(f, "\tSubsystem: {vendor:04x}:{subsystem:04x}")?;
        let bits = self.space.command();
        flags(
            f,
            "\tControl: ",
            &[
                ("I/O", bits & command::IO != 0),
                ("Mem", bits & command::MEMORY != 0),
                ("BusMaster", bits & command::MASTER != 0),
                ("SpecCycle", false),
                ("MemWINV", false),
                ("VGASnoop", false),
                ("ParErr", bits & command::PARITY != 0),
                ("Stepping", false),
                ("SERR", bits & command::SERR != 0),
                ("FastB2B", false),
                ("DisINTx", bits & command::INTX_DISABLE != 0),
            ],
        )?;
        let bits = self.space.status();
        let list = Flag("Cap", bits & status::CAPABILITIES != 0);
        let line = Flag("INTx", bits & status::INTERRUPT != 0);
        writeln!(
            f,
            "\tStatus: {list} 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- {line}"
        )?;
        if description.pin == Pin::A {
            let line = self.word(crate::registers::INTERRUPT_LINE) & 0xff;
            writeln!(f, "\tInterrupt: pin A routed to IRQ {line}")?;
        }
        Ok(())
    }

    fn regions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let decoded = self.space.command();
        for (index, bar) in (0_u8..).zip(self.space.description().bars) {
            let prefetchable = |is| if is { "prefetchable" } else { "non-prefetchable" };
            let address = match self.space.bar_address(index) {
                None => continue,
                Some(0) => "<unassigned>".to_owned(),
                Some(address) if matches!(bar, Bar::Io { .. }) => format!("{address:04x}"),
                Some(address) => format!("{address:08x}"),
            };
            let needs = match bar {
                Bar::None => continue,
                Bar::Io { .. } => {
                    write!(f, "\tRegion {index}: I/O ports at {address}")?;
                    command::IO
                }
                Bar::Memory32 { prefetchable: is, .. } => {
                    write!(f, "\tRegion {index}: Memory at {address} (32-bit, {})", prefetchable(is))?;
                    command::MEMORY
                }
                Bar::Memory64 { prefetchable: is, .. } => {
                    write!(f, "\tRegion {index}: Memory at {address} (64-bit, {})", prefetchable(is))?;
                    command::MEMORY
                }
            };
            let disabled = if decoded & needs == 0 { " [disabled]" } else { "" };
            writeln!(f, "{disabled} [size={}]", Size(bar.size()))?;
        }
        Ok(())
    }

    fn power(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let version = self.word(power::AT + power::CAPABILITIES) & 7;
        writeln!(f, "\tCapabilities: [{:02x}] Power Management version {version}", power::AT)?;
        let state = match self.space.power_state() {
            PowerState::D0 => "D0",
            PowerState::D3hot => "D3",
        };
        writeln!(f, "\t\tStatus: {state} NoSoftRst- PME-Enable- DSel=0 DScale=0 PME-")
    }

    fn msix(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = (self.word(msix::AT + msix::CONTROL) & 0x7ff) + 1;
        let enabled = Flag("Enable", self.space.msix_enabled());
        let masked = Flag("Masked", self.space.msix_masked());
        writeln!(f, "\tCapabilities: [{:02x}] MSI-X: {enabled} Count={count} {masked}", msix::AT)?;
        for (name, at) in [("Vector table", msix::TABLE), ("PBA", msix::PENDING)] {
            let place = self.space.dword(msix::AT + at);
            writeln!(f, "\t\t{name}: BAR={} offset={:08x}", place & 7, place & !7)?;
        }
        Ok(())
    }

    fn express(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let at = |offset| express::AT + offset;
        let version = self.word(at(express::FLAGS)) & 0xf;
        writeln!(f, "\tCapabilities: [{:02x}] Express (v{version}) Endpoint, MSI 00", express::AT)?;
        let offers = self.space.dword(at(express::DEVICE_CAPABILITIES));
        let payload = 128 << (offers & 7);
        writeln!(
            f,
            "\t\tDevCap:\tMaxPayload {payload} bytes, PhantFunc 0, Latency L0s <64ns, L1 <1us\n\t\t\t\
             {} AttnBtn- AttnInd- PwrInd- RBE+ {} SlotPowerLimit 0W",
            Flag("ExtTag", offers & 1 << 5 != 0),
            Flag("FLReset", offers & express::FLR_OFFERED != 0)
        )?;
        let control = self.word(at(express::DEVICE_CONTROL));
        flags(
            f,
            "\t\tDevCtl:\t",
            &[
                ("CorrErr", control & 1 != 0),
                ("NonFatalErr", control & 1 << 1 != 0),
                ("FatalErr", control & 1 << 2 != 0),
                ("UnsupReq", control & 1 << 3 != 0),
            ],
        )?;
        flags(
            f,
            "\t\t\t",
            &[
                ("RlxdOrd", control & 1 << 4 != 0),
                ("ExtTag", control & 1 << 8 != 0),
                ("PhantFunc", false),
                ("AuxPwr", false),
                ("NoSnoop", control & 1 << 11 != 0),
                ("FLReset", control & express::FLR != 0),
            ],
        )?;
        let (payload, read) = (128_u32 << (control >> 5 & 7), 128_u32 << (control >> 12 & 7));
        writeln!(f, "\t\t\tMaxPayload {payload} bytes, MaxReadReq {read} bytes")?;
        writeln!(f, "\t\tLnkCap:\tPort #0, Speed 8GT/s, Width x8, ASPM not supported")?;
        writeln!(f, "\t\tLnkSta:\tSpeed 8GT/s, Width x8")
    }

    fn extended(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let version = self.space.dword(aer::AT) >> 16 & 0xf;
        writeln!(f, "\tCapabilities: [{:03x} v{version}] Advanced Error Reporting", aer::AT)?;
        if let Some(number) = self.space.description().serial {
            let bytes: Vec<String> = number.to_be_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let version = self.space.dword(serial::AT) >> 16 & 0xf;
            let number = bytes.join("-");
            writeln!(f, "\tCapabilities: [{:03x} v{version}] Device Serial Number {number}", serial::AT)?;
        }
        Ok(())
    }
}
