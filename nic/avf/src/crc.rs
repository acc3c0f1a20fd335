//! The two cyclic redundancy checks that this device does in software: SCTP's (CRC-32C, RFC 9260 appendix A) and
//! Ethernet's (IEEE 802.3, section 3.2.9), for drivers that want to see it.

/// A reflected CRC of 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc {
    table: &'static [u32; 256],
    state: u32,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "computed by the compiler, n < 256"
)]
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut value, mut bit) = (n as u32, 0);
        while bit < 8 {
            value = if value & 1 != 0 { value >> 1 ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[n] = value;
        n += 1;
    }
    table
}

static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);
static ETHERNET: [u32; 256] = table(0xedb8_8320);

impl Crc {
    /// SCTP's.
    pub(crate) fn castagnoli() -> Crc {
        Crc { table: &CASTAGNOLI, state: u32::MAX }
    }

    /// Ethernet's.
    pub(crate) fn ethernet() -> Crc {
        Crc { table: &ETHERNET, state: u32::MAX }
    }

    /// Goes on with these bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // A byte is below 256.
            let index = usize::from(self.state.to_le_bytes()[0] ^ byte);
            self.state = self.state >> 8 ^ self.table.get(index).copied().unwrap_or(0);
        }
    }

    /// The check of all bytes, as it goes over the wire: least significant byte first.
    pub(crate) fn finish(self) -> [u8; 4] {
        (!self.state).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::Crc;

    #[test]
    fn both_have_their_check_value() {
        for (mut crc, check) in [(Crc::castagnoli(), 0xe306_9283_u32), (Crc::ethernet(), 0xcbf4_3926)] {
            crc.add(b"1234");
            crc.add(b"56789");
            assert_eq!(crc.finish(), check.to_le_bytes());
        }
    }
}
