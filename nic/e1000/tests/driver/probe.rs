//! Registers by script: what drivers and the self test of Linux do before any frame.

use fabnic_pci::{Bar, Function, Pin, Reset};
use fabnic_testkit::e1000::{Layout, Registers, nvm, reg};

use crate::guest::{Guest, mac};

#[test]
fn it_is_what_drivers_look_for() {
    let mut guest = Guest::probed(1, Layout::default());
    assert_eq!(guest.driver.mac(), mac(1));
    let description = guest.device().description();
    assert_eq!((description.id, description.class, description.pin), ((0x8086, 0x100e), 0x020000, Pin::A));
    assert_eq!(description.bars[0], Bar::Memory32 { size: 128 << 10, prefetchable: false });
    assert!(matches!(description.bars[1], Bar::Io { .. }));
    let registers = &mut guest.driver.registers;
    assert_eq!(registers.get(reg::STATUS) & 0xc3, 0x83, "1000 Mbit/s, full duplex, link up");
    let address = [registers.get(reg::RAL), registers.get(reg::RAH)];
    assert_eq!(address, [0x0000_5452, 1 << 31 | 0x0100], "from the EEPROM");
    assert_eq!(registers.get(0x1000), 0x0010_0030);
    assert_eq!(registers.get(0x7abc), 0, "no such register");
    registers.set(0x7abc, 5);
    assert_eq!(registers.get(0x7abc), 0);
}

/// The pattern test of `ethtool -t`: registers, the bits that they have, and the bits that are written.
#[test]
fn registers_have_the_bits_that_linux_tests() {
    let mut guest = Guest::probed(1, Layout::default());
    let registers = &mut guest.driver.registers;
    let before = registers.get(reg::STATUS);
    registers.set(reg::STATUS, 0xffff_f833);
    assert_eq!(registers.get(reg::STATUS), before, "it is read-only");
    const ALL: u32 = u32::MAX;
    let mut cases = vec![
        (0x0028, ALL, ALL),
        (0x002c, 0xffff, ALL),
        (0x0030, 0xffff, ALL),
        (reg::VET, 0xffff, ALL),
        (reg::RDTR, 0xffff, ALL),
        (reg::RDBAH, ALL, ALL),
        (reg::RDLEN, 0xfff80, 0xfffff),
        (reg::RDH, 0xffff, 0xffff),
        (reg::RDT, 0xffff, 0xffff),
        (0x2168, 0xfff8, 0xfff8),
        (0x0170, 0xffff, 0xffff),
        (reg::TIPG, 0x3fff_ffff, 0x3fff_ffff),
        (reg::TDBAH, ALL, ALL),
        (reg::TDLEN, 0xfff80, 0xfffff),
        (reg::RDBAL, 0xffff_fff0, ALL),
        (0x0178, 0xc000_ffff, 0xffff),
        (reg::TDBAL, 0xffff_fff0, ALL),
        (reg::TIDV, 0xffff, 0xffff),
    ];
    cases.extend((0..15).map(|n| (reg::RAH + 8 * n, 0x8003_ffff, ALL)));
    cases.extend((0..128).map(|n| (reg::MTA + 4 * n, ALL, ALL)));
    for (register, mask, write) in cases {
        for pattern in [0x5a5a_5a5a, 0xa5a5_a5a5, 0, ALL] {
            registers.set(register, write & pattern);
            assert_eq!(registers.get(register), write & pattern & mask, "{register:#06x} {pattern:#x}");
        }
    }
    let checks = [
        (reg::RCTL, ALL, 0),
        (reg::RCTL, 0x06df_b3fe, 0x003f_fffb),
        (reg::TCTL, ALL, 0),
        (reg::RCTL, 0x06df_b3fe, ALL),
    ];
    for (register, mask, write) in checks {
        registers.set(register, write & mask);
        assert_eq!(registers.get(register) & mask, write & mask, "{register:#06x}");
    }
    assert!(!guest.port.is_stopped(), "the test enables reception on a ring of nonsense");
}

