//! What the driver needs of whatever carries it to a device.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use fabnic_memory::Map;
use fabnic_pci::{Function, Interrupts, Reset};

/// A device's registers, memory that it reaches, and its vectors.
pub trait Bus {
    /// Reads a register of BAR0.
    fn read(&mut self, offset: u64) -> u32;
    /// Writes a register of BAR0. What was written to memory before is seen before.
    fn write(&mut self, offset: u64, value: u32);
    /// Memory that the device reaches, by bus addresses as `fabnic_memory::AddressSpace::Guest`; and the run of it, as
    /// address and length in one region, that the driver may use.
    fn memory(&self) -> (Arc<Map>, u64, u64);
    /// Function-level reset.
    fn reset(&mut self);
    /// Takes the interrupts of a vector that came since the last time: how many, if it can be told, at least 1.
    fn take_interrupts(&mut self, vector: u16) -> u32;
    /// Called while the driver waits for the device: some time may pass.
    fn pause(&mut self) {
        std::thread::yield_now();
    }
}

/// Vectors of [`InProcess`].
const VECTORS: usize = 64;

struct Counts([AtomicU32; VECTORS]);

impl Interrupts for Counts {
    fn msix(&self, vector: u16) {
        if let Some(count) = self.0.get(usize::from(vector)) {
            count.fetch_add(1, Ordering::Release);
        }
    }

    fn intx(&self, _asserted: bool) {}
}

/// A device model in the same process, as its transport would drive it.
pub struct InProcess {
    function: Box<dyn Function>,
    memory: Arc<Map>,
    len: u64,
    counts: Arc<Counts>,
}

impl core::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("InProcess").field("len", &self.len).finish_non_exhaustive()
    }
}

impl InProcess {
    /// Attaches to a model: interrupts, and memory of which the first `len` bytes are the driver's.
    pub fn new(mut function: Box<dyn Function>, memory: Arc<Map>, len: u64) -> InProcess {
        let counts = Arc::new(Counts([const { AtomicU32::new(0) }; VECTORS]));
        function.attach(Arc::<Counts>::clone(&counts));
        function.set_memory(Some(Arc::clone(&memory)));
        InProcess { function, memory, len, counts }
    }

    /// The model.
    pub fn function(&mut self) -> &mut dyn Function {
        self.function.as_mut()
    }
}

impl Bus for InProcess {
    fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function.expire(0);
        self.function.read(0, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.function.expire(0);
        self.function.write(0, offset, &value.to_le_bytes());
    }

    fn memory(&self) -> (Arc<Map>, u64, u64) {
        (Arc::clone(&self.memory), 0, self.len)
    }

    fn reset(&mut self) {
        self.function.reset(Reset::FunctionLevel);
    }

    fn take_interrupts(&mut self, vector: u16) -> u32 {
        self.function.expire(0);
        self.counts.0.get(usize::from(vector)).map_or(0, |count| count.swap(0, Ordering::Acquire))
    }
}
