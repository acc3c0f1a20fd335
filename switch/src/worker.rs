//! Workers: plain threads, each pinned to a CPU, each the only one to poll its queues.
//!
//! # Life of a worker
//!
//! ```text
//!            +--------- round: visit each active queue ----------+
//!            v                                                   |
//!   backlog? -- yes --> receive, process, complete (some bursts) +--> drained and busy: leave it alone to gather
//!      | no                                                      |
//!      v                                                         |
//!   idle for a while --> arm, look once more --> off the list ---+--> list empty: sleep in epoll
//! ```
//!
//! *Active* queues are polled; the others have notifications armed and their descriptors in epoll, which a busy worker
//! asks now and then and a sleeping one waits for. So idle ports cost nothing.
//!
//! *Gathering*: a switch on the guest's heels shares the cache lines that the guest is writing, and both get slow. A
//! queue that was just drained and brings frames at a high rate is left alone until about [`GATHER_FRAMES`] more should
//! be there, at most [`GATHER_MAX_US`]; at low rates it is looked at again at once, so latency is that of eager polling.
//!
//! A panic while a queue is served stops that port only.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fabnic_memory::clock;
use fabnic_port::{BURST, Burst, Counter, Fault, Ingress, Poller, PortId, Token};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::bell::Bell;
use crate::engine::{Engine, EngineCounters, Moment};
use crate::meter::Charge;
use crate::needs::Needs;
use crate::shaper::Scheduler;
use crate::switch::Shared;
use crate::talkers::{FlowStats, Pass};
use crate::topology::Topology;

/// Frames that a busy queue should hold before it is looked at again.
const GATHER_FRAMES: f64 = 192.0;
/// The longest that a queue is left alone, in microseconds.
const GATHER_MAX_US: f64 = 12.0;
/// A queue that brings fewer frames than this in [`GATHER_MAX_US`] is not left alone at all.
const GATHER_LEAST: f64 = 24.0;
/// Bursts taken from one queue before the others have their turn.
pub(crate) const BURSTS_A_VISIT: usize = 8;
/// How long a queue stays on the list without a frame, in microseconds.
const KEEP_US: u64 = 200;
/// How often a busy worker asks epoll, in microseconds.
const ASK_BUSY_US: u64 = 50;
/// How often a worker without frames, but with active queues, asks epoll, in microseconds.
const ASK_IDLE_US: u64 = 5;
/// How often the engine's housekeeping is done, in milliseconds.
const HOUSEKEEPING_MS: u64 = 20;

/// Buckets of the burst-size histogram: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64.
pub const BURST_BUCKETS: usize = 7;

mod turns;

const EVENT: u64 = u64::MAX;

fn encode(token: Token) -> u64 {
    (u64::from(token.port.0) << 16) | u64::from(token.queue)
}

fn decode(data: u64) -> Token {
    Token { port: PortId((data >> 16) as u32), queue: data as u16 }
}

/// What a worker counts. Written by the worker only.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) busy: Counter,
    pub(crate) idle: Counter,
    pub(crate) asleep: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) frames: Counter,
    pub(crate) bursts: Counter,
    pub(crate) sizes: [Counter; BURST_BUCKETS],
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) replicated: Counter,
    pub(crate) panics: Counter,
    pub(crate) active: AtomicU32,
    pub(crate) flows: AtomicU32,
}

impl WorkerCounters {
    /// Counts one burst of so many frames, at least one.
    #[inline(always)]
    fn burst(&self, frames: usize) {
        let bucket = (frames.ilog2() as usize).min(BURST_BUCKETS - 1);
        if let Some(bucket) = self.sizes.get(bucket) {
            bucket.add(1);
        }
        self.bursts.add(1);
    }
}

/// The part of a worker that others see.
#[derive(Debug)]
pub(crate) struct WorkerShared {
    pub(crate) id: usize,
    pub(crate) cpu: Option<usize>,
    epoll: OwnedFd,
    event: OwnedFd,
    inbox: Mutex<Vec<Token>>,
    bell: Bell,
    /// Ingress queues that were handed to the worker and not taken back.
    watched: AtomicU32,
    pub(crate) stop: AtomicBool,
    /// Generation of the topology that the worker uses.
    pub(crate) adopted: AtomicU32,
    pub(crate) counters: WorkerCounters,
    /// The largest flows of the last whole look at the cache.
    pub(crate) talkers: Mutex<Vec<FlowStats>>,
}

