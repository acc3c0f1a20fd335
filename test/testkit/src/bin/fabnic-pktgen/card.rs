//! Guests with PCI cards, over vfio-user: light traffic and numbered frames, as for virtio-net.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fabnic_avf_driver::{Driver as AvfDriver, IpHeader, Options, TransportHeader, Work};
use fabnic_memory::clock;
use fabnic_testkit::e1000::{Ask, Driver as E1000Driver, Layout};
use fabnic_testkit::memory::GuestMemory;
use fabnic_testkit::vfio::{AvfBus, Card};
use hdrhistogram::Histogram;

use crate::flow::{Ledger, STAMP, Stamp, patches};
use crate::light::build;
use crate::options::{Fields, Mode, Nic, PortOptions, RunOptions};
use crate::port::{Identity, identities};
use crate::run::Traffic;
use crate::seq::{histogram, latency};
use crate::window::{Latency, Totals};

/// A ring that found nothing for that long takes what is there, however little.
const PATIENCE: Duration = Duration::from_micros(10);
/// How often it is asked whether the device is still there.
const LIVENESS: Duration = Duration::from_millis(1);
/// How long is waited for the last frames.
const DRAIN: Duration = Duration::from_millis(100);
/// Most frames of one poll.
const MOST: u16 = 256;
const BURST: u64 = 32;
/// A large frame's headers, with a time stamp option, its segments' payload, and its descriptors: with the context 8.
const HEADERS: [u16; 3] = [14, 20, 32];
const MSS: u16 = 1448;
const PIECES: u16 = 7;

/// A driver on its card.
enum Guest {
    Avf(Box<AvfDriver<AvfBus>>),
    E1000(Box<E1000Driver<Card>>),
}

struct Port {
    options: PortOptions,
    who: Identity,
    guest: Guest,
    sends: bool,
    received_at: u64,
    sent: u64,
    received: u64,
    bytes: u64,
    /// A frame of sequence mode, the next number of each flow, and whose turn it is.
    template: Vec<u8>,
    sequences: Vec<u64>,
    turn: u32,
    first_flow: u32,
}

pub(crate) struct CardTraffic {
    ports: Vec<Port>,
    mode: Mode,
    fields: Fields,
    is_large: bool,
    gather: u16,
    rate: Option<f64>,
    started: u64,
    looked: u64,
    busy: u64,
    ledger: Ledger,
    foreign: u64,
    window: Histogram<u64>,
    all: Histogram<u64>,
}

fn open(options: &PortOptions, who: &Identity, run: &RunOptions) -> Result<Guest> {
    let patience = Duration::from_secs_f64(run.patience);
    let ring = options.queue_size;
    let piece = u16::try_from(run.size().div_ceil(PIECES.into()))?.next_multiple_of(128);
    let sending = if run.tso { u32::from(piece) } else { u32::try_from(run.size())?.next_multiple_of(128) };
    let each = u64::from(sending) + u64::from(options.rx_buffer) + 512;
    let memory = GuestMemory::new((2 << 20) + each * u64::from(ring), options.memory)?;
    let card = Card::connect(&options.socket, &memory, patience)?;
    let frame = |n: u32| build(options, who, run, n % run.flows).bytes;
    if options.nic == Nic::E1000 {
        let layout = Layout {
            transmit: ring.into(),
            receive: ring.into(),
            buffer: options.rx_buffer,
            arena: (sending + 128) * u32::from(ring),
            ..Layout::default()
        };
        let mut driver = E1000Driver::probe(card, memory, layout)?;
        driver.up()?;
        driver.interrupt();
        let payload = u32::try_from(run.size())?.saturating_sub(HEADERS.iter().map(|n| u32::from(*n)).sum());
        let (ask, pieces) = match run.tso {
            true => (Ask::segments((14, 24, 33), (34, 50, 0), true, true, 66, MSS, payload), PIECES.into()),
            false => (Ask::default(), 1),
        };
        if run.mode == Mode::Light {
            driver.prepare(&ask, pieces, frame);
        }
        return Ok(Guest::E1000(Box::new(driver)));
    }
    let settings = Options {
        ring_len: ring,
        buffer_len: u16::try_from(options.rx_buffer)?,
        send_buffer_len: Some(u16::try_from(sending)?),
        ..Options::default()
    };
    let mut driver = AvfDriver::open(AvfBus::new(card, &memory)?, settings)?;
    driver.start()?;
    if run.flow_fields == Fields::Mac {
        driver.set_promiscuous(true, true).context("the port must be trusted to receive other addresses")?;
    }
    let work = match run.tso {
        true => Work {
            ip: IpHeader::V4Checksum,
            transport: TransportHeader::Tcp,
            lens: HEADERS,
            mss: Some(MSS),
            tag: None,
        },
        false => Work::default(),
    };
    if run.mode == Mode::Light {
        let (transmit, _) = driver.transmit(0).context("a driver has queues")?;
        transmit.prepare(&work, |n| frame(n.into()))?;
    }
    Ok(Guest::Avf(Box::new(driver)))
}