/// The interrupt test of `ethtool -t`.
#[test]
fn causes_can_be_forced_and_masked() {
    let mut guest = Guest::probed(1, Layout::default());
    guest.driver.registers.set(reg::IMC, u32::MAX);
    for bit in 0..10 {
        let mask = 1 << bit;
        guest.driver.registers.set(reg::IMC, mask);
        guest.driver.registers.set(reg::ICS, mask);
        assert!(!guest.line.is_high());
        guest.driver.registers.set(reg::IMS, mask);
        guest.driver.registers.set(reg::ICS, mask);
        assert!(guest.line.is_high(), "bit {bit}");
        assert_eq!(guest.driver.registers.get(reg::ICS), mask, "reading ICS clears nothing");
        assert_eq!(guest.driver.interrupt(), mask);
        assert!(!guest.line.is_high());
        guest.driver.registers.set(reg::IMC, !mask & 0x7fff);
        guest.driver.registers.set(reg::ICS, !mask & 0x7fff);
        assert!(!guest.line.is_high());
        guest.driver.registers.set(reg::ICR, !mask & 0x7fff);
        assert_eq!(guest.driver.interrupt(), 0);
    }
}

#[test]
fn a_restarted_negotiation_takes_the_link_and_gives_it_back() {
    let mut guest = Guest::new(1, Layout::default());
    let registers = &mut guest.driver.registers;
    nvm::write_phy(registers, 0, 0x1340).unwrap();
    assert_eq!(registers.get(reg::STATUS) & reg::STATUS_LU, 0);
    assert!(guest.line.is_high());
    assert_eq!(guest.driver.interrupt() & reg::ICR_LSC, reg::ICR_LSC);
    assert!(guest.driver.registers.wait_for_deadline());
    assert!(guest.line.is_high());
    assert_eq!(guest.driver.interrupt() & reg::ICR_LSC, reg::ICR_LSC);
    let registers = &mut guest.driver.registers;
    assert_eq!(registers.get(reg::STATUS) & reg::STATUS_LU, reg::STATUS_LU);
    assert_eq!(nvm::read_phy(registers, 17).unwrap(), 0xac00);
    assert!(registers.device.deadline().is_none());
}

#[test]
fn a_reset_lets_go_of_the_phy() {
    let mut guest = Guest::new(1, Layout::default());
    let registers = &mut guest.driver.registers;
    registers.set(reg::CTRL, reg::CTRL_PHY_RST);
    assert_eq!(registers.get(reg::STATUS) & reg::STATUS_LU, 0);
    fabnic_testkit::e1000::reset(registers).unwrap();
    assert!(registers.wait_for_deadline());
    assert_eq!(registers.get(reg::STATUS) & reg::STATUS_LU, reg::STATUS_LU);
}

#[test]
fn the_link_follows_the_configuration() {
    let mut guest = Guest::new(1, Layout::default());
    let settings = guest.device().settings();
    settings.set_link(false);
    assert!(guest.line.is_high());
    assert_eq!(guest.driver.interrupt(), reg::ICR_LSC);
    assert_eq!(guest.driver.registers.get(reg::STATUS) & reg::STATUS_LU, 0);
    assert_eq!(nvm::read_phy(&mut guest.driver.registers, 1).unwrap() & 4, 0);
    settings.set_link(false);
    assert!(!guest.line.is_high(), "nothing changed");
    settings.set_link(true);
    assert_eq!(guest.driver.interrupt(), reg::ICR_LSC);
    assert!(settings.has_link());
}

#[test]
fn only_the_phy_of_the_part_answers() {
    let mut guest = Guest::probed(1, Layout::default());
    let registers = &mut guest.driver.registers;
    registers.set(reg::MDIC, 2 << 16 | 2 << 21 | 2 << 26);
    assert_eq!(registers.get(reg::MDIC) & (1 << 30 | 1 << 28), 1 << 30 | 1 << 28);
    // With an interrupt when it is done.
    registers.set(reg::MDIC, 2 << 16 | 1 << 21 | 2 << 26 | 1 << 29);
    assert_eq!(guest.driver.interrupt(), 1 << 9);
}

