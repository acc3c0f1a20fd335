//! The Fabnic daemon: composition only.
//!
//! `fabnicd --config FILE` reads the desired state, gives up what it will not need, lets the agent make it so, and
//! serves the API until it is told to end. What it composes lives in the crates below; what it does itself is what a
//! process owes its host: arguments, log, signals, service manager, sandbox.
//!
//! ```text
//!   main thread     read configuration ─► lock and bind the API socket ─► files, capabilities given up
//!                   ─► Agent::start ─► system calls given up ─► READY=1 ─► API, signals, watchdog ─► STOPPING=1
//!   agent's         one thread for all vhost-user connections, one for each replayed file
//!   switch's        one worker thread a CPU: forwards packets, never waits for any of the others
//! ```
//!
//! The order matters. Files (landlock) and capabilities are given up for the calling thread and those it will start:
//! before there is a second one. System calls (seccomp) are taken from all threads at once: when all have started.
//! Every fault of a configuration is found before the running state is touched, so that a daemon which does not start
//! has changed nothing but a stale socket.

mod api_socket;
mod capabilities;
mod files;
mod journal;
mod run;
mod system_calls;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// The Fabnic daemon: a switch with a NIC for each virtual machine.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// Desired state to start with, a TOML file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Check FILE and the host's CPUs against it, say what is wrong and end
    #[arg(long)]
    check: bool,
    /// Keep what is changed at run time in this file, and start from it as long as the configuration file is the same.
    /// Unless said: state.toml in systemd's STATE_DIRECTORY; without that, changes end with the daemon
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Parts of the sandbox to leave out, comma-separated
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    without: Vec<SandboxPart>,
    /// Further directories in which ports may be added later, for sockets or files; those of the configuration are
    /// allowed anyway
    #[arg(long, value_name = "DIR")]
    allow_dir: Vec<PathBuf>,
    /// Capabilities to keep, such as CAP_DAC_OVERRIDE to reach sockets of other users. CAP_NET_ADMIN is kept anyway
    /// when the configuration has a TAP uplink
    #[arg(long, value_name = "CAPABILITY", value_parser = capabilities::parse)]
    keep_capability: Vec<caps::Capability>,
}

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SandboxPart {
    /// Dropping capabilities
    Capabilities,
    /// Restricting files and directories (landlock)
    Files,
    /// Restricting system calls (seccomp)
    Syscalls,
    /// All of it
    All,
}

impl Arguments {
    fn wants(&self, part: SandboxPart) -> bool {
        !self.without.iter().any(|&left_out| left_out == part || left_out == SandboxPart::All)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.check { run::check(&arguments) } else { run::run(&arguments) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "fabnicd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::Arguments;

    /// `UPDATE_PAGES=1 cargo test -p fabnicd` writes the page.
    #[test]
    fn the_man_page_is_what_the_program_says() {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).section("8").render(&mut page).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man/fabnicd.8");
        if std::env::var_os("UPDATE_PAGES").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert_eq!(kept, String::from_utf8(page).unwrap(), "docs/man/fabnicd.8 is out of date");
    }
}
