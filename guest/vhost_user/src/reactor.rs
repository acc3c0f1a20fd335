//! The reactor: one thread that serves the sockets of all ports.
//!
//! Everything is non-blocking and level-triggered; one session gets at most a turn's worth of messages before the next
//! one. Who waits for what:
//!
//! ```text
//!   Handle  --command-->  wake (eventfd)  --+
//!   listening sockets     (server role)   --+--> epoll --> reactor thread --> Body (device + session)
//!   sessions              (both roles)    --+                                  ^
//!   inotify, due times    (client role)   --+              Handle::status -----+ (its lock)
//! ```

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::{Resource, Rlimit};

use crate::device::Device;
use crate::dial::{Attempt, Dialer};
use crate::endpoint::{Body, Endpoint, Interest, Role};
use crate::error::Error;
use crate::listen::{EndpointError, Listening, address};
use crate::positions::file_name;
use crate::session::MAX_RINGS;
use crate::status::Status;

/// What an epoll event is about, in the low bits of its data; the rest is the end point's number.
const KIND_BITS: u32 = 2;
const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const SESSION: u64 = 2;
const INOTIFY: u64 = 3;

/// How long a listener rests when the process has no descriptor left for another front end.
const REST: Duration = Duration::from_millis(100);

/// How an end point gets its sessions.
#[derive(Debug)]
enum Source {
    Listening(Listening),
    Dialing(PathBuf, SocketAddrUnix),
}

enum Command {
    Add { id: u64, source: Source, body: Arc<Mutex<Body>> },
    Remove { id: u64, done: Sender<()> },
    Stop,
}

