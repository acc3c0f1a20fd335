//! A VM's PCI card: a device model on a vfio-user socket.
//!
//! The catalogue of models is [`Model`]: how each is made, and what of it follows the configuration while a guest runs.

use std::sync::Arc;

use fabnic_api::{PciStatus, Peer};
use fabnic_avf::{Avf, Control, Generation};
use fabnic_e1000::{E1000, E1000Config, E1000Settings};
use fabnic_model::{Role, kind};
use fabnic_pci::Function;
use fabnic_port::Port;
use fabnic_vfio_user::{Endpoint, Handle, Reactor, Settings};
use parking_lot::Mutex;

use crate::attachment::Failed;
use crate::settings::{link_is_up, mac};

/// Speed that guests are told, in Mbit/s. It limits nothing.
const SPEED: u32 = 100_000;

/// What changes a model from outside.
#[derive(Debug)]
enum Model {
    Avf {
        control: Control,
        /// The address that it has: another one resets it.
        mac: Mutex<Option<fabnic_model::Mac>>,
    },
    E1000(E1000Settings),
}

/// A card on its socket.
#[derive(Debug)]
pub(crate) struct PciCard {
    handle: Handle,
    model: Model,
}

impl PciCard {
    /// Makes an adaptive virtual function reachable. Dropped, its session ends and its socket is gone.
    pub(crate) fn avf(
        reactor: &Reactor,
        card: &kind::Avf,
        config: &fabnic_model::Port,
        port: &Arc<Port>,
    ) -> Result<PciCard, Failed> {
        let made = fabnic_avf::Settings {
            mac: card.mac.0,
            fixed_mac: config.mac.is_some(),
            queues: card.queues,
            generation: Generation::of(card.generation).unwrap_or(Generation::LATEST),
            trust: card.trust,
            spoofchk: card.spoofchk,
            mtu: config.mtu,
            link_up: link_is_up(config),
            speed: SPEED,
            share_doorbells: card.mmap,
        };
        let function = Avf::new(Arc::clone(port), made)
            .map_err(|e| Failed::new(config, "nic", e, "memory and descriptors to be had"))?;
        let model = Model::Avf { control: function.control(), mac: Mutex::new(config.effective_mac()) };
        PciCard::serve(reactor, &card.socket, card.mmap, config, Box::new(function), model)
    }

    /// Makes an 82540EM reachable. Dropped, its session ends and its socket is gone.
    pub(crate) fn e1000(
        reactor: &Reactor,
        card: &kind::E1000,
        config: &fabnic_model::Port,
        port: &Arc<Port>,
    ) -> Result<PciCard, Failed> {
        let made = E1000Config { mac: mac(card.mac), link_up: link_is_up(config), share_rings: card.mmap };
        let function = E1000::new(Arc::clone(port), made)
            .map_err(|e| Failed::new(config, "nic", e, "memory and descriptors to be had"))?;
        let model = Model::E1000(function.settings());
        PciCard::serve(reactor, &card.socket, card.mmap, config, Box::new(function), model)
    }

    fn serve(
        reactor: &Reactor,
        socket: &str,
        mmap: bool,
        config: &fabnic_model::Port,
        function: Box<dyn Function>,
        model: Model,
    ) -> Result<PciCard, Failed> {
        let endpoint =
            Endpoint { name: config.name.clone(), socket: socket.into(), settings: Settings { mmap } };
        let handle = reactor.add(endpoint, function).map_err(|error| {
            Failed::new(
                config,
                "vfio_user.socket",
                error,
                "a path in a directory that the daemon may write to",
            )
        })?;
        Ok(PciCard { handle, model })
    }

    /// Follows the configuration.
    pub(crate) fn update(&self, config: &fabnic_model::Port) {
        match &self.model {
            Model::Avf { control, mac } => {
                control.set_link(link_is_up(config), SPEED);
                control.set_trust(config.trust.unwrap_or(false));
                control.set_spoofchk(config.spoofchk.unwrap_or(false));
                let address = config.effective_mac();
                if core::mem::replace(&mut *mac.lock(), address) != address
                    && let Some(address) = address
                {
                    control.set_mac(address.0);
                }
            }
            Model::E1000(settings) => {
                settings.set_link(link_is_up(config));
                if let Some(address) = config.effective_mac() {
                    settings.set_mac(mac(address));
                }
            }
        }
    }

    /// Who is connected, and what became of the card.
    pub(crate) fn peer(&self) -> Peer {
        let status = self.handle.status();
        let (vectors, in_use) = status.vectors;
        Peer {
            socket: self.handle.socket().display().to_string(),
            role: Role::Server,
            connected: status.connected,
            connections: status.sessions,
            ring: None,
            features: Vec::new(),
            pci: Some(PciStatus {
                bus_master: status.bus_master,
                memory_bytes: status.memory_bytes,
                vectors,
                vectors_in_use: u16::try_from(in_use).unwrap_or(u16::MAX),
                mmap: status.shared,
                faults: status.faults,
                register_reads: status.traps.reads,
                register_writes: status.traps.writes,
                software_interrupts: status.software_interrupts.asked,
                lost_interrupts: status.software_interrupts.lost,
                refused: status.refused,
                last_refusal: status.last_refusal,
            }),
        }
    }

    /// Why nobody is there.
    pub(crate) fn problem(&self) -> Option<String> {
        let status = self.handle.status();
        status.last_reason.filter(|_| !status.connected)
    }
}