impl Guest {
    fn card(&mut self) -> &Card {
        match self {
            Guest::Avf(driver) => driver.bus().card(),
            Guest::E1000(driver) => &driver.registers,
        }
    }

    /// Shows the device what was prepared.
    fn begin(&mut self) {
        match self {
            Guest::Avf(driver) => {
                if let Some((transmit, bus)) = driver.transmit(0) {
                    transmit.ring(bus);
                }
            }
            Guest::E1000(driver) => driver.kick(),
        }
    }

    /// Takes frames and gives their buffers back. Gives frames and bytes.
    #[inline]
    fn recycle(&mut self, gather: u16) -> (u64, u64) {
        match self {
            Guest::Avf(driver) => match driver.receive(0) {
                Some((receive, bus)) => {
                    let done = receive.recycle(bus, gather, MOST);
                    (done.frames, done.bytes)
                }
                None => (0, 0),
            },
            Guest::E1000(driver) => {
                let (frames, bytes) = driver.recycle(gather.into(), MOST.into());
                // Less their FCS.
                (frames, bytes - 4 * frames)
            }
        }
    }

    /// Sends again what is done.
    #[inline]
    fn repeat(&mut self) -> u64 {
        match self {
            Guest::Avf(driver) => match driver.transmit(0) {
                Some((transmit, bus)) => transmit.repeat(bus, MOST).into(),
                None => 0,
            },
            Guest::E1000(driver) => driver.repeat(MOST.into()).into(),
        }
    }

    /// Queues a frame; `false` if there is no room.
    fn send(&mut self, frame: &[u8]) -> bool {
        match self {
            Guest::Avf(driver) => {
                driver.transmit(0).is_some_and(|(transmit, _)| transmit.push(frame, &Work::default(), &[]))
            }
            Guest::E1000(driver) => driver.send(frame, &[], &Ask::default()),
        }
    }

