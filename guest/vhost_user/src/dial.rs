//! The client role: when to try to connect.
//!
//! A front end that is not there costs nothing: its socket's directory is watched (inotify), and nothing is tried until
//! a name appears in it. What a name does not tell is when the front end begins to listen on it. So a refused attempt is
//! repeated after one hundredth of the time that has passed since the last sign of life, at least 100 us, at most ten
//! seconds: every millisecond after 100 ms, every ten after a second, and so on. A directory that does not exist is
//! looked for once a second, once for all its sockets.
//!
//! A front end that accepts and hangs up, again and again, is connected to once a second in the end.
//!
//! Sans clock: the time is a parameter.

use core::mem::MaybeUninit;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::listen::stream;

const FASTEST: Duration = Duration::from_micros(100);
const SLOWEST: Duration = Duration::from_secs(10);
const DIRECTORY: Duration = Duration::from_secs(1);
/// A session that ends sooner makes the next one wait longer, up to a second: somebody accepts and hangs up.
const SHORT: Duration = Duration::from_millis(100);

/// Hundredths of the time since the last sign of life.
const PART: u32 = 100;

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Connected.
    Done(OwnedFd),
    /// Not yet; the dialer knows when to try again.
    Later(Errno),
}

/// One socket to connect to.
#[derive(Debug)]
struct Target {
    address: SocketAddrUnix,
    directory: PathBuf,
    name: OsString,
    /// When something last happened: its name appeared, or its session ended.
    sign: Instant,
    due: Option<Instant>,
    /// When it was connected last.
    connected: Option<Instant>,
    /// Short sessions in a row.
    short: u32,
}

#[derive(Debug, Default)]
struct Directory {
    watch: Option<i32>,
    /// Sockets in it by name.
    names: HashMap<OsString, Vec<u64>>,
}

/// All sockets to connect to, and when.
#[derive(Debug)]
pub(crate) struct Dialer {
    inotify: OwnedFd,
    targets: HashMap<u64, Target>,
    directories: HashMap<PathBuf, Directory>,
    watches: HashMap<i32, Vec<PathBuf>>,
    due: BTreeSet<(Instant, u64)>,
    /// When to look for directories that are missing.
    look: Option<Instant>,
}

impl Dialer {
    pub(crate) fn new() -> rustix::io::Result<Dialer> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        Ok(Dialer {
            inotify,
            targets: HashMap::new(),
            directories: HashMap::new(),
            watches: HashMap::new(),
            due: BTreeSet::new(),
            look: None,
        })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// A socket to connect to, from now on.
    pub(crate) fn add(&mut self, id: u64, path: &Path, address: SocketAddrUnix, now: Instant) {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let entry = self.directories.entry(directory.clone()).or_default();
        entry.names.entry(name.clone()).or_default().push(id);
        let is_new = entry.watch.is_none();
        self.targets.insert(
            id,
            Target {
                address,
                directory: directory.clone(),
                name,
                sign: now,
                due: None,
                connected: None,
                short: 0,
            },
        );
        if is_new {
            self.watch(&directory, now);
        }
        self.schedule(id, now);
    }

