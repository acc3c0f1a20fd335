//! The virtio-net model: what a vhost-user session may ask of a NIC, done to a port.
//!
//! # Role
//!
//! [`VirtioNet`] implements [`Device`] on a [`Port`]. Ring 2n is the receive queue of pair *n*, ring 2n + 1 its transmit
//! queue (virtio 1.x, section 5.1.2); seen from the switch the former is an egress and the latter an ingress:
//!
//! ```text
//!   ring 2n      receiveq n    <-- port.egress()[n]   <-- switch
//!   ring 2n + 1  transmitq n   --> port.ingress()[n]  --> switch
//! ```
//!
//! # Life cycle
//!
//! 1. The agent makes a [`VirtioNet`] from the port's configuration and gives it to the reactor.
//! 2. A front end connects: a port that had stopped itself may go on.
//! 3. Rings start: queues are opened and installed. Rings stop: queues are removed, and their positions answered.
//! 4. The front end goes: nothing is left but the port, its counters and its configuration.
//!
//! # Link state
//!
//! The status field of the configuration space follows [`NicSettings`]. Front ends that serve that space themselves do
//! not ask: QEMU shows the guest a link that is up exactly while its socket is connected, and changes it by its own
//! `set_link`. Those that do ask (Cloud Hypervisor, crosvm) are told of changes on the back-end channel where they gave
//! one, and otherwise see the new state when they next read. In either case the switch keeps frames from passing a port
//! that is administratively down.
//!
//! # Control queue
//!
//! There is none here: QEMU and Cloud Hypervisor serve it themselves, and never tell us more than which rings are
//! enabled. The feature is offered all the same, because Cloud Hypervisor shows its own only if the back end does.
//! CTRL_GUEST_OFFLOADS is not offered: nobody would tell us of the guest's change.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map};
use fabnic_port::{Fault, Port};
use fabnic_vhost_user::{Device, RingSetup};
use fabnic_virtqueue::{Journal, RingConfig};
use fabnic_wire::MacAddr;
use parking_lot::Mutex;

use crate::queue::{
    QueueControl, QueueSetup, open_receive, open_transmit, receive_control, transmit_control,
};
use crate::{Features, config_space};

/// What a port's configuration says of its NIC.
#[derive(Clone, Debug)]
pub struct VirtioNetConfig {
    /// Its MAC address.
    pub mac: MacAddr,
    /// The largest payload of a frame in bytes, as told to the guest.
    pub mtu: u16,
    /// Queue pairs, at most the port's.
    pub queue_pairs: u16,
    /// The largest ring that a driver may make, in descriptors.
    pub queue_size_max: u16,
    /// Features that are withheld, e.g. [`Features::RING_PACKED`].
    pub withheld: Features,
    /// Speed in Mbit/s, as told to the guest; it means nothing else.
    pub speed: u32,
}

/// What a guest is told of its NIC, and what may change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether the link is up.
    pub link_up: bool,
    /// The MAC address.
    pub mac: MacAddr,
    /// The largest payload of a frame in bytes.
    pub mtu: u16,
}

/// What a guest is told of its NIC; shared with who configures the port.
#[derive(Clone, Debug)]
pub struct NicSettings(Arc<Mutex<Told>>);

impl NicSettings {
    /// What the guest is told now.
    pub fn get(&self) -> Told {
        *self.0.lock()
    }

    /// Tells it something else; `true` if it differs. The front end hears of it by
    /// [`fabnic_vhost_user::Handle::config_changed`].
    pub fn set(&self, told: Told) -> bool {
        core::mem::replace(&mut *self.0.lock(), told) != told
    }
}

/// Called when a guest that cannot announce itself must be announced: a broadcast RARP frame from this MAC belongs into
/// the switch, as if it came from the port.
pub type OnRarp = Box<dyn Fn(MacAddr) + Send>;

/// A NIC on a port.
pub struct VirtioNet {
    port: Arc<Port>,
    config: VirtioNetConfig,
    offered: Features,
    settings: NicSettings,
    on_rarp: OnRarp,
    /// Rings that run.
    running: usize,
}

impl core::fmt::Debug for VirtioNet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioNet").field("port", &self.port.name).field("config", &self.config).finish()
    }
}

/// What a ring is.
#[derive(Clone, Copy)]
enum Role {
    Receive(usize),
    Transmit(usize),
}

