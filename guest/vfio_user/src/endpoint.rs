//! An end point: the function behind a socket, and at most one session at a time.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabnic_pci::Function;

use crate::error::Error;
use crate::session::{Session, Settings};
use crate::socket::Connection;
use crate::status::{Status, Traps};

/// Where a function is reached, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the port, for the log.
    pub name: String,
    /// The socket on which we listen.
    pub socket: PathBuf,
    /// What is configured.
    pub settings: Settings,
}

/// Messages that one session may have handled before the next one gets its turn.
const TURN: usize = 64;
/// And the longest that they may take before the others have theirs, in nanoseconds: messages differ in what they cost.
const TURN_NS: u64 = 2_000_000;

/// What the reactor must watch a session for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// A session and the socket it comes over.
struct Live {
    connection: Connection,
    session: Session,
    pid: Option<i32>,
}

/// How many lines an end point may log: ten in ten seconds, then none until those are over.
#[derive(Debug, Default)]
struct LogBudget {
    since: Option<Instant>,
    lines: u32,
}

impl LogBudget {
    const LINES: u32 = 10;
    const PERIOD: Duration = Duration::from_secs(10);

    fn take(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= LogBudget::PERIOD) {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LogBudget::LINES
    }
}

/// A function and its session.
pub(crate) struct Body {
    name: String,
    function: Box<dyn Function>,
    settings: Settings,
    live: Option<Live>,
    sessions: u64,
    turned_away: u64,
    /// Of the sessions that are over.
    traps: Traps,
    last_reason: Option<String>,
    log: LogBudget,
}

/// Nanoseconds of the clock that functions live by.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

impl Body {
    pub(crate) fn new(name: String, function: Box<dyn Function>, settings: Settings) -> Body {
        Body {
            name,
            function,
            settings,
            live: None,
            sessions: 0,
            turned_away: 0,
            traps: Traps::default(),
            last_reason: None,
            log: LogBudget::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a line about sessions may be logged: a client can cause as many as it likes.
    pub(crate) fn may_log(&mut self) -> bool {
        self.log.take(Instant::now())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref().map(|live| live.connection.as_fd())
    }

    /// The descriptor by which the client unmasks INTx.
    pub(crate) fn resample(&self) -> Option<Arc<OwnedFd>> {
        self.live.as_ref().and_then(|live| live.session.resample())
    }

    pub(crate) fn resampled(&self) {
        if let Some(live) = &self.live {
            live.session.resampled();
        }
    }

    /// Begins a session over a connected, non-blocking socket.
    pub(crate) fn begin(&mut self, socket: OwnedFd) {
        let pid = rustix::net::sockopt::socket_peercred(&socket).ok().map(|c| c.pid.as_raw_nonzero().get());
        let (function, settings) = (self.function.as_mut(), self.settings);
        let made = catch_unwind(AssertUnwindSafe(|| Session::new(function, settings)));
        let Ok(made) = made else { return self.note(Error::Panicked.to_string()) };
        match made {
            Ok(session) => {
                self.live = Some(Live { connection: Connection::new(socket), session, pid });
                self.sessions += 1;
            }
            // Was checked when the end point was made.
            Err(error) => self.note(format!("the function's description: {error}")),
        }
    }

    /// Turns a client away, since another one is there.
    pub(crate) fn turn_away(&mut self) {
        self.turned_away = self.turned_away.saturating_add(1);
    }

    /// Handles what has come, as far as one turn goes. An error ends the session: [`Body::end`] is to be called.
    pub(crate) fn turn(&mut self) -> Result<Interest, Error> {
        // One port's defect must not end the thread that serves all of them.
        catch_unwind(AssertUnwindSafe(|| self.take_turn())).unwrap_or(Err(Error::Panicked))
    }

    fn take_turn(&mut self) -> Result<Interest, Error> {
        let Some(live) = &mut self.live else { return Ok(Interest { read: false, write: false }) };
        live.connection.flush()?;
        let until = now().saturating_add(TURN_NS);
        for _ in 0..TURN {
            if live.connection.is_stuck() || now() > until {
                break;
            }
            let Some(message) = live.connection.next()? else { break };
            tracing::trace!(port = self.name, header = ?message.header, fds = message.fds.len(), "vfio-user");
            if let Some(reply) = live.session.take(self.function.as_mut(), message, now())? {
                live.connection.send(reply)?;
            }
        }
        Ok(Interest { read: !live.connection.is_stuck(), write: live.connection.has_waiting() })
    }

    /// When the function wants to be called next.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.function.deadline()
    }

    /// What becomes readable when the function wants to be called.
    pub(crate) fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.function.wake()
    }

    /// Tells the function what time it is.
    pub(crate) fn expire(&mut self) -> Result<(), Error> {
        let function = self.function.as_mut();
        catch_unwind(AssertUnwindSafe(|| function.expire(now()))).map_err(|_| Error::Panicked)
    }

    /// Ends the session, if there is one. Its descriptors and its memory go with it.
    pub(crate) fn end(&mut self, reason: &Error) {
        if let Some(Live { connection, session, pid: _ }) = self.live.take() {
            self.traps = self.traps.plus(session.traps());
            let function = self.function.as_mut();
            if catch_unwind(AssertUnwindSafe(|| session.end(function))).is_err() {
                tracing::error!(port = self.name, "ending a session panicked");
            }
            self.last_reason = Some(reason.to_string());
            drop(connection);
        }
    }

    /// Notes why no session can begin.
    pub(crate) fn note(&mut self, reason: String) {
        self.last_reason = Some(reason);
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = Status {
            connected: self.live.is_some(),
            sessions: self.sessions,
            turned_away: self.turned_away,
            last_reason: self.last_reason.clone(),
            faults: self.function.faults(),
            traps: self.traps,
            software_interrupts: self.function.software_interrupts(),
            ..Status::default()
        };
        if let Some(live) = &self.live {
            status.peer_pid = live.pid;
            status.traps = self.traps.plus(live.session.traps());
            live.session.describe(&mut status);
        }
        status
    }
}