impl WorkerShared {
    pub(crate) fn new(id: usize, cpu: Option<usize>) -> rustix::io::Result<WorkerShared> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &event, epoll::EventData::new_u64(EVENT), edge)?;
        Ok(WorkerShared {
            id,
            cpu,
            epoll,
            event,
            inbox: Mutex::default(),
            bell: Bell::new(),
            watched: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            adopted: AtomicU32::new(0),
            counters: WorkerCounters::default(),
            talkers: Mutex::default(),
        })
    }

    /// Makes a sleeping worker look around.
    pub(crate) fn wake(&self) {
        if self.bell.ring() {
            // The counter cannot overflow into EAGAIN before 2^64 wake-ups; and then it is readable anyway.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl Poller for WorkerShared {
    fn adopt(&self, token: Token, wake: Option<BorrowedFd<'_>>) {
        if let Some(wake) = wake {
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            if let Err(error) = epoll::add(&self.epoll, wake, epoll::EventData::new_u64(encode(token)), edge)
            {
                // A descriptor that cannot be watched (a plain file) is polled only.
                tracing::debug!(?token, %error, "queue cannot be watched");
            }
        }
        self.watched.fetch_add(1, Ordering::Relaxed);
        self.inbox.lock().push(token);
        self.wake();
    }

    fn release(&self, _token: Token, wake: Option<BorrowedFd<'_>>) {
        self.watched.fetch_sub(1, Ordering::Relaxed);
        if let Some(wake) = wake {
            // Not there if it could not be added.
            let _ = epoll::delete(&self.epoll, wake);
        }
    }
}

/// A queue on the list.
#[derive(Debug)]
struct Active {
    token: Token,
    /// Index of its port in the topology.
    member: u32,
    /// Not to be looked at before.
    next_look: u64,
    /// When it last had a frame, or came on the list.
    last_frame: u64,
    /// When it was last found drained.
    last_drain: u64,
    /// Frames since then.
    since_drain: u64,
    /// Frames a count of the clock, smoothed.
    rate: f64,
    /// Its place in the scheduler, if there is one.
    slot: usize,
}

/// What a visit found.
enum Visit {
    Frames(u64),
    Nothing,
    /// The queue is not to be polled any more.
    Leave,
}

pub(crate) struct Worker {
    shared: Arc<WorkerShared>,
    switch: Arc<Shared>,
    engine: Engine,
    before: EngineCounters,
    burst: Burst,
    active: Vec<Active>,
    on_list: HashSet<Token>,
    events: Vec<epoll::Event>,
    counts_a_us: f64,
    next_ask: u64,
    next_housekeeping: u64,
    pass: Pass,
    /// Where senders are read in turns and at rates.
    scheduler: Option<Box<Scheduler>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<WorkerShared>, switch: Arc<Shared>) -> Worker {
        let engine = switch.engine();
        Worker {
            shared,
            switch,
            engine,
            before: EngineCounters::default(),
            burst: Burst::new(),
            active: Vec::with_capacity(64),
            on_list: HashSet::with_capacity(64),
            events: Vec::with_capacity(64),
            counts_a_us: clock::tsc_hz() as f64 / 1e6,
            next_ask: 0,
            next_housekeeping: 0,
            pass: Pass::default(),
            scheduler: None,
        }
    }

    /// The thread's body. Ends when told to stop.
    pub(crate) fn run(mut self) {
        self.pin();
        let mut topology = self.switch.topology.load_full();
        self.adopt(&topology);
        let mut round_start = clock::tsc();
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.shared.bell.take() {
                let newest = self.switch.topology.load_full();
                if newest.generation != topology.generation {
                    topology = newest;
                    self.adopt(&topology);
                }
                self.read_mail(&topology);
            }
            let (frames, idle) = match self.scheduler.take() {
                None => (self.round(&topology, round_start), Duration::ZERO),
                Some(scheduler) => self.round_in_turns(&topology, scheduler),
            };
            let now = clock::tsc();
            let spent = now.wrapping_sub(round_start);
            round_start = now;
            if frames > 0 {
                self.shared.counters.busy.add(spent)
            } else {
                self.shared.counters.idle.add(spent)
            }
            if now >= self.next_ask {
                self.ask_epoll(&topology, now, frames > 0);
            }
            if now >= self.next_housekeeping {
                self.housekeeping(&topology, now);
            }
            let idle = if self.active.is_empty() { Duration::from_secs(1) } else { idle };
            if idle > Duration::ZERO && !self.engine.has_floods() {
                self.sleep(&topology, idle);
                round_start = clock::tsc();
            } else if frames == 0 {
                core::hint::spin_loop();
            }
        }
        self.housekeeping(&topology, 0);
    }

    fn pin(&self) {
        let Some(cpu) = self.shared.cpu else { return };
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(worker = self.shared.id, cpu, %error, "worker could not be pinned");
        }
    }

    /// Takes a new topology in use.
    fn adopt(&mut self, topology: &Topology) {
        self.burst.release();
        self.engine.adopt(topology);
        self.pass.restart();
        self.shared.talkers.lock().clear();
        self.active.retain_mut(|queue| match topology.index_of(queue.token.port) {
            Some(index) => {
                queue.member = index;
                true
            }
            None => {
                self.on_list.remove(&queue.token);
                false
            }
        });
        self.schedule(topology);
        self.shared.adopted.store(topology.generation, Ordering::Release);
    }

    fn read_mail(&mut self, topology: &Topology) {
        let mail = core::mem::take(&mut *self.shared.inbox.lock());
        for token in mail {
            self.activate(topology, token);
        }
    }

    /// Puts a queue on the list, and asks it for no more wake-ups. Gives whether it was not there.
    fn activate(&mut self, topology: &Topology, token: Token) -> bool {
        let Some(member) = topology.index_of(token.port) else { return false };
        let cell =
            topology.member(member).and_then(|member| member.port.ingress().get(usize::from(token.queue)));
        let Some(cell) = cell else { return false };
        match cell.lock().as_mut() {
            Some(ingress) => ingress.disarm(),
            None => return false,
        }
        let now = clock::tsc();
        if !self.on_list.insert(token) {
            // A queue that was changed in place: what was known of it may be wrong.
            if let Some(queue) = self.active.iter_mut().find(|queue| queue.token == token) {
                (queue.next_look, queue.last_frame) = (0, now);
            }
            return false;
        }
        self.active.push(Active {
            token,
            member,
            next_look: 0,
            last_frame: now,
            last_drain: now,
            since_drain: 0,
            rate: 0.0,
            slot: match &mut self.scheduler {
                Some(scheduler) => {
                    let shaper = topology.member(member).and_then(|member| member.meters.shaper.clone());
                    scheduler.add(token.port.0, shaper)
                }
                None => 0,
            },
        });
        true
    }

    /// Visits each active queue once; gives the frames moved.
    fn round(&mut self, topology: &Topology, now: u64) -> u64 {
        let mut total = 0;
        let mut index = 0;
        while let Some(queue) = self.active.get(index) {
            if now < queue.next_look {
                index += 1;
                continue;
            }
            let visit = catch_unwind(AssertUnwindSafe(|| self.visit(topology, index, now)));
            match visit {
                Ok(Visit::Frames(frames)) => {
                    total += frames;
                    if self.engine.has_floods() {
                        total += self.slice(topology);
                    }
                }
                Ok(Visit::Nothing) => {}
                Ok(Visit::Leave) => {
                    self.leave(index);
                    continue;
                }
                Err(_) => {
                    self.panicked(topology, index);
                    continue;
                }
            }
            index += 1;
        }
        if self.engine.has_floods() {
            total += self.slice(topology);
        }
        total
    }

    /// Delivers a slice of the floods that wait; gives the copies.
    #[cold]
    fn slice(&mut self, topology: &Topology) -> u64 {
        let now = self.switch.tick.load(Ordering::Relaxed);
        let delivered = catch_unwind(AssertUnwindSafe(|| self.engine.deliver_slice(topology, now)));
        delivered.unwrap_or_else(|_| {
            tracing::error!("a flood made the worker panic; the floods that waited are lost");
            self.renew(topology);
            0
        })
    }

    fn leave(&mut self, index: usize) {
        let queue = self.active.swap_remove(index);
        self.on_list.remove(&queue.token);
        self.shared.counters.active.store(self.active.len() as u32, Ordering::Relaxed);
        if self.active.is_empty() {
            self.burst.release();
        }
    }

    /// A defect of ours made the engine panic: another takes its place.
    #[cold]
    fn renew(&mut self, topology: &Topology) {
        self.shared.counters.panics.add(1);
        self.burst.release();
        self.engine = self.switch.engine();
        self.engine.adopt(topology);
        self.before = EngineCounters::default();
    }

    /// A defect of ours met while a queue was served: its port stops, the others go on.
    #[cold]
    fn panicked(&mut self, topology: &Topology, index: usize) {
        self.renew(topology);
        if let Some(queue) = self.active.get(index)
            && let Some(member) = topology.member(queue.member)
        {
            tracing::error!(port = %member.port.name, "a burst of this port made the worker panic; the port is stopped");
            member.port.stop(Fault("internal error: the worker panicked on a burst of this port".to_owned()));
        }
        self.leave(index);
    }

    fn visit(&mut self, topology: &Topology, index: usize, now: u64) -> Visit {
        let Some(queue) = self.active.get_mut(index) else { return Visit::Leave };
        let Some(member) = topology.member(queue.member) else { return Visit::Leave };
        let Some(cell) = member.port.ingress().get(usize::from(queue.token.queue)) else {
            return Visit::Leave;
        };
        if member.port.is_stopped() {
            return Visit::Leave;
        }
        let mut guard = cell.lock();
        let Some(ingress) = guard.as_mut() else { return Visit::Leave };
        if ingress.backlog() == 0
            && let Some(left) = nothing(queue, ingress.as_mut(), now, self.counts_a_us)
        {
            return left;
        }
        let now_in_ticks = self.switch.tick.load(Ordering::Relaxed);
        let at = Moment {
            topology,
            tables: &self.switch.tables,
            now: now_in_ticks,
            now_ns: clock::nanoseconds(now),
        };
        let mut total = 0;
        let mut drained = false;
        for _ in 0..BURSTS_A_VISIT {
            let (frames, received) =
                self.engine.serve(&at, queue.member, cell, ingress.as_mut(), &mut self.burst);
            if frames > 0 {
                self.shared.counters.burst(frames);
                total += frames as u64;
            }
            if let Err(fault) = received {
                tracing::warn!(port = %member.port.name, queue = queue.token.queue, %fault, "port stopped");
                member.port.stop(fault);
                return Visit::Leave;
            }
            if frames < BURST {
                drained = true;
                break;
            }
        }
        if total == 0 {
            return Visit::Nothing;
        }
        self.shared.counters.frames.add(total);
        queue.last_frame = now;
        queue.since_drain += total;
        queue.next_look = 0;
        if drained {
            gather(queue, self.counts_a_us);
        }
        Visit::Frames(total)
    }

    /// Asks epoll, without waiting, which idle queues were kicked.
    fn ask_epoll(&mut self, topology: &Topology, now: u64, busy: bool) {
        let us = if busy { ASK_BUSY_US } else { ASK_IDLE_US };
        self.next_ask = now + (self.counts_a_us * us as f64) as u64;
        if self.shared.watched.load(Ordering::Relaxed) as usize > self.active.len() {
            self.take_events(topology, Duration::ZERO);
        }
    }

    fn take_events(&mut self, topology: &Topology, timeout: Duration) {
        self.events.clear();
        let timeout = rustix::time::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let room = rustix::buffer::spare_capacity(&mut self.events);
        if epoll::wait(&self.shared.epoll, room, Some(&timeout)).is_err() {
            // Interrupted: nothing is lost, the next call tells.
            return;
        }
        for index in 0..self.events.len() {
            let Some(data) = self.events.get(index).map(|event| event.data.u64()) else { break };
            if data == EVENT {
                let _ = rustix::io::read(&self.shared.event, &mut [0_u8; 8]);
                continue;
            }
            let token = decode(data);
            let member = topology.index_of(token.port).and_then(|index| topology.member(index));
            if self.activate(topology, token)
                && let Some(cell) =
                    member.and_then(|member| member.port.ingress().get(usize::from(token.queue)))
            {
                cell.counters.kicks.add(1);
            }
        }
        self.shared.counters.active.store(self.active.len() as u32, Ordering::Relaxed);
    }

    /// Sleeps until something comes, at most so long.
    fn sleep(&mut self, topology: &Topology, timeout: Duration) {
        let start = clock::tsc();
        if self.shared.bell.doze() && !self.shared.stop.load(Ordering::SeqCst) {
            self.publish();
            self.shared.counters.sleeps.add(1);
            self.take_events(topology, timeout.min(Duration::from_secs(1)));
        }
        self.shared.bell.wake();
        self.shared.counters.asleep.add(clock::tsc().wrapping_sub(start));
    }

    fn housekeeping(&mut self, topology: &Topology, now: u64) {
        self.next_housekeeping = now + (self.counts_a_us * (HOUSEKEEPING_MS * 1000) as f64) as u64;
        self.engine.flows.refresh = self.switch.refresh();
        self.engine.housekeeping(&self.switch.tables, self.switch.tick.load(Ordering::Relaxed));
        self.publish();
        if topology.needs.contains(Needs::FLOWS)
            && let Some(flows) = self.pass.step(&self.engine.flows.deep, topology)
        {
            *self.shared.talkers.lock() = flows;
        }
    }

    /// Copies the engine's counters to where others read them.
    fn publish(&mut self) {
        let now = self.engine.counters;
        let counters = &self.shared.counters;
        counters.hits.add(now.hits - self.before.hits);
        counters.misses.add(now.misses - self.before.misses);
        counters.replicated.add(now.replicated - self.before.replicated);
        counters
            .flows
            .store(u32::try_from(self.engine.flows.capacity()).unwrap_or(u32::MAX), Ordering::Relaxed);
        counters.active.store(self.active.len() as u32, Ordering::Relaxed);
        self.before = now;
    }
}

