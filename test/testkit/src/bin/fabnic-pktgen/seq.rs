//! Sequence mode: every frame has a number and the time at which it was sent.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fabnic_memory::clock;
use fabnic_testkit::driver::{NetDriver, NetLayout};
use fabnic_testkit::guest::Session;
use fabnic_testkit::memory::GuestMemory;
use hdrhistogram::Histogram;

use crate::flow::{Ledger, STAMP, Stamp, patches};
use crate::light::build;
use crate::options::{Fields, RunOptions};
use crate::port::{Connector, Identity, identities};
use crate::run::Traffic;
use crate::window::{Latency, Totals};

const BURST: usize = 32;
/// How often the socket is looked at.
const LIVENESS: Duration = Duration::from_millis(1);
/// How long is waited for the last frames.
const DRAIN: Duration = Duration::from_millis(100);
/// Bytes of a frame in which the stamp is: the longest headers before it are tag, IPv4 and TCP with time stamps.
const LOOK: usize = 128;

struct Port {
    connector: Connector,
    session: Session,
    memory: GuestMemory,
    driver: NetDriver,
    who: Identity,
    sends: bool,
    /// The next number of each flow.
    sequences: Vec<u64>,
    /// The flow whose turn it is.
    turn: u32,
    /// The first of this port's flows, counted over all ports.
    first_flow: u32,
    sent: u64,
    /// Since when the back end has been away.
    gone: Option<Instant>,
    /// Offsets into the frame.
    l4: u32,
    stamp: u32,
}

/// Starts the rings where they stand.
fn start(session: &mut Session, memory: &GuestMemory, driver: &mut NetDriver) -> anyhow::Result<()> {
    for pair in 0..driver.layout().pairs {
        driver.pending(pair)?;
    }
    session.start(memory, &driver.ring_starts())?;
    (0..session.rings()).for_each(|ring| session.kick(ring));
    Ok(())
}

pub(crate) struct SeqTraffic {
    ports: Vec<Port>,
    ledger: Ledger,
    size: usize,
    fields: Fields,
    rate: Option<f64>,
    reconnect: bool,
    started: u64,
    looked: u64,
    received: u64,
    bytes: u64,
    foreign: u64,
    reconnects: u64,
    busy: u64,
    window: Histogram<u64>,
    all: Histogram<u64>,
}

pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    // Up to a minute, three digits.
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

pub(crate) fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    (!histogram.is_empty()).then(|| Latency {
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    })
}

impl SeqTraffic {
    pub(crate) fn new(run: &RunOptions) -> anyhow::Result<SeqTraffic> {
        let connectors: Vec<Connector> =
            run.ports.iter().map(|port| Connector::new(port, run)).collect::<Result<_, _>>()?;
        let identities = identities(&run.ports);
        let mut ports = Vec::new();
        for (i, (connector, who)) in connectors.into_iter().zip(identities).enumerate() {
            let first_flow = u32::try_from(i)?.saturating_mul(run.flows);
            ports.push(Port::new(connector, who, run, !(run.one_way && i % 2 == 1), first_flow)?);
        }
        let now = clock::tsc();
        Ok(SeqTraffic {
            ledger: Ledger::new(ports.len() * run.flows as usize),
            ports,
            size: run.size(),
            fields: run.flow_fields,
            rate: run.rate,
            reconnect: run.reconnect,
            started: now,
            looked: now,
            received: 0,
            bytes: 0,
            foreign: 0,
            reconnects: 0,
            busy: 0,
            window: histogram()?,
            all: histogram()?,
        })
    }

