//! The Fabnic command line.
//!
//! A thin client of the daemon's API: words become one HTTP request on a Unix socket, the answer becomes a table, or,
//! with `--json`, is printed as it came. Nothing is decided here that the daemon would decide otherwise, so a `fabnic`
//! that is older than its `fabnicd` is still of use.
//!
//! ```text
//!   args (clap) ── words (`mac .. vlan ..`) ── client (HTTP/1.1, Unix socket) ── show (tables) / top (live) / --json
//! ```
//!
//! Exit codes: 0 done; 1 the daemon refused, or the answer could not be used; 2 the command line is wrong; 3 no daemon
//! could be reached.

mod args;
mod capture;
mod client;
mod commands;
mod generate;
mod policy;
mod saved;
mod show;
mod state;
mod top;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("fabnic: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fabnic: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
