//! What the data sheet says: registers, bits and descriptors as types, without behaviour.
//!
//! Section numbers are those of Intel's *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual*
//! (317453), called SDM here. The part is the 82540EM: one port, copper, PCI.

pub mod descriptor;
pub mod eeprom;
pub mod phy;
pub mod register;

/// Intel.
pub const VENDOR: u16 = 0x8086;
/// 82540EM, desktop.
pub const DEVICE: u16 = 0x100e;
/// PRO/1000 MT desktop adapter.
pub const SUBSYSTEM: u16 = 0x001e;
/// Stepping of the part.
pub const REVISION: u8 = 2;
/// Bytes of the memory BAR (SDM 13.2).
pub const BAR_LEN: u32 = 128 << 10;
/// Bytes of the I/O BAR. The part has 8; all known models have 64, and drivers look for nothing smaller.
pub const IO_BAR_LEN: u32 = 64;
/// The shortest frame on a wire without its FCS (IEEE 802.3, 3.2.8).
pub const SHORTEST_FRAME: u32 = 60;
/// Bytes of the frame check sequence.
pub const FCS_LEN: u32 = 4;
/// The longest frame with its FCS that is received without RCTL.LPE (SDM 13.4.22).
pub const LONGEST_STANDARD: u32 = 1522;
/// The longest frame with its FCS that is received with it.
pub const LONGEST_LARGE: u32 = 16384;