/// What a burst is charged.
pub(crate) fn charge_of(burst: &Burst) -> Charge {
    burst.frames().iter().map(Charge::of).fold(Charge::default(), |sum, one| Charge {
        bytes: sum.bytes.saturating_add(one.bytes),
        packets: sum.packets.saturating_add(one.packets),
    })
}

/// A queue was found empty: it stays on the list for a while, and then waits to be woken. `None`: it is to be read all the
/// same, because something came just now, or nobody would wake it.
#[inline]
fn nothing(queue: &mut Active, ingress: &mut dyn Ingress, now: u64, counts_a_us: f64) -> Option<Visit> {
    if now.saturating_sub(queue.last_frame) < (counts_a_us * KEEP_US as f64) as u64 {
        queue.next_look = 0;
        return Some(Visit::Nothing);
    }
    if ingress.wake().is_some() {
        if !ingress.arm() {
            return Some(Visit::Leave);
        }
        ingress.disarm();
    }
    None
}

/// Decides how long a drained queue is left alone.
fn gather(queue: &mut Active, counts_a_us: f64) {
    let now = clock::tsc();
    let since = now.wrapping_sub(queue.last_drain).max(1) as f64;
    let rate = queue.since_drain as f64 / since;
    queue.rate += (rate - queue.rate) / 4.0;
    (queue.last_drain, queue.since_drain) = (now, 0);
    let longest = GATHER_MAX_US * counts_a_us;
    if queue.rate * longest >= GATHER_LEAST {
        queue.next_look = now + (GATHER_FRAMES / queue.rate).min(longest) as u64;
    }
}

impl AsFd for WorkerShared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
