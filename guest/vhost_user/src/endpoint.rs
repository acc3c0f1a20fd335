//! An end point: a socket in the file system, the device behind it, and at most one session at a time.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::error::Error;
use crate::positions::Positions;
use crate::session::Session;
use crate::socket::Connection;
use crate::status::Status;

/// Which side listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We listen; front ends connect.
    Server,
    /// The front end listens; we connect, and connect again.
    Client,
}

/// Where a device is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The socket.
    pub socket: PathBuf,
    /// Which side listens on it.
    pub role: Role,
}

/// Messages that one session may have handled before the next one gets its turn.
const TURN: usize = 64;

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

/// A device and its session.
pub(crate) struct Body {
    device: Box<dyn Device>,
    live: Option<Live>,
    sessions: u64,
    last_reason: Option<String>,
    log: LogBudget,
    /// Where positions of rings are kept, if not in anonymous memory.
    file: Option<PathBuf>,
    /// Made with the first session.
    positions: Option<Arc<Positions>>,
}

impl Body {
    pub(crate) fn new(device: Box<dyn Device>, file: Option<PathBuf>) -> Body {
        Body {
            device,
            live: None,
            sessions: 0,
            last_reason: None,
            log: LogBudget::default(),
            file,
            positions: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    /// Whether a line about sessions may be logged: a front end can cause as many as it likes.
    pub(crate) fn may_log(&mut self) -> bool {
        self.log.take(Instant::now())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref().map(|live| live.connection.as_fd())
    }

    /// Begins a session over a connected, non-blocking socket.
    pub(crate) fn begin(&mut self, socket: OwnedFd) {
        let pid = rustix::net::sockopt::socket_peercred(&socket).ok().map(|c| c.pid.as_raw_nonzero().get());
        if self.positions.is_none() {
            self.positions = Positions::open(self.file.as_deref(), self.device.rings());
        }
        let session = Session::with_positions(self.device.as_ref(), self.positions.clone(), pid.unwrap_or(0));
        self.live = Some(Live { connection: Connection::new(socket), session, pid });
        self.sessions += 1;
        self.device.connected();
    }

    /// Handles what has come, as far as one turn goes. An error ends the session: [`Body::end`] is to be called.
    pub(crate) fn turn(&mut self) -> Result<Interest, Error> {
        // One port's defect must not end the thread that serves all of them.
        catch_unwind(AssertUnwindSafe(|| self.take_turn())).unwrap_or(Err(Error::Panicked))
    }

    fn take_turn(&mut self) -> Result<Interest, Error> {
        let Some(live) = &mut self.live else { return Ok(Interest { read: false, write: false }) };
        live.connection.flush()?;
        live.session.flush_back_channel();
        for _ in 0..TURN {
            if live.connection.is_stuck() {
                break;
            }
            let Some(message) = live.connection.next()? else { break };
            tracing::trace!(port = self.device.name(), request = ?message.request, fds = message.fds.len(), "vhost-user");
            if let Some(reply) = live.session.take(self.device.as_mut(), message)? {
                live.connection.send(reply)?;
            }
        }
        Ok(Interest { read: !live.connection.is_stuck(), write: live.connection.has_waiting() })
    }

    /// Ends the session, if there is one. Its descriptors and its memory go with it.
    pub(crate) fn end(&mut self, reason: &Error) {
        if let Some(Live { connection, session, pid: _ }) = self.live.take() {
            let reason = reason.to_string();
            let device = self.device.as_mut();
            if catch_unwind(AssertUnwindSafe(|| session.end(device, &reason))).is_err() {
                tracing::error!(port = self.device.name(), "ending a session panicked");
            }
            self.last_reason = Some(reason);
            drop(connection);
        }
    }

    /// Notes why no session can begin.
    pub(crate) fn note(&mut self, reason: String) {
        self.last_reason = Some(reason);
    }

    pub(crate) fn config_changed(&mut self) {
        if let Some(live) = &mut self.live {
            live.session.config_changed();
        }
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = Status {
            connected: self.live.is_some(),
            sessions: self.sessions,
            last_reason: self.last_reason.clone(),
            ..Status::default()
        };
        if let Some(live) = &self.live {
            status.peer_pid = live.pid;
            live.session.describe(self.device.as_ref(), &mut status);
        }
        status
    }
}
