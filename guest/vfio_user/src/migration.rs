//! Live migration: states (Linux VFIO's migration version 2, carried by DEVICE_FEATURE) and the stream of a function's
//! state (MIG_DATA_READ, MIG_DATA_WRITE).
//!
//! ```text
//!            +--> PRE_COPY ---+               the function runs, nothing is in the stream yet
//!            |                v
//!   RUNNING <+--> STOP <--> STOP_COPY         it stands still; the stream is its state
//!                   ^
//!                   +-----> RESUMING          it stands still; the stream is another's state, taken on the way to STOP
//! ```
//!
//! A client may ask for any state: the way there is walked arc by arc, by the shortest path that saves nothing on its
//! way. A state that cannot be taken ends in ERROR, which a reset leaves. A reset by the guest or its VMM leaves the other
//! states alone: a guest that reboots during pre-copy would end its migration else.
//!
//! # The stream
//!
//! In little endian: `FBPC`, version 1 (u16), vendor and device (u16 each), then three runs of bytes, each after its
//! length (u32): configuration space, the MSI-X table, what the function itself saves; between the latter two the level
//! of the INTx line (u8). It is read back strictly; whoever wrote it, nothing but the function's own bytes reaches it.

use std::sync::Arc;

use fabnic_memory::DirtyLog;
use fabnic_pci::{ConfigSpace, Function};
use rustix::io::Errno;

use crate::dirty;
use crate::error::Refusal;
use crate::fields::{Fields, Payload};
use crate::message::{Feature, FeatureAction};
use crate::msix_table::MsixTable;

/// The features' numbers (Linux, include/uapi/linux/vfio.h).
const MIGRATION: u16 = 1;
const DEVICE_STATE: u16 = 2;
const LOGGING_START: u16 = 6;
const LOGGING_STOP: u16 = 7;
const LOGGING_REPORT: u16 = 8;

/// What MIGRATION says: stop-copy and pre-copy.
const OFFERED: u64 = 1 | 1 << 2;

const MAGIC: [u8; 4] = *b"FBPC";
const VERSION: u16 = 1;

/// The largest state that is taken, in bytes.
const MAX_STATE: usize = 16 << 20;

/// States (Linux, `enum vfio_device_mig_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    Error,
    Stop,
    #[default]
    Running,
    StopCopy,
    Resuming,
    PreCopy,
}

impl State {
    const fn number(self) -> u32 {
        match self {
            State::Error => 0,
            State::Stop => 1,
            State::Running => 2,
            State::StopCopy => 3,
            State::Resuming => 4,
            State::PreCopy => 6,
        }
    }

    /// One that can be asked for.
    fn from_number(number: u32) -> Option<State> {
        use State::{PreCopy, Resuming, Running, Stop, StopCopy};
        [Stop, Running, StopCopy, Resuming, PreCopy].into_iter().find(|state| state.number() == number)
    }

    /// Whether the function runs in it.
    const fn runs(self) -> bool {
        matches!(self, State::Running | State::PreCopy)
    }

    /// The next state on the way to another one; `None` if there is no way.
    const fn toward(self, to: State) -> Option<State> {
        use State::{Error, PreCopy, Resuming, Running, Stop, StopCopy};
        Some(match (self, to) {
            (Error, _) | (_, Error) | (StopCopy, PreCopy) => return None,
            (Running, PreCopy) => PreCopy,
            (Running, _) => Stop,
            (Stop, StopCopy) => StopCopy,
            (Stop, Resuming) => Resuming,
            (Stop, _) => Running,
            (PreCopy, StopCopy) => StopCopy,
            (PreCopy, _) => Running,
            (StopCopy | Resuming, _) => Stop,
        })
    }
}

/// The parts of a session that a migration is about.
pub(crate) struct Parts<'a> {
    pub(crate) function: &'a mut dyn Function,
    pub(crate) config: &'a mut ConfigSpace,
    pub(crate) table: Option<&'a mut MsixTable>,
    /// The level of the INTx line.
    pub(crate) line: &'a mut bool,
}

#[derive(Debug, Default)]
pub(crate) struct Migration {
    state: State,
    /// What is left to be read, or was written so far.
    stream: Vec<u8>,
    /// How much of it was read.
    read: usize,
    log: Option<Arc<DirtyLog>>,
    /// Another's state was taken: the session must look at everything anew.
    restored: bool,
}

