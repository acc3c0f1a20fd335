//! The EEPROM: a 93C46 of 64 words behind four wires (SDM 5.3 to 5.6).

/// Words in it.
pub const WORDS: usize = 64;
/// What all words add up to (SDM 5.6.35).
pub const SUM: u16 = 0xbaba;
/// The word that makes it so.
pub const CHECKSUM: usize = 0x3f;
/// Initialization control 1: signature 01, vendor and subsystem ids are loaded (SDM 5.6.7).
pub const INIT_CONTROL_1: u16 = 0x640b;
/// Initialization control 2: no pause frames (SDM 5.6.14).
pub const INIT_CONTROL_2: u16 = 0x0040;

/// Bits of an instruction: start, opcode, address.
pub const INSTRUCTION_BITS: u32 = 9;
/// Opcode: read.
pub const READ: u16 = 0b110;
