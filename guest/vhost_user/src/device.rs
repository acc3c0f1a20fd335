//! What a session needs of a device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map};
use fabnic_port::Fault;
use fabnic_virtqueue::Journal;

/// Everything that is known of a ring when it starts.
#[derive(Debug)]
pub struct RingSetup {
    /// Its number.
    pub ring: u16,
    /// The guest's memory.
    pub map: Arc<Map>,
    /// The virtio features that were agreed, without those of the transport (bits 26 and 30).
    pub features: u64,
    /// Size in descriptors; a power of two for a split ring.
    pub size: u16,
    /// Address of the descriptor table, in the front end's address space, as are the next two.
    pub desc: u64,
    /// Address of the available ring (split) or of the driver's event structure (packed).
    pub driver: u64,
    /// Address of the used ring (split) or of the device's event structure (packed).
    pub device: u64,
    /// Where to begin. Split: the next index of both rings, in 16 bits. Packed: index in bits 0-14 and wrap counter in
    /// bit 15 for the available side, the same in bits 16-31 for the used side; both sides are equal.
    pub base: u32,
    /// Whether it may work, or (network devices) must deliver nothing and throw away what is sent.
    pub enabled: bool,
    /// Kicks us; none means that we poll.
    pub kick: Option<OwnedFd>,
    /// Interrupts the driver; none means that it polls. Non-blocking.
    pub call: Option<OwnedFd>,
    /// Where writes are logged, if they are at the moment.
    pub log: Option<Arc<DirtyLog>>,
    /// Guest-physical address under which writes to the used ring are logged, if they are to be.
    pub log_used: Option<u64>,
    /// Where the position of a packed ring is to be noted.
    pub journal: Option<Journal>,
}

/// A device behind a vhost-user session: called from the one control thread, one call at a time. Nothing here may wait
/// for a guest or a front end.
pub trait Device: Send {
    /// Name of the port, for the log.
    fn name(&self) -> &str;

    /// Virtio features offered, without those of the transport.
    fn features(&self) -> u64;

    /// What a bit of [`Device::features`] is called, for people to read.
    fn feature_name(&self, bit: u32) -> Option<&'static str>;

    /// How many rings there are: at most 256.
    fn rings(&self) -> u16;

    /// A front end is there. Rings are not.
    fn connected(&mut self);

    /// A ring is complete: begin. An error leaves it stopped, with this reason to be read.
    fn start_ring(&mut self, setup: RingSetup) -> Result<(), Fault>;

    /// A ring must stop: everything taken from it is given back before this returns. Gives its position in the form of
    /// [`RingSetup::base`], or `None` if it was not running.
    fn stop_ring(&mut self, ring: u16) -> Option<u32>;

    /// Enables or disables a ring that runs.
    fn set_enabled(&mut self, ring: u16, enabled: bool);

    /// The guest's memory is another now. The ring's tables and all later buffers are found in it.
    fn set_memory(&mut self, ring: u16, map: &Arc<Map>) -> Result<(), Fault>;

    /// Another descriptor kicks a ring that runs.
    fn set_kick(&mut self, ring: u16, kick: Option<OwnedFd>);

    /// Another descriptor interrupts for a ring that runs.
    fn set_call(&mut self, ring: u16, call: Option<OwnedFd>);

    /// Writes of a ring that runs are logged from now on, or not any more. What was written before is in the old log.
    fn set_log(&mut self, ring: u16, log: Option<Arc<DirtyLog>>, log_used: Option<u64>);

    /// Reads the configuration space; `false` if it does not reach that far.
    fn read_config(&self, offset: u32, into: &mut [u8]) -> bool;

    /// Writes the configuration space.
    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), Fault>;

    /// The guest's MTU in bytes.
    fn set_mtu(&mut self, mtu: u64) -> Result<(), Fault>;

    /// The guest cannot tell the network where it is now: do it for this MAC.
    fn announce(&mut self, mac: [u8; 6]);

    /// The virtio status byte was written. 0 is a reset; rings are stopped by then.
    fn set_status(&mut self, status: u8);

    /// The front end is gone, for this reason; all rings were stopped.
    fn disconnected(&mut self, reason: &str);
}
