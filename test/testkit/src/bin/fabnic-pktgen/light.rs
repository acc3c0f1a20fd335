//! Light mode: pre-built frames, counted.

use std::time::{Duration, Instant};

use fabnic_memory::clock;
use fabnic_testkit::driver::light::{
    FlowFields, LightReceive, LightTransmit, Prebuilt, flow_mac, flow_ports, stride,
};
use fabnic_testkit::guest::Session;
use fabnic_testkit::memory::GuestMemory;
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::Offload;
use fabnic_wire::offload::{GSO_TCPV4, NEEDS_CSUM};

use crate::options::{Fields, PortOptions, RunOptions};
use crate::port::{Connector, Identity, identities};
use crate::run::Traffic;
use crate::window::{Latency, Totals};

/// A ring that found nothing for that long takes what is there, however little.
const PATIENCE: Duration = Duration::from_micros(10);
/// How often the socket is looked at.
const LIVENESS: Duration = Duration::from_millis(1);

struct Pair {
    receive: LightReceive,
    transmit: LightTransmit,
    received_at: u64,
    transmitted_at: u64,
}

struct Port {
    connector: Connector,
    session: Session,
    memory: GuestMemory,
    pairs: Vec<Pair>,
    /// Since when the back end has been away.
    gone: Option<Instant>,
}

/// Starts the rings where they stand.
fn start(session: &mut Session, memory: &GuestMemory, pairs: &mut [Pair]) -> anyhow::Result<()> {
    let mut rings = Vec::new();
    for pair in pairs {
        rings.push(pair.receive.ring_start());
        rings.push(pair.transmit.ring_start());
    }
    session.start(memory, &rings)?;
    (0..session.rings()).for_each(|ring| session.kick(ring));
    Ok(())
}

pub(crate) struct LightTraffic {
    ports: Vec<Port>,
    /// Frames a second from each port.
    rate: Option<f64>,
    reconnect: bool,
    started: u64,
    looked: u64,
    reconnects: u64,
    busy: u64,
}

/// Builds the frame of flow `flow` for a port.
pub(crate) fn build(port: &PortOptions, who: &Identity, run: &RunOptions, flow: u32) -> Prebuilt {
    let mac_flow = if run.flow_fields == Fields::Mac { flow } else { 0 };
    let (source, destination) = flow_ports(if run.flow_fields == Fields::Ip { flow } else { 0 });
    let mut packet =
        Packet::ethernet(flow_mac(who.peer.octets(), mac_flow), flow_mac(who.mac.octets(), mac_flow))
            .ipv4(who.ip, who.peer_ip);
    if let Some(vlan) = port.vlan {
        packet = packet.vlan(vlan, 0);
    }
    if !run.tso {
        let mut bytes = packet.udp(source, destination).size(run.size()).build();
        // No UDP checksum: frames may be rewritten as they go out.
        let field = if port.vlan.is_some() { 44 } else { 40 };
        if let Some(checksum) = bytes.get_mut(field..field + 2) {
            checksum.fill(0);
        }
        return Prebuilt { header: Offload::PLAIN.encode(0), bytes };
    }
    // As Linux sends it: a time stamp option, 1448 bytes of payload a segment at an MTU of 1500.
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];
    let packet = packet.tcp(source, destination, 1, 1, tcp::ACK).tcp_options(&options).partial_checksum();
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: u16::try_from(packet.headers()).unwrap_or(0),
        gso_size: 1448,
        csum_start: u16::try_from(packet.l4()).unwrap_or(0),
        csum_offset: 16,
    };
    let packet = packet.size(run.size());
    Prebuilt { header: offload.encode(0), bytes: packet.build() }
}

impl LightTraffic {
    pub(crate) fn new(run: &RunOptions) -> anyhow::Result<LightTraffic> {
        let connectors: Vec<Connector> =
            run.ports.iter().map(|port| Connector::new(port, run)).collect::<Result<_, _>>()?;
        let identities = identities(&run.ports);
        let mut ports = Vec::new();
        for (i, (connector, who)) in connectors.into_iter().zip(identities).enumerate() {
            ports.push(Port::new(connector, &who, run, !(run.one_way && i % 2 == 1))?);
        }
        Ok(LightTraffic {
            ports,
            rate: run.rate,
            reconnect: run.reconnect,
            started: clock::tsc(),
            looked: clock::tsc(),
            reconnects: 0,
            busy: 0,
        })
    }

    /// Ends, or connects again, when a back end has gone. A system call a port, so not often.
    #[cold]
    fn look_after(&mut self) -> anyhow::Result<()> {
        for port in &mut self.ports {
            if port.gone.is_some() || port.session.is_closed() {
                anyhow::ensure!(
                    self.reconnect,
                    "the back end closed {}",
                    port.connector.options().socket.display()
                );
                let Port { connector, session, memory, pairs, gone } = port;
                let back = connector.reopen(gone, |new| {
                    *session = new;
                    start(session, memory, pairs)
                })?;
                self.reconnects += u64::from(back);
            }
        }
        Ok(())
    }
}

