//! A device that does next to nothing, remembers what it was told, and panics when the session breaks its promises.
//!
//! BAR 0, 4 KiB: dword 0 is scratch; dword 4 raises the MSI-X vector that is written to it; dword 8 sets the level of
//! the INTx line; dword 12 asks for `expire` so many nanoseconds later; qword 16 is a bus address; dword 24 adds what is
//! written to it to the dword at that address; dword 28 reads how often memory could not be reached. BAR 2 is I/O.

#![allow(dead_code, clippy::unwrap_used)] // Each test uses a part of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use fabnic_memory::{DirtyLog, Hint, Map};
use fabnic_pci::{Bar, Description, Express, Function, Interrupts, Msix, Pin, Reset, SharedBar};

/// A value of the scratch register at which the device has a defect.
pub(crate) const DEFECT: u32 = 0xdefe_c7ed;

/// What the device was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) attached: u32,
    pub(crate) resets: Vec<Reset>,
    pub(crate) memory: Option<Arc<Map>>,
    /// Times that memory was said.
    pub(crate) memories: u32,
    pub(crate) accesses: Vec<(u8, u64, usize, bool)>,
    pub(crate) expired: u32,
    pub(crate) interrupts: Option<Arc<dyn Interrupts>>,
    pub(crate) log: Option<Arc<DirtyLog>>,
    pub(crate) running: Vec<bool>,
    /// It pretends to be of the kind that cannot be migrated.
    pub(crate) stays: bool,
    scratch: u32,
    address: u64,
    faults: u64,
    deadline: Option<u64>,
    now: u64,
    shared: Option<OwnedFd>,
}

impl core::fmt::Debug for Told {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Told").field("resets", &self.resets).finish_non_exhaustive()
    }
}

/// The device; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    description: Arc<Description>,
    told: Arc<Mutex<Told>>,
    wake: Arc<OwnedFd>,
}

pub(crate) fn description() -> Description {
    Description {
        id: (0x1af4, 0x1110),
        subsystem: (0x1af4, 0x1100),
        class: 0xff_0000,
        revision: 1,
        pin: Pin::A,
        bars: [
            Bar::Memory32 { size: 4096, prefetchable: false },
            Bar::None,
            Bar::Io { size: 16 },
            Bar::Memory64 { size: 16 << 10, prefetchable: true },
            Bar::None,
            Bar::None,
        ],
        msix: Some(Msix { vectors: 5, table: (3, 0), pending: (3, 0x2000) }),
        express: Some(Express { flr: true }),
        power: true,
        serial: None,
    }
}

impl Toy {
    pub(crate) fn new() -> Toy {
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        Toy { description: Arc::new(description()), told: Arc::default(), wake: Arc::new(wake) }
    }

    /// One whose BAR 0 can be mapped.
    pub(crate) fn shared() -> Toy {
        let toy = Toy::new();
        let file = rustix::fs::memfd_create("bar", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        toy.told().shared = Some(file);
        toy
    }

    /// As a worker would: without being called.
    pub(crate) fn wake_at(&self, at: u64) {
        self.told().deadline = Some(at);
        rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).unwrap();
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Told {
    fn add(&mut self, value: u32) {
        let address = self.address;
        let slice = self.memory.as_ref().and_then(|map| map.translate(address, 4, &mut Hint::default()));
        let (Some(slice), Some(map)) = (slice, self.memory.clone()) else {
            self.faults += 1;
            return;
        };
        let mut bytes = [0; 4];
        map.read(&slice, 0, &mut bytes);
        map.write(&slice, 0, &u32::from_le_bytes(bytes).wrapping_add(value).to_le_bytes());
        if let Some(log) = &self.log {
            log.mark(address, 4);
        }
    }
}

impl Function for Toy {
    fn description(&self) -> &Description {
        &self.description
    }

    fn attach(&mut self, interrupts: Arc<dyn Interrupts>) {
        let mut told = self.told();
        told.attached += 1;
        told.interrupts = Some(interrupts);
    }

    fn set_memory(&mut self, memory: Option<Arc<Map>>) {
        let mut told = self.told();
        told.memories += 1;
        told.memory = memory;
    }

    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.check(bar, offset, data.len(), false);
        let told = self.told();
        let registers = [told.scratch, 0, 0, 0, 0, 0, 0, u32::try_from(told.faults).unwrap()];
        let bytes: Vec<u8> = registers.iter().flat_map(|register| register.to_le_bytes()).collect();
        data.fill(0);
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(usize::try_from(offset).unwrap())) {
            *to = *from;
        }
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.check(bar, offset, data.len(), true);
        let mut told = self.told();
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(data);
        let (qword, value) = (u64::from_le_bytes(value), u32::from_le_bytes(*value.first_chunk().unwrap()));
        match (bar, offset) {
            (0, 0) => told.scratch = value,
            (0, 4) => told.interrupts.as_ref().unwrap().msix(value as u16),
            (0, 8) => told.interrupts.as_ref().unwrap().intx(value != 0),
            (0, 12) => told.deadline = Some(told.now.saturating_add(value.into())),
            (0, 16) => told.address = qword,
            (0, 24) => told.add(value),
            _ => {}
        }
        let scratch = told.scratch;
        drop(told);
        assert!(scratch != DEFECT, "a defect");
    }

    fn reset(&mut self, reset: Reset) {
        let mut told = self.told();
        told.resets.push(reset);
        (told.scratch, told.address, told.deadline) = (0, 0, None);
        if reset == Reset::Disconnect {
            assert!(told.memory.is_none(), "nothing is reached when the client is gone");
            told.interrupts = None;
        }
    }

    fn shared(&self) -> Option<SharedBar> {
        let file = self.told().shared.as_ref()?.try_clone().unwrap();
        Some(SharedBar { bar: 0, file, areas: vec![(0, 4096)] })
    }

    fn deadline(&self) -> Option<u64> {
        self.told().deadline
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn expire(&mut self, now: u64) {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        let mut told = self.told();
        assert!(now >= told.now, "time goes forward");
        told.now = now;
        if told.deadline.is_some_and(|at| at <= now) {
            told.deadline = None;
            told.expired += 1;
        }
    }

    fn faults(&self) -> u64 {
        self.told().faults
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) -> bool {
        self.told().log = log;
        true
    }

    fn is_migratable(&self) -> bool {
        !self.told().stays
    }

    fn set_running(&mut self, running: bool) {
        self.told().running.push(running);
    }

    fn save(&mut self) -> Option<Vec<u8>> {
        Some(self.told().scratch.to_le_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let bytes = state.try_into().map_err(|_| format!("{} bytes of state, expected 4", state.len()))?;
        self.told().scratch = u32::from_le_bytes(bytes);
        Ok(())
    }
}

impl Toy {
    fn check(&self, bar: u8, offset: u64, len: usize, write: bool) {
        let size = self.description.bars[usize::from(bar)].size();
        assert!(matches!(len, 1 | 2 | 4 | 8), "an access of {len} bytes");
        assert_eq!(offset % len as u64, 0, "aligned");
        assert!(offset + len as u64 <= size, "inside");
        assert!(bar != 3 || !(0..5 * 16).contains(&offset), "the MSI-X table is the transport's");
        self.told().accesses.push((bar, offset, len, write));
    }
}
