//! State that outlives the daemon: saved now and then and at the end, restored at the start; and one port's, to go elsewhere.
//!
//! ```text
//!   upkeep, every interval --.                                         FILE.new --fsync, rename--> FILE, mode 0600
//!   POST /v1/state/save -----+--> head, names, sections of the switch ----'
//!   the end, ports detached -'
//!   start: FILE --verified as a whole--> ports are there, nothing is received yet --> sections restored, what is lost counted
//!               '-- bad: a warning, FILE.bad, and the daemon starts without
//! ```
//!
//! # Invariants
//! * A file that cannot be read to its end restores nothing. What was saved is whole or is not there.
//! * Saving waits for no worker, and no worker for it; nothing is saved of a daemon that did not come to run.
//! * received + replicated = delivered + dropped holds after a restore as before: counters of ports that are gone become the
//!   switch's, and what was in flight when it was saved is settled.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use fabnic_api::{ApplyError, MAX_PORT_STATE, StateRestored, StateSaved, StateStatus, SwitchTotals};
use fabnic_model::Refused;
use fabnic_port::{LinkState, PortId};
use fabnic_saved::{
    Head, Item, Kind, Malformed, Moment, Name, PortName, Reader, Scope, Section, TenantName, Totals,
    Unwritten, Verified, Writer, verify,
};
use fabnic_switch::{Arrival, Restored};
use parking_lot::Mutex;

use crate::agent::{Agent, Running};
use crate::replace::{self, beside};

/// How long after ports were detached workers have handed over what they counted of rules.
const SETTLED: Duration = Duration::from_millis(50);

/// Which boot of which host this is: to be read before files are restricted.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

fn now(boot: [u8; 16]) -> Moment {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(up.tv_sec).unwrap_or(0), u64::try_from(up.tv_nsec).unwrap_or(0));
    Moment {
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        boot,
        since_boot_ms: seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000),
    }
}

/// State that is to come back as soon as the ports are there.
#[derive(Debug)]
struct Pending {
    file: File,
    verified: Verified,
}

/// Where state is kept, and what was done with it.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    file: Option<PathBuf>,
    boot: [u8; 16],
    pending: Mutex<Option<Pending>>,
    /// Ports are detached: nothing moves any more.
    is_still: AtomicBool,
    /// Held while it is saved.
    work: Mutex<Work>,
    status: Mutex<StateStatus>,
}

#[derive(Debug, Default)]
struct Work {
    /// The daemon runs: what there is may be saved.
    is_open: bool,
    last: Option<Instant>,
}

impl Saver {
    pub(crate) fn new(file: Option<PathBuf>, boot: [u8; 16]) -> Saver {
        let status = StateStatus {
            file: file.as_ref().map(|file| file.display().to_string()),
            ..StateStatus::default()
        };
        Saver { file, boot, status: Mutex::new(status), ..Saver::default() }
    }

    /// Looks for what an earlier daemon has left. What cannot be read is put aside.
    pub(crate) fn find(&self) {
        let Some(path) = &self.file else { return };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.without(path, &error.to_string()),
        };
        let found = verify(BufReader::new(&file)).and_then(|verified| {
            file.rewind()?;
            Ok(verified)
        });
        match found {
            Ok(verified) if verified.head.scope == Scope::Switch => {
                *self.pending.lock() = Some(Pending { file, verified });
            }
            Ok(_) => self.without(path, "it is the state of one port, not of a switch"),
            Err(problem) => self.without(path, &problem.to_string()),
        }
    }

    /// Says that nothing comes back, and puts the file aside so that it is not written over.
    fn without(&self, path: &Path, problem: &str) {
        let aside = beside(path, ".bad");
        let kept = match fs::rename(path, &aside) {
            Ok(()) => format!("it is kept as {}", aside.display()),
            Err(error) => format!("it cannot be put aside ({error})"),
        };
        tracing::warn!(file = %path.display(), problem, "saved state cannot be restored: starting without; {kept}");
        let problem = Some(format!("{problem}; {kept}"));
        self.status.lock().restored = Some(StateRestored { problem, ..StateRestored::default() });
    }

    /// Whether something is to come back still.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.lock().is_some()
    }

    /// From now on it is saved.
    pub(crate) fn open(&self) {
        let mut work = self.work.lock();
        (work.is_open, work.last) = (true, Some(Instant::now()));
    }
}

