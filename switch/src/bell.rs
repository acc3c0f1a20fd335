//! How a worker is told that there is mail, without a system call while it is awake.
//!
//! ```text
//!   others                         worker
//!   put mail in the inbox          doze: sleeping = true
//!   ring: mail = true                    mail? then do not sleep
//!         sleeping? then wake it   ... sleep ...  wake: sleeping = false
//! ```
//!
//! Either the ringer sees that the worker sleeps, or the worker sees that there is mail: each has a full fence between
//! its store and its load. `tests/bell.rs` tries all interleavings.

use super::sync::{AtomicBool, Ordering, fence};

/// One worker's bell.
#[derive(Debug)]
pub(crate) struct Bell {
    mail: AtomicBool,
    sleeping: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { mail: AtomicBool::new(false), sleeping: AtomicBool::new(false) }
    }

    /// Says that there is mail, which was put in before. `true`: the worker sleeps and must be woken.
    pub(crate) fn ring(&self) -> bool {
        self.mail.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed)
    }

    /// Whether there is mail; it is to be read after this.
    #[inline(always)]
    pub(crate) fn take(&self) -> bool {
        let mail = self.mail.load(Ordering::Relaxed);
        if mail {
            self.mail.store(false, Ordering::Release);
        }
        mail
    }

    /// The worker wants to sleep. `false`: there is mail, it must not. [`Bell::wake`] ends it in both cases.
    pub(crate) fn doze(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.mail.load(Ordering::Relaxed)
    }

    /// The worker is awake again.
    pub(crate) fn wake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}
