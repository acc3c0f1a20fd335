//! The boundary between a device model and its transport.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map};

use crate::Description;

/// Why a function is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The driver asked for a function-level reset, or came back from D3hot.
    FunctionLevel,
    /// The VMM resets the device: its machine was reset.
    Device,
    /// The VMM is gone.
    Disconnect,
}

/// How often a driver asked for an interrupt by itself, as those do whose timer sees a queue stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftwareInterrupts {
    /// Times that it did.
    pub asked: u64,
    /// Those of them at which there was work in a ring that no interrupt had told of and none was about to: an interrupt
    /// was lost.
    pub lost: u64,
}

/// Pages of a BAR that the guest may write without anybody being told: whoever serves the function polls them.
#[derive(Debug)]
pub struct SharedBar {
    /// Which BAR.
    pub bar: u8,
    /// Backs the whole BAR from offset 0 on.
    pub file: OwnedFd,
    /// Offset and length of what may be mapped, in whole pages of 4096 bytes.
    pub areas: Vec<(u64, u64)>,
}

/// How a function interrupts its driver. Called by workers too: it must not block, and it costs a write to an eventfd at
/// the most.
pub trait Interrupts: Send + Sync {
    /// Sends the message of an MSI-X vector, or leaves it pending if the driver has the vector masked.
    fn msix(&self, vector: u16);
    /// Sets the level of the INTx line.
    fn intx(&self, asserted: bool);
}

/// A device model, as its transport sees it. One thread calls it at a time.
pub trait Function: Send {
    /// What it is. Does not change while a VMM is attached.
    fn description(&self) -> &Description;

    /// A VMM came: how to interrupt its VM from now on.
    fn attach(&mut self, interrupts: Arc<dyn Interrupts>);

    /// What the function may reach from now on, by bus address (`fabnic_memory::AddressSpace::Guest`): `None` while bus
    /// mastering is off or nothing is mapped. When this returns nothing uses the map that was before.
    fn set_memory(&mut self, memory: Option<Arc<Map>>);

    /// The driver reads from a BAR: 1, 2, 4 or 8 bytes, not beyond its end. Little endian.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// The driver writes to a BAR, as for [`Function::read`].
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// Back to the state after power-on, but for the memory map, which [`Function::set_memory`] says. When this returns no
    /// queue of the function is served and no interrupt comes.
    fn reset(&mut self, reset: Reset);

    /// Pages that the guest may have mapped, if the function offers any.
    fn shared(&self) -> Option<SharedBar> {
        None
    }

    /// When [`Function::expire`] is due, in nanoseconds of the transport's monotonic clock; `None`: never.
    fn deadline(&self) -> Option<u64> {
        None
    }

    /// Becomes readable when something but the driver wants the function's attention: the transport then calls
    /// [`Function::expire`], which reads it.
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Time went on, to `now` nanoseconds of that clock. Also called before each access, so that the model knows the time.
    fn expire(&mut self, now: u64) {
        let _ = now;
    }

    /// Accesses to memory outside of the map that were refused, since the function was made.
    fn faults(&self) -> u64 {
        0
    }

    /// What drivers asked for by themselves, since the function was made.
    fn software_interrupts(&self) -> SoftwareInterrupts {
        SoftwareInterrupts::default()
    }

    /// Where to log writes to guest memory from now on, for live migration; `None`: nowhere. Pages are those of the
    /// bus addresses of the map. When this returns, every later write is logged. `false`: it cannot.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> bool {
        log.is_none()
    }

    /// Whether [`Function::save`], [`Function::restore`] and [`Function::set_log`] work.
    fn is_migratable(&self) -> bool {
        false
    }

    /// Stops the function where it stands (`false`) or lets it go on (`true`): while it is stopped no queue is served, no
    /// register changes by itself and no memory is written.
    fn set_running(&mut self, running: bool) {
        let _ = running;
    }

    /// The whole state of a stopped function, for its twin on another host. `None`: it has no way to tell.
    fn save(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Takes the state of a twin, while stopped. The bytes may be anybody's.
    ///
    /// # Errors
    /// What is wrong with the state; the function is as after a reset then.
    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let _ = state;
        Err("this function cannot be restored".to_owned())
    }
}