#[test]
fn another_address_is_seen_after_a_reset() {
    let mut guest = Guest::new(1, Layout::default());
    let settings = guest.device().settings();
    settings.set_mac(fabnic_wire::MacAddr(mac(7)));
    assert_eq!(guest.driver.registers.get(reg::RAH), 1 << 31 | 0x0100);
    fabnic_testkit::e1000::reset(&mut guest.driver.registers).unwrap();
    assert_eq!(guest.driver.registers.get(reg::RAH), 1 << 31 | 0x0700);
    let words = nvm::read_all(&mut guest.driver.registers).unwrap();
    assert_eq!(words[2], 0x0700);
}

#[test]
fn resets_leave_nothing_behind() {
    for kind in [Reset::FunctionLevel, Reset::Device, Reset::Disconnect] {
        let mut guest = Guest::new(1, Layout::default());
        guest.driver.registers.set(reg::ICS, reg::ICR_RXT0);
        assert!(guest.line.is_high());
        assert!(guest.port.ingress()[0].is_installed() && guest.port.egress()[0].is_installed());
        guest.device().reset(kind);
        assert!(!guest.line.is_high());
        assert!(!guest.port.ingress()[0].is_installed() && !guest.port.egress()[0].is_installed());
        let registers = &mut guest.driver.registers;
        for register in [reg::RCTL, reg::TCTL, reg::IMS, reg::TDBAL, reg::RDLEN, reg::RDT] {
            assert_eq!(registers.get(register), 0, "{register:#06x}");
        }
        assert_eq!(registers.get(reg::CTRL), 0x0014_0240);
        assert_eq!(registers.get(reg::VET), 0x8100);
    }
}

#[test]
fn without_memory_there_are_no_queues() {
    let mut guest = Guest::new(1, Layout::default());
    let map = crate::guest::shared_map(guest.driver.memory());
    guest.device().set_memory(None);
    assert!(!guest.port.ingress()[0].is_installed() && !guest.port.egress()[0].is_installed());
    guest.device().set_memory(Some(map));
    assert!(guest.port.ingress()[0].is_installed() && guest.port.egress()[0].is_installed());
    guest.driver.down();
    assert!(!guest.port.ingress()[0].is_installed() && !guest.port.egress()[0].is_installed());
}

#[test]
fn accesses_of_any_width_are_answered() {
    let mut guest = Guest::probed(1, Layout::default());
    let device = &mut guest.driver.registers.device;
    let mut wide = [0; 8];
    device.read(0, reg::RAL.into(), &mut wide);
    assert_eq!(wide, [0x52, 0x54, 0, 0, 0, 1, 0, 0x80]);
    let mut narrow = [0; 2];
    device.read(0, u64::from(reg::RAL) + 2, &mut narrow);
    assert_eq!(narrow, [0, 0]);
    device.read(0, u64::from(reg::RAL), &mut narrow);
    assert_eq!(narrow, [0x52, 0x54]);
    device.write(0, u64::from(reg::RAL) + 1, &[1]);
    device.write(0, reg::RAL.into(), &[1, 2]);
    device.write(0, reg::RAL.into(), &[1, 2, 3, 4, 5, 6, 7, 0x80]);
    device.read(0, reg::RAL.into(), &mut wide);
    assert_eq!(wide, [1, 2, 3, 4, 5, 6, 3, 0x80]);
    // The I/O BAR reaches the same registers; other BARs have none.
    device.write(1, 0, &reg::RAL.to_le_bytes());
    let mut word = [0; 4];
    device.read(1, 4, &mut word);
    assert_eq!(word, [1, 2, 3, 4]);
    device.write(1, 0, &0x8_0000_u32.to_le_bytes());
    device.read(1, 4, &mut word);
    assert_eq!(word, [0; 4]);
    device.read(5, 0, &mut word);
    assert_eq!(word, [0; 4]);
}