    /// A socket that nobody wants to be connected to any more.
    pub(crate) fn remove(&mut self, id: u64) {
        let Some(target) = self.targets.remove(&id) else { return };
        if let Some(due) = target.due {
            self.due.remove(&(due, id));
        }
        let Some(directory) = self.directories.get_mut(&target.directory) else { return };
        if let Some(ids) = directory.names.get_mut(&target.name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                directory.names.remove(&target.name);
            }
        }
        if directory.names.is_empty() {
            let watch = directory.watch;
            self.directories.remove(&target.directory);
            if let Some(watch) = watch
                && let Some(paths) = self.watches.get_mut(&watch)
            {
                paths.retain(|path| *path != target.directory);
                if paths.is_empty() {
                    self.watches.remove(&watch);
                    let _ = inotify::remove_watch(&self.inotify, watch);
                }
            }
        }
    }

    /// Its session ended: the front end may be back at any moment.
    pub(crate) fn redial(&mut self, id: u64, now: Instant) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let lasted = target.connected.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        target.short = if lasted < SHORT { target.short.saturating_add(1) } else { 0 };
        target.sign = now;
        // The first two come at once: a front end that looks whether we are there, and then means it.
        let wait = target.short.checked_sub(3).map_or(0, |n| 1 << n.min(10));
        self.schedule(id, now + Duration::from_millis(wait));
    }

    fn sign_of_life(&mut self, id: u64, now: Instant) {
        if let Some(target) = self.targets.get_mut(&id) {
            target.sign = now;
            self.schedule(id, now);
        }
    }

    fn schedule(&mut self, id: u64, at: Instant) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        if let Some(old) = target.due.replace(at) {
            self.due.remove(&(old, id));
        }
        self.due.insert((at, id));
    }

    fn watch(&mut self, directory: &Path, now: Instant) {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, directory, flags) {
            Ok(watch) => {
                let paths = self.watches.entry(watch).or_default();
                if !paths.iter().any(|path| path == directory) {
                    paths.push(directory.to_owned());
                }
                if let Some(entry) = self.directories.get_mut(directory) {
                    entry.watch = Some(watch);
                }
            }
            Err(error) => {
                tracing::debug!(directory = %directory.display(), %error, "cannot watch");
                self.look.get_or_insert(now + DIRECTORY);
            }
        }
    }

    /// When [`Dialer::ready`] must be asked next, whatever happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.look).min()
    }

    /// The next socket whose time has come; it is not given again until its time comes again.
    pub(crate) fn ready(&mut self, now: Instant) -> Option<u64> {
        if self.look.is_some_and(|at| at <= now) {
            self.look_for_directories(now);
        }
        let (at, id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        if let Some(target) = self.targets.get_mut(&id) {
            target.due = None;
        }
        Some(id)
    }

    fn look_for_directories(&mut self, now: Instant) {
        self.look = None;
        let missing = self.directories.iter().filter(|(_, directory)| directory.watch.is_none());
        let missing: Vec<PathBuf> = missing.map(|(path, _)| path.clone()).collect();
        for path in missing {
            self.watch(&path, now);
            self.all_in(&path, now);
        }
    }

    /// Everything in a directory may have appeared.
    fn all_in(&mut self, directory: &Path, now: Instant) {
        let Some(entry) = self.directories.get(directory) else { return };
        if entry.watch.is_none() {
            return;
        }
        let ids: Vec<u64> = entry.names.values().flatten().copied().collect();
        for id in ids {
            self.sign_of_life(id, now);
        }
    }

    /// Tries to connect.
    pub(crate) fn attempt(&mut self, id: u64, now: Instant) -> Attempt {
        let Some(target) = self.targets.get(&id) else { return Attempt::Later(Errno::NOENT) };
        let tried =
            stream().and_then(|socket| rustix::net::connect(&socket, &target.address).map(|()| socket));
        let error = match tried {
            Ok(socket) => {
                if let Some(target) = self.targets.get_mut(&id) {
                    target.connected = Some(now);
                }
                return Attempt::Done(socket);
            }
            Err(error) => error,
        };
        let watched = self.directories.get(&target.directory).is_some_and(|entry| entry.watch.is_some());
        // A name that is not there will be told of, by its directory or when that appears itself.
        if !(matches!(error, Errno::NOENT | Errno::NOTDIR) && (watched || self.look.is_some())) {
            let delay = (now.saturating_duration_since(target.sign) / PART).clamp(FASTEST, SLOWEST);
            self.schedule(id, now + delay);
        }
        Attempt::Later(error)
    }

    /// Reads what inotify has to say.
    pub(crate) fn notified(&mut self, now: Instant) {
        let mut lost = false;
        let mut gone = Vec::new();
        let mut names: Vec<(i32, OsString)> = Vec::new();
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        while let Ok(event) = reader.next() {
            let what = event.events();
            lost |= what.contains(ReadFlags::QUEUE_OVERFLOW);
            if what.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                gone.push(event.wd());
            } else if let Some(name) = event.file_name() {
                names.push((event.wd(), OsStr::from_bytes(name.to_bytes()).to_owned()));
            }
        }
        for (watch, name) in names {
            let directories = self.watches.get(&watch).into_iter().flatten();
            let ids = directories.filter_map(|path| self.directories.get(path)?.names.get(&name));
            let ids: Vec<u64> = ids.flatten().copied().collect();
            for id in ids {
                self.sign_of_life(id, now);
            }
        }
        for watch in gone {
            let _ = inotify::remove_watch(&self.inotify, watch);
            for path in self.watches.remove(&watch).into_iter().flatten() {
                if let Some(directory) = self.directories.get_mut(&path) {
                    directory.watch = None;
                    self.look.get_or_insert(now + DIRECTORY);
                }
            }
        }
        if lost {
            let ids: Vec<u64> = self.targets.keys().copied().collect();
            for id in ids {
                self.sign_of_life(id, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Bench {
        dir: tempfile::TempDir,
        dialer: Dialer,
        now: Instant,
    }

    impl Bench {
        fn new(name: &str) -> Bench {
            let dir = tempfile::tempdir().unwrap();
            let (mut dialer, now) = (Dialer::new().unwrap(), Instant::now());
            let path = dir.path().join(name);
            dialer.add(1, &path, SocketAddrUnix::new(&path).unwrap(), now);
            assert_eq!(dialer.ready(now), Some(1), "at once");
            Bench { dir, dialer, now }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// How long until the next attempt, after one that fails `since` its sign of life.
        fn wait_after(&mut self, since: Duration) -> Option<Duration> {
            let at = self.now + since;
            assert!(matches!(self.dialer.attempt(1, at), Attempt::Later(_)));
            let due = self.dialer.deadline();
            while self.dialer.ready(at + SLOWEST).is_some() {}
            due.map(|due| due - at)
        }
    }

    #[test]
    fn a_name_that_is_not_there_costs_nothing() {
        let mut bench = Bench::new("a");
        assert_eq!(bench.wait_after(Duration::ZERO), None);
        let later = bench.now + Duration::from_secs(3600);
        drop(UnixListener::bind(bench.path("other")).unwrap());
        bench.dialer.notified(later);
        assert_eq!(bench.dialer.ready(later), None, "another name");
        let _listener = UnixListener::bind(bench.path("a")).unwrap();
        bench.dialer.notified(later);
        assert_eq!(bench.dialer.ready(later), Some(1));
        assert!(matches!(bench.dialer.attempt(1, later), Attempt::Done(_)));
        assert_eq!(bench.dialer.deadline(), None);
    }

    #[test]
    fn a_refused_attempt_is_repeated_more_and_more_seldom() {
        let mut bench = Bench::new("a");
        // A name on which nobody listens.
        drop(UnixListener::bind(bench.path("a")).unwrap());
        for (since, wait) in [(0, 100_u64), (1_000, 100), (100_000, 1_000), (1_000_000, 10_000)] {
            let waited = bench.wait_after(Duration::from_micros(since));
            assert_eq!(waited, Some(Duration::from_micros(wait)));
        }
        assert_eq!(bench.wait_after(Duration::from_secs(100_000)), Some(SLOWEST));
        // A new name begins it anew.
        bench.now += Duration::from_secs(100_000);
        std::fs::remove_file(bench.path("a")).unwrap();
        drop(UnixListener::bind(bench.path("a")).unwrap());
        bench.dialer.notified(bench.now);
        assert_eq!(bench.dialer.ready(bench.now), Some(1));
        assert_eq!(bench.wait_after(Duration::ZERO), Some(FASTEST));
    }

    #[test]
    fn a_missing_directory_is_looked_for_once_a_second() {
        let mut bench = Bench::new("later/a");
        assert_eq!(bench.wait_after(Duration::ZERO), Some(DIRECTORY));
        std::fs::create_dir(bench.path("later")).unwrap();
        let _listener = UnixListener::bind(bench.path("later/a")).unwrap();
        let at = bench.dialer.deadline().unwrap();
        assert_eq!(bench.dialer.ready(at), Some(1));
        assert!(matches!(bench.dialer.attempt(1, at), Attempt::Done(_)));
        assert_eq!(bench.dialer.deadline(), None, "it is watched from now on");
    }

    #[test]
    fn who_hangs_up_again_and_again_is_called_less_and_less() {
        let mut bench = Bench::new("a");
        let _listener = UnixListener::bind(bench.path("a")).unwrap();
        bench.dialer.notified(bench.now);
        let mut waits = Vec::new();
        for session in 0..20 {
            let at = bench.dialer.deadline().unwrap();
            assert_eq!(bench.dialer.ready(at), Some(1));
            assert!(matches!(bench.dialer.attempt(1, at), Attempt::Done(_)));
            let lasted = if session == 18 { SHORT } else { Duration::from_millis(1) };
            bench.dialer.redial(1, at + lasted);
            waits.push((bench.dialer.deadline().unwrap() - at - lasted).as_millis());
        }
        assert_eq!(waits[..5], [0, 0, 1, 2, 4]);
        assert_eq!(waits[14..], [1024, 1024, 1024, 1024, 0, 0], "a session that lasts makes up for it");
    }

    #[test]
    fn what_was_removed_is_not_called() {
        let mut bench = Bench::new("a");
        bench.dialer.redial(1, bench.now);
        bench.dialer.remove(1);
        assert_eq!(bench.dialer.deadline(), None);
        let _listener = UnixListener::bind(bench.path("a")).unwrap();
        bench.dialer.notified(bench.now);
        assert_eq!(bench.dialer.ready(bench.now), None);
        assert!(bench.dialer.directories.is_empty() && bench.dialer.watches.is_empty());
    }
}
