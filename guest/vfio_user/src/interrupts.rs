//! Interrupts of one session: eventfds that a client installed, used by workers and by the session.
//!
//! # MSI-X
//!
//! The client has a descriptor for each vector that the guest has unmasked. Without one a vector is masked, and what
//! comes meanwhile is pending until one is installed. A worker that finds none and the session that installs one may
//! cross: each writes first and looks second, so that at least one of them sees the other.
//!
//! # INTx
//!
//! The line is a level, an eventfd an edge. When the line is asserted the eventfd is written once and the interrupt is
//! masked ("automasked"); when the client unmasks it, by message or by an eventfd of its own that we watch (KVM's
//! resample), a line that is still asserted fires again.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use fabnic_pci::Interrupts;
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::error::Refusal;

/// One MSI-X vector.
#[derive(Debug, Default)]
struct Vector {
    event: ArcSwapOption<OwnedFd>,
    pending: AtomicBool,
}

impl Vector {
    fn fire(&self) {
        if let Some(event) = &*self.event.load() {
            signal(event);
            fence(Ordering::SeqCst);
            if self.event.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, event)) {
                return;
            }
            // It was exchanged meanwhile, and nobody may listen to the old one any more: rather once too often.
        }
        self.pending.store(true, Ordering::SeqCst);
        // One may have been installed meanwhile, by somebody who did not see that anything was pending.
        self.deliver();
    }

    fn install(&self, event: Option<OwnedFd>) {
        self.event.store(event.map(Arc::new));
        self.deliver();
    }

    fn deliver(&self) {
        // Between the write before and the look after, on both sides.
        fence(Ordering::SeqCst);
        if let Some(event) = &*self.event.load()
            && self.pending.swap(false, Ordering::SeqCst)
        {
            signal(event);
        }
    }
}

/// The line.
#[derive(Debug, Default)]
struct Line {
    asserted: bool,
    /// By the client, or since it fired.
    masked: bool,
    /// By the driver, in the command register.
    disabled: bool,
    event: Option<OwnedFd>,
    resample: Option<Arc<OwnedFd>>,
}

impl Line {
    fn settle(&mut self) {
        if self.asserted
            && !self.masked
            && !self.disabled
            && let Some(event) = &self.event
        {
            signal(event);
            self.masked = true;
        }
    }
}

/// What a function interrupts its driver by, for the length of a session.
#[derive(Debug)]
pub(crate) struct Events {
    vectors: Box<[Vector]>,
    line: Mutex<Line>,
}

/// Adds one to a counter that never blocks. It is full only if nobody has read it for ages.
fn signal(event: impl AsFd) {
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Descriptors to interrupt by must be eventfds, by the kernel's own word: other things without a file type (epoll sets,
/// timers) may be readable for ever, or make whoever waits for them wait for the client. And they must not block, for a
/// worker writes to them.
pub(crate) fn check_event(fd: &OwnedFd) -> Result<(), Refusal> {
    let kernel = |source: rustix::io::Errno| {
        Refusal::with(source, format!("a descriptor that cannot be looked at: {source}"), "an eventfd")
    };
    let stat = rustix::fs::fstat(fd).map_err(kernel)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Unknown {
        return Err(Refusal::invalid("a descriptor that is no eventfd", "an eventfd"));
    }
    let link =
        rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).map_err(kernel)?;
    if link.as_bytes() != b"anon_inode:[eventfd]" {
        return Err(Refusal::invalid("a descriptor that is no eventfd", "an eventfd"));
    }
    let flags = rustix::fs::fcntl_getfl(fd).map_err(kernel)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(kernel)
}

impl Events {
    /// For a function with so many MSI-X vectors.
    pub(crate) fn new(vectors: u16) -> Arc<Events> {
        Arc::new(Events {
            vectors: (0..vectors).map(|_| Vector::default()).collect(),
            line: Mutex::new(Line::default()),
        })
    }

    /// Installs the descriptor of a vector, or takes it away: the vector is masked.
    pub(crate) fn set_vector(&self, vector: u32, event: Option<OwnedFd>) {
        if let Some(vector) = usize::try_from(vector).ok().and_then(|vector| self.vectors.get(vector)) {
            vector.install(event);
        }
    }

    /// Vectors that have a descriptor.
    pub(crate) fn installed(&self) -> usize {
        self.vectors.iter().filter(|vector| vector.event.load().is_some()).count()
    }

    /// Takes all vectors' descriptors away, and forgets what was pending.
    pub(crate) fn clear_vectors(&self) {
        for vector in &self.vectors {
            vector.event.store(None);
            vector.pending.store(false, Ordering::SeqCst);
        }
    }

    /// The pending bits of 64 vectors from 64 x `word` on (PCI 3.0, section 6.8.2.10).
    pub(crate) fn pending(&self, word: usize) -> u64 {
        let vectors = self.vectors.iter().skip(word.saturating_mul(64)).take(64);
        vectors
            .enumerate()
            .map(|(bit, vector)| u64::from(vector.pending.load(Ordering::SeqCst)) << bit)
            .fold(0, core::ops::BitOr::bitor)
    }

