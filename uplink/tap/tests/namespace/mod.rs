//! Network namespaces of a thread: everything that these tests send stays in one.

use std::process::Command;

/// Runs `test` on a thread of its own in a fresh network namespace without IPv6 chatter. Without the right to make one
/// it says so and does nothing.
pub(crate) fn run(test: impl FnOnce() + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        if enter() {
            test();
        }
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Moves the calling thread to a fresh network namespace; `false`, loudly, if it may not.
pub(crate) fn enter() -> bool {
    // SAFETY: only the network namespace of this thread changes; no file descriptor table is unshared.
    match unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) } {
        Ok(()) => {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                std::fs::write(&path, "1").ok();
            }
            ip("link set lo up");
            true
        }
        Err(errno) => {
            eprintln!(
                "SKIPPED, NOTHING WAS TESTED: no right to make a network namespace ({errno}), expected root"
            );
            false
        }
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (iproute2) is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
