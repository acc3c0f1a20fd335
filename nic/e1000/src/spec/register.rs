//! Registers of BAR 0: offsets and bits (SDM 13.4). All are 32 bits wide.

use bitflags::bitflags;

/// Device control (SDM 13.4.1); also at 0x0004.
pub const CTRL: u32 = 0x0000;
/// Device status (SDM 13.4.2).
pub const STATUS: u32 = 0x0008;
/// EEPROM control: the four wires (SDM 13.4.3).
pub const EECD: u32 = 0x0010;
/// EEPROM read (SDM 13.4.4).
pub const EERD: u32 = 0x0014;
/// Extended device control (SDM 13.4.6).
pub const CTRL_EXT: u32 = 0x0018;
/// Flash access (SDM 13.4.5).
pub const FLA: u32 = 0x001c;
/// MDI control: the PHY's registers (SDM 13.4.7).
pub const MDIC: u32 = 0x0020;
/// Flow control address, low (SDM 13.4.8).
pub const FCAL: u32 = 0x0028;
/// Flow control address, high.
pub const FCAH: u32 = 0x002c;
/// Flow control type.
pub const FCT: u32 = 0x0030;
/// VLAN EtherType (SDM 13.4.11).
pub const VET: u32 = 0x0038;
/// Interrupt causes; a read clears them (SDM 13.4.17).
pub const ICR: u32 = 0x00c0;
/// Interrupt throttling, in units of 256 ns (SDM 13.4.18).
pub const ITR: u32 = 0x00c4;
/// Interrupt cause set (SDM 13.4.19).
pub const ICS: u32 = 0x00c8;
/// Interrupt mask set and read (SDM 13.4.20).
pub const IMS: u32 = 0x00d0;
/// Interrupt mask clear (SDM 13.4.21).
pub const IMC: u32 = 0x00d8;
/// Receive control (SDM 13.4.22).
pub const RCTL: u32 = 0x0100;
/// Flow control transmit timer value.
pub const FCTTV: u32 = 0x0170;
/// Transmit configuration word, of fibre.
pub const TXCW: u32 = 0x0178;
/// Transmit control (SDM 13.4.33).
pub const TCTL: u32 = 0x0400;
/// Transmit inter-packet gap.
pub const TIPG: u32 = 0x0410;
/// Adaptive inter-frame spacing throttle.
pub const AIT: u32 = 0x0458;
/// LED control.
pub const LEDCTL: u32 = 0x0e00;
/// Packet buffer allocation.
pub const PBA: u32 = 0x1000;
/// First of the page of receive rings.
pub const RECEIVE_PAGE: u32 = 0x2000;
/// Flow control receive threshold, low.
pub const FCRTL: u32 = 0x2160;
/// Flow control receive threshold, high.
pub const FCRTH: u32 = 0x2168;
/// First register of the receive ring; the others follow at the offsets of [`ring`].
pub const RECEIVE_RING: u32 = 0x2800;
/// First of the page of transmit rings.
pub const TRANSMIT_PAGE: u32 = 0x3000;
/// First register of the transmit ring.
pub const TRANSMIT_RING: u32 = 0x3800;
/// Transmit descriptor tail (SDM 13.4.39).
pub const TDT: u32 = TRANSMIT_RING + ring::TAIL;
/// Receive descriptor tail (SDM 13.4.29).
pub const RDT: u32 = RECEIVE_RING + ring::TAIL;
/// First statistics register (SDM 13.7).
pub const STATISTICS: u32 = 0x4000;
/// Receive checksum control (SDM 13.4.31).
pub const RXCSUM: u32 = 0x5000;
/// Multicast table array, 128 words (SDM 13.5.1).
pub const MTA: u32 = 0x5200;
/// Receive addresses, 16 pairs (SDM 13.5.2).
pub const RA: u32 = 0x5400;
/// VLAN filter table array, 128 words (SDM 13.5.4).
pub const VFTA: u32 = 0x5600;
/// Wake-up control.
pub const WUC: u32 = 0x5800;
/// Wake-up filter control.
pub const WUFC: u32 = 0x5808;
/// Wake-up status.
pub const WUS: u32 = 0x5810;
/// Management control.
pub const MANC: u32 = 0x5820;

