//! What is on the other side of a port: a VM's connection, a TAP device, files, or the port itself.
//!
//! Here is the catalogue: each kind of port that a configuration can name, with how it is made, changed, shown and
//! taken away. A new kind is a variant here and in `fabnic-model`.

use std::sync::Arc;

use fabnic_api::{ApplyError, Peer};
use fabnic_model::{PortKind, Refusal, Refused, kind};
use fabnic_pcap::{PcapConfig, PcapPort};
use fabnic_port::{Port, PortId, attach_loopback};
use fabnic_tap::{Tap, TapConfig};

use crate::announce;
use crate::card::Card;
use crate::pci_card::PciCard;
use crate::reactors::Reactors;

/// Frames that a loopback port holds between being delivered and coming back.
const LOOPBACK_FRAMES: usize = 512;

/// Something that only one port can have at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    /// The path of a socket that is listened on.
    Socket(String),
    /// A network device.
    Device(String),
    /// A file that is written.
    File(String),
}

impl Claim {
    /// What a port needs for itself alone.
    pub(crate) fn of(port: &fabnic_model::Port) -> Vec<Claim> {
        match port.kind() {
            Ok(PortKind::VirtioNet(card)) => vec![Claim::Socket(card.socket)],
            Ok(PortKind::Avf(card)) => vec![Claim::Socket(card.socket)],
            Ok(PortKind::E1000(card)) => vec![Claim::Socket(card.socket)],
            Ok(PortKind::Tap(tap)) => vec![Claim::Device(tap.device)],
            Ok(PortKind::Pcap(files)) => files.capture.map(Claim::File).into_iter().collect(),
            Ok(PortKind::Loopback) | Err(_) => Vec::new(),
        }
    }
}

/// Why a port could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}, expected {expected}")]
pub(crate) struct Failed {
    key: String,
    problem: String,
    expected: String,
}

impl Failed {
    pub(crate) fn new(
        port: &fabnic_model::Port,
        key: &str,
        problem: impl ToString,
        expected: &str,
    ) -> Failed {
        let key = format!("port[{}].{key}", port.name);
        Failed { key, problem: problem.to_string(), expected: expected.into() }
    }

    pub(crate) fn from_refused(refused: Refused) -> Failed {
        let Refusal { key, problem, expected, .. } = match refused.0.into_iter().next() {
            Some(first) => first,
            None => Refusal::new("port", "it is refused", "a port that this build has"),
        };
        Failed { key, problem, expected }
    }
}

impl From<Failed> for ApplyError {
    fn from(failed: Failed) -> ApplyError {
        ApplyError::Failed { key: failed.key, problem: failed.problem, expected: failed.expected }
    }
}

/// The other side of a port.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// A VM's virtio-net card.
    VirtioNet(Card),
    /// A VM's PCI card.
    Pci(PciCard),
    /// A device of the host's kernel.
    Tap(Tap),
    /// Frames that come from files and go into them.
    Pcap,
    /// Nobody: frames come back.
    Loopback,
}

impl Attachment {
    /// The port of a kind, with nothing on its other side yet.
    pub(crate) fn make_port(kind: &PortKind, name: &str, id: PortId) -> Port {
        let (kind, queues) = match kind {
            PortKind::VirtioNet(card) => {
                (fabnic_port::PortKind::VirtioNet, usize::from(card.queues) + announce::SPARE_CELLS)
            }
            PortKind::Avf(card) => (fabnic_port::PortKind::Avf, usize::from(card.queues)),
            PortKind::E1000(_) => (fabnic_port::PortKind::E1000, 1),
            PortKind::Tap(tap) => (fabnic_port::PortKind::Tap, usize::from(tap.queues)),
            PortKind::Pcap(_) => (fabnic_port::PortKind::Pcap, 1),
            PortKind::Loopback => (fabnic_port::PortKind::Loopback, 1),
        };
        Port::new(id, name, kind, queues)
    }

    /// Queue pairs of a port's other side.
    pub(crate) fn queue_pairs(port: &Port) -> u16 {
        let spare = if port.kind == fabnic_port::PortKind::VirtioNet { announce::SPARE_CELLS } else { 0 };
        u16::try_from(port.ingress().len().saturating_sub(spare)).unwrap_or(u16::MAX)
    }

