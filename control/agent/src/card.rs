//! A VM's virtio-net card: the device model on a vhost-user socket.

use std::sync::Arc;

use fabnic_api::{Peer, RingFormat};
use fabnic_model::{Role, kind};
use fabnic_port::Port;
use fabnic_vhost_user::{Endpoint, Handle, Reactor, RingFormat as Format};
use fabnic_virtio_net::{Features, NicSettings, Told, VirtioNet, VirtioNetConfig};

use crate::announce;
use crate::attachment::Failed;
use crate::settings::{link_is_up, mac};

/// Speed that guests are told, in Mbit/s. It limits nothing.
const SPEED: u32 = 100_000;

/// A card on its socket.
#[derive(Debug)]
pub(crate) struct Card {
    handle: Handle,
    settings: NicSettings,
    role: Role,
}

impl Card {
    /// Makes the card reachable. Dropped, its session ends and a server's socket is gone.
    pub(crate) fn prepare(
        reactor: &Reactor,
        card: &kind::VirtioNet,
        config: &fabnic_model::Port,
        port: &Arc<Port>,
    ) -> Result<Card, Failed> {
        let device = VirtioNet::new(
            Arc::clone(port),
            VirtioNetConfig {
                mac: mac(card.mac),
                mtu: config.mtu,
                queue_pairs: card.queues,
                queue_size_max: card.queue_size,
                withheld: Features::empty(),
                speed: SPEED,
            },
            link_is_up(config),
            announce::on_rarp(port, card.queues),
        );
        let settings = device.settings();
        let endpoint = Endpoint {
            socket: card.socket.clone().into(),
            role: match card.role {
                Role::Server => fabnic_vhost_user::Role::Server,
                Role::Client => fabnic_vhost_user::Role::Client,
            },
        };
        let handle = reactor.add(endpoint, Box::new(device)).map_err(|error| {
            Failed::new(
                config,
                "vhost_user.socket",
                error,
                "a path in a directory that the daemon may write to",
            )
        })?;
        Ok(Card { handle, settings, role: card.role })
    }

    /// Follows the configuration.
    pub(crate) fn update(&self, config: &fabnic_model::Port) {
        let mac = config.effective_mac().map_or(self.settings.get().mac, mac);
        if self.settings.set(Told { link_up: link_is_up(config), mac, mtu: config.mtu }) {
            self.handle.config_changed();
        }
    }

    /// Who is connected, and what was agreed.
    pub(crate) fn peer(&self) -> Peer {
        let status = self.handle.status();
        let format = |format| match format {
            Format::Split => RingFormat::Split,
            Format::Packed => RingFormat::Packed,
        };
        Peer {
            socket: self.handle.socket().display().to_string(),
            role: self.role,
            connected: status.connected,
            connections: status.sessions,
            ring: status.rings.iter().find(|ring| ring.running).map(|ring| format(ring.format)),
            features: status.features,
            pci: None,
        }
    }

    /// What keeps frames from passing, if something does.
    pub(crate) fn problem(&self) -> Option<String> {
        let status = self.handle.status();
        let ring =
            status.rings.iter().find_map(|r| Some(format!("ring {}: {}", r.ring, r.problem.as_ref()?)));
        ring.or_else(|| status.last_reason.filter(|_| !status.connected))
    }
}