/// What handles and the thread share.
struct Shared {
    wake: OwnedFd,
    commands: Mutex<Sender<Command>>,
    next_id: AtomicU64,
    thread: OnceLock<ThreadId>,
    positions: OnceLock<PathBuf>,
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
    /// Starts the thread, and allows the process as many descriptors as it may have.
    pub fn spawn() -> std::io::Result<Reactor> {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "could not raise the number of open files");
        }
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared {
            wake,
            commands: Mutex::new(sender),
            next_id: AtomicU64::new(1),
            thread: OnceLock::new(),
            positions: OnceLock::new(),
        });
        let mut work = Work::new(Arc::clone(&shared), receiver)?;
        let thread = std::thread::Builder::new().name("fabnic-vhost".to_owned()).spawn(move || work.run())?;
        let _ = shared.thread.set(thread.thread().id());
        Ok(Reactor { shared, thread: Some(thread) })
    }

    /// Keeps the positions of packed rings in files in this directory, so that a daemon that comes after this one can go
    /// on where it was, however it ended. It should be on a tmpfs, and must exist and be writable when front ends connect.
    /// To be called once, before end points are added; without it packed rings go on only while the daemon lives.
    pub fn keep_positions_in(&self, directory: PathBuf) {
        let _ = self.shared.positions.set(directory);
    }

    /// Makes a device reachable. A server's socket is there when this returns; a client connects when it can.
    pub fn add(&self, endpoint: Endpoint, device: Box<dyn Device>) -> Result<Handle, EndpointError> {
        let Endpoint { socket: path, role } = endpoint;
        if device.rings() > MAX_RINGS {
            return Err(EndpointError::TooManyRings { path, rings: device.rings() });
        }
        let source = match role {
            Role::Server => Source::Listening(Listening::open(&path)?),
            Role::Client => Source::Dialing(path.clone(), address(&path)?),
        };
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let file = self.shared.positions.get().map(|directory| directory.join(file_name(&path)));
        let body = Arc::new(Mutex::new(Body::new(device, file)));
        if !self.shared.command(Command::Add { id, source, body: Arc::clone(&body) }) {
            return Err(EndpointError::Ended { path });
        }
        Ok(Handle { id, path, role, body, shared: Arc::clone(&self.shared) })
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

/// An end point that exists. Dropping it ends its session, removes a server's socket and gives up the device, all before
/// the drop returns.
pub struct Handle {
    id: u64,
    path: PathBuf,
    role: Role,
    body: Arc<Mutex<Body>>,
    shared: Arc<Shared>,
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handle").field("path", &self.path).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Handle {
    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// Which side listens.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the session looks like now.
    pub fn status(&self) -> Status {
        self.body.lock().status()
    }

    /// The device's configuration space changed: tells the front end, if it listens to such messages. Never waits.
    pub fn config_changed(&self) {
        self.body.lock().config_changed();
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
    source: Source,
    body: Arc<Mutex<Body>>,
    interest: Interest,
}

/// The thread's own.
struct Work {
    epoll: OwnedFd,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    entries: HashMap<u64, Entry>,
    dialer: Dialer,
    /// Listeners that rest, and until when.
    resting: BTreeSet<(Instant, u64)>,
}

fn data(id: u64, kind: u64) -> epoll::EventData {
    epoll::EventData::new_u64(id << KIND_BITS | kind)
}

impl Work {
    fn new(shared: Arc<Shared>, commands: Receiver<Command>) -> std::io::Result<Work> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let dialer = Dialer::new()?;
        epoll::add(&epoll, &shared.wake, data(0, WAKE), epoll::EventFlags::IN)?;
        epoll::add(&epoll, dialer.as_fd(), data(0, INOTIFY), epoll::EventFlags::IN)?;
        Ok(Work { epoll, shared, commands, entries: HashMap::new(), dialer, resting: BTreeSet::new() })
    }

    fn run(&mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            let deadline = self.dialer.deadline().into_iter().chain(self.resting.first().map(|r| r.0)).min();
            let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            events.clear();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the vhost-user reactor cannot wait for its sockets");
                    return;
                }
            }
            for event in &events {
                let value = event.data.u64();
                let (id, kind) = (value >> KIND_BITS, value & ((1 << KIND_BITS) - 1));
                match kind {
                    LISTENER => self.accept(id),
                    SESSION => self.turn(id),
                    INOTIFY => self.dialer.notified(Instant::now()),
                    _ => {
                        let mut count = [0_u8; 8];
                        let _ = rustix::io::read(&self.shared.wake, &mut count);
                    }
                }
            }
            if !self.obey() {
                return;
            }
            self.dial();
            self.wake_rested();
        }
    }

    /// Does what handles asked for; `false` to end.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add { id, source, body } => self.add(id, source, body),
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

    fn add(&mut self, id: u64, source: Source, body: Arc<Mutex<Body>>) {
        match &source {
            Source::Listening(listening) => {
                let added =
                    epoll::add(&self.epoll, &listening.socket, data(id, LISTENER), epoll::EventFlags::IN);
                if let Err(error) = added {
                    body.lock().note(format!("the socket cannot be watched: {error}"));
                }
            }
            Source::Dialing(path, address) => self.dialer.add(id, path, address.clone(), Instant::now()),
        }
        self.entries.insert(id, Entry { source, body, interest: Interest { read: false, write: false } });
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.dialer.remove(id);
        self.resting.retain(|(_, other)| *other != id);
        entry.body.lock().end(&Error::Removed);
    }

    /// A front end knocks. There is one session a port: a second client is turned away while the first one lives.
    fn accept(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Source::Listening(listening) = &entry.source else { return };
        let socket = match listening.accept() {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(error) => {
                entry.body.lock().note(format!("a front end could not be accepted: {error}"));
                let _ = epoll::delete(&self.epoll, &listening.socket);
                self.resting.insert((Instant::now() + REST, id));
                return;
            }
        };
        // A client that was killed and started again may knock before we heard that it died.
        let mut body = entry.body.lock();
        if body.socket().is_some_and(has_hung_up) {
            body.end(&Error::HungUp);
        }
        if body.is_live() {
            if body.may_log() {
                tracing::warn!(
                    port = body.name(),
                    "a second front end was turned away: the first one is still connected"
                );
            }
            return;
        }
        drop(body);
        self.begin(id, socket);
    }

    fn wake_rested(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.resting.first().copied()
            && at <= now
        {
            self.resting.pop_first();
            if let Some(Entry { source: Source::Listening(listening), .. }) = self.entries.get(&id) {
                let _ = epoll::add(&self.epoll, &listening.socket, data(id, LISTENER), epoll::EventFlags::IN);
            }
        }
    }

    fn dial(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.dialer.ready(now) {
            // A name may appear anew while its old session lives; that one's end brings us here again.
            if self.entries.get(&id).is_none_or(|entry| entry.body.lock().is_live()) {
                continue;
            }
            match self.dialer.attempt(id, now) {
                Attempt::Done(socket) => self.begin(id, socket),
                Attempt::Later(error) => {
                    if let Some(entry) = self.entries.get(&id) {
                        entry.body.lock().note(format!("connecting to the front end: {error}"));
                    }
                }
            }
        }
    }

    fn begin(&mut self, id: u64, socket: OwnedFd) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.interest = Interest { read: true, write: false };
        if let Err(error) = epoll::add(&self.epoll, &socket, data(id, SESSION), epoll::EventFlags::IN) {
            entry.body.lock().note(format!("the session cannot be watched: {error}"));
            self.dialer.redial(id, Instant::now());
            return;
        }
        let mut body = entry.body.lock();
        body.begin(socket);
        if body.may_log() {
            tracing::info!(port = body.name(), "vhost-user front end connected");
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
            }
            Err(error) => {
                if !body.may_log() {
                    // Its status has the reason all the same.
                } else if matches!(error, Error::HungUp) {
                    tracing::info!(port = body.name(), "vhost-user front end disconnected");
                } else {
                    tracing::warn!(port = body.name(), %error, "vhost-user session ended");
                }
                body.end(&error);
                drop(body);
                if matches!(entry.source, Source::Dialing(..)) {
                    self.dialer.redial(id, Instant::now());
                }
            }
        }
    }
}

fn has_hung_up(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let _ = rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    poll.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
