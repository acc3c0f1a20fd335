//! Configuration space as firmware, a driver and somebody who means no good use it.

#[path = "fuzz/pci_config_space.rs"]
mod fuzz;

use fabnic_pci::{Bar, ConfigSpace, Description, DescriptionError, Effects, Msix, PowerState};
use fuzz::devices;
use proptest::prelude::*;

fn read(space: &ConfigSpace, at: u64) -> u32 {
    let mut dword = [0; 4];
    space.read(at, &mut dword);
    u32::from_le_bytes(dword)
}

fn write(space: &mut ConfigSpace, at: u64, value: u32) -> Effects {
    space.write(at, &value.to_le_bytes())
}

#[test]
fn firmware_learns_sizes_by_writing_ones() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    assert_eq!(write(&mut avf, 0x10, u32::MAX), Effects::DECODE);
    write(&mut avf, 0x14, u32::MAX);
    assert_eq!(read(&avf, 0x10), 0xfffe_000c, "128 KiB, 64 bits, prefetchable");
    assert_eq!(read(&avf, 0x14), u32::MAX);
    write(&mut avf, 0x18, u32::MAX);
    assert_eq!(read(&avf, 0x18), 0, "not there");
    write(&mut avf, 0x1c, u32::MAX);
    assert_eq!(read(&avf, 0x1c), 0xffff_c00c);
    write(&mut avf, 0x30, u32::MAX);
    assert_eq!(read(&avf, 0x30), 0, "no ROM");

    let mut e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    write(&mut e1000, 0x10, u32::MAX);
    assert_eq!(read(&e1000, 0x10), 0xfffe_0000);
    write(&mut e1000, 0x14, u32::MAX);
    assert_eq!(read(&e1000, 0x14), 0xffff_ffc1, "64 ports");
    write(&mut e1000, 0x14, 0xc040);
    assert_eq!(e1000.bar_address(1), Some(0xc040));
    assert_eq!(e1000.bar_address(2), None);
    assert_eq!(e1000.bytes().len(), 256);
}

#[test]
fn a_large_bar_spans_both_halves() {
    let mut description = devices::avf();
    description.bars[0] = Bar::Memory64 { size: 16 << 30, prefetchable: true };
    let mut space = ConfigSpace::new(&description).unwrap();
    space.write(0x10, &[0xff; 8]);
    assert_eq!(read(&space, 0x10), 0xc);
    assert_eq!(read(&space, 0x14), 0xffff_fffc);
}

#[test]
fn the_command_register_has_what_the_function_has() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    assert!(!avf.may_master());
    assert_eq!(avf.write(4, &[0xff, 0xff]), Effects::MASTER | Effects::DECODE);
    assert_eq!(avf.command(), 0x0146, "memory, master, parity, SERR: no I/O, no INTx");
    assert!(avf.may_master());
    // A byte at a time does the same.
    assert_eq!(avf.write(4, &[0x02]), Effects::MASTER);
    assert_eq!(avf.command(), 0x0102);

    let mut e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    assert_eq!(e1000.write(4, &[0xff, 0xff]), Effects::MASTER | Effects::DECODE | Effects::INTX);
    assert_eq!(e1000.command(), 0x0547);
    assert!(e1000.intx_disabled());
}

#[test]
fn the_chain_has_every_capability_once() {
    let avf = ConfigSpace::new(&devices::avf()).unwrap();
    assert_eq!(avf.status() & 1 << 4, 1 << 4);
    let mut at = read(&avf, 0x34) & 0xff;
    let mut ids = Vec::new();
    while at != 0 {
        let head = read(&avf, at.into());
        ids.push(head & 0xff);
        at = head >> 8 & 0xff;
    }
    assert_eq!(ids, [0x01, 0x11, 0x10], "power, MSI-X, express");
    assert_eq!(read(&avf, 0x100), 0x1402_0001, "errors, then");
    assert_eq!(read(&avf, 0x140), 0x0001_0003, "the serial number, the last");

    let e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    assert_eq!(read(&e1000, 0x34), 0);
    assert_eq!(e1000.status() & 1 << 4, 0);
}

#[test]
fn msix_is_switched() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    assert_eq!(avf.write(0x72, &0xffff_u16.to_le_bytes()), Effects::MSIX);
    assert!(avf.msix_enabled() && avf.msix_masked());
    assert_eq!(read(&avf, 0x70) >> 16, 0xc010, "17 vectors");
    assert_eq!(avf.write(0x72, &0xffff_u16.to_le_bytes()), Effects::empty(), "nothing new");
    assert_eq!(avf.write(0x73, &[0x80]), Effects::MSIX);
    assert!(avf.msix_enabled() && !avf.msix_masked());
    let mut e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    assert_eq!(e1000.write(0x72, &[0xff; 2]), Effects::empty());
    assert!(!e1000.msix_enabled());
}