    /// Takes back what was sent, before frames are queued.
    fn clean(&mut self) -> Result<()> {
        match self {
            Guest::Avf(driver) => {
                if let Some((transmit, _)) = driver.transmit(0) {
                    transmit.clean();
                }
            }
            Guest::E1000(driver) => {
                driver.reap()?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<u64> {
        let mut count = 0;
        match self {
            Guest::Avf(driver) => {
                let Some((receive, bus)) = driver.receive(0) else { return Ok(0) };
                while receive.receive(|frame| each(&frame.to_vec())).is_some() {
                    count += 1;
                }
                if count > 0 {
                    receive.refill(bus);
                }
            }
            Guest::E1000(driver) => {
                for frame in driver.receive()? {
                    each(&frame.bytes);
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

impl CardTraffic {
    pub(crate) fn new(run: &RunOptions) -> Result<CardTraffic> {
        ensure!(
            run.ports.iter().all(|port| port.nic != Nic::VirtioNet && port.queues == 1 && !port.server),
            "cards go with cards, with one queue pair each and as clients"
        );
        ensure!(run.mode == Mode::Seq || run.rate.is_none(), "--rate goes with --mode seq");
        ensure!(run.mode == Mode::Light || !run.tso, "--tso goes with --mode light");
        let mut ports = Vec::new();
        for ((index, options), who) in (0_u32..).zip(&run.ports).zip(identities(&run.ports)) {
            let name = || format!("port {}", options.socket.display());
            let guest = open(options, &who, run).with_context(name)?;
            ports.push(Port {
                options: options.clone(),
                who,
                guest,
                sends: !(run.one_way && index % 2 == 1),
                received_at: clock::tsc(),
                sent: 0,
                received: 0,
                bytes: 0,
                template: build(options, &who, run, 0).bytes,
                sequences: vec![0; run.flows as usize],
                turn: 0,
                first_flow: index.saturating_mul(run.flows),
            });
        }
        if run.mode == Mode::Light {
            ports.iter_mut().filter(|port| port.sends).for_each(|port| port.guest.begin());
        }
        let smallest = run.ports.iter().map(|port| port.queue_size).min().unwrap_or(64);
        let now = clock::tsc();
        Ok(CardTraffic {
            ledger: Ledger::new(ports.len() * run.flows as usize),
            ports,
            mode: run.mode,
            fields: run.flow_fields,
            is_large: run.tso,
            gather: run.gather.unwrap_or((smallest / 4).min(MOST)).clamp(1, smallest / 2),
            rate: run.rate,
            started: now,
            looked: now,
            busy: 0,
            foreign: 0,
            window: histogram()?,
            all: histogram()?,
        })
    }

    #[cold]
    fn look_after(&mut self) -> Result<()> {
        for port in &mut self.ports {
            if let Some(why) = port.guest.card().failed() {
                anyhow::bail!("{}: {why}", port.options.socket.display());
            }
        }
        Ok(())
    }

    /// A turn of light mode.
    fn repeat(&mut self, now: u64, patience: u64) -> u64 {
        let mut worked = 0;
        for port in &mut self.ports {
            let gather = if now.saturating_sub(port.received_at) > patience { 1 } else { self.gather };
            let (frames, bytes) = port.guest.recycle(gather);
            if frames > 0 {
                port.received_at = now;
                port.received += frames;
                port.bytes += bytes;
            }
            let sent = port.guest.repeat();
            port.sent += sent;
            worked += frames + sent;
        }
        worked
    }

    /// A turn of sequence mode.
    fn number(&mut self, now: u64) -> Result<u64> {
        let mut worked = 0;
        let CardTraffic { ports, ledger, window, foreign, rate, started, fields, .. } = self;
        for port in ports {
            let Port { guest, received, bytes, .. } = port;
            worked += guest.receive(|frame| {
                let Some(stamp) = Stamp::find(frame).filter(|stamp| ledger.enter(stamp.flow, stamp.sequence))
                else {
                    *foreign += 1;
                    return;
                };
                *received += 1;
                *bytes += frame.len() as u64;
                window.saturating_record(clock::nanoseconds(clock::tsc().saturating_sub(stamp.sent)).max(1));
            })?;
            if !port.sends {
                continue;
            }
            let mut most = BURST;
            if let Some(rate) = rate {
                let seconds = now.saturating_sub(*started) as f64 / clock::tsc_hz() as f64;
                let due = ((seconds * *rate) as u64).saturating_sub(port.sent);
                most = due.min(BURST);
                // What could not be sent in time is not made up for: a pause of the machine would become a burst.
                if due > 16 * BURST {
                    port.sent += due - BURST;
                }
            }
            if most > 0 {
                worked += port.send(most, *fields)?;
            }
        }
        Ok(worked)
    }
}

impl Port {
    /// Sends the next frames of sequence mode.
    fn send(&mut self, most: u64, fields: Fields) -> Result<u64> {
        self.guest.clean()?;
        let l4 = if self.options.vlan.is_some() { 38 } else { 34 };
        let mut went = 0;
        for _ in 0..most {
            let flow = self.turn;
            let Some(sequence) = self.sequences.get_mut(flow as usize) else { break };
            let stamp = Stamp { flow: self.first_flow + flow, sequence: *sequence, sent: clock::tsc() };
            let patches = patches(fields, &self.who, flow, l4);
            let stamped = (l4 + 8, stamp.encode());
            for (at, bytes, len) in patches {
                put(&mut self.template, at, bytes.get(..len).unwrap_or_default());
            }
            put(&mut self.template, stamped.0, &stamped.1);
            if !self.guest.send(&self.template) {
                break;
            }
            *sequence += 1;
            self.sent += 1;
            went += 1;
            self.turn = if flow as usize + 1 >= self.sequences.len() { 0 } else { flow + 1 };
        }
        if went > 0 {
            self.guest.begin();
        }
        Ok(went)
    }
}

fn put(frame: &mut [u8], at: u32, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at as usize..at as usize + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl Traffic for CardTraffic {
    fn drive(&mut self, until: u64) -> Result<()> {
        let (patience, liveness) = (clock::counts(PATIENCE), clock::counts(LIVENESS));
        let (mut last, mut worked) = (clock::tsc(), 0);
        loop {
            let now = clock::tsc();
            if worked > 0 {
                self.busy += now.saturating_sub(last);
            }
            last = now;
            if now >= until {
                return Ok(());
            }
            worked = match self.mode {
                Mode::Light => self.repeat(now, patience),
                Mode::Seq => self.number(now)?,
            };
            if now.saturating_sub(self.looked) > liveness {
                self.looked = now;
                self.look_after()?;
            }
        }
    }

    fn totals(&mut self) -> Totals {
        let mut totals = Totals { busy: self.busy, foreign: self.foreign, ..Totals::default() };
        for port in &mut self.ports {
            totals.tx_frames += match self.mode {
                Mode::Light => port.sent,
                Mode::Seq => port.sequences.iter().sum(),
            };
            totals.rx_frames += port.received;
            totals.rx_bytes += port.bytes;
            totals.exits += port.guest.card().accesses();
        }
        // Of large frames the segments arrive: their numbers say nothing.
        if self.mode == Mode::Seq {
            (totals.lost, totals.reordered, totals.duplicates) =
                (self.ledger.lost, self.ledger.reordered, self.ledger.duplicates);
        } else if !self.is_large {
            totals.lost = totals.tx_frames.saturating_sub(totals.rx_frames);
        }
        totals
    }

    fn describe(&self) -> Vec<String> {
        let line = |port: &Port| {
            format!("{}: {} sent, {} received", port.options.socket.display(), port.sent, port.received)
        };
        self.ports.iter().map(line).collect()
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

    fn finish(&mut self) -> Result<u64> {
        if self.mode == Mode::Seq {
            self.ports.iter_mut().for_each(|port| port.sends = false);
            let end = Instant::now() + DRAIN;
            while Instant::now() < end {
                self.number(clock::tsc())?;
            }
        }
        let mut missing = 0;
        for port in &self.ports {
            for (flow, sent) in (port.first_flow..).zip(&port.sequences) {
                missing += self.ledger.missing(flow, *sent);
            }
        }
        Ok(missing)
    }
}

const _: () = assert!(STAMP <= 64 - 42, "a frame of 64 bytes has room for a stamp");
