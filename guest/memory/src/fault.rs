//! Surviving a memory file that shrinks under us.
//!
//! Touching a page behind the end of a file raises SIGBUS in the thread that touched it. Sealed memfds cannot shrink;
//! any other file can, by accident or on purpose, and one guest must not take the daemon and all other guests with it.
//!
//! [`install`] sets a handler once for the process. Every mapping of guest memory is entered in a registry. When a fault
//! lies inside a registered mapping, the handler lays anonymous zero pages over the *whole* mapping, raises the mapping's
//! flag and returns: the interrupted copy goes on and reads zeros. Queues look at the flag once a burst
//! ([`crate::Map::faulted`]) and stop their port. A fault anywhere else goes to the handler that was there before.
//!
//! The handler runs between any two instructions, so it only reads atomics and calls `mmap`, which the kernel allows
//! there.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

const SLOTS: usize = 1024;

/// One registered mapping. `start` is written last and cleared first: a slot with a start of zero is not in use.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    flag: AtomicPtr<AtomicBool>,
}

/// A block of slots; blocks are chained and never freed, because the handler may be reading them.
struct Block {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Block {
        Block {
            slots: [const {
                Slot {
                    taken: AtomicBool::new(false),
                    start: AtomicUsize::new(0),
                    len: AtomicUsize::new(0),
                    flag: AtomicPtr::new(core::ptr::null_mut()),
                }
            }; SLOTS],
            next: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

static FIRST: Block = Block::new();
static INSTALL: Once = Once::new();
/// The action that was set before ours, for faults that are not ours. Written once, before our handler is set.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(core::ptr::null_mut());

/// A place in the registry; leaving scope takes the mapping out again.
#[derive(Debug)]
pub(crate) struct Registration {
    slot: &'static Slot,
    // Keeps the flag alive for as long as the handler can find it.
    _flag: Arc<AtomicBool>,
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slot").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Enters a mapping. It must be taken out (dropped) before it is unmapped.
pub(crate) fn register(start: usize, len: usize, flag: Arc<AtomicBool>) -> Registration {
    install();
    let mut block = &FIRST;
    loop {
        for slot in &block.slots {
            if !slot.taken.load(Ordering::Relaxed) && !slot.taken.swap(true, Ordering::Acquire) {
                slot.len.store(len, Ordering::Relaxed);
                slot.flag.store(Arc::as_ptr(&flag).cast_mut(), Ordering::Relaxed);
                slot.start.store(start, Ordering::Release);
                return Registration { slot, _flag: flag };
            }
        }
        block = next_block(block);
    }
}

fn next_block(block: &'static Block) -> &'static Block {
    let next = block.next.load(Ordering::Acquire);
    if !next.is_null() {
        // SAFETY: blocks are leaked boxes and never freed.
        return unsafe { &*next };
    }
    let fresh = Box::into_raw(Box::new(Block::new()));
    match block.next.compare_exchange(core::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just published, never freed.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` was published to nobody, so it is ours to free; `other` is a leaked block.
            unsafe {
                drop(Box::from_raw(fresh));
                &*other
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.start.store(0, Ordering::Release);
        self.slot.flag.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Sets the handler; later calls do nothing. Mapping guest memory calls it, so a program need not.
pub fn install() {
    INSTALL.call_once(|| {
        // SAFETY: both structs are plain data for which all zeros is valid; the handler has the signature that
        // SA_SIGINFO asks for, and everything it touches is async-signal-safe (see the module's page).
        unsafe {
            let previous = Box::into_raw(Box::new(core::mem::zeroed::<libc::sigaction>()));
            libc::sigaction(libc::SIGBUS, core::ptr::null(), previous);
            PREVIOUS.store(previous, Ordering::Release);
            let mut action = core::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, core::ptr::null_mut());
        }
    });
}

extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; for SIGBUS si_addr is set.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace(address) {
        // Not ours: put the previous action back and return, so that the fault happens again under it.
        let previous = PREVIOUS.load(Ordering::Acquire);
        // SAFETY: `previous` was filled by sigaction before our handler was set and is never freed.
        unsafe { libc::sigaction(libc::SIGBUS, previous, core::ptr::null_mut()) };
    }
}

/// Replaces the registered mapping around `address` by zero pages; `false` if there is none or the kernel refuses.
fn replace(address: usize) -> bool {
    let mut block = &FIRST;
    loop {
        for slot in &block.slots {
            let start = slot.start.load(Ordering::Acquire);
            if start == 0 || address < start {
                continue;
            }
            let len = slot.len.load(Ordering::Relaxed);
            let flag = slot.flag.load(Ordering::Relaxed);
            if address - start >= len || flag.is_null() || slot.start.load(Ordering::Acquire) != start {
                continue;
            }
            // SAFETY: the mapping belongs to this registry and is alive: the faulting thread is inside it, through a map
            // that owns it, and it is taken out of the registry before it is unmapped. MAP_FIXED replaces exactly it.
            unsafe {
                let got = libc::mmap(
                    start as *mut libc::c_void,
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                );
                if got == libc::MAP_FAILED {
                    return false;
                }
                (*flag).store(true, Ordering::Release);
            }
            return true;
        }
        let next = block.next.load(Ordering::Acquire);
        if next.is_null() {
            return false;
        }
        // SAFETY: blocks are never freed.
        block = unsafe { &*next };
    }
}
