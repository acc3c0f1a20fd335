//! A device that serves nothing, remembers what it was told, and panics when the session breaks its promises.

#![allow(dead_code)] // Each test uses a part of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use fabnic_memory::{DirtyLog, Map};
use fabnic_port::Fault;
use fabnic_vhost_user::{Device, RingSetup};
use fabnic_virtqueue::Journal;

/// Virtio features that are offered: VERSION_1, RING_PACKED, IN_ORDER, EVENT_IDX, MRG_RXBUF.
pub(crate) const OFFERED: u64 = 1 << 32 | PACKED | 1 << 35 | 1 << 29 | 1 << 15;
pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const LOG_ALL: u64 = 1 << 26;
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;

/// An MTU that this device cannot bear.
pub(crate) const DEFECT: u64 = u64::MAX - 1;

/// Configuration space that can be read; its last four bytes can be written.
pub(crate) const CONFIG: usize = 24;

/// A ring that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) features: u64,
    pub(crate) size: u16,
    pub(crate) addresses: [u64; 3],
    pub(crate) base: u32,
    pub(crate) enabled: bool,
    pub(crate) has_kick: bool,
    pub(crate) has_call: bool,
    pub(crate) logs_to: Option<Arc<DirtyLog>>,
    pub(crate) log_used: Option<u64>,
    pub(crate) map: Arc<Map>,
    pub(crate) journal: Option<Journal>,
}

/// What was told, and what is to be answered.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) rings: BTreeMap<u16, Running>,
    pub(crate) connected: u32,
    pub(crate) disconnected: Vec<String>,
    pub(crate) announced: Vec<[u8; 6]>,
    pub(crate) mtu: Option<u64>,
    pub(crate) status: Vec<u8>,
    pub(crate) config: [u8; CONFIG],
    pub(crate) memory_changes: u32,
    /// How far each ring moves on while it runs.
    pub(crate) progress: u32,
    /// Makes the next start fail with this.
    pub(crate) refuse_start: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) rings: u16,
    told: Arc<Mutex<Told>>,
}

impl Fake {
    pub(crate) fn new(rings: u16) -> Fake {
        Fake { rings, told: Arc::default() }
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn running(&self, ring: u16, change: impl FnOnce(&mut Running)) {
        let mut told = self.told();
        change(told.rings.get_mut(&ring).expect("only rings that run are changed"));
    }
}

impl Device for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn features(&self) -> u64 {
        OFFERED
    }

    fn feature_name(&self, bit: u32) -> Option<&'static str> {
        (bit == 34).then_some("RING_PACKED")
    }

    fn rings(&self) -> u16 {
        self.rings
    }

    fn connected(&mut self) {
        self.told().connected += 1;
    }

    fn start_ring(&mut self, setup: RingSetup) -> Result<(), Fault> {
        let mut told = self.told();
        assert!(setup.ring < self.rings, "ring {} of {}", setup.ring, self.rings);
        assert_eq!(setup.features & !OFFERED, 0, "features beyond the offer");
        let is_packed = setup.features & PACKED != 0;
        assert!(setup.size > 0 && setup.size <= 32768);
        assert!(is_packed || setup.size.is_power_of_two(), "a split ring of size {}", setup.size);
        assert!(is_packed || setup.base <= 0xffff, "a split ring's base has 16 bits");
        assert!(!is_packed || setup.base & 0xffff == setup.base >> 16, "nothing is in flight");
        if let Some(reason) = told.refuse_start.take() {
            return Err(Fault(reason));
        }
        let running = Running {
            features: setup.features,
            size: setup.size,
            addresses: [setup.desc, setup.driver, setup.device],
            base: setup.base,
            enabled: setup.enabled,
            has_kick: setup.kick.is_some(),
            has_call: setup.call.is_some(),
            logs_to: setup.log,
            log_used: setup.log_used,
            map: setup.map,
            journal: setup.journal,
        };
        assert!(told.rings.insert(setup.ring, running).is_none(), "ring {} started twice", setup.ring);
        Ok(())
    }

    fn stop_ring(&mut self, ring: u16) -> Option<u32> {
        let mut told = self.told();
        let running = told.rings.remove(&ring).expect("only rings that run are stopped");
        Some(running.base.wrapping_add(told.progress))
    }

    fn set_enabled(&mut self, ring: u16, enabled: bool) {
        self.running(ring, |running| running.enabled = enabled);
    }

    fn set_memory(&mut self, ring: u16, map: &Arc<Map>) -> Result<(), Fault> {
        self.told().memory_changes += 1;
        let mut left = true;
        self.running(ring, |running| {
            left = map.user_to_guest(running.addresses[0]).is_none();
            running.map = Arc::clone(map);
        });
        if left { Err(Fault("the ring is in no region".to_owned())) } else { Ok(()) }
    }

    fn set_kick(&mut self, ring: u16, kick: Option<OwnedFd>) {
        self.running(ring, |running| running.has_kick = kick.is_some());
    }

    fn set_call(&mut self, ring: u16, call: Option<OwnedFd>) {
        self.running(ring, |running| running.has_call = call.is_some());
    }

    fn set_log(&mut self, ring: u16, log: Option<Arc<DirtyLog>>, log_used: Option<u64>) {
        self.running(ring, |running| (running.logs_to, running.log_used) = (log, log_used));
    }

    fn read_config(&self, offset: u32, into: &mut [u8]) -> bool {
        let told = self.told();
        let from = usize::try_from(offset).ok().and_then(|at| told.config.get(at..));
        from.and_then(|from| from.get(..into.len())).map(|from| into.copy_from_slice(from)).is_some()
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), Fault> {
        let mut told = self.told();
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match told.config.get_mut(at..).and_then(|space| space.get_mut(..data.len())) {
            Some(space) if at >= CONFIG - 4 => {
                space.copy_from_slice(data);
                Ok(())
            }
            _ => Err(Fault(format!("{} bytes at {at} cannot be written", data.len()))),
        }
    }

    fn set_mtu(&mut self, mtu: u64) -> Result<(), Fault> {
        assert_ne!(mtu, DEFECT, "a defect");
        if mtu > 9000 {
            return Err(Fault(format!("an MTU of {mtu}")));
        }
        self.told().mtu = Some(mtu);
        Ok(())
    }

    fn announce(&mut self, mac: [u8; 6]) {
        self.told().announced.push(mac);
    }

    fn set_status(&mut self, status: u8) {
        assert!(status != 0 || self.told().rings.is_empty(), "a reset device runs no ring");
        self.told().status.push(status);
    }

    fn disconnected(&mut self, reason: &str) {
        let mut told = self.told();
        assert!(told.rings.is_empty(), "rings are stopped when the front end is gone");
        told.disconnected.push(reason.to_owned());
    }
}
