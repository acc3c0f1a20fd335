//! Descriptors of the mailbox, by which messages go to and fro ("admin queue", `iavf_adminq_cmd.h`).

use crate::bytes::{put, u16_at, u32_at};

/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 32;
/// The longest message: what every driver posts as a buffer.
pub const MESSAGE: usize = 4096;

/// Flags of a descriptor.
pub mod flags {
    /// Done: written by the device.
    pub const DD: u16 = 0x0001;
    /// Complete.
    pub const CMP: u16 = 0x0002;
    /// Failed.
    pub const ERR: u16 = 0x0004;
    /// The buffer is longer than 512 bytes.
    pub const LB: u16 = 0x0200;
    /// The device reads the buffer.
    pub const RD: u16 = 0x0400;
    /// There is a buffer.
    pub const BUF: u16 = 0x1000;
    /// Interrupt when done.
    pub const SI: u16 = 0x2000;
}

/// Opcodes of descriptors.
pub mod opcode {
    /// The driver shuts the mailbox down.
    pub const SHUTDOWN: u16 = 0x0003;
    /// A message from the driver to the device.
    pub const TO_PF: u16 = 0x0801;
    /// A message from the device to the driver.
    pub const TO_VF: u16 = 0x0802;
}

/// AQ return codes, for what is not a virtchnl message.
pub mod retval {
    /// No such opcode.
    pub const ESRCH: u16 = 3;
}

/// A descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// See [`flags`].
    pub flags: u16,
    /// See [`opcode`].
    pub opcode: u16,
    /// Bytes in the buffer.
    pub len: u16,
    /// See [`retval`].
    pub retval: u16,
    /// virtchnl opcode ("cookie high").
    pub message: u32,
    /// virtchnl status ("cookie low").
    pub status: i32,
    /// From the device: the number of the function.
    pub param0: u32,
    /// Zero.
    pub param1: u32,
    /// Bus address of the buffer.
    pub address: u64,
}

impl Descriptor {
    /// Reads the bytes of a ring.
    pub fn parse(bytes: &[u8; DESCRIPTOR]) -> Descriptor {
        let half = |at| u16_at(bytes, at).unwrap_or(0);
        let word = |at| u32_at(bytes, at).unwrap_or(0);
        Descriptor {
            flags: half(0),
            opcode: half(2),
            len: half(4),
            retval: half(6),
            message: word(8),
            status: word(12).cast_signed(),
            param0: word(16),
            param1: word(20),
            address: u64::from(word(24)) << 32 | u64::from(word(28)),
        }
    }

    /// The bytes for a ring.
    pub fn encode(&self) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        put(&mut bytes, 0, &self.flags.to_le_bytes());
        put(&mut bytes, 2, &self.opcode.to_le_bytes());
        put(&mut bytes, 4, &self.len.to_le_bytes());
        put(&mut bytes, 6, &self.retval.to_le_bytes());
        put(&mut bytes, 8, &self.message.to_le_bytes());
        put(&mut bytes, 12, &self.status.to_le_bytes());
        put(&mut bytes, 16, &self.param0.to_le_bytes());
        put(&mut bytes, 20, &self.param1.to_le_bytes());
        let [l0, l1, l2, l3, h0, h1, h2, h3] = self.address.to_le_bytes();
        put(&mut bytes, 24, &[h0, h1, h2, h3]);
        put(&mut bytes, 28, &[l0, l1, l2, l3]);
        bytes
    }
}
