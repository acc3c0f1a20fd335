//! The embedded guests: one that answers, one that asks.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use fabnic_testkit::driver::{NetDriver, NetLayout};
use fabnic_testkit::endpoint::{Endpoint, Heard};
use fabnic_testkit::guest::Session;
use fabnic_testkit::memory::GuestMemory;
use fabnic_wire::{MacAddr, Offload};

use crate::options::PortOptions;
use crate::port::Connector;

#[derive(Debug, Args)]
pub(crate) struct ResponderOptions {
    /// The port, with ip=ADDRESS and mac=ADDRESS; the other keys as for run.
    #[arg(long, value_name = "KEY=VALUE,..")]
    port: PortOptions,
    /// End after that many seconds; without it, never.
    #[arg(long)]
    seconds: Option<f64>,
    /// How long to wait for the back end, seconds.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
}

#[derive(Debug, Args)]
pub(crate) struct PingOptions {
    /// The port, with ip=ADDRESS and mac=ADDRESS; the other keys as for run.
    #[arg(long, value_name = "KEY=VALUE,..")]
    port: PortOptions,
    /// The address to ping.
    #[arg(long)]
    to: std::net::Ipv4Addr,
    /// How often.
    #[arg(long, default_value_t = 5)]
    count: u16,
    /// Seconds from one to the next.
    #[arg(long, default_value_t = 0.2)]
    interval: f64,
    /// Bytes sent along.
    #[arg(long, default_value_t = 56)]
    size: usize,
    /// How long to wait for the back end and for the last answer, seconds.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// A guest that sleeps until it is called, as a kernel does.
struct Guest {
    connector: Connector,
    session: Session,
    memory: GuestMemory,
    driver: NetDriver,
    endpoint: Endpoint,
}

impl Guest {
    fn new(mut options: PortOptions, patience: f64) -> anyhow::Result<Guest> {
        let mac = options.mac.unwrap_or(MacAddr::from_u64(0x0200_0000_0001));
        let ip = options.ip.context("ip=ADDRESS is missing in --port")?;
        options.queue_size = options.queue_size.min(256);
        let connector = Connector::with(&options, false, Duration::from_secs_f64(patience))?;
        let session = connector.open()?;
        let layout = NetLayout {
            pairs: options.queues,
            ring: connector.ring_options(),
            rx_buffer: options.rx_buffer,
            mergeable: options.mergeable,
            tx_piece: options.tx_piece,
            ..NetLayout::default()
        };
        let mut memory = GuestMemory::new(layout.bytes(), options.memory)?;
        let driver = NetDriver::new(&mut memory, layout)?;
        let endpoint = Endpoint::new(mac.octets(), ip);
        let mut guest = Guest { connector, session, memory, driver, endpoint };
        guest.start()?;
        Ok(guest)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let starts = self.driver.ring_starts();
        self.session.start(&self.memory, &starts)?;
        (0..self.session.rings()).for_each(|ring| self.session.kick(ring));
        Ok(())
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        self.driver.pending(0)?;
        let sent = self.driver.send(&self.session, 0, &[(Offload::PLAIN, frame)])?;
        ensure!(sent == 1, "the transmit ring is full");
        Ok(())
    }

    /// Waits for frames until `until`, answers questions; gives the first answer to a question of our own.
    fn listen(&mut self, until: Instant) -> anyhow::Result<Option<Heard>> {
        loop {
            let mut heard = Vec::new();
            for pair in 0..self.driver.layout().pairs {
                let endpoint = &mut self.endpoint;
                self.driver
                    .receive(&self.session, pair, 64, |frame| heard.push(endpoint.hear(frame.frame)))?;
            }
            let mut ours = None;
            for heard in heard {
                match heard {
                    Heard::Nothing => {}
                    Heard::Answer(frame) => self.send(&frame)?,
                    other => ours = Some(other),
                }
            }
            if ours.is_some() {
                return Ok(ours);
            }
            if self.session.is_closed() {
                self.driver.pending(0)?;
                self.session = self.connector.open()?;
                self.start()?;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let rings: Vec<u32> = (0..self.driver.layout().pairs).map(|pair| 2 * u32::from(pair)).collect();
            let mut waiting = true;
            for ring in &rings {
                waiting &= !self.driver.ring(*ring).is_some_and(|ring| ring.enable_calls());
            }
            if waiting {
                // Not for ever: a back end that goes away calls nobody.
                self.session.wait_calls(&rings, left.min(Duration::from_millis(100)));
            }
            for ring in &rings {
                if let Some(ring) = self.driver.ring(*ring) {
                    ring.disable_calls();
                }
            }
        }
    }
}

/// Answers ARP and echo requests.
pub(crate) fn responder(options: &ResponderOptions) -> anyhow::Result<()> {
    let mut guest = Guest::new(options.port.clone(), options.patience)?;
    println!("{}", serde_json::json!({ "ready": true }));
    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    while end.is_none_or(|end| Instant::now() < end) {
        let until = Instant::now() + Duration::from_secs(1);
        guest.listen(end.map_or(until, |end| end.min(until)))?;
    }
    guest.session.stop()?;
    Ok(())
}

/// Sends echo requests and waits for the answers; an error if one is missing.
pub(crate) fn ping(options: &PingOptions) -> anyhow::Result<()> {
    let to = options.to.octets();
    let patience = Duration::from_secs_f64(options.patience);
    let mut guest = Guest::new(options.port.clone(), options.patience)?;
    let asked = Instant::now();
    while guest.endpoint.neighbour(to).is_none() {
        ensure!(asked.elapsed() < patience, "nobody says where {} is", options.to);
        let question = guest.endpoint.who_has(to);
        guest.send(&question)?;
        guest.listen(Instant::now() + Duration::from_millis(200))?;
    }
    let id = (std::process::id() & 0xffff) as u16;
    let payload: Vec<u8> = (0..options.size).map(|i| i as u8).collect();
    let mut times = Vec::new();
    for sequence in 0..options.count {
        let request = guest.endpoint.echo_request(to, id, sequence, &payload);
        let sent = Instant::now();
        guest.send(&request.context("the neighbour is gone")?)?;
        let expected = Heard::EchoReply { from: to, id, sequence, payload: payload.clone() };
        let next = sent + Duration::from_secs_f64(options.interval);
        let last = if sequence + 1 == options.count { sent + Duration::from_secs(1) } else { next };
        while let Some(heard) = guest.listen(last)? {
            if heard == expected {
                let time = sent.elapsed();
                times.push(time.as_nanos() as u64);
                if !options.json {
                    let us = time.as_nanos() as f64 / 1e3;
                    println!(
                        "{} bytes from {}: seq={sequence} time={us:.1} us",
                        options.size + 8,
                        options.to
                    );
                }
                break;
            }
        }
        if sequence + 1 < options.count {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    guest.session.stop()?;
    let received = times.len();
    let (min, max) = (times.iter().min().copied(), times.iter().max().copied());
    let average = (received > 0).then(|| times.iter().sum::<u64>() / received as u64);
    if options.json {
        let line = serde_json::json!({
            "sent": options.count, "received": received,
            "rtt_ns": { "min": min, "avg": average, "max": max },
        });
        println!("{line}");
    } else {
        let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
        println!(
            "{} sent, {received} received, rtt min/avg/max {}/{}/{} us",
            options.count,
            us(min),
            us(average),
            us(max)
        );
    }
    ensure!(
        received == usize::from(options.count),
        "{} of {} answers are missing",
        usize::from(options.count) - received,
        options.count
    );
    Ok(())
}