impl Migration {
    /// DEVICE_FEATURE: the answer.
    pub(crate) fn feature(&mut self, parts: Parts<'_>, feature: Feature) -> Result<Payload, Refusal> {
        let Feature { argsz, flags, index, action, data } = feature;
        let (get, set) = match index {
            _ if !parts.function.is_migratable() => (false, false),
            MIGRATION | LOGGING_REPORT => (true, false),
            DEVICE_STATE => (true, true),
            LOGGING_START | LOGGING_STOP => (false, true),
            _ => (false, false),
        };
        let is_there = match action {
            FeatureAction::Get => get,
            FeatureAction::Set => set,
            FeatureAction::Probe { get: wants_get, set: wants_set } => {
                let lacks = (wants_get && !get) || (wants_set && !set);
                !lacks && (get || set)
            }
        };
        if !is_there {
            return Err(Refusal::invalid(
                format!("{action:?} of feature {index}"),
                "a feature of this device, and something that it is for",
            ));
        }
        let answer = |argsz: u32, data: Payload| Payload::default().u32(argsz).u32(flags).bytes(&data.0);
        match (index, action) {
            (_, FeatureAction::Probe { .. }) => Ok(answer(argsz, Payload(data))),
            (MIGRATION, _) => Ok(answer(16, Payload::default().u64(OFFERED))),
            (DEVICE_STATE, FeatureAction::Get) => {
                // There is no descriptor: the stream goes through messages.
                Ok(answer(16, Payload::default().u32(self.state.number()).u32(u32::MAX)))
            }
            (DEVICE_STATE, _) => {
                let mut fields = Fields::new(&data);
                let (number, _data_fd) = (fields.u32()?, fields.u32()?);
                fields.end()?;
                let to = State::from_number(number).ok_or_else(|| {
                    Refusal::invalid(
                        format!("state {number}"),
                        "stop 1, run 2, stop-copy 3, resume 4, pre-copy 6",
                    )
                })?;
                self.go(parts, to)?;
                Ok(answer(argsz, Payload(data)))
            }
            (LOGGING_START, _) => {
                if self.log.is_some() {
                    return Err(Refusal::invalid("writes are logged already", "DMA_LOGGING_STOP first"));
                }
                let log = dirty::start(&data)?;
                if !parts.function.set_log(Some(Arc::clone(&log))) {
                    return Err(Refusal::with(
                        Errno::OPNOTSUPP,
                        "the function does not log its writes",
                        "one that does",
                    ));
                }
                self.log = Some(log);
                Ok(answer(argsz, Payload(data)))
            }
            (LOGGING_STOP, _) => {
                Fields::new(&data).end()?;
                if self.log.take().is_none() {
                    return Err(Refusal::invalid("writes are not logged", "DMA_LOGGING_START first"));
                }
                parts.function.set_log(None);
                Ok(answer(argsz, Payload(data)))
            }
            _ => {
                let Some(log) = &self.log else {
                    return Err(Refusal::invalid("writes are not logged", "DMA_LOGGING_START first"));
                };
                let (argsz, data) = dirty::report(log, &data, argsz)?;
                Ok(answer(argsz, data))
            }
        }
    }

