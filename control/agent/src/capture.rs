//! From a port's capture to an API client.
//!
//! ```text
//!   worker ──offer──► CaptureTap ─[buffer]─► CaptureStream ──thread──► CaptureSender ──► HTTP client
//! ```
//!
//! The thread between them may wait for the client; the worker never waits for the thread. A capture ends when its
//! client goes, its count is reached, or its port is taken away.

use std::sync::Arc;
use std::time::Duration;

use fabnic_api::{CaptureDirection, CaptureRequest, CaptureSender, CaptureStream, capture_channel};
use fabnic_model::Domain;
use fabnic_pcap::capture::{self, CaptureOptions, Chunk};
use fabnic_port::Direction;

use crate::agent::Agent;

/// Pieces of some megabytes that wait in the pipe to the client.
const PIPE: usize = 2;
/// How often it is looked whether the client is still there while nothing is captured.
const PATIENCE: Duration = Duration::from_millis(250);

/// Begins a capture; `None` when there is no such port, or no thread to be had.
pub(crate) fn start(agent: &Agent, domain: &Domain, request: &CaptureRequest) -> Option<CaptureStream> {
    let running = agent.running();
    let port = Arc::clone(&running.find(&request.port)?.live.port);
    let options = CaptureOptions {
        snaplen: request.snaplen,
        direction: match request.direction {
            CaptureDirection::Rx => Some(Direction::In),
            CaptureDirection::Tx => Some(Direction::Out),
            CaptureDirection::Both => None,
        },
        limit: request.count,
        // Where others' ports are, and how many there are, is not the tenant's affair.
        named: domain.tenant().map(|_| {
            let own = running.ports.iter().filter(|entry| domain.sees(entry.config.tenant.as_deref()));
            own.map(|entry| entry.config.name.clone()).collect()
        }),
    };
    let (tap, stream) = capture::start(options, &request.port);
    port.captures.add(Arc::new(tap));
    let (sender, to_client) = capture_channel(PIPE);
    let weak = Arc::downgrade(&port);
    let spawned = std::thread::Builder::new().name("capture".into()).spawn(move || {
        pump(stream, &sender);
        // The sink is over by now: off with it.
        if let Some(port) = weak.upgrade() {
            port.captures.prune();
        }
    });
    match spawned {
        Ok(_) => Some(to_client),
        Err(error) => {
            tracing::error!(port = %request.port, %error, "no thread for a capture");
            // The stream went with the closure, so the sink is over.
            port.captures.prune();
            None
        }
    }
}

fn pump(mut stream: capture::CaptureStream, sender: &CaptureSender) {
    loop {
        match stream.next_chunk(PATIENCE) {
            Chunk::Blocks(bytes) => {
                if sender.send_blocking(bytes).is_err() {
                    return;
                }
            }
            Chunk::Idle if sender.is_closed() => return,
            Chunk::Idle => {}
            Chunk::End => return,
        }
    }
}
