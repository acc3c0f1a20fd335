//! EEPROM and PHY, as drivers reach them.

use super::{DriverError, Registers, reg};

const SK: u32 = 1 << 0;
const CS: u32 = 1 << 1;
const DI: u32 = 1 << 2;
const DO: u32 = 1 << 3;
const REQ: u32 = 1 << 6;
const GNT: u32 = 1 << 7;

/// A word by the four wires: opcode 110 and six bits of address in, sixteen bits out.
pub fn read_by_wires<R: Registers>(registers: &mut R, word: u8) -> u16 {
    let mut wires = registers.get(reg::EECD) | REQ;
    registers.set(reg::EECD, wires);
    while registers.get(reg::EECD) & GNT == 0 {
        registers.wait(5_000);
    }
    wires &= !(DI | SK);
    registers.set(reg::EECD, wires);
    wires |= CS;
    registers.set(reg::EECD, wires);
    let clock = |registers: &mut R, wires: u32| {
        registers.set(reg::EECD, wires | SK);
        let data = registers.get(reg::EECD) & DO != 0;
        registers.set(reg::EECD, wires & !SK);
        data
    };
    let instruction = 0b110 << 6 | u32::from(word);
    for bit in (0..9).rev() {
        wires = if instruction >> bit & 1 == 1 { wires | DI } else { wires & !DI };
        registers.set(reg::EECD, wires);
        clock(registers, wires);
    }
    wires &= !DI;
    registers.set(reg::EECD, wires);
    let mut value = 0;
    for _ in 0..16 {
        value = value << 1 | u16::from(clock(registers, wires));
    }
    registers.set(reg::EECD, wires & !(CS | REQ));
    value
}

/// A word by the read register.
pub fn read_by_register<R: Registers>(registers: &mut R, word: u8) -> Option<u16> {
    registers.set(reg::EERD, u32::from(word) << 8 | 1);
    let value = registers.get(reg::EERD);
    (value & 1 << 4 != 0).then_some((value >> 16) as u16)
}

/// All words, read both ways, with their checksum checked.
pub fn read_all<R: Registers>(registers: &mut R) -> Result<[u16; 64], DriverError> {
    let mut words = [0; 64];
    for (place, word) in words.iter_mut().zip(0..) {
        *place = read_by_wires(registers, word);
        let register = read_by_register(registers, word).unwrap_or(0);
        if *place != register {
            return Err(DriverError::Disagree { word, wires: *place, register });
        }
    }
    match words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word)) {
        0xbaba => Ok(words),
        sum => Err(DriverError::Checksum(sum)),
    }
}

/// Reads a register of the PHY.
pub fn read_phy<R: Registers>(registers: &mut R, register: u8) -> Result<u16, DriverError> {
    registers.set(reg::MDIC, u32::from(register) << 16 | 1 << 21 | 2 << 26);
    let value = registers.get(reg::MDIC);
    if value & (1 << 28 | 1 << 30) != 1 << 28 {
        return Err(DriverError::Mdi(register));
    }
    Ok((value & 0xffff) as u16)
}

/// Writes a register of the PHY.
pub fn write_phy<R: Registers>(registers: &mut R, register: u8, value: u16) -> Result<(), DriverError> {
    registers.set(reg::MDIC, u32::from(value) | u32::from(register) << 16 | 1 << 21 | 1 << 26);
    let value = registers.get(reg::MDIC);
    if value & (1 << 28 | 1 << 30) != 1 << 28 {
        return Err(DriverError::Mdi(register));
    }
    Ok(())
}

/// Sees that the PHY is the part's.
pub fn find_phy<R: Registers>(registers: &mut R) -> Result<(), DriverError> {
    let id = u32::from(read_phy(registers, 2)?) << 16 | u32::from(read_phy(registers, 3)?);
    if id & !0xf == 0x0141_0c20 { Ok(()) } else { Err(DriverError::Phy(id)) }
}

/// Puts the PHY into loopback as Linux's self test does for this part.
pub fn loop_phy<R: Registers>(registers: &mut R) -> Result<(), DriverError> {
    write_phy(registers, 16, 0x0808)?;
    write_phy(registers, 0, 0x9140)?;
    write_phy(registers, 0, 0x8140)?;
    write_phy(registers, 0, 0x4140)?;
    for (register, value) in [(29, 0x001f), (30, 0x8ffc), (29, 0x001a), (30, 0x8ff0)] {
        write_phy(registers, register, value)?;
    }
    Ok(())
}