    /// Gives the frames that came.
    fn receive(&mut self, port: usize) -> anyhow::Result<usize> {
        let Some(port) = self.ports.get_mut(port) else { return Ok(0) };
        let mut came = 0;
        let (ledger, window) = (&mut self.ledger, &mut self.window);
        let (received, bytes, foreign) = (&mut self.received, &mut self.bytes, &mut self.foreign);
        let [a, b, .., f] = port.who.mac.octets();
        for pair in 0..port.driver.layout().pairs {
            let mut now = 0;
            came += port.driver.receive(&port.session, pair, 2 * BURST, |frame| {
                if now == 0 {
                    now = clock::tsc();
                }
                // Flooded copies for others are not ours to count; flows may be in the other bytes of the address.
                let ours = matches!(frame.frame, [x, y, _, _, _, z, ..] if [*x, *y, *z] == [a, b, f]);
                let stamp = Stamp::find(frame.frame).filter(|_| ours);
                let Some(stamp) = stamp.filter(|stamp| ledger.enter(stamp.flow, stamp.sequence)) else {
                    *foreign += 1;
                    return;
                };
                *received += 1;
                *bytes += frame.len as u64;
                window.saturating_record(clock::nanoseconds(now.saturating_sub(stamp.sent)).max(1));
            })?;
        }
        Ok(came)
    }

    /// Gives the frames that went.
    fn send(&mut self, port: usize, now: u64) -> anyhow::Result<usize> {
        let Some(port) = self.ports.get_mut(port).filter(|port| port.sends) else { return Ok(0) };
        let mut most = BURST;
        if let Some(rate) = self.rate {
            let seconds = now.saturating_sub(self.started) as f64 / clock::tsc_hz() as f64;
            let due = ((seconds * rate) as u64).saturating_sub(port.sent);
            most = usize::try_from(due).unwrap_or(BURST).min(BURST);
            // What could not be sent in time is not made up for: a pause of the machine would become a burst.
            if due > 16 * BURST as u64 && rate < 1e6 {
                port.sent += due - BURST as u64;
            }
        }
        if most == 0 {
            return Ok(0);
        }
        let pairs = port.driver.layout().pairs;
        let (sent, mut went) = (clock::tsc(), 0);
        for _ in 0..most {
            let flow = port.turn;
            let pair = (flow % u32::from(pairs)) as u16;
            let Some(next) = port.sequences.get(flow as usize).copied() else { break };
            let stamp = Stamp { flow: port.first_flow + flow, sequence: next, sent };
            let patches = patches(self.fields, &port.who, flow, port.l4);
            let at = port.stamp;
            let done = port.driver.send_with(pair, self.size, |write| {
                for (at, bytes, len) in &patches {
                    write(12 + at, bytes.get(..*len).unwrap_or_default());
                }
                write(12 + at, &stamp.encode());
            })?;
            if !done {
                break;
            }
            if let Some(sequence) = port.sequences.get_mut(flow as usize) {
                *sequence += 1;
            }
            port.sent += 1;
            went += 1;
            port.turn = if flow as usize + 1 >= port.sequences.len() { 0 } else { flow + 1 };
        }
        for pair in 0..pairs {
            port.driver.flush(&port.session, pair);
        }
        Ok(went)
    }

    #[cold]
    fn look_after(&mut self) -> anyhow::Result<()> {
        for i in 0..self.ports.len() {
            let away = |port: &&Port| port.gone.is_some() || port.session.is_closed();
            let Some(port) = self.ports.get(i).filter(away) else { continue };
            ensure!(self.reconnect, "the back end closed {}", port.connector.options().socket.display());
            // Everything the last one used is taken before the next one is told where to begin.
            self.receive(i)?;
            if let Some(port) = self.ports.get_mut(i) {
                let Port { connector, session, memory, driver, gone, .. } = port;
                let back = connector.reopen(gone, |new| {
                    *session = new;
                    start(session, memory, driver)
                })?;
                self.reconnects += u64::from(back);
            }
        }
        Ok(())
    }
}