fn role(ring: u16) -> Role {
    let pair = usize::from(ring / 2);
    if ring.is_multiple_of(2) { Role::Receive(pair) } else { Role::Transmit(pair) }
}

impl VirtioNet {
    /// A NIC on `port`, its link up or down. The number of queue pairs is at most that of the port's cells.
    pub fn new(port: Arc<Port>, mut config: VirtioNetConfig, link_up: bool, on_rarp: OnRarp) -> VirtioNet {
        let cells = u16::try_from(port.ingress().len()).unwrap_or(u16::MAX);
        config.queue_pairs = config.queue_pairs.clamp(1, cells);
        let offered = offered(&config);
        let told = Told { link_up, mac: config.mac, mtu: config.mtu };
        let settings = NicSettings(Arc::new(Mutex::new(told)));
        VirtioNet { port, config, offered, settings, on_rarp, running: 0 }
    }

    /// What the guest is told, to be changed later.
    pub fn settings(&self) -> NicSettings {
        self.settings.clone()
    }

    /// Changes a queue in its cell, between two bursts; `None` if it is not there.
    fn with_control<R>(&self, ring: u16, change: impl FnOnce(&mut dyn QueueControl) -> R) -> Option<R> {
        match role(ring) {
            Role::Receive(pair) => {
                let cell = self.port.egress().get(pair)?;
                cell.with(|queue| receive_control(queue).map(change)).flatten()
            }
            Role::Transmit(pair) => {
                let cell = self.port.ingress().get(pair)?;
                cell.with(|queue| transmit_control(queue).map(change)).flatten()
            }
        }
    }

    fn install(
        &self,
        ring: u16,
        setup: QueueSetup,
        enabled: bool,
        journal: Option<Journal>,
    ) -> Result<(), Fault> {
        let missing = || Fault(format!("ring {ring}: the port has no such queue"));
        match role(ring) {
            Role::Receive(pair) => {
                let cell = self.port.egress().get(pair).ok_or_else(missing)?;
                let mut queue = open_receive(setup)?;
                if let Some(control) = receive_control(queue.as_mut()) {
                    control.set_enabled(enabled);
                    control.set_journal(journal);
                }
                drop(cell.install(queue));
                self.port.refresh_egress();
            }
            Role::Transmit(pair) => {
                let cell = self.port.ingress().get(pair).ok_or_else(missing)?;
                let mut queue = open_transmit(setup)?;
                if let Some(control) = transmit_control(queue.as_mut()) {
                    control.set_enabled(enabled);
                    control.set_journal(journal);
                }
                drop(cell.install(queue));
            }
        }
        Ok(())
    }
}

/// The features of a NIC: all that the queues can do, less what is withheld, and what makes no sense without that.
fn offered(config: &VirtioNetConfig) -> Features {
    let mut offered = (Features::CSUM | Features::GUEST_CSUM | Features::MTU | Features::MAC)
        | (Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_ECN)
        | (Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_ECN)
        | (Features::GUEST_USO4 | Features::GUEST_USO6 | Features::HOST_USO)
        | (Features::MRG_RXBUF
            | Features::STATUS
            | Features::CTRL_VQ
            | Features::GUEST_ANNOUNCE
            | Features::MQ)
        | (Features::RING_INDIRECT_DESC | Features::RING_EVENT_IDX | Features::VERSION_1)
        | (Features::RING_PACKED | Features::IN_ORDER | Features::NOTIFICATION_DATA);
    offered.remove(config.withheld);
    // Section 5.1.3.1: what needs what.
    let needs = [
        (Features::CSUM, Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO),
        (Features::GUEST_CSUM, Features::GUEST_TSO4 | Features::GUEST_TSO6),
        (Features::GUEST_CSUM, Features::GUEST_USO4 | Features::GUEST_USO6),
        (Features::CTRL_VQ, Features::GUEST_ANNOUNCE | Features::MQ),
    ];
    for (needed, by) in needs {
        if !offered.contains(needed) {
            offered.remove(by);
        }
    }
    if !offered.intersects(Features::HOST_TSO4 | Features::HOST_TSO6) {
        offered.remove(Features::HOST_ECN);
    }
    if !offered.intersects(Features::GUEST_TSO4 | Features::GUEST_TSO6) {
        offered.remove(Features::GUEST_ECN);
    }
    offered
}

impl Device for VirtioNet {
    fn name(&self) -> &str {
        &self.port.name
    }

    fn features(&self) -> u64 {
        self.offered.bits()
    }

