//! The reactor: one thread that serves the sockets of all ports.
//!
//! Everything is non-blocking and level-triggered; one session gets at most a turn's worth of messages before the next
//! one. Who waits for what:
//!
//! ```text
//!   Handle  --command-->      wake (eventfd)  --+
//!   functions (Function::wake)                --|
//!   listening sockets                         --+--> epoll --> reactor thread --> Body (function + session)
//!   sessions                                  --+      ^                           ^
//!   resample eventfds (KVM unmasks INTx)      --+   deadlines    Handle::status ---+ (its lock)
//! ```

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

use fabnic_pci::{ConfigSpace, Function};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::endpoint::{Body, Endpoint, Interest, now};
use crate::error::Error;
use crate::listen::{EndpointError, Listening};
use crate::status::Status;

/// What an epoll event is about, in the low bits of its data; the rest is the end point's number.
const KIND_BITS: u32 = 3;
const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const SESSION: u64 = 2;
const RESAMPLE: u64 = 3;
const FUNCTION: u64 = 4;

/// How long a listener rests when the process has no descriptor left for another client.
const REST: Duration = Duration::from_millis(100);

enum Command {
    Add { id: u64, listening: Listening, body: Arc<Mutex<Body>> },
    Remove { id: u64, done: Sender<()> },
    Stop,
}

/// What handles and the thread share.
struct Shared {
    wake: OwnedFd,
    commands: Mutex<Sender<Command>>,
    next_id: AtomicU64,
    thread: OnceLock<ThreadId>,
}

impl Shared {
    fn command(&self, command: Command) -> bool {
        let sent = self.commands.lock().send(command).is_ok();
        // The counter is full only when the thread has long been woken.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        sent
    }
}

