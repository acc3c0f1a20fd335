//! What a bare copy of the same bytes costs: the measure for one-copy switching.

use std::time::{Duration, Instant};

use clap::Args;
use fabnic_memory::copy;
use fabnic_testkit::driver::light::stride;
use fabnic_testkit::memory::{Backing, GuestMemory};

use crate::run::pin;

#[derive(Debug, Args)]
pub(crate) struct MemcpyOptions {
    /// Bytes of a frame.
    #[arg(long, default_value_t = 65226)]
    size: u32,
    /// Bytes of a receive buffer: a frame is copied in pieces of that size.
    #[arg(long, default_value_t = 2048)]
    rx_buffer: u32,
    /// Receive buffers of the ring.
    #[arg(long, default_value_t = 1024)]
    queue_size: u32,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// Seconds of a window.
    #[arg(long, default_value_t = 0.5)]
    window: f64,
    /// Number of windows.
    #[arg(long, default_value_t = 3)]
    windows: u32,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// Copies frames from one guest's transmit buffers to another's receive buffers, as a switch without any work to do
/// would: the same sizes, the same distances, the same number of buffers.
pub(crate) fn memcpy(options: &MemcpyOptions) -> anyhow::Result<()> {
    pin(options.cpu)?;
    let (size, piece) = (options.size.max(1), options.rx_buffer.max(64));
    let pieces = size.div_ceil(piece);
    let frames = (options.queue_size / pieces).max(1);
    let (tx_stride, rx_stride) = (stride(size + 12), stride(piece));
    let from_bytes = u64::from(tx_stride) * u64::from(frames);
    let mut from = GuestMemory::new(from_bytes, Backing::HugeIfFree)?;
    let buffers = options.queue_size.max(pieces);
    let mut to = GuestMemory::new(u64::from(rx_stride) * u64::from(buffers), Backing::HugeIfFree)?;
    let (source, target) =
        (from.allocate(from_bytes, 4096)?, to.allocate(u64::from(rx_stride) * u64::from(buffers), 4096)?);
    let sources = (0..u64::from(frames))
        .map(|i| from.slice(source + i * u64::from(tx_stride) + 12, size))
        .collect::<Result<Vec<_>, _>>()?;
    let targets = (0..u64::from(buffers))
        .map(|i| to.slice(target + i * u64::from(rx_stride), piece))
        .collect::<Result<Vec<_>, _>>()?;
    // Both are written once, so that no page is the zero page.
    for slice in &sources {
        from.map().write(slice, 0, &vec![0x5a; size as usize]);
    }
    for slice in &targets {
        to.map().write(slice, 0, &vec![0xa5; piece as usize]);
    }
    let mut next = targets.iter().cycle();
    let mut rates = Vec::new();
    for window in 0..options.windows {
        let (start, length) = (Instant::now(), Duration::from_secs_f64(options.window));
        let mut copied = 0_u64;
        while start.elapsed() < length {
            for frame in &sources {
                let mut at = 0;
                while at < size {
                    let Some(buffer) = next.next() else { break };
                    let done = copy(from.map(), &frame.part(at, piece), to.map(), buffer);
                    anyhow::ensure!(done > 0, "nothing was copied");
                    at += done;
                }
                copied += u64::from(size);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let gbps = copied as f64 * 8.0 / seconds / 1e9;
        rates.push(gbps);
        if options.json {
            let line = serde_json::json!({
                "window": window, "seconds": seconds, "bytes": copied, "frames": copied / u64::from(size), "gbps": gbps,
            });
            println!("{line}");
        } else {
            println!("window {window}: {gbps:.1} Gb/s");
        }
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
    if options.json {
        println!(
            "{}",
            serde_json::json!({ "summary": { "size": size, "gbps": median, "memory": format!("{:?}", from.backing()) } })
        );
    } else {
        println!("median {median:.1} Gb/s of bare copies, {size} bytes each ({:?} pages)", from.backing());
    }
    Ok(())
}