    /// Installs the descriptor that the line is signalled by, or takes it away.
    pub(crate) fn set_line(&self, event: Option<OwnedFd>) {
        let mut line = self.line.lock();
        line.event = event;
        line.masked = false;
        line.settle();
    }

    /// Installs the descriptor by which the client unmasks the line, or takes it away.
    pub(crate) fn set_resample(&self, event: Option<OwnedFd>) {
        self.line.lock().resample = event.map(Arc::new);
    }

    /// The descriptor by which the client unmasks the line: to be watched.
    pub(crate) fn resample(&self) -> Option<Arc<OwnedFd>> {
        self.line.lock().resample.clone()
    }

    /// That descriptor became readable.
    pub(crate) fn resampled(&self) {
        let mut line = self.line.lock();
        let mut count = [0; 8];
        // The client can make the file block again at any moment: what counts is what this call says. Eventfds have no
        // place in a file; all ones stand for that.
        let mut buffers = [IoSliceMut::new(&mut count)];
        if let Some(event) = &line.resample
            && preadv2(event.as_fd(), &mut buffers, u64::MAX, ReadWriteFlags::NOWAIT).is_ok()
        {
            line.masked = false;
            line.settle();
        }
    }

    /// The client masks or unmasks the line.
    pub(crate) fn mask_line(&self, masked: bool) {
        let mut line = self.line.lock();
        line.masked = masked;
        line.settle();
    }

    /// The driver forbids or allows the line.
    pub(crate) fn disable_line(&self, disabled: bool) {
        let mut line = self.line.lock();
        line.disabled = disabled;
        line.settle();
    }

    /// Whether the line is asserted.
    pub(crate) fn asserted(&self) -> bool {
        self.line.lock().asserted
    }

    /// The function was reset: nothing is pending or asserted.
    pub(crate) fn reset(&self) {
        for vector in &self.vectors {
            vector.pending.store(false, Ordering::SeqCst);
        }
        let mut line = self.line.lock();
        line.asserted = false;
        line.disabled = false;
    }

    /// Sends an interrupt on the client's behalf, whatever the function thinks.
    pub(crate) fn fire_line(&self) {
        if let Some(event) = &self.line.lock().event {
            signal(event);
        }
    }

    /// The session is over: all descriptors go, and what comes is lost.
    pub(crate) fn end(&self) {
        self.clear_vectors();
        *self.line.lock() = Line::default();
    }
}

impl Interrupts for Events {
    fn msix(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.fire();
        }
    }

    fn intx(&self, asserted: bool) {
        let mut line = self.line.lock();
        line.asserted = asserted;
        line.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;

    fn event() -> (OwnedFd, OwnedFd) {
        let ours = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        (ours.try_clone().unwrap(), ours)
    }

    fn count(fd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(fd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let events = Events::new(70);
        let (given, seen) = event();
        events.msix(65);
        events.msix(65);
        assert_eq!((events.pending(0), events.pending(1), events.pending(2)), (0, 2, 0));
        events.set_vector(65, Some(given));
        assert_eq!(count(&seen), 1, "once, however often");
        assert_eq!(events.pending(1), 0);
        events.msix(65);
        events.msix(65);
        assert_eq!(count(&seen), 2);
        events.set_vector(65, None);
        events.msix(65);
        assert_eq!(count(&seen), 0);
        events.reset();
        assert_eq!(events.pending(1), 0);
        events.msix(70);
        events.set_vector(70, None);
    }

    #[test]
    fn the_line_masks_itself_and_fires_again_while_asserted() {
        let events = Events::new(0);
        let (given, seen) = event();
        events.intx(true);
        events.set_line(Some(given));
        assert_eq!(count(&seen), 1, "asserted before anybody listened");
        events.intx(true);
        assert_eq!(count(&seen), 0, "masked since");
        events.mask_line(false);
        assert_eq!(count(&seen), 1, "still asserted");
        events.intx(false);
        events.mask_line(false);
        assert_eq!(count(&seen), 0);
        events.disable_line(true);
        events.intx(true);
        assert_eq!(count(&seen), 0);
        events.disable_line(false);
        assert_eq!(count(&seen), 1);
        events.mask_line(true);
        events.intx(false);
        events.intx(true);
        assert_eq!(count(&seen), 0);
    }

    #[test]
    fn the_line_is_unmasked_by_a_descriptor() {
        let events = Events::new(0);
        let (line, seen) = event();
        let (resample, kvm) = event();
        events.set_line(Some(line));
        events.set_resample(Some(resample));
        events.intx(true);
        assert_eq!(count(&seen), 1);
        events.resampled();
        assert_eq!(count(&seen), 0, "nothing was said");
        signal(&kvm);
        events.resampled();
        assert_eq!(count(&seen), 1, "still asserted");
        events.intx(false);
        signal(&kvm);
        events.resampled();
        assert_eq!(count(&seen), 0);
        events.end();
        assert!(events.resample().is_none());
    }

    #[test]
    fn only_eventfds_interrupt() {
        let (eventfd, _) = event();
        assert!(check_event(&eventfd).is_ok());
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(check_event(&file).is_err());
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert!(check_event(&read).is_err());
    }
}
