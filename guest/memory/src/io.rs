//! Reading from and writing to file descriptors straight from and to guest bytes: what TAP devices need.

use core::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::map::Map;
use crate::slice::Slice;

/// Pieces of one `readv` or `writev`; what lies behind is not transferred, and the count says so.
const PIECES: usize = 64;

/// A list of buffers for one system call.
struct Vector {
    entries: [libc::iovec; PIECES],
    used: usize,
}

impl Vector {
    fn new() -> Vector {
        let none = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
        Vector { entries: [none; PIECES], used: 0 }
    }

    fn push(&mut self, base: *mut u8, len: usize) {
        if let Some(entry) = self.entries.get_mut(self.used).filter(|_| len > 0) {
            *entry = libc::iovec { iov_base: base.cast(), iov_len: len };
            self.used += 1;
        }
    }

    fn push_slices(&mut self, map: &Map, slices: &[Slice], skip: u32) {
        let mut skip = skip;
        for slice in slices.iter().filter(|slice| map.owns(slice)) {
            let cut = skip.min(slice.len());
            skip -= cut;
            let part = slice.part(cut, slice.len() - cut);
            self.push(part.address() as *mut u8, part.len() as usize);
        }
    }

    fn call(
        &self,
        fd: BorrowedFd<'_>,
        f: unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> isize,
    ) -> io::Result<usize> {
        let count = c_int::try_from(self.used).unwrap_or(0);
        // SAFETY: every entry is private memory borrowed by the caller or a slice of a map that the caller borrows; the
        // kernel answers EFAULT, without a signal, for pages that a truncated file lost.
        let n = unsafe { f(fd.as_raw_fd(), self.entries.as_ptr(), count) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

impl Map {
    /// One `readv`: `head` first, then the slices. Gives the bytes read.
    pub fn read_from(&self, fd: BorrowedFd<'_>, head: &mut [u8], slices: &[Slice]) -> io::Result<usize> {
        let mut vector = Vector::new();
        vector.push(head.as_mut_ptr(), head.len());
        vector.push_slices(self, slices, 0);
        vector.call(fd, libc::readv)
    }

    /// One `writev`: `head` first, then the slices less their first `skip` bytes. Gives the bytes written.
    pub fn write_to(
        &self,
        fd: BorrowedFd<'_>,
        head: &[u8],
        slices: &[Slice],
        skip: u32,
    ) -> io::Result<usize> {
        let mut vector = Vector::new();
        vector.push(head.as_ptr().cast_mut(), head.len());
        vector.push_slices(self, slices, skip);
        vector.call(fd, libc::writev)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use crate::{Hint, Map};

    #[test]
    fn a_pipe_gets_what_the_slices_hold() {
        let (map, _) = Map::anonymous(0x4000).unwrap();
        let at = |addr, len| map.translate(addr, len, &mut Hint::default()).unwrap();
        map.write(&at(0, 5), 0, b"abcde");
        map.write(&at(100, 5), 0, b"fghij");
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(map.write_to(writer.as_fd(), b"12", &[at(0, 5), at(100, 5)], 6).unwrap(), 6);
        let mut head = [0; 3];
        assert_eq!(map.read_from(reader.as_fd(), &mut head, &[at(200, 1), at(300, 9)]).unwrap(), 6);
        assert_eq!(&head, b"12g");
        let mut tail = [0; 2];
        map.read(&at(300, 2), 0, &mut tail);
        assert_eq!(&tail, b"ij");
    }
}
