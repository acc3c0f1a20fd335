//! What `fabnic capture -w - | tcpdump -r -` shows.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use fabnic_pcap::capture::{CaptureOptions, start};
use fabnic_port::{Burst, CaptureSink, Direction, DropReason, Verdict};

/// tcpdump of this machine, or of the tree that `cargo xtask` makes.
fn tcpdump() -> Option<Command> {
    let tree = std::env::var("FABNIC_LAB").unwrap_or_else(|_| "/var/cache/fabnic-lab".to_owned()) + "/tree";
    let mut in_tree = Command::new("chroot");
    in_tree.args([&tree, "tcpdump"]);
    [Command::new("tcpdump"), in_tree].into_iter().find_map(|mut command| {
        let there = Command::new(command.get_program())
            .args(command.get_args())
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        command.args(["-r", "-", "-n", "-e", "-t"]);
        there.is_ok_and(|status| status.success()).then_some(command)
    })
}

#[test]
fn tcpdump_reads_a_capture() {
    let Some(mut command) = tcpdump() else {
        eprintln!("SKIPPED, NOTHING WAS TESTED: no tcpdump here");
        return;
    };
    let (tap, mut stream) = start(CaptureOptions::default(), "vm1");
    let mut burst = Burst::new();
    // ARP: who has 10.0.0.2, tell 10.0.0.1.
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    burst.push_bytes(&frame).unwrap();
    for verdict in [Verdict::Flooded(2), Verdict::Dropped(DropReason::NoMember)] {
        tap.offer(&burst, 0, Direction::In, verdict);
    }
    drop(tap);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("link-type EN10MB (Ethernet)"), "{errors}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in lines {
        assert!(line.starts_with("02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"), "{line}");
        assert!(line.contains("who-has 10.0.0.2 tell 10.0.0.1"), "{line}");
    }
}