#[test]
fn a_function_level_reset() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    avf.write(4, &[6]);
    avf.write(0x10, &0x8000_0000_u32.to_le_bytes());
    let effects = avf.write(0xa8, &0x8000_u16.to_le_bytes());
    assert!(effects.contains(Effects::RESET | Effects::MASTER | Effects::DECODE), "{effects:?}");
    assert_eq!(avf.bytes(), ConfigSpace::new(&devices::avf()).unwrap().bytes());
    // The upper byte alone has the bit, too; the lower one has not.
    assert!(avf.write(0xa9, &[0x80]).contains(Effects::RESET));
    assert!(!avf.write(0xa8, &[0x80]).contains(Effects::RESET));
    // Who does not offer it does not do it.
    let mut description = devices::avf();
    description.express = Some(fabnic_pci::Express { flr: false });
    let mut without = ConfigSpace::new(&description).unwrap();
    assert!(!without.write(0xa8, &0x8000_u16.to_le_bytes()).contains(Effects::RESET));
    assert_eq!(read(&without, 0xa8) & 0x8000, 0);
}

#[test]
fn sleep_stops_mastering_and_waking_resets() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    avf.write(4, &[6]);
    assert_eq!(avf.write(0x44, &[1]), Effects::empty(), "there is no D1");
    assert_eq!(avf.write(0x44, &[3]), Effects::POWER | Effects::MASTER);
    assert_eq!(avf.power_state(), PowerState::D3hot);
    assert!(!avf.may_master());
    assert_eq!(avf.write(0x44, &[2]), Effects::empty(), "there is no D2");
    assert_eq!(avf.power_state(), PowerState::D3hot);
    let effects = avf.write(0x44, &[0]);
    assert!(effects.contains(Effects::POWER | Effects::RESET), "{effects:?}");
    assert_eq!(avf.command(), 0, "what it was set up with is lost");
}

#[test]
fn the_interrupt_line_is_shown_and_not_writable() {
    let mut e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    e1000.show_interrupt(true);
    assert_eq!(e1000.status(), 1 << 3);
    e1000.write(6, &[0xff, 0xff]);
    assert_eq!(e1000.status(), 1 << 3);
    e1000.show_interrupt(false);
    assert_eq!(e1000.status(), 0);
    e1000.write(0x3c, &[11, 7]);
    assert_eq!(read(&e1000, 0x3c), 0x010b, "the line is the guest's, the pin is ours");
}

#[test]
fn a_twin_takes_over_what_can_be_written() {
    let mut avf = ConfigSpace::new(&devices::avf()).unwrap();
    avf.write(4, &[6]);
    avf.write(0x10, &0x8000_0000_u32.to_le_bytes());
    avf.write(0x72, &0x8000_u16.to_le_bytes());
    let mut twin = ConfigSpace::new(&devices::avf()).unwrap();
    assert!(twin.restore(avf.bytes()));
    assert_eq!(twin.bytes(), avf.bytes());
    assert!(twin.may_master() && twin.msix_enabled());
    assert!(twin.restore(&[0xff; 4096]), "whoever it came from");
    assert_eq!(read(&twin, 0), 0x1889_8086);
    assert_eq!(twin.command(), 0x0146);
    assert!(!twin.restore(&[0; 256]));
}

#[test]
fn nobody_answers_behind_the_end() {
    let mut e1000 = ConfigSpace::new(&devices::e1000()).unwrap();
    assert_eq!(read(&e1000, 0x100), u32::MAX);
    assert_eq!(read(&e1000, 0xfe), 0xffff_0000);
    assert_eq!(read(&e1000, u64::MAX - 1), u32::MAX);
    assert_eq!(write(&mut e1000, 0xfe, u32::MAX), Effects::empty());
    assert_eq!(write(&mut e1000, u64::MAX, u32::MAX), Effects::empty());
}

#[test]
fn descriptions_that_cannot_be() {
    let with = |change: fn(&mut Description)| {
        let mut description = devices::avf();
        change(&mut description);
        ConfigSpace::new(&description).map(|_| ()).unwrap_err()
    };
    assert!(matches!(
        with(|d| d.bars[2] = Bar::Memory32 { size: 100, prefetchable: false }),
        DescriptionError::BarSize { bar: 2, size: 100, .. }
    ));
    assert!(matches!(with(|d| d.bars[2] = Bar::Io { size: 512 }), DescriptionError::BarSize { .. }));
    assert!(matches!(
        with(|d| d.bars[5] = Bar::Memory64 { size: 4096, prefetchable: true }),
        DescriptionError::BarWidth { bar: 5 }
    ));
    assert!(matches!(with(|d| d.bars[4] = Bar::Io { size: 4 }), DescriptionError::BarWidth { bar: 3 }));
    let msix = |vectors, table, pending| Some(Msix { vectors, table, pending });
    let mut none = devices::avf();
    none.msix = msix(0, (3, 0), (3, 0x2000));
    assert!(matches!(none.check(), Err(DescriptionError::Vectors { vectors: 0 })));
    none.msix = msix(17, (3, 0x3f00), (3, 0x2000));
    assert!(matches!(none.check(), Err(DescriptionError::MsixPlace { what: "table", .. })));
    none.msix = msix(17, (3, 0), (2, 0));
    let error = none.check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "MSI-X pending bits at 0x0 of BAR 2, expected 8 bytes of a memory BAR, aligned to 8"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The body of the fuzz target, on random input.
    #[test]
    fn whatever_is_written(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz::run(&data);
    }
}
