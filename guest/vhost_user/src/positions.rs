//! Where the rings of an end point stand, kept for the session and for the daemon that come after this one.
//!
//! A front end learns the position of a ring from the answer to GET_VRING_BASE. When a back end dies, or its socket is
//! closed, there is no answer. For a split ring the used index in memory says it. For a packed ring nothing in shared
//! memory does, and QEMU sends the position that it knew when the ring was last started. So each packed ring's position
//! is noted in a small file ([`Journal`], written by the data path), and taken from there if:
//!
//! * the ring was running, its position was not asked for, and the device was not reset since;
//! * the front end is the same process, the ring's address and size are the same, and the base is said as it was then;
//! * and the ring looks as if we had served it: after a reboot of the guest it does not.
//!
//! The file is best kept on a tmpfs: it need not outlive the machine, only the process. Without a directory for it
//! ([`crate::Reactor::keep_positions_in`]) the notes live in anonymous memory, and help only while the daemon lives. What
//! the file says is not trusted: a wrong position in it can harm none but its own ring.
//!
//! ```text
//!   word 0      magic and version        then 8 words for each ring:
//!   words 1-7   zero                     state, descriptor address, size and base, process, journal (2), zero (2)
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fabnic_memory::{AddressSpace, Map, RegionSpec, Table};
use fabnic_virtqueue::Journal;
use rustix::fs::{MemfdFlags, Mode, OFlags};

/// "fabring" and a version.
const MAGIC: u64 = u64::from_be_bytes(*b"fabring\x01");
const WORDS: usize = 8;
const RUNNING: u64 = 1;

/// What a ring is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Address of its descriptors in the front end.
    pub(crate) desc: u64,
    /// Address of the device's event structure.
    pub(crate) device: u64,
    /// Its size.
    pub(crate) size: u16,
    /// The base that the front end said, or `None` if it said none since the ring was stopped.
    pub(crate) said: Option<u32>,
    /// The front end's process, or 0 where it is not known. Another process has other rings, even at the same addresses.
    pub(crate) peer: i32,
}

impl Identity {
    fn peer(&self) -> u64 {
        u64::from(self.peer.unsigned_abs())
    }

    fn packed(&self) -> u64 {
        u64::from(self.size) | u64::from(self.said.unwrap_or(0)) << 32
    }
}

/// The notes of one end point.
#[derive(Debug)]
pub(crate) struct Positions {
    words: Table<u64>,
}

/// The file's name for a socket: its path, flat.
pub(crate) fn file_name(socket: &Path) -> PathBuf {
    let flat = socket.to_string_lossy().replace('%', "%25").replace('/', "%2f");
    PathBuf::from(flat + ".rings")
}

fn open_file(path: &Path, len: u64) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    if u64::try_from(rustix::fs::fstat(&file)?.st_size).ok() != Some(len) {
        // New, or of a port with another number of rings.
        rustix::fs::ftruncate(&file, 0)?;
        rustix::fs::ftruncate(&file, len)?;
    }
    Ok(file)
}