impl Port {
    fn new(
        connector: Connector,
        who: Identity,
        run: &RunOptions,
        sends: bool,
        first_flow: u32,
    ) -> anyhow::Result<Port> {
        let session = connector.open()?;
        let options = connector.options();
        let template = build(options, &who, run, 0);
        let headers = if run.tso { 66 } else { 42 } + if options.vlan.is_some() { 4 } else { 0 };
        ensure!(
            template.bytes.len() >= headers + STAMP,
            "--size {}: seq mode needs at least {} bytes for its stamp",
            run.size(),
            headers + STAMP
        );
        let layout = NetLayout {
            pairs: options.queues,
            ring: connector.ring_options(),
            rx_buffer: options.rx_buffer,
            mergeable: options.mergeable,
            tx_frame: u32::try_from(template.bytes.len())?,
            tx_piece: options.tx_piece,
            ..NetLayout::default()
        };
        let mut memory = GuestMemory::new(layout.bytes(), options.memory)?;
        let mut driver = NetDriver::new(&mut memory, layout)?;
        driver.set_look(LOOK);
        let mut prefilled = template.header.to_vec();
        prefilled.extend_from_slice(&template.bytes);
        for pair in 0..layout.pairs {
            driver.prefill(pair, &prefilled);
        }
        let mut session = session;
        start(&mut session, &memory, &mut driver)?;
        Ok(Port {
            gone: None,
            l4: if options.vlan.is_some() { 38 } else { 34 },
            stamp: u32::try_from(headers)?,
            connector,
            session,
            memory,
            driver,
            who,
            sends,
            sequences: vec![0; run.flows as usize],
            turn: 0,
            first_flow,
            sent: 0,
        })
    }
}

impl Traffic for SeqTraffic {
    fn drive(&mut self, until: u64) -> anyhow::Result<()> {
        let liveness = clock::counts(LIVENESS);
        let (mut last, mut worked) = (clock::tsc(), 0);
        loop {
            let now = clock::tsc();
            if worked > 0 {
                self.busy += now.saturating_sub(last);
            }
            (last, worked) = (now, 0);
            if now >= until {
                return Ok(());
            }
            for port in 0..self.ports.len() {
                worked += self.receive(port)? + self.send(port, now)?;
            }
            if now.saturating_sub(self.looked) > liveness {
                self.looked = now;
                self.look_after()?;
            }
        }
    }

    fn totals(&mut self) -> Totals {
        Totals {
            tx_frames: self.ports.iter().flat_map(|port| &port.sequences).sum(),
            rx_frames: self.received,
            rx_bytes: self.bytes,
            lost: self.ledger.lost,
            reordered: self.ledger.reordered,
            duplicates: self.ledger.duplicates,
            foreign: self.foreign,
            reconnects: self.reconnects,
            busy: self.busy,
            ..Totals::default()
        }
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for port in &self.ports {
            let socket = port.connector.options().socket.display();
            for (i, start) in port.driver.ring_starts().iter().enumerate() {
                lines.push(format!("{socket} ring {i}: next used at {:#x}", start.base));
            }
        }
        lines
    }

    fn take_latency(&mut self) -> Option<Latency> {
        let taken = latency(&self.window);
        // Both have the same bounds.
        let _ = self.all.add(&self.window);
        self.window.reset();
        taken
    }

    fn forget_latency(&mut self) {
        self.window.reset();
    }

    fn all_latency(&self) -> Option<Latency> {
        latency(&self.all)
    }

    fn finish(&mut self) -> anyhow::Result<u64> {
        let end = clock::tsc() + clock::counts(DRAIN);
        while clock::tsc() < end {
            for port in 0..self.ports.len() {
                self.receive(port)?;
            }
        }
        let mut missing = 0;
        for port in &self.ports {
            for (flow, sent) in (port.first_flow..).zip(&port.sequences) {
                missing += self.ledger.missing(flow, *sent);
            }
        }
        for port in self.ports.iter_mut().filter(|port| !port.session.is_closed()) {
            port.session.stop()?;
        }
        Ok(missing)
    }
}
