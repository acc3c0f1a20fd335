//! Our words for a function against those of pciutils.

#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

mod devices;

use std::fmt::Write as _;
use std::process::Command;

use fabnic_pci::{ConfigSpace, Description, registers};

/// A function that firmware has put into its places.
fn placed(description: &Description, places: &[(u8, u64)]) -> ConfigSpace {
    let mut space = ConfigSpace::new(description).unwrap();
    for (bar, address) in places {
        let register = u64::from(registers::BAR0) + 4 * u64::from(*bar);
        space.write(register, &address.to_le_bytes()[..4]);
        if space.description().bars[usize::from(*bar)].size() > 0 && *address >> 32 != 0 {
            space.write(register + 4, &address.to_le_bytes()[4..]);
        }
    }
    space.write(registers::COMMAND.into(), &0x0507_u16.to_le_bytes());
    space
}

fn avf() -> ConfigSpace {
    placed(&devices::avf(), &[(0, 0x38_0000_0000), (3, 0x38_0002_0000)])
}

fn e1000() -> ConfigSpace {
    placed(&devices::e1000(), &[(0, 0xfebc_0000), (1, 0xc040)])
}

#[test]
fn an_adaptive_virtual_function() {
    insta::assert_snapshot!(avf().lspci("00:03.0").to_string());
}

#[test]
fn a_conventional_card() {
    insta::assert_snapshot!(e1000().lspci("00:04.0").to_string());
}

/// Feeds a dump to lspci: every line of ours must be in what it makes of it, in the same order.
fn compare(space: &ConfigSpace) {
    if Command::new("lspci").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no lspci here (Debian's package pciutils)");
        return;
    }
    let mut dump = String::from("00:03.0 function\n");
    for (row, bytes) in space.bytes().chunks(16).enumerate() {
        write!(dump, "{:02x}:", row * 16).unwrap();
        bytes.iter().for_each(|byte| write!(dump, " {byte:02x}").unwrap());
        dump.push('\n');
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump");
    std::fs::write(&file, dump).unwrap();
    let output = Command::new("lspci").args(["-n", "-vvv", "-F"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let theirs = String::from_utf8(output.stdout).unwrap();
    let mut lines = theirs.lines();
    for line in space.lspci("00:03.0").to_string().lines() {
        // A dump does not say how large a BAR is.
        let line = line.split(" [size=").next().unwrap();
        assert!(lines.any(|other| other == line), "{line:?} is not, or not here, in\n{theirs}");
    }
}

#[test]
fn lspci_agrees() {
    compare(&avf());
    compare(&e1000());
    let mut asleep = avf();
    asleep.write(0x44, &[3]);
    asleep.write(0x72, &0xc000_u16.to_le_bytes());
    compare(&asleep);
    asleep.reset();
    compare(&asleep);
}
