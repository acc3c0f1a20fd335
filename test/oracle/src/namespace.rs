//! A test's own network namespace.
//!
//! To enter one, a thread would need an unsafe call. A process is put into one by `unshare`, so the test starts itself anew
//! below that.

use std::process::Command;

/// Set where the namespace, or the whole machine, is the test's own.
pub const INSIDE: &str = "FABNIC_ORACLE_INSIDE";

/// Proof of being in a namespace of one's own.
#[derive(Debug)]
pub struct Inside(());

/// The proof where [`INSIDE`] says so: in a namespace of the test's own, or in a guest that was booted for it.
pub fn in_guest() -> Option<Inside> {
    std::env::var_os(INSIDE)?;
    for (path, value) in [
        ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
        ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
        // Else frames go through the host's IP filters, which drop what is no whole packet.
        ("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"),
        ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0"),
        ("/proc/sys/net/bridge/bridge-nf-call-arptables", "0"),
    ] {
        // A kernel without the feature has no file for it.
        std::fs::write(path, value).ok();
    }
    Some(Inside(()))
}

/// To be called first by the test of this name. Inside of its namespace it gives the proof. Outside it runs the test again
/// in a fresh namespace, and gives nothing: the test is done then. Without the right to make one it says so.
///
/// # Panics
/// If the test failed inside.
pub fn in_namespace(test: &str) -> Option<Inside> {
    if let Some(inside) = in_guest() {
        return Some(inside);
    }
    let may = Command::new("unshare").args(["--net", "true"]).output();
    if !may.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED, NOTHING WAS TESTED: no right to make a network namespace, expected root");
        return None;
    }
    let own = std::env::current_exe().expect("a running program has a path");
    let again = Command::new("unshare")
        .arg("--net")
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare ran a moment ago");
    assert!(again.success(), "{test} failed in its namespace");
    None
}