impl Positions {
    /// The notes of `rings` rings, in this file or in anonymous memory.
    pub(crate) fn open(path: Option<&Path>, rings: u16) -> Option<Arc<Positions>> {
        let count = (1 + usize::from(rings)) * WORDS;
        let len = u64::try_from(count).ok()? * 8;
        let file = path.and_then(|path| match open_file(path, len) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ring positions will not outlive the daemon");
                None
            }
        });
        let file = file.or_else(|| {
            let file = rustix::fs::memfd_create("fabnic-positions", MemfdFlags::CLOEXEC).ok()?;
            rustix::fs::ftruncate(&file, len).ok()?;
            Some(file)
        })?;
        let map = Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len, offset: 0, file }]).ok()?;
        let words: Table<u64> = map.table(AddressSpace::User, 0, count).ok()?;
        if words.load(0) != MAGIC {
            (0..count).for_each(|word| words.store(word, 0));
            words.store(0, MAGIC);
        }
        Some(Arc::new(Positions { words }))
    }

    fn at(&self, ring: u16) -> usize {
        (1 + usize::from(ring)) * WORDS
    }

    /// Where the data path notes the ring's position.
    pub(crate) fn journal(&self, ring: u16) -> Journal {
        Journal::new(self.words.clone(), self.at(ring) + 4)
    }

    fn is_known(&self, ring: u16, identity: &Identity) -> bool {
        let at = self.at(ring);
        identity.said.is_some()
            && self.words.load_acquire(at) == RUNNING
            && self.words.load(at + 1) == identity.desc
            && self.words.load(at + 2) == identity.packed()
            && self.words.load(at + 3) == identity.peer()
    }

    /// The position of a packed ring that ran and was not asked for it.
    pub(crate) fn recover(&self, ring: u16, identity: &Identity, map: &Arc<Map>) -> Option<u16> {
        if !self.is_known(ring, identity) {
            return None;
        }
        self.journal(ring).recover(map, identity.desc, identity.device, identity.size)
    }

    /// The ring is about to start; its journal begins with its position.
    pub(crate) fn begin(&self, ring: u16, identity: &Identity, position: u16) {
        let at = self.at(ring);
        if !self.is_known(ring, identity) {
            self.words.store_release(at, 0);
            self.words.store(at + 1, identity.desc);
            self.words.store(at + 2, identity.packed());
            self.words.store(at + 3, identity.peer());
        }
        self.journal(ring).begin(position);
        self.words.store_release(at, RUNNING);
    }

    /// The ring's position was given to the front end, or means nothing any more.
    pub(crate) fn forget(&self, ring: u16) {
        self.words.store_release(self.at(ring), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Identity =
        Identity { desc: 0x1000, device: 0x2000, size: 8, said: Some(0x8000_8000), peer: 7 };

    fn served_ring() -> Arc<Map> {
        let (map, _file) = Map::anonymous(0x4000).unwrap();
        map.table::<u32>(AddressSpace::User, WHO.device, 1).unwrap().store(0, 1 << 16);
        map
    }

    #[test]
    fn a_running_ring_is_known_to_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name(Path::new("/run/a b/vm%.sock")));
        let map = served_ring();
        Positions::open(Some(&path), 2).unwrap().begin(1, &WHO, 0x8003);
        let next = Positions::open(Some(&path), 2).unwrap();
        assert_eq!(next.recover(1, &WHO, &map), Some(0x8003));
        assert_eq!(next.recover(0, &WHO, &map), None);
        // Another ring, or a front end that knows better.
        assert_eq!(next.recover(1, &Identity { desc: 0x1080, ..WHO }, &map), None);
        assert_eq!(next.recover(1, &Identity { size: 16, ..WHO }, &map), None);
        assert_eq!(next.recover(1, &Identity { said: Some(0x8001_8001), ..WHO }, &map), None);
        assert_eq!(next.recover(1, &Identity { said: None, ..WHO }, &map), None);
        assert_eq!(next.recover(1, &Identity { peer: 8, ..WHO }, &map), None);
        // Begun again at the recovered position, it is still known by what the front end says.
        next.begin(1, &WHO, 0x8004);
        assert_eq!(next.recover(1, &WHO, &map), Some(0x8004));
        next.forget(1);
        assert_eq!(Positions::open(Some(&path), 2).unwrap().recover(1, &WHO, &map), None);
    }

    #[test]
    fn a_spoilt_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.rings");
        let map = served_ring();
        std::fs::write(&path, [0xff; 3 * WORDS * 8]).unwrap();
        assert_eq!(Positions::open(Some(&path), 2).unwrap().recover(0, &WHO, &map), None);
        // Of a port that had another number of rings.
        Positions::open(Some(&path), 2).unwrap().begin(1, &WHO, 0x8003);
        assert_eq!(Positions::open(Some(&path), 4).unwrap().recover(1, &WHO, &map), None);
        // No place for it: the notes are there all the same, for as long as the process lives.
        let lost = Positions::open(Some(&dir.path().join("no/such/x.rings")), 2).unwrap();
        lost.begin(1, &WHO, 0x8003);
        assert_eq!(lost.recover(1, &WHO, &map), Some(0x8003));
    }

    #[test]
    fn file_names_are_flat_and_differ() {
        assert_eq!(file_name(Path::new("/run/a.sock")), Path::new("%2frun%2fa.sock.rings"));
        assert_ne!(file_name(Path::new("/a/b")), file_name(Path::new("/a%2fb")));
    }
}