/// Offsets in the group of registers of a ring (SDM 13.4.25 to 13.4.41), the same for both.
pub mod ring {
    /// Base address, low; 16-byte aligned.
    pub const BASE_LOW: u32 = 0x00;
    /// Base address, high.
    pub const BASE_HIGH: u32 = 0x04;
    /// Length in bytes, a multiple of 128.
    pub const LENGTH: u32 = 0x08;
    /// The next descriptor that the device uses.
    pub const HEAD: u32 = 0x10;
    /// One behind the last descriptor that the device may use.
    pub const TAIL: u32 = 0x18;
    /// RDTR or TIDV: delay of interrupts after the last packet, in units of 1.024 us.
    pub const DELAY: u32 = 0x20;
    /// RXDCTL or TXDCTL: thresholds.
    pub const CONTROL: u32 = 0x28;
    /// RADV or TADV: delay of interrupts after the first packet, in units of 1.024 us.
    pub const ABSOLUTE_DELAY: u32 = 0x2c;
    /// Bits of [`BASE_LOW`] that can be written.
    pub const BASE_MASK: u32 = 0xffff_fff0;
    /// Bits of [`LENGTH`] that can be written.
    pub const LENGTH_MASK: u32 = 0x000f_ff80;
    /// Bits of [`HEAD`], [`TAIL`] and the delays that can be written.
    pub const INDEX_MASK: u32 = 0xffff;
}

/// TXDCTL: below so many times eight free descriptors TXD_LOW is raised (bits 25 to 31).
pub const TXDCTL_LOW_SHIFT: u32 = 25;

bitflags! {
    /// Bits of CTRL.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ctrl: u32 {
        /// Full duplex.
        const FD = 1 << 0;
        /// Speed from the PHY.
        const ASDE = 1 << 5;
        /// Set link up.
        const SLU = 1 << 6;
        /// 1000 Mbit/s.
        const SPEED_1000 = 1 << 9;
        /// Reset of all but the PHY; clears itself.
        const RST = 1 << 26;
        /// VLAN mode: tags are inserted and stripped.
        const VME = 1 << 30;
        /// The PHY's reset wire.
        const PHY_RST = 1 << 31;
        const _ = !0;
    }
}

/// CTRL after reset: full duplex by the strap, link up, 1000 Mbit/s, two software pins.
pub const CTRL_RESET: u32 = 0x0014_0240;

bitflags! {
    /// Bits of STATUS.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u32 {
        /// Full duplex.
        const FD = 1 << 0;
        /// Link up.
        const LU = 1 << 1;
        /// 1000 Mbit/s.
        const SPEED_1000 = 2 << 6;
        /// What the PHY says of the speed: the same.
        const ASDV_1000 = 3 << 8;
        /// The PHY's clock runs.
        const MTXCKOK = 1 << 10;
        const _ = !0;
    }
}

bitflags! {
    /// Bits of EECD.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Eecd: u32 {
        /// Clock.
        const SK = 1 << 0;
        /// Chip select.
        const CS = 1 << 1;
        /// Data to the EEPROM.
        const DI = 1 << 2;
        /// Data from the EEPROM.
        const DO = 1 << 3;
        /// Software asks for the wires.
        const REQ = 1 << 6;
        /// Software has the wires.
        const GNT = 1 << 7;
        /// There is an EEPROM.
        const PRES = 1 << 8;
        const _ = !0;
    }
}

/// EERD: begins a read.
pub const EERD_START: u32 = 1 << 0;
/// EERD: the read is done.
pub const EERD_DONE: u32 = 1 << 4;

bitflags! {
    /// Bits of MDIC above its data (0 to 15), register (16 to 20) and PHY address (21 to 25).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mdic: u32 {
        /// Write.
        const WRITE = 1 << 26;
        /// Read.
        const READ = 2 << 26;
        /// Done.
        const READY = 1 << 28;
        /// An interrupt when done.
        const INTERRUPT = 1 << 29;
        /// There is no such PHY.
        const ERROR = 1 << 30;
        const _ = !0;
    }
}

bitflags! {
    /// Interrupt causes, in ICR, ICS, IMS and IMC (SDM 13.4.17).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Cause: u32 {
        /// A transmit descriptor was written back.
        const TXDW = 1 << 0;
        /// The transmit ring is empty.
        const TXQE = 1 << 1;
        /// The link changed.
        const LSC = 1 << 2;
        /// Receive descriptors are below the threshold.
        const RXDMT0 = 1 << 4;
        /// Frames were lost for want of receive descriptors.
        const RXO = 1 << 6;
        /// Frames were received.
        const RXT0 = 1 << 7;
        /// An MDI access is done.
        const MDAC = 1 << 9;
        /// Transmit descriptors are below the threshold.
        const TXD_LOW = 1 << 15;
        const _ = 0x0001_ffff;
    }
}

