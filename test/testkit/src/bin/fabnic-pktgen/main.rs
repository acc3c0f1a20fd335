//! fabnic-pktgen: traffic against any vhost-user back end, ours or a peer's, and against our PCI cards over vfio-user.
//!
//! It is two guests on one CPU: a driver with its front end on each of two (or more) ports, and between them the switch
//! that is measured. Everything it prints counts windows of time.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod attach;
mod card;
mod flow;
mod light;
mod memcpy;
mod options;
mod ping;
mod port;
mod run;
mod seq;
mod window;

/// Traffic against any vhost-user back end.
#[derive(Debug, Parser)]
#[command(name = "fabnic-pktgen", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send and receive on all ports, and report per window.
    Run(Box<options::RunOptions>),
    /// Copy the same bytes between the same sort of buffers, without a switch: the rate to compare with.
    Memcpy(memcpy::MemcpyOptions),
    /// Attach drivers to many ports and do nothing.
    Attach(attach::AttachOptions),
    /// Be a guest that answers ARP and ICMP echo.
    Responder(Box<ping::ResponderOptions>),
    /// Be a guest that pings another one.
    Ping(Box<ping::PingOptions>),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Memcpy(options) => memcpy::memcpy(&options),
        Command::Attach(options) => attach::attach(&options),
        Command::Responder(options) => ping::responder(&options),
        Command::Ping(options) => ping::ping(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fabnic-pktgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}
