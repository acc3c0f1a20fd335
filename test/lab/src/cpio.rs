//! Writes an initramfs: the "newc" cpio format that the kernel unpacks (Documentation/driver-api/early-userspace/
//! buffer-format.rst), uncompressed, because QEMU hands it over in memory anyway.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

/// An archive in the making. Parent folders are added by themselves.
pub(crate) struct Archive<W> {
    out: W,
    dirs: BTreeSet<String>,
    next_inode: u32,
    written: usize,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, dirs: BTreeSet::new(), next_inode: 1, written: 0 }
    }

    /// Adds a folder and those above it.
    pub(crate) fn dir(&mut self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let Some(parent) = path.get(..at).filter(|parent| !parent.is_empty()) else { continue };
            if self.dirs.insert(parent.to_owned()) {
                self.entry(parent, S_IFDIR | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Adds a regular file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, S_IFREG | mode, (0, 0), bytes)
    }

    /// Adds a character device, which the kernel needs for init's first console.
    pub(crate) fn char_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, S_IFCHR | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(parent) if !parent.is_empty() => self.dir(parent),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, rdev: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let size =
            u32::try_from(bytes.len()).map_err(|_| io::Error::other("a file of 4 GiB in an initramfs"))?;
        let name_size = path.len() + 1;
        let inode = self.next_inode;
        self.next_inode += 1;
        let header = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}{dev:08x}{dev:08x}\
             {major:08x}{minor:08x}{name_size:08x}{check:08x}",
            uid = 0,
            gid = 0,
            links = 1,
            mtime = 0,
            dev = 0,
            major = rdev.0,
            minor = rdev.1,
            check = 0,
        );
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(bytes)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len();
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        while !self.written.is_multiple_of(4) {
            self.put(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_110_bytes_and_everything_is_aligned() {
        let mut archive = Archive::new(Vec::new());
        archive.file("etc/hostname", 0o644, b"guest").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let magics: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(magics.len(), 3, "folder, file, trailer");
        assert!(magics.iter().all(|at| at % 4 == 0));
        // newc: 6 bytes of magic and 13 fields of 8 hex digits, then the name.
        assert_eq!(&bytes[110..114], b"etc\0");
        assert!(text.contains("guest"));
    }

    #[test]
    fn folders_are_added_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/one", 0o644, b"").unwrap();
        archive.file("a/b/two", 0o644, b"").unwrap();
        let text = String::from_utf8_lossy(&archive.finish().unwrap()).into_owned();
        assert_eq!(text.matches("a/b\0").count(), 1);
        assert_eq!(text.matches("070701").count(), 5);
    }
}
