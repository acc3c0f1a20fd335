//! The EEPROM as its four wires and the read register show it (SDM 5.3, 13.4.3, 13.4.4).
//!
//! It answers reads. It is write protected: what a driver writes is clocked in and forgotten, and the chip says at once
//! that it is ready.

use fabnic_wire::MacAddr;

use crate::spec::eeprom::{CHECKSUM, INIT_CONTROL_1, INIT_CONTROL_2, INSTRUCTION_BITS, READ, SUM, WORDS};
use crate::spec::register::{EERD_DONE, EERD_START, Eecd};
use crate::spec::{DEVICE, SUBSYSTEM, VENDOR};
use crate::state::{Reader, StateError, Writer};

/// Bits of an instruction with its data.
const MOST_BITS: u32 = INSTRUCTION_BITS + 16;

/// The chip, and where its serial protocol stands.
#[derive(Debug)]
pub(crate) struct Eeprom {
    words: [u16; WORDS],
    wires: Eecd,
    /// Bits of the instruction that were clocked in.
    shifted: u16,
    count: u32,
    /// The bit that is on the wire, from the first of word 0 on; `None`: no read.
    reading: Option<u16>,
}

impl Eeprom {
    /// One that holds this address.
    pub(crate) fn new(mac: MacAddr) -> Eeprom {
        let [a, b, c, d, e, f] = mac.octets();
        let mut words = [0xffff_u16; WORDS];
        // SDM 5.6: address, compatibility, LEDs, part number, ids.
        let known = [
            (0x00, u16::from_le_bytes([a, b])),
            (0x01, u16::from_le_bytes([c, d])),
            (0x02, u16::from_le_bytes([e, f])),
            (0x03, 0),
            (0x05, 0),
            (0x08, 0x3000),
            (0x09, 0x1000),
            (0x0a, INIT_CONTROL_1),
            (0x0b, SUBSYSTEM),
            (0x0c, VENDOR),
            (0x0d, DEVICE),
            (0x0e, VENDOR),
            (0x0f, INIT_CONTROL_2),
            (0x24, 0),
            (CHECKSUM, 0),
        ];
        for (at, value) in known {
            if let Some(word) = words.get_mut(at) {
                *word = value;
            }
        }
        let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word));
        if let Some(word) = words.get_mut(CHECKSUM) {
            *word = SUM.wrapping_sub(sum);
        }
        Eeprom { words, wires: Eecd::empty(), shifted: 0, count: 0, reading: None }
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        self.words.iter().for_each(|word| to.u16(*word));
        to.u32(self.wires.bits());
        to.u16(self.shifted);
        to.u32(self.count);
        to.flag(self.reading.is_some());
        to.u16(self.reading.unwrap_or(0));
    }

    pub(crate) fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        for word in &mut self.words {
            *word = from.u16()?;
        }
        self.wires = Eecd::from_bits_retain(from.u32()?);
        self.shifted = from.u16()?;
        self.count = from.u32()?.min(MOST_BITS);
        let is_reading = from.flag()?;
        self.reading = Some(from.u16()?).filter(|_| is_reading);
        Ok(())
    }

    fn word(&self, at: u16) -> u16 {
        self.words.get(usize::from(at) % WORDS).copied().unwrap_or(0xffff)
    }

    /// EECD is written: the wires change.
    pub(crate) fn write(&mut self, value: u32) {
        let new = Eecd::from_bits_retain(value);
        let old = core::mem::replace(&mut self.wires, new);
        let rises = |wire| new.contains(wire) && !old.contains(wire);
        if !new.contains(Eecd::CS) || rises(Eecd::CS) {
            (self.shifted, self.count, self.reading) = (0, 0, None);
        }
        if !new.contains(Eecd::CS) || !rises(Eecd::SK) {
            return;
        }
        if let Some(bit) = &mut self.reading {
            // Each clock shows the next bit; behind a word comes the next word.
            *bit = bit.wrapping_add(1);
            return;
        }
        // An instruction begins with the first one.
        let bit = u16::from(new.contains(Eecd::DI));
        if self.count == 0 && bit == 0 {
            return;
        }
        self.shifted = self.shifted << 1 | bit;
        self.count = (self.count + 1).min(MOST_BITS);
        if self.count == INSTRUCTION_BITS && self.shifted >> 6 == READ {
            // Before the first bit there is a zero, while no bit was clocked out yet.
            self.reading = Some(((self.shifted & 0x3f) << 4).wrapping_sub(1));
        }
    }

    /// EECD is read.
    pub(crate) fn read(&self) -> u32 {
        let kept = Eecd::SK | Eecd::CS | Eecd::DI | Eecd::REQ;
        let mut value = (self.wires & kept) | Eecd::PRES;
        value.set(Eecd::GNT, self.wires.contains(Eecd::REQ));
        let shown = match self.reading {
            Some(bit) => self.word((bit >> 4) & 0x3f) >> (15 - (bit & 15)) & 1 == 1,
            // High: ready.
            None => true,
        };
        value.set(Eecd::DO, shown);
        value.bits()
    }

    /// EERD is written and read: an address gives its word.
    pub(crate) fn read_word(&self, eerd: u32) -> u32 {
        if eerd & EERD_START == 0 {
            return eerd & 0xff00;
        }
        let [_, at, ..] = eerd.to_le_bytes();
        let word = if usize::from(at) < WORDS { self.word(u16::from(at)) } else { 0 };
        u32::from(word) << 16 | (eerd & 0xff00) | EERD_DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_right_and_the_address_is_there() {
        let eeprom = Eeprom::new(MacAddr([0x52, 0x54, 0, 1, 2, 3]));
        let sum = eeprom.words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word));
        assert_eq!(sum, SUM);
        let words: Vec<_> =
            (0..3).map(|at| eeprom.read_word(at << 8 | EERD_START)).map(|read| read >> 16).collect();
        assert_eq!(words, [0x5452, 0x0100, 0x0302]);
        assert_eq!(eeprom.read_word(0x4000 | EERD_START) >> 16, 0, "behind the end");
    }

    /// Clocks bits in, most significant first, and then `out` bits out.
    fn clock(eeprom: &mut Eeprom, bits: u32, count: u32, out: u32) -> u32 {
        let base = Eecd::REQ | Eecd::CS;
        eeprom.write((Eecd::REQ).bits());
        eeprom.write(base.bits());
        for at in (0..count).rev() {
            let mut wires = base;
            wires.set(Eecd::DI, bits >> at & 1 == 1);
            eeprom.write(wires.bits());
            eeprom.write((wires | Eecd::SK).bits());
            eeprom.write(wires.bits());
        }
        let mut value = 0;
        for _ in 0..out {
            eeprom.write((base | Eecd::SK).bits());
            value = value << 1 | u32::from(Eecd::from_bits_retain(eeprom.read()).contains(Eecd::DO));
            eeprom.write(base.bits());
        }
        value
    }

    #[test]
    fn every_word_can_be_clocked_out_alone_and_in_a_row() {
        let mut eeprom = Eeprom::new(MacAddr([0x52, 0x54, 0, 1, 2, 3]));
        let words = eeprom.words;
        for (at, word) in words.iter().enumerate() {
            assert_eq!(clock(&mut eeprom, 0b110 << 6 | at as u32, 9, 16), u32::from(*word), "word {at}");
        }
        let both = u32::from(words[0x0d]) << 16 | u32::from(words[0x0e]);
        assert_eq!(clock(&mut eeprom, 0b110 << 6 | 0x0d, 9, 32), both);
        // Clocked on, it begins again behind its end.
        let both = u32::from(words[0x3f]) << 16 | u32::from(words[0]);
        assert_eq!(clock(&mut eeprom, 0b110 << 6 | 0x3f, 9, 32), both);
    }

    #[test]
    fn writes_are_taken_and_change_nothing() {
        let mut eeprom = Eeprom::new(MacAddr([0x52, 0x54, 0, 1, 2, 3]));
        let before = eeprom.words;
        // Enable writes, write 0x1234 to word 5.
        clock(&mut eeprom, 0b1_0011_0000, 9, 0);
        assert_eq!(clock(&mut eeprom, (0b101 << 6 | 5) << 16 | 0x1234, 25, 1), 1, "ready");
        assert_eq!(eeprom.words, before);
        assert_eq!(clock(&mut eeprom, 0b110 << 6 | 5, 9, 16), u32::from(before[5]));
    }
}
