//! A port's identity and its connection.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::Context;
use fabnic_testkit::driver::RingOptions;
use fabnic_testkit::features::{protocol, virtio};
use fabnic_testkit::front_end::{FrontEnd, Sequence, listen};
use fabnic_testkit::guest::{Session, Wishes};
use fabnic_wire::MacAddr;

use crate::options::{PortOptions, RunOptions};

/// Who a port is and whom it talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) mac: MacAddr,
    pub(crate) peer: MacAddr,
    pub(crate) ip: [u8; 4],
    pub(crate) peer_ip: [u8; 4],
}

/// Ports are paired: 0 with 1, 2 with 3. A last one without a partner talks to itself.
pub(crate) fn identities(ports: &[PortOptions]) -> Vec<Identity> {
    let mac = |i: usize| {
        let own = ports.get(i).and_then(|port| port.mac);
        own.unwrap_or(MacAddr::from_u64(0x0200_0000_0001 + i as u64))
    };
    let ip = |i: usize| {
        let own = ports.get(i).and_then(|port| port.ip);
        own.unwrap_or([10, 0, (i >> 8) as u8, (i as u8).wrapping_add(1)])
    };
    (0..ports.len())
        .zip(ports)
        .map(|(i, port)| {
            let other = if i ^ 1 < ports.len() { i ^ 1 } else { i };
            Identity {
                mac: mac(i),
                peer: port.peer.unwrap_or(mac(other)),
                ip: ip(i),
                peer_ip: port.peer_ip.unwrap_or(ip(other)),
            }
        })
        .collect()
}

/// How a port reaches its back end, again and again.
#[derive(Debug)]
pub(crate) struct Connector {
    options: PortOptions,
    listener: Option<UnixListener>,
    patience: Duration,
    wishes: Wishes,
}

impl Connector {
    /// Listens already, in server role, so that all back ends can connect in any order.
    pub(crate) fn new(options: &PortOptions, run: &RunOptions) -> anyhow::Result<Connector> {
        Connector::with(options, run.tso, Duration::from_secs_f64(run.patience))
    }

    pub(crate) fn with(options: &PortOptions, tso: bool, patience: Duration) -> anyhow::Result<Connector> {
        let listener = options.server.then(|| listen(&options.socket)).transpose()?;
        let mut want = virtio::GUEST_ANNOUNCE;
        let mut need = virtio::VERSION_1;
        let mut add = |on: bool, feature: u64, must: bool| {
            if on {
                want |= feature;
                need |= if must { feature } else { 0 };
            }
        };
        add(options.mergeable, virtio::MRG_RXBUF, true);
        add(options.packed, virtio::RING_PACKED, true);
        add(options.in_order, virtio::IN_ORDER, true);
        add(options.event_idx, virtio::EVENT_IDX, true);
        add(options.indirect, virtio::INDIRECT_DESC, true);
        add(options.queues > 1, virtio::MQ | virtio::CTRL_VQ, false);
        add(tso, virtio::CSUM | virtio::GUEST_CSUM | virtio::HOST_TSO4 | virtio::GUEST_TSO4, true);
        // What each of them is known to ask for.
        let speak = protocol::MQ | protocol::REPLY_ACK;
        let speak = speak
            | match options.sequence {
                Sequence::VirtioUser => protocol::STATUS,
                Sequence::Qemu => {
                    protocol::LOG_SHMFD
                        | protocol::RARP
                        | protocol::NET_MTU
                        | protocol::BACKEND_REQ
                        | protocol::RESET_DEVICE
                        | protocol::CONFIGURE_MEM_SLOTS
                        | protocol::STATUS
                }
                Sequence::CloudHypervisor => {
                    protocol::LOG_SHMFD
                        | protocol::CONFIG
                        | protocol::INFLIGHT_SHMFD
                        | protocol::CONFIGURE_MEM_SLOTS
                }
            };
        let wishes =
            Wishes { sequence: options.sequence, want, need, protocol: speak, pairs: options.queues };
        Ok(Connector { options: options.clone(), listener, patience, wishes })
    }

    /// Waits for the back end.
    pub(crate) fn open(&self) -> anyhow::Result<Session> {
        self.open_within(self.patience)
    }

    /// Brings a port up again after its back end has gone: `start` starts the rings of the new session. `false` if it is
    /// not back yet; an error when it has been away for too long.
    pub(crate) fn reopen(
        &self,
        gone: &mut Option<Instant>,
        start: impl FnOnce(Session) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let since = *gone.get_or_insert_with(Instant::now);
        match self.open_within(Duration::ZERO).and_then(start) {
            Ok(()) => {
                *gone = None;
                Ok(true)
            }
            // One that dies while we talk to it is one that is not back yet.
            Err(_) if since.elapsed() < self.patience => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open_within(&self, patience: Duration) -> anyhow::Result<Session> {
        let socket = self.options.socket.display();
        let front_end = match &self.listener {
            Some(listener) => FrontEnd::accept(listener, patience),
            None => FrontEnd::connect(&self.options.socket, patience),
        };
        let front_end = front_end.with_context(|| format!("port {socket}"))?;
        Session::open(front_end, self.wishes).with_context(|| format!("port {socket}"))
    }

    pub(crate) fn ring_options(&self) -> RingOptions {
        let options = &self.options;
        RingOptions {
            size: options.queue_size,
            packed: options.packed,
            event_idx: options.event_idx,
            in_order: options.in_order,
            indirect: if options.indirect { 64 } else { 0 },
        }
    }

    pub(crate) fn options(&self) -> &PortOptions {
        &self.options
    }
}