/// One thread for the sockets of all ports. Dropping it ends all sessions and the thread.
pub struct Reactor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl core::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel has no descriptor or no thread left.
    pub fn spawn() -> std::io::Result<Reactor> {
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared {
            wake,
            commands: Mutex::new(sender),
            next_id: AtomicU64::new(1),
            thread: OnceLock::new(),
        });
        let mut work = Work::new(Arc::clone(&shared), receiver)?;
        let thread = std::thread::Builder::new().name("fabnic-vfio".to_owned()).spawn(move || work.run())?;
        let _ = shared.thread.set(thread.thread().id());
        Ok(Reactor { shared, thread: Some(thread) })
    }

    /// Makes a function reachable. Its socket is there when this returns.
    ///
    /// # Errors
    /// If the function contradicts itself, or the socket cannot be made.
    pub fn add(&self, endpoint: Endpoint, function: Box<dyn Function>) -> Result<Handle, EndpointError> {
        let Endpoint { name, socket: path, settings } = endpoint;
        ConfigSpace::new(function.description())
            .map_err(|source| EndpointError::Description { path: path.clone(), source })?;
        let listening = Listening::open(&path)?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let body = Arc::new(Mutex::new(Body::new(name, function, settings)));
        if !self.shared.command(Command::Add { id, listening, body: Arc::clone(&body) }) {
            return Err(EndpointError::Ended { path });
        }
        Ok(Handle { id, path, body, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.shared.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An end point that exists. Dropping it ends its session, removes the socket and gives up the function, all before the
/// drop returns.
pub struct Handle {
    id: u64,
    path: PathBuf,
    body: Arc<Mutex<Body>>,
    shared: Arc<Shared>,
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handle").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Handle {
    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// What the session looks like now.
    pub fn status(&self) -> Status {
        self.body.lock().status()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let (done, wait) = channel();
        let sent = self.shared.command(Command::Remove { id: self.id, done });
        if sent && self.shared.thread.get() != Some(&std::thread::current().id()) {
            // Ends with an error when the thread ended meanwhile, and everything with it.
            let _ = wait.recv();
        }
    }
}

struct Entry {
    listening: Listening,
    body: Arc<Mutex<Body>>,
    interest: Interest,
    /// What is watched for the client's unmasking.
    resample: Option<Arc<OwnedFd>>,
    /// In `Work::deadlines`.
    deadline: Option<u64>,
}

/// The thread's own.
struct Work {
    epoll: OwnedFd,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    entries: HashMap<u64, Entry>,
    /// When functions want to be called, in nanoseconds of the monotonic clock.
    deadlines: BTreeSet<(u64, u64)>,
    /// Listeners that rest, and until when.
    resting: BTreeSet<(u64, u64)>,
}

fn data(id: u64, kind: u64) -> epoll::EventData {
    epoll::EventData::new_u64(id << KIND_BITS | kind)
}

impl Work {
    fn new(shared: Arc<Shared>, commands: Receiver<Command>) -> std::io::Result<Work> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, data(0, WAKE), epoll::EventFlags::IN)?;
        Ok(Work {
            epoll,
            shared,
            commands,
            entries: HashMap::new(),
            deadlines: BTreeSet::new(),
            resting: BTreeSet::new(),
        })
    }

    fn run(&mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            let due = self.deadlines.first().into_iter().chain(self.resting.first()).map(|(at, _)| *at).min();
            let timeout = due.map(|at| timespec(at.saturating_sub(now())));
            events.clear();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the vfio-user reactor cannot wait for its sockets");
                    return;
                }
            }
            for event in &events {
                let value = event.data.u64();
                let (id, kind) = (value >> KIND_BITS, value & ((1 << KIND_BITS) - 1));
                match kind {
                    LISTENER => self.accept(id),
                    SESSION => self.turn(id),
                    RESAMPLE => self.resampled(id),
                    FUNCTION => self.expire(id),
                    _ => {
                        let mut count = [0_u8; 8];
                        let _ = rustix::io::read(&self.shared.wake, &mut count);
                    }
                }
            }
            if !self.obey() {
                return;
            }
            self.expire_due();
            self.wake_rested();
        }
    }

    /// Does what handles asked for; `false` to end.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add { id, listening, body } => self.add(id, listening, body),
                Command::Remove { id, done } => {
                    self.remove(id);
                    let _ = done.send(());
                }
                Command::Stop => {
                    let ids: Vec<u64> = self.entries.keys().copied().collect();
                    ids.into_iter().for_each(|id| self.remove(id));
                    return false;
                }
            }
        }
        true
    }

    fn add(&mut self, id: u64, listening: Listening, body: Arc<Mutex<Body>>) {
        let added = epoll::add(&self.epoll, &listening.socket, data(id, LISTENER), epoll::EventFlags::IN);
        if let Err(error) = added {
            body.lock().note(format!("the socket cannot be watched: {error}"));
        }
        if let Some(wake) = body.lock().wake() {
            let _ = epoll::add(&self.epoll, wake, data(id, FUNCTION), epoll::EventFlags::IN);
        }
        let interest = Interest { read: false, write: false };
        self.entries.insert(id, Entry { listening, body, interest, resample: None, deadline: None });
    }

    fn remove(&mut self, id: u64) {
        self.resting.retain(|(_, other)| *other != id);
        self.end(id, &Error::Removed);
        let Some(entry) = self.entries.remove(&id) else { return };
        if let Some(wake) = entry.body.lock().wake() {
            let _ = epoll::delete(&self.epoll, wake);
        }
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
    }

    /// A client knocks. There is one session a port: a second client is turned away while the first one lives.
    fn accept(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let socket = match entry.listening.accept() {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(error) => {
                entry.body.lock().note(format!("a client could not be accepted: {error}"));
                let _ = epoll::delete(&self.epoll, &entry.listening.socket);
                let rest = u64::try_from(REST.as_nanos()).unwrap_or(0);
                self.resting.insert((now().saturating_add(rest), id));
                return;
            }
        };
        // A client that was killed and started again may knock before we heard that it died.
        if entry.body.lock().socket().is_some_and(has_hung_up) {
            self.end(id, &Error::HungUp);
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut body = entry.body.lock();
        if body.is_live() {
            body.turn_away();
            if body.may_log() {
                tracing::warn!(
                    port = body.name(),
                    "a second vfio-user client was turned away: the first one is still connected"
                );
            }
            return;
        }
        if let Err(error) = epoll::add(&self.epoll, &socket, data(id, SESSION), epoll::EventFlags::IN) {
            body.note(format!("the session cannot be watched: {error}"));
            return;
        }
        entry.interest = Interest { read: true, write: false };
        body.begin(socket);
        if body.is_live() && body.may_log() {
            tracing::info!(port = body.name(), "vfio-user client connected");
        }
        drop(body);
        self.look(id);
    }

    fn wake_rested(&mut self) {
        let now = now();
        while let Some((at, id)) = self.resting.first().copied()
            && at <= now
        {
            self.resting.pop_first();
            if let Some(entry) = self.entries.get(&id) {
                let _ = epoll::add(
                    &self.epoll,
                    &entry.listening.socket,
                    data(id, LISTENER),
                    epoll::EventFlags::IN,
                );
            }
        }
    }

    fn turn(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut body = entry.body.lock();
        match body.turn() {
            Ok(interest) => {
                if interest != entry.interest
                    && let Some(socket) = body.socket()
                {
                    entry.interest = interest;
                    let mut flags = epoll::EventFlags::empty();
                    flags.set(epoll::EventFlags::IN, interest.read);
                    flags.set(epoll::EventFlags::OUT, interest.write);
                    let _ = epoll::modify(&self.epoll, socket, data(id, SESSION), flags);
                }
                drop(body);
                self.look(id);
            }
            Err(error) => {
                drop(body);
                self.end(id, &error);
            }
        }
    }

    /// Ends the session of an end point, if there is one.
    fn end(&mut self, id: u64, reason: &Error) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // The descriptor is the client's: it stays open there, and so would stay watched.
        if let Some(old) = entry.resample.take() {
            let _ = epoll::delete(&self.epoll, &*old);
        }
        let mut body = entry.body.lock();
        if body.is_live() && body.may_log() {
            match reason {
                Error::HungUp | Error::Removed => {
                    tracing::info!(port = body.name(), %reason, "vfio-user client disconnected");
                }
                _ => tracing::warn!(port = body.name(), %reason, "vfio-user session ended"),
            }
        }
        body.end(reason);
        drop(body);
        self.look(id);
    }

    /// Something may have changed: what is to be watched, and when the function wants to be called.
    fn look(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let body = entry.body.lock();
        let (resample, deadline) = (body.resample(), body.deadline());
        drop(body);
        let same = match (&entry.resample, &resample) {
            (None, None) => true,
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        if !same {
            if let Some(old) = entry.resample.take() {
                let _ = epoll::delete(&self.epoll, &*old);
            }
            if let Some(new) = &resample {
                let _ = epoll::add(
                    &self.epoll,
                    &**new,
                    data(id, RESAMPLE),
                    epoll::EventFlags::IN | epoll::EventFlags::ET,
                );
            }
            entry.resample = resample;
        }
        if entry.deadline != deadline {
            if let Some(at) = entry.deadline {
                self.deadlines.remove(&(at, id));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, id));
            }
            entry.deadline = deadline;
        }
    }

    fn resampled(&mut self, id: u64) {
        if let Some(entry) = self.entries.get(&id) {
            entry.body.lock().resampled();
        }
    }

    fn expire_due(&mut self) {
        let now = now();
        let due: Vec<u64> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        due.into_iter().for_each(|id| self.expire(id));
    }

    fn expire(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else { return };
        let expired = entry.body.lock().expire();
        match expired {
            Ok(()) => self.look(id),
            Err(error) => self.end(id, &error),
        }
    }
}

fn has_hung_up(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let _ = rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    poll.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn timespec(nanoseconds: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    Timespec {
        tv_sec: i64::try_from(nanoseconds / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanoseconds % SECOND).unwrap_or(0),
    }
}