/// Counts records on their way.
#[derive(Debug, Default)]
struct Counted(BTreeMap<Kind, u64>);

impl Counted {
    fn put<W: Write>(&mut self, writer: &mut Writer<W>, section: &Section) -> io::Result<()> {
        *self.0.entry(section.kind()).or_default() += section.len() as u64;
        writer.put(section).map_err(|error| match error {
            Unwritten::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })
    }

    fn labelled(self) -> BTreeMap<String, u64> {
        let told = self.0.into_iter().filter(|(kind, _)| !is_frame(*kind));
        told.map(|(kind, count)| (kind.label().to_owned(), count)).collect()
    }
}

/// What is not state, but says how to read it.
fn is_frame(kind: Kind) -> bool {
    matches!(kind, Kind::Head | Kind::Ports | Kind::Tenants)
}

/// What the numbers in records are here.
#[derive(Debug, Default)]
struct Numbers {
    ports: HashMap<u32, PortId>,
    tenants: HashMap<u32, u32>,
}

/// How state comes back.
#[derive(Clone, Copy, Debug)]
struct How {
    /// Gone by since it was saved.
    passed: Duration,
    /// Nothing moved after that.
    is_still: bool,
    /// It is one port's, and it is this one here.
    only: Option<PortId>,
}

impl Agent {
    /// Saves state if it is time for it.
    pub(crate) fn save_when_due(&self) {
        let interval = self.desired.read().config().daemon.saved_state_interval;
        let is_due = |last: Instant| last.elapsed() >= Duration::from_secs(interval.into());
        if self.saver.file.is_none() || interval == 0 || !self.saver.work.lock().last.is_some_and(is_due) {
            return;
        }
        // It is told by the status and the log.
        let _ = self.save_state();
    }

    /// Saves state for the last time: ports are detached, so that nothing changes any more.
    pub(crate) fn save_at_end(&self) {
        if self.saver.file.is_some() && self.saver.work.lock().is_open {
            std::thread::sleep(SETTLED);
            self.saver.is_still.store(true, Ordering::Relaxed);
            let _ = self.save_state();
            self.saver.work.lock().is_open = false;
        }
    }

    /// Saves state now.
    pub(crate) fn save_state(&self) -> Result<StateSaved, ApplyError> {
        let failed = |problem: String, expected: &str| ApplyError::Failed {
            key: "daemon.saved_state".into(),
            problem,
            expected: expected.into(),
        };
        let Some(path) = &self.saver.file else {
            return Err(failed(
                "no file is configured".into(),
                "a file, or a daemon that is started with --state",
            ));
        };
        let mut work = self.saver.work.lock();
        if !work.is_open {
            return Err(failed("the daemon starts or ends".into(), "a daemon that runs"));
        }
        let begun = Instant::now();
        let written = self.write_state(path);
        work.last = Some(Instant::now());
        drop(work);
        let mut status = self.saver.status.lock();
        match written {
            Ok((at, bytes, counted)) => {
                let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let saved =
                    StateSaved { at: at.wall_ms / 1000, bytes, milliseconds, records: counted.labelled() };
                tracing::debug!(bytes, milliseconds, "state is saved");
                status.saves += 1;
                (status.saved, status.problem) = (Some(saved.clone()), None);
                Ok(saved)
            }
            Err(error) => {
                status.failures += 1;
                let problem = format!("{} cannot be written: {error}", path.display());
                // Once for each trouble, not each time.
                if status.problem.as_ref() != Some(&problem) {
                    tracing::error!("state is not saved: {problem}");
                }
                status.problem = Some(problem.clone());
                Err(failed(problem, "room and rights to write it"))
            }
        }
    }