    /// Makes the other side of a port. Everything that can fail happens here; dropped or detached, it is undone.
    pub(crate) fn prepare(
        reactors: &Reactors,
        kind: &PortKind,
        config: &fabnic_model::Port,
        port: &Arc<Port>,
    ) -> Result<Attachment, Failed> {
        match kind {
            PortKind::VirtioNet(card) => {
                Card::prepare(&reactors.vhost, card, config, port).map(Attachment::VirtioNet)
            }
            PortKind::Avf(card) => PciCard::avf(&reactors.vfio, card, config, port).map(Attachment::Pci),
            PortKind::E1000(card) => PciCard::e1000(&reactors.vfio, card, config, port).map(Attachment::Pci),
            PortKind::Tap(tap) => open_tap(tap, config, port).map(Attachment::Tap),
            PortKind::Pcap(files) => {
                open_files(files, config)?.attach(port);
                Ok(Attachment::Pcap)
            }
            PortKind::Loopback => {
                attach_loopback(port, LOOPBACK_FRAMES)
                    .map_err(|e| Failed::new(config, "uplink", e, "memory and descriptors to be had"))?;
                Ok(Attachment::Loopback)
            }
        }
    }

    /// Ends it. When this returns no queue of it is in the port.
    pub(crate) fn detach(self, port: &Port) {
        match self {
            // The reactor ends the session, which takes the queues out.
            Attachment::VirtioNet(card) => drop(card),
            Attachment::Pci(card) => drop(card),
            Attachment::Tap(tap) => tap.detach(port),
            // A file that is written is complete when its queue is gone.
            Attachment::Pcap | Attachment::Loopback => empty(port),
        }
    }

    /// Keys of the configuration that change while it is there.
    pub(crate) fn update(&self, config: &fabnic_model::Port) {
        match self {
            Attachment::VirtioNet(card) => card.update(config),
            Attachment::Pci(card) => card.update(config),
            Attachment::Tap(tap) => set_tap_mtu(tap, config),
            Attachment::Pcap | Attachment::Loopback => {}
        }
    }

    /// Who is on the other side of a socket.
    pub(crate) fn peer(&self) -> Option<Peer> {
        match self {
            Attachment::VirtioNet(card) => Some(card.peer()),
            Attachment::Pci(card) => Some(card.peer()),
            _ => None,
        }
    }

    /// Why nothing passes although somebody is there, or why nobody is.
    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Attachment::VirtioNet(card) => card.problem(),
            Attachment::Pci(card) => card.problem(),
            Attachment::Tap(_) | Attachment::Pcap | Attachment::Loopback => None,
        }
    }
}

/// Takes all queues out of a port.
fn empty(port: &Port) {
    for cell in port.ingress() {
        drop(cell.remove());
    }
    for cell in port.egress() {
        drop(cell.remove());
    }
    port.refresh_egress();
}

fn open_files(files: &kind::Pcap, config: &fabnic_model::Port) -> Result<PcapPort, Failed> {
    let wanted = PcapConfig {
        replay: files.replay.as_ref().map(Into::into),
        pace: match files.pace {
            kind::Pace::Recorded => fabnic_pcap::Pace::Recorded,
            kind::Pace::Unlimited => fabnic_pcap::Pace::Fastest,
            kind::Pace::PerSecond(rate) => fabnic_pcap::Pace::Rate(rate.get()),
        },
        repeat: files.repeat,
        capture: files.capture.as_ref().map(Into::into),
    };
    PcapPort::open(&wanted, &config.name).map_err(|error| {
        let (key, expected) = match error {
            fabnic_pcap::PcapError::Load(_) => ("replay", "a pcap or pcapng file that the daemon may read"),
            fabnic_pcap::PcapError::Create { .. } => ("capture", "a file that the daemon may write"),
        };
        Failed::new(config, key, error, expected)
    })
}

fn open_tap(tap: &kind::Tap, config: &fabnic_model::Port, port: &Arc<Port>) -> Result<Tap, Failed> {
    let failed = |error: fabnic_tap::TapError| {
        Failed::new(
            config,
            "device",
            error,
            "a TAP device that the daemon may open or make (see docs/operation.md)",
        )
    };
    let opened = Tap::open(&TapConfig {
        queues: usize::from(tap.queues),
        offloads: tap.offloads,
        // Whose device it is decides who sets it up.
        mtu: None,
        up: false,
        ..TapConfig::new(&tap.device)
    })
    .map_err(failed)?;
    if opened.created() {
        let set = opened.set_mtu(config.mtu).and_then(|()| opened.set_up(true));
        set.map_err(|e| Failed::new(config, "device", e, "a TAP device that can be set up"))?;
    } else {
        set_tap_mtu(&opened, config);
        if let Err(error) = opened.set_up(true) {
            tracing::info!(port = %config.name, device = %tap.device, %error, "the TAP device is left as it is, up or down");
        }
    }
    opened.attach(port).map_err(failed)?;
    Ok(opened)
}

/// A device that somebody else made may be his alone to change.
fn set_tap_mtu(tap: &Tap, config: &fabnic_model::Port) {
    if let Err(error) = tap.set_mtu(config.mtu) {
        tracing::warn!(port = %config.name, device = tap.name(), mtu = config.mtu, %error, "the TAP device keeps its MTU");
    }
}