    fn feature_name(&self, bit: u32) -> Option<&'static str> {
        let flag = Features::from_bits_retain(1_u64.checked_shl(bit)?);
        flag.iter_names().next().map(|(name, _)| name)
    }

    fn rings(&self) -> u16 {
        self.config.queue_pairs.saturating_mul(2)
    }

    fn connected(&mut self) {
        self.port.restart();
    }

    fn start_ring(&mut self, setup: RingSetup) -> Result<(), Fault> {
        let RingSetup { ring, map, features, size, desc, driver, device, .. } = setup;
        if size > self.config.queue_size_max {
            let most = self.config.queue_size_max;
            return Err(Fault(format!("ring {ring}: {size} descriptors, expected at most {most}")));
        }
        let features = Features::from_bits_retain(features);
        let config = RingConfig {
            size,
            packed: features.contains(Features::RING_PACKED),
            desc,
            driver,
            device,
            event_idx: features.contains(Features::RING_EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            base: setup.base,
        };
        if self.running == 0 {
            // A driver that begins anew: what its predecessor broke is forgotten.
            self.port.restart();
        }
        let queue = QueueSetup {
            map,
            ring: config,
            features,
            kick: setup.kick,
            call: setup.call,
            log: setup.log,
            log_used: setup.log_used,
        };
        self.install(ring, queue, setup.enabled, setup.journal)?;
        self.running += 1;
        Ok(())
    }

    fn stop_ring(&mut self, ring: u16) -> Option<u32> {
        let base = match role(ring) {
            Role::Receive(pair) => {
                let queue = self.port.egress().get(pair)?.remove();
                self.port.refresh_egress();
                receive_control(queue?.as_mut()).map(|control| control.base())
            }
            Role::Transmit(pair) => {
                let queue = self.port.ingress().get(pair)?.remove();
                transmit_control(queue?.as_mut()).map(|control| control.base())
            }
        };
        self.running = self.running.saturating_sub(1);
        base
    }

    fn set_enabled(&mut self, ring: u16, enabled: bool) {
        self.with_control(ring, |control| control.set_enabled(enabled));
        self.port.refresh_egress();
    }

    fn set_memory(&mut self, ring: u16, map: &Arc<Map>) -> Result<(), Fault> {
        self.with_control(ring, |control| control.set_memory(Arc::clone(map))).unwrap_or(Ok(()))
    }

    fn set_kick(&mut self, ring: u16, kick: Option<OwnedFd>) {
        self.with_control(ring, |control| control.set_kick(kick));
    }

    fn set_call(&mut self, ring: u16, call: Option<OwnedFd>) {
        self.with_control(ring, |control| control.set_call(call));
    }

    fn set_log(&mut self, ring: u16, log: Option<Arc<DirtyLog>>, log_used: Option<u64>) {
        self.with_control(ring, |control| control.set_log(log, log_used));
    }

    fn read_config(&self, offset: u32, into: &mut [u8]) -> bool {
        let space = config_space::bytes(&self.config, self.offered, self.settings.get());
        let Ok(offset) = usize::try_from(offset) else { return false };
        let Some(rest) = space.get(offset..) else { return false };
        for (to, from) in into.iter_mut().zip(rest.iter().chain(core::iter::repeat(&0))) {
            *to = *from;
        }
        true
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), Fault> {
        // Since 1.0 no field is the driver's to write (section 5.1.4); a legacy driver may set its MAC, which is not
        // taken: the port's configuration says it.
        Err(Fault(format!(
            "{} bytes at {offset}: no field of the configuration space can be written",
            data.len()
        )))
    }

    fn set_mtu(&mut self, mtu: u64) -> Result<(), Fault> {
        let most = self.settings.get().mtu;
        if mtu < u64::from(config_space::MTU_MIN) || mtu > u64::from(most) {
            let least = config_space::MTU_MIN;
            return Err(Fault(format!("an MTU of {mtu}, expected {least} to {most} as the port has")));
        }
        Ok(())
    }

    fn announce(&mut self, mac: [u8; 6]) {
        (self.on_rarp)(MacAddr::new(mac));
    }

    fn set_status(&mut self, status: u8) {
        tracing::debug!(port = %self.port.name, status, "virtio status");
    }

    fn disconnected(&mut self, reason: &str) {
        tracing::debug!(port = %self.port.name, reason, "no front end");
        self.port.refresh_egress();
    }
}

#[cfg(test)]
mod tests;