    /// Writes a new file beside the old one and puts it in its place.
    fn write_state(&self, path: &Path) -> io::Result<(Moment, u64, Counted)> {
        let temporary = beside(path, ".new");
        let written = self.write_file(&temporary).and_then(|written| {
            replace::put(&temporary, path)?;
            Ok(written)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write_file(&self, path: &Path) -> io::Result<(Moment, u64, Counted)> {
        // One that was left behind may have another mode.
        let _ = fs::remove_file(path);
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let at = now(self.saver.boot);
        let is_still = self.saver.is_still.load(Ordering::Relaxed);
        let buffer = BufWriter::with_capacity(1 << 18, file);
        let (buffer, bytes, counted) = self.write_all(buffer, (at, is_still), None)?;
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok((at, bytes, counted))
    }

    /// Writes state, or that of one port.
    fn write_all<W: Write>(
        &self,
        to: W,
        (at, is_still): (Moment, bool),
        of: Option<PortId>,
    ) -> io::Result<(W, u64, Counted)> {
        let other = |error: Unwritten| io::Error::other(error.to_string());
        let running = self.running();
        let mut writer = Writer::new(to).map_err(other)?;
        let mut counted = Counted::default();
        let scope = if of.is_none() { Scope::Switch } else { Scope::Port };
        let written_by = Name::fitting(concat!("fabnicd ", env!("CARGO_PKG_VERSION")));
        counted.put(&mut writer, &Section::Head(Head { scope, written_by, at, is_still }))?;
        let ports = running.ports.iter().filter(|entry| of.is_none_or(|port| port == entry.live.port.id));
        let ports: Vec<PortName> = ports
            .map(|entry| PortName {
                number: entry.live.port.id.0,
                name: Name::fitting(&entry.config.name),
                tenant: entry.config.tenant.as_deref().map(Name::fitting),
            })
            .collect();
        for some in ports.chunks(1024) {
            counted.put(&mut writer, &Section::Ports(some.to_vec()))?;
        }
        if of.is_none() {
            let tenant =
                |(text, number): (&String, &u32)| TenantName { number: *number, name: Name::fitting(text) };
            let tenants: Vec<TenantName> = running.tenants.iter().map(tenant).collect();
            for some in tenants.chunks(1024) {
                counted.put(&mut writer, &Section::Tenants(some.to_vec()))?;
            }
        }
        self.switch.save(of, &mut |mut section| {
            if let Section::Totals(totals) = &mut section {
                totals.gone.received = running.gone.received;
                totals.gone.delivered = running.gone.delivered;
                totals.gone.drops = running
                    .gone
                    .drops
                    .iter()
                    .map(|(reason, count)| (Name::fitting(reason), *count))
                    .collect();
            }
            counted.put(&mut writer, &section)
        })?;
        let (to, bytes) = writer.finish().map_err(other)?;
        Ok((to, bytes, counted))
    }

    /// Restores what an earlier daemon has left, if it is the moment for it: `running` has the ports, and nothing was received
    /// from them. Gives what was counted on ports that are gone.
    pub(crate) fn restore_pending(&self, running: &Running) -> SwitchTotals {
        let mut gone = SwitchTotals::default();
        let Some(Pending { file, verified }) = self.saver.pending.lock().take() else { return gone };
        let passed = verified.head.at.passed(&now(self.saver.boot));
        let mut report = Restored::default();
        let how = How { passed, is_still: verified.head.is_still, only: None };
        let read = self.restore_all(BufReader::new(file), running, how, &mut report, &mut gone);
        let restored = told(&verified, passed, &report, read.err());
        let count = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let lost: u64 = restored.lost.values().map(count).sum();
        tracing::info!(
            written_by = restored.written_by,
            passed_seconds = restored.passed_seconds,
            restored = count(&restored.restored),
            lost,
            "saved state is restored"
        );
        if lost > 0 {
            tracing::warn!(lost = ?restored.lost, "not all of the saved state fits what is configured");
        }
        if !restored.unknown.is_empty() {
            tracing::warn!(unknown = ?restored.unknown, "kinds of saved state that this version does not know are left out");
        }
        self.saver.status.lock().restored = Some(restored);
        gone
    }

    /// Restores all sections.
    fn restore_all(
        &self,
        from: impl io::Read,
        running: &Running,
        how: How,
        report: &mut Restored,
        gone: &mut SwitchTotals,
    ) -> Result<(), Malformed> {
        let mut numbers = Numbers::default();
        let mut balance = Balance::default();
        let mut totals = None;
        let mut reader = Reader::new(from)?;
        loop {
            let section = match reader.next_item()? {
                Item::Section(section) => section,
                Item::Unknown(_) => continue,
                Item::End => break,
            };
            match &section {
                Section::Ports(list) => {
                    for port in list {
                        let here = how.only.or_else(|| {
                            let entry = running.find(port.name.as_str())?;
                            // A port of another tenant's has nothing in common but the name.
                            let is_same =
                                entry.config.tenant.as_deref() == port.tenant.as_ref().map(Name::as_str);
                            is_same.then_some(entry.live.port.id)
                        });
                        numbers.ports.extend(here.map(|here| (port.number, here)));
                    }
                    continue;
                }
                Section::Tenants(list) => {
                    for tenant in list {
                        let here = running.tenants.get(tenant.name.as_str());
                        numbers.tenants.extend(here.map(|here| (tenant.number, *here)));
                    }
                    continue;
                }
                Section::Totals(found) => {
                    balance.add_gone(found, gone);
                    totals = Some(found.clone());
                    continue;
                }
                Section::PortCounters(list) => {
                    for port in list {
                        balance
                            .add_port(port, (!numbers.ports.contains_key(&port.port)).then_some(&mut *gone));
                    }
                }
                _ => {}
            }
            self.restore_section(&section, &numbers, how, report);
        }
        if let Some(mut totals) = totals.filter(|_| how.only.is_none()) {
            balance.settle(&mut totals, gone);
            self.restore_section(&Section::Totals(totals), &numbers, how, report);
        }
        Ok(())
    }

    fn restore_section(&self, section: &Section, numbers: &Numbers, how: How, report: &mut Restored) {
        let arrival = Arrival {
            port: &|number| numbers.ports.get(&number).copied(),
            tenant: &|number| numbers.tenants.get(&number).copied(),
            passed: how.passed,
            is_still: how.is_still,
            counters: how.only.is_none(),
        };
        self.switch.restore(section, &arrival, report);
    }

    /// What is known of saved state.
    pub(crate) fn show_state(&self) -> StateStatus {
        let interval_seconds = self.desired.read().config().daemon.saved_state_interval;
        StateStatus { interval_seconds, ..self.saver.status.lock().clone() }
    }

    /// The state of one port, as bytes.
    pub(crate) fn export_port(&self, port: &str) -> Result<Vec<u8>, ApplyError> {
        let failed = |problem: String, expected: &str| ApplyError::Failed {
            key: format!("port[{port}]"),
            problem,
            expected: expected.into(),
        };
        let running = self.running();
        let entry = running.find(port);
        let entry = entry.ok_or_else(|| failed("there is no such port".into(), "the name of a port"))?;
        // Nobody is there: its side of its connections stands still.
        let is_still = entry.live.port.link() == LinkState::Down;
        let id = entry.live.port.id;
        let (to, ..) = self
            .write_all(Bounded(Vec::new()), (now(self.saver.boot), is_still), Some(id))
            .map_err(|error| failed(error.to_string(), "fewer connections of the port"))?;
        Ok(to.0)
    }

    /// Takes in the state of one port, whatever it was called where it comes from.
    pub(crate) fn import_port(&self, port: &str, bytes: &[u8]) -> Result<StateRestored, ApplyError> {
        let refused = |problem: String| {
            Refused::one("body", problem, "the state of one port, as another switch gave it")
        };
        let verified = verify(bytes).map_err(|problem| refused(problem.to_string()))?;
        if verified.head.scope != Scope::Port || verified.records.get(&Kind::Ports) != Some(&1) {
            return Err(refused("this is the state of a whole switch".into()).into());
        }
        let running = self.running();
        let id = running.port_id(port);
        let id = id.ok_or_else(|| refused(format!("there is no port `{port}` any more")))?;
        let passed = verified.head.at.passed(&now(self.saver.boot));
        let mut report = Restored::default();
        let mut gone = SwitchTotals::default();
        let how = How { passed, is_still: verified.head.is_still, only: Some(id) };
        let read = self.restore_all(bytes, &running, how, &mut report, &mut gone);
        let restored = told(&verified, passed, &report, read.err());
        tracing::info!(port, restored = ?restored.restored, lost = ?restored.lost, "a port's state was taken in");
        Ok(restored)
    }
}

/// What is told of a restore.
fn told(
    verified: &Verified,
    passed: Duration,
    report: &Restored,
    problem: Option<Malformed>,
) -> StateRestored {
    let mut lost: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for ((kind, why), count) in &report.lost {
        lost.entry(kind.label().to_owned()).or_default().insert(why.label().to_owned(), *count);
    }
    StateRestored {
        written_by: verified.head.written_by.as_str().to_owned(),
        saved_at: verified.head.at.wall_ms / 1000,
        passed_seconds: passed.as_secs(),
        restored: report.restored.iter().map(|(kind, count)| (kind.label().to_owned(), *count)).collect(),
        lost,
        unknown: verified
            .unknown
            .iter()
            .map(|unknown| match Kind::of(unknown.kind) {
                Some(kind) => format!("{} of version {}", kind.label(), unknown.version),
                None => format!("kind {}", unknown.kind),
            })
            .collect(),
        problem: problem.map(|problem| problem.to_string()),
    }
}

/// Sums of what ports and the switch have counted.
#[derive(Debug, Default)]
struct Balance {
    received: u64,
    delivered: u64,
    dropped: u64,
}

impl Balance {
    /// Counts a port; adds it to what is gone, if it is.
    fn add_port(&mut self, port: &fabnic_saved::PortCounters, gone: Option<&mut SwitchTotals>) {
        let received = sum(port.rx.iter().map(|queue| queue.frames));
        let delivered = sum(port.tx.iter().map(|queue| queue.frames));
        let drops = || port.rx_drops.iter().chain(&port.tx_drops);
        self.add(received, delivered, sum(drops().map(|(_, count)| *count)));
        if let Some(gone) = gone {
            gone.received = gone.received.saturating_add(received);
            gone.delivered = gone.delivered.saturating_add(delivered);
            drops().for_each(|(reason, count)| add_drops(gone, reason, *count));
        }
    }

    fn add_gone(&mut self, totals: &Totals, gone: &mut SwitchTotals) {
        let dropped = sum(totals.gone.drops.iter().map(|(_, count)| *count));
        self.add(totals.gone.received, totals.gone.delivered, dropped);
        gone.received = gone.received.saturating_add(totals.gone.received);
        gone.delivered = gone.delivered.saturating_add(totals.gone.delivered);
        totals.gone.drops.iter().for_each(|(reason, count)| add_drops(gone, reason, *count));
    }

    fn add(&mut self, received: u64, delivered: u64, dropped: u64) {
        self.received = self.received.saturating_add(received);
        self.delivered = self.delivered.saturating_add(delivered);
        self.dropped = self.dropped.saturating_add(dropped);
    }

    /// Counters of one moment would add up; these were read one after the other. Of what was in flight meanwhile, more copies
    /// arrived than are known, or frames are still to arrive somewhere: they count as copies, and as delivered to ports that
    /// are gone.
    fn settle(&self, totals: &mut Totals, gone: &mut SwitchTotals) {
        let ended = self.delivered.saturating_add(self.dropped);
        let missing = self.received.saturating_sub(ended);
        gone.delivered = gone.delivered.saturating_add(missing);
        totals.replicated = ended.saturating_sub(self.received);
    }
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

fn add_drops(gone: &mut SwitchTotals, reason: &Name, count: u64) {
    let counted = gone.drops.entry(reason.as_str().to_owned()).or_default();
    *counted = counted.saturating_add(count);
    gone.dropped = gone.dropped.saturating_add(count);
}

/// Bytes, as many as an answer may have.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_PORT_STATE {
            return Err(io::Error::other(format!("its state is more than {MAX_PORT_STATE} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
