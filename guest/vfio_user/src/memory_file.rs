//! Which files a client may share as memory.
//!
//! Workers read and write shared memory in the middle of a burst. A page that is not there is fetched by the kernel, and
//! where it comes from decides how long that takes: from a program of the client's choice (FUSE) or over a network it
//! may take for ever, and would hold up every port of that worker. What virtual machines really use (memfd, tmpfs, huge
//! pages, files on local disks) answers by itself.

use std::os::fd::OwnedFd;

use crate::error::Refusal;

/// File systems whose pages come from elsewhere, by their magic (statfs(2)).
const FOREIGN: [(u32, &str); 8] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0x0102_1997, "9p"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
];

/// Refuses files whose pages somebody else may withhold.
pub(crate) fn check(file: &OwnedFd) -> Result<(), Refusal> {
    let expected = "a memfd, or a file on tmpfs, hugetlbfs or a local disk";
    let stat = rustix::fs::fstatfs(file).map_err(|source| {
        Refusal::with(source, format!("a memory file that cannot be looked at: {source}"), expected)
    })?;
    let magic = stat.f_type as u64 & 0xffff_ffff;
    match FOREIGN.iter().find(|(foreign, _)| u64::from(*foreign) == magic) {
        None => Ok(()),
        Some((_, name)) => Err(Refusal::invalid(format!("a memory file on {name}"), expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    #[test]
    fn what_virtual_machines_use_is_taken() {
        let memfd = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
        assert!(check(&memfd).is_ok());
        let disk = tempfile::tempfile().unwrap();
        assert!(check(&disk.into()).is_ok());
    }
}