impl Port {
    fn new(connector: Connector, who: &Identity, run: &RunOptions, sends: bool) -> anyhow::Result<Port> {
        let session = connector.open()?;
        let options = connector.options().clone();
        let ring = connector.ring_options();
        let frame = stride(u32::try_from(run.size()).unwrap_or(u32::MAX).saturating_add(12));
        let entries = u64::from(options.queue_size);
        let pieces = u64::from(frame.div_ceil(options.tx_piece)).max(1);
        let transmit = u64::from(frame) * (entries / pieces).max(1);
        let receive = u64::from(stride(options.rx_buffer)) * entries;
        let each = transmit + receive + 2 * (entries * 32 + 5 * 4096) + (1 << 16);
        let mut memory = GuestMemory::new(each * u64::from(options.queues), options.memory)?;
        let fields = match run.flow_fields {
            Fields::Ip => FlowFields::Ip,
            Fields::Mac => FlowFields::Mac,
        };
        let mut pairs = Vec::new();
        for _ in 0..options.queues {
            let receive = LightReceive::new(&mut memory, ring, options.rx_buffer)?;
            let transmit = LightTransmit::new(&mut memory, ring, options.tx_piece, run.flows, fields, |i| {
                build(&options, who, run, i % run.flows)
            })?;
            let now = clock::tsc();
            let mut pair = Pair { receive, transmit, received_at: now, transmitted_at: now };
            if let Some(gather) = run.gather {
                pair.receive.set_gather(gather);
                pair.transmit.set_gather(gather);
            }
            if sends {
                pair.transmit.start();
            }
            pairs.push(pair);
        }
        let mut session = session;
        start(&mut session, &memory, &mut pairs)?;
        Ok(Port { connector, session, memory, pairs, gone: None })
    }

    fn kick_if_wanted(&mut self) {
        for (receive_ring, pair) in (0..).step_by(2).zip(&mut self.pairs) {
            if pair.receive.wants_kick() {
                self.session.kick(receive_ring);
            }
            if pair.transmit.wants_kick() {
                self.session.kick(receive_ring + 1);
            }
        }
    }
}

impl Traffic for LightTraffic {
    fn drive(&mut self, until: u64) -> anyhow::Result<()> {
        let patience = clock::counts(PATIENCE);
        let liveness = clock::counts(LIVENESS);
        let mut turn = 0_u32;
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
            let due = self.rate.map(|rate| {
                let seconds = now.saturating_sub(self.started) as f64 / clock::tsc_hz() as f64;
                (seconds * rate) as u64
            });
            for port in &mut self.ports {
                let mut limit = match due {
                    None => u16::MAX,
                    Some(due) => {
                        let sent: u64 = port.pairs.iter().map(|p| p.transmit.counts().frames).sum();
                        u16::try_from(due.saturating_sub(sent)).unwrap_or(u16::MAX)
                    }
                };
                for pair in &mut port.pairs {
                    let force = now.saturating_sub(pair.received_at) > patience;
                    let received = pair.receive.poll(force);
                    if received > 0 {
                        pair.received_at = now;
                    }
                    let force = due.is_some() || now.saturating_sub(pair.transmitted_at) > patience;
                    let sent = pair.transmit.poll(limit, force);
                    worked += u32::from(sent) + u32::from(received);
                    if sent > 0 {
                        pair.transmitted_at = now;
                        limit -= sent.min(limit);
                    }
                }
                if turn.is_multiple_of(8) {
                    port.kick_if_wanted();
                }
            }
            turn = turn.wrapping_add(1);
            if now.saturating_sub(self.looked) > liveness {
                self.looked = now;
                self.look_after()?;
            }
        }
    }

    fn totals(&mut self) -> Totals {
        let mut totals = Totals { reconnects: self.reconnects, busy: self.busy, ..Totals::default() };
        for pair in self.ports.iter().flat_map(|port| &port.pairs) {
            let (sent, received) = (pair.transmit.counts(), pair.receive.counts());
            totals.tx_frames += sent.frames;
            totals.rx_frames += received.frames;
            totals.rx_bytes += received.bytes;
            totals.tx_starved += sent.starved;
            totals.rx_starved += received.starved;
            totals.disorder += sent.disorder + received.disorder;
            totals.kicks += sent.kicks + received.kicks;
            totals.exits += sent.kicks + received.kicks;
        }
        totals.lost = totals.tx_frames.saturating_sub(totals.rx_frames);
        totals
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for port in &self.ports {
            let socket = port.connector.options().socket.display();
            for (i, pair) in port.pairs.iter().enumerate() {
                lines.push(format!("{socket} receive {i}: {}", pair.receive.describe()));
                lines.push(format!("{socket} transmit {i}: {}", pair.transmit.describe()));
            }
        }
        lines
    }

    fn take_latency(&mut self) -> Option<Latency> {
        None
    }

    fn forget_latency(&mut self) {}

    fn all_latency(&self) -> Option<Latency> {
        None
    }

    fn finish(&mut self) -> anyhow::Result<u64> {
        for port in self.ports.iter_mut().filter(|port| !port.session.is_closed()) {
            port.session.stop()?;
        }
        Ok(0)
    }
}