bitflags! {
    /// Bits of RCTL (SDM 13.4.22).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Rctl: u32 {
        /// Receive.
        const EN = 1 << 1;
        /// Store bad packets.
        const SBP = 1 << 2;
        /// All unicast frames.
        const UPE = 1 << 3;
        /// All multicast frames.
        const MPE = 1 << 4;
        /// Frames longer than 1522 bytes.
        const LPE = 1 << 5;
        /// Loopback: 1 in the MAC, 3 in the transceiver.
        const LBM = 3 << 6;
        /// Which bits of an address are its multicast hash: 0 to 3 in bits 12 and 13.
        const MO = 3 << 12;
        /// Broadcast frames.
        const BAM = 1 << 15;
        /// VLANs are filtered by VFTA.
        const VFE = 1 << 18;
        /// Buffer sizes are sixteen times larger.
        const BSEX = 1 << 25;
        /// The FCS is stripped.
        const SECRC = 1 << 26;
        const _ = 0x07ff_ffff;
    }
}

impl Rctl {
    /// Bytes of a receive buffer (BSIZE and BSEX; SDM 13.4.22). The reserved value counts as 2048.
    pub const fn buffer_len(self) -> u32 {
        let shift = (self.bits() >> 16) & 3;
        match (self.contains(Rctl::BSEX), shift) {
            (true, 0) | (false, 0) => 2048,
            (true, shift) => 16384 >> (shift - 1),
            (false, shift) => 2048 >> shift,
        }
    }

    /// How far an address is shifted to become its multicast hash (SDM 13.5.1).
    pub const fn hash_shift(self) -> u32 {
        match (self.bits() >> 12) & 3 {
            0 => 4,
            1 => 3,
            2 => 2,
            _ => 0,
        }
    }

    /// RXDMT0 is raised when no more than the ring's length shifted by this are left (RDMTS).
    pub const fn threshold_shift(self) -> u32 {
        ((self.bits() >> 8) & 3) + 1
    }
}

/// TCTL: transmit.
pub const TCTL_EN: u32 = 1 << 1;
/// RXCSUM: the IP header's checksum is checked.
pub const RXCSUM_IPOFL: u32 = 1 << 8;
/// RXCSUM: checksums of TCP and UDP are checked.
pub const RXCSUM_TUOFL: u32 = 1 << 9;
/// RAH: the address counts.
pub const RAH_VALID: u32 = 1 << 31;
/// RAH: bits that can be written.
pub const RAH_MASK: u32 = 0x8003_ffff;

/// Statistics, as offsets from [`STATISTICS`] in words (SDM 13.7).
pub mod statistics {
    /// Missed packets.
    pub const MPC: usize = 0x10 / 4;
    /// Packets received of 64 bytes, and of five ranges above.
    pub const PRC64: usize = 0x5c / 4;
    /// Good packets received.
    pub const GPRC: usize = 0x74 / 4;
    /// Broadcast packets received.
    pub const BPRC: usize = 0x78 / 4;
    /// Multicast packets received.
    pub const MPRC: usize = 0x7c / 4;
    /// Good packets transmitted.
    pub const GPTC: usize = 0x80 / 4;
    /// Good octets received, 64 bits.
    pub const GORC: usize = 0x88 / 4;
    /// Good octets transmitted, 64 bits.
    pub const GOTC: usize = 0x90 / 4;
    /// Receive no buffers.
    pub const RNBC: usize = 0xa0 / 4;
    /// Receive oversize.
    pub const ROC: usize = 0xac / 4;
    /// Total octets received, 64 bits.
    pub const TOR: usize = 0xc0 / 4;
    /// Total octets transmitted, 64 bits.
    pub const TOT: usize = 0xc8 / 4;
    /// Total packets received.
    pub const TPR: usize = 0xd0 / 4;
    /// Total packets transmitted.
    pub const TPT: usize = 0xd4 / 4;
    /// Packets transmitted of 64 bytes, and of five ranges above.
    pub const PTC64: usize = 0xd8 / 4;
    /// Multicast packets transmitted.
    pub const MPTC: usize = 0xf0 / 4;
    /// Broadcast packets transmitted.
    pub const BPTC: usize = 0xf4 / 4;
    /// TCP segmentation contexts transmitted.
    pub const TSCTC: usize = 0xf8 / 4;
    /// TCP segmentation contexts that failed.
    pub const TSCTFC: usize = 0xfc / 4;
    /// How many words there are.
    pub const COUNT: usize = 64;
    /// Where pairs of 64 bits begin.
    pub const PAIRS: [usize; 4] = [GORC, GOTC, TOR, TOT];
}