    /// Walks to another state.
    fn go(&mut self, mut parts: Parts<'_>, to: State) -> Result<(), Refusal> {
        while self.state != to {
            let Some(next) = self.state.toward(to) else {
                return Err(Refusal::invalid(
                    format!("from {:?} to {to:?}", self.state),
                    "a state that can be reached",
                ));
            };
            let before = core::mem::replace(&mut self.state, next);
            if before.runs() != next.runs() {
                parts.function.set_running(next.runs());
            }
            let done = match (before, next) {
                (_, State::StopCopy) => self.save(&mut parts),
                (State::Resuming, _) => self.restore(&mut parts),
                _ => Ok(()),
            };
            if !matches!(next, State::StopCopy) {
                self.stream = Vec::new();
            }
            self.read = 0;
            if let Err(refusal) = done {
                self.state = State::Error;
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn save(&mut self, parts: &mut Parts<'_>) -> Result<(), Refusal> {
        let Some(own) = parts.function.save() else {
            return Err(Refusal::with(Errno::OPNOTSUPP, "the function cannot be saved", "one that can"));
        };
        let (vendor, device) = parts.config.description().id;
        let table = parts.table.as_ref().map(|table| table.bytes()).unwrap_or_default();
        let mut stream = Vec::new();
        stream.extend_from_slice(&MAGIC);
        for word in [VERSION, vendor, device] {
            stream.extend_from_slice(&word.to_le_bytes());
        }
        let mut run = |bytes: &[u8]| {
            stream.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
            stream.extend_from_slice(bytes);
        };
        run(parts.config.bytes());
        run(table);
        run(&[u8::from(*parts.line)]);
        run(&own);
        self.stream = stream;
        Ok(())
    }

    fn restore(&mut self, parts: &mut Parts<'_>) -> Result<(), Refusal> {
        let stream = core::mem::take(&mut self.stream);
        let bad = |what: &str| {
            Refusal::invalid(format!("a state {what}"), "one that a twin of this function saved")
        };
        let mut rest = stream.as_slice();
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count)?;
            rest = left;
            Some(taken)
        };
        if take(4) != Some(&MAGIC) {
            return Err(bad("that is none"));
        }
        let (vendor, device) = parts.config.description().id;
        for (what, expected) in
            [("of another version", VERSION), ("of another vendor", vendor), ("of another device", device)]
        {
            if take(2) != Some(&expected.to_le_bytes()) {
                return Err(bad(what));
            }
        }
        let mut run = || {
            let len = u32::from_le_bytes(take(4)?.try_into().ok()?);
            take(usize::try_from(len).ok()?)
        };
        let (Some(config), Some(table), Some(line), Some(own)) = (run(), run(), run(), run()) else {
            return Err(bad("that ends too early"));
        };
        let &[line] = line else { return Err(bad("with a line that has no level")) };
        if !rest.is_empty() {
            return Err(bad("with something behind its end"));
        }
        let mut twin = parts.config.clone();
        if !twin.restore(config) {
            return Err(bad("with another configuration space"));
        }
        let takes_table = match &mut parts.table {
            Some(place) => place.restore(table),
            None => table.is_empty(),
        };
        if !takes_table {
            return Err(bad("with another MSI-X table"));
        }
        parts
            .function
            .restore(own)
            .map_err(|problem| bad(&format!("that the function does not take ({problem})")))?;
        *parts.config = twin;
        *parts.line = line != 0;
        self.restored = true;
        Ok(())
    }

    /// Whether another's state was taken since the last call.
    pub(crate) fn was_restored(&mut self) -> bool {
        core::mem::take(&mut self.restored)
    }

    /// MIG_DATA_READ. Less than was asked for is the end of the stream.
    pub(crate) fn read(&mut self, size: u32) -> Result<Payload, Refusal> {
        if !matches!(self.state, State::StopCopy | State::PreCopy) {
            return Err(Refusal::invalid(
                format!("reading in state {:?}", self.state),
                "stop-copy or pre-copy",
            ));
        }
        let rest = self.stream.get(self.read..).unwrap_or_default();
        let count = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let data = rest.get(..count).unwrap_or_default();
        let size = u32::try_from(count).unwrap_or(0);
        let payload = Payload::default().u32(size.saturating_add(8)).u32(size).bytes(data);
        self.read += count;
        Ok(payload)
    }

    /// MIG_DATA_WRITE.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Refusal> {
        if self.state != State::Resuming {
            return Err(Refusal::invalid(format!("writing in state {:?}", self.state), "resuming"));
        }
        if self.stream.len().saturating_add(data.len()) > MAX_STATE {
            return Err(Refusal::with(Errno::NOSPC, "a state that has no end", "at most 16 MiB"));
        }
        self.stream.extend_from_slice(data);
        Ok(())
    }

    /// The function was reset. Only ERROR is left by that; whether it runs is the client's to say, otherwise.
    pub(crate) fn was_reset(&mut self, function: &mut dyn Function) {
        if self.state == State::Error {
            self.state = State::Running;
            function.set_running(true);
        }
    }

    /// The session is over.
    pub(crate) fn end(&mut self, function: &mut dyn Function) {
        if self.log.take().is_some() {
            function.set_log(None);
        }
        if !self.state.runs() {
            self.state = State::Running;
            function.set_running(true);
        }
    }

    pub(crate) fn is_logging(&self) -> bool {
        self.log.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_by_its_arcs() {
        use State::{Error, PreCopy, Resuming, Running, Stop, StopCopy};
        let way = |from: State, to: State| {
            let mut way = Vec::new();
            let mut at = from;
            while at != to {
                at = at.toward(to)?;
                way.push(at);
                assert!(way.len() < 5, "in circles");
            }
            Some(way)
        };
        assert_eq!(way(Running, StopCopy), Some(vec![Stop, StopCopy]));
        assert_eq!(way(Running, Resuming), Some(vec![Stop, Resuming]));
        assert_eq!(way(PreCopy, StopCopy), Some(vec![StopCopy]));
        assert_eq!(way(PreCopy, Resuming), Some(vec![Running, Stop, Resuming]));
        assert_eq!(way(Resuming, PreCopy), Some(vec![Stop, Running, PreCopy]));
        assert_eq!(way(StopCopy, Running), Some(vec![Stop, Running]));
        assert_eq!(way(StopCopy, PreCopy), None);
        assert_eq!((way(Error, Running), way(Running, Error)), (None, None));
        for from in [Stop, Running, StopCopy, Resuming, PreCopy] {
            for to in [Stop, Running, StopCopy, Resuming, PreCopy] {
                let Some(way) = way(from, to) else { continue };
                let inside = way.iter().rev().skip(1);
                assert!(
                    inside.clone().all(|s| !matches!(s, StopCopy | PreCopy | Resuming)),
                    "{from:?} {to:?}"
                );
            }
        }
    }
}
