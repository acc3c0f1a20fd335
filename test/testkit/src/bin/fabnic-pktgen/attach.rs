//! Drivers on many ports, which then do nothing: what idle guests cost.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use fabnic_avf_driver::{Driver, Options};
use fabnic_testkit::memory::{Backing, GuestMemory};
use fabnic_testkit::vfio::{AvfBus, Card};

use crate::run::pin;

/// Bytes of each guest's memory, and descriptors of its rings.
const MEMORY: u64 = 2 << 20;
const RING: u16 = 64;

#[derive(Debug, Args)]
pub(crate) struct AttachOptions {
    /// The card: avf.
    #[arg(long, value_parser = ["avf"])]
    nic: String,
    /// Number of ports.
    #[arg(long)]
    count: u32,
    /// Sockets, without the number that each ends with.
    #[arg(long)]
    sockets: PathBuf,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Attaches to all, says so, and waits until standard input ends.
pub(crate) fn attach(options: &AttachOptions) -> Result<()> {
    pin(options.cpu)?;
    // A socket, the memory and copies of it, for each.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).context("file descriptors")?;
    let mut drivers = Vec::new();
    for index in 0..options.count {
        let socket = PathBuf::from(format!("{}{index}", options.sockets.display()));
        let memory = GuestMemory::new(MEMORY, Backing::Ordinary)?;
        let card = Card::connect(&socket, &memory, Duration::from_secs(10))?;
        let settings = Options { ring_len: RING, ..Options::default() };
        let mut driver = Driver::open(AvfBus::new(card, &memory)?, settings)?;
        driver.start().with_context(|| format!("{}", socket.display()))?;
        drivers.push((driver, memory));
    }
    eprintln!("{} of {} attached", drivers.len(), options.count);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
