//! A port as what it is, with every default filled in.

use crate::{
    DEFAULT_AVF_GENERATION, DEFAULT_QUEUE_SIZE, DEFAULT_QUEUES, Mac, Nic, Port, Refusal, Refused, Role,
    Uplink,
    refusal::{Path, Step},
};

/// What is behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A virtio-net card over vhost-user.
    VirtioNet(VirtioNet),
    /// An Intel Adaptive Virtual Function over vfio-user.
    Avf(Avf),
    /// An Intel 82540EM over vfio-user.
    E1000(E1000),
    /// A TAP device.
    Tap(Tap),
    /// Files.
    Pcap(Pcap),
    /// Frames come back.
    Loopback,
}

impl PortKind {
    /// The word for it in the file, the API and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::VirtioNet(_) => "virtio-net",
            Self::Avf(_) => "avf",
            Self::E1000(_) => "e1000",
            Self::Tap(_) => "tap",
            Self::Pcap(_) => "pcap",
            Self::Loopback => "loopback",
        }
    }
}

/// A virtio-net card over vhost-user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioNet {
    /// Path of the vhost-user socket.
    pub socket: String,
    /// Who listens on it.
    pub role: Role,
    /// The card's address.
    pub mac: Mac,
    /// Most queue pairs, 1 to 128.
    pub queues: u16,
    /// Largest ring, in descriptors; a power of two.
    pub queue_size: u16,
}

/// An Intel Adaptive Virtual Function over vfio-user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avf {
    /// Path of the vfio-user socket.
    pub socket: String,
    /// Whether the guest may map doorbells.
    pub mmap: bool,
    /// The card's address.
    pub mac: Mac,
    /// Most queue pairs, 1 to 16.
    pub queues: u16,
    /// Generation of cards, 1 to 3.
    pub generation: u8,
    /// Whether the guest may be promiscuous and have addresses as it likes.
    pub trust: bool,
    /// Whether frames from other addresses than its own are dropped.
    pub spoofchk: bool,
}

/// An Intel 82540EM over vfio-user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct E1000 {
    /// Path of the vfio-user socket.
    pub socket: String,
    /// Whether the guest may map doorbells.
    pub mmap: bool,
    /// The card's address.
    pub mac: Mac,
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The device's name.
    pub device: String,
    /// Queue pairs, 1 to 128.
    pub queues: u16,
    /// Whether 64 KiB frames and unfinished checksums are exchanged with the kernel.
    pub offloads: bool,
}

/// Files. At least one of `replay` and `capture` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcap {
    /// File whose frames enter the switch.
    pub replay: Option<String>,
    /// File that gets what is delivered.
    pub capture: Option<String>,
    /// Pace of the replay.
    pub pace: Pace,
    /// Whether the replay starts over.
    pub repeat: bool,
}

/// Pace of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As the time stamps in the file say.
    Recorded,
    /// As fast as frames are taken.
    Unlimited,
    /// So many frames a second.
    PerSecond(std::num::NonZeroU64),
}

fn refuse(path: Path, problem: impl Into<String>, expected: &str) -> Refused {
    Refusal::at(path, problem, expected).into()
}

impl Port {
    /// What the port is. Keys that do not fit the kind are [`crate::Config::check`]'s affair.
    ///
    /// # Errors
    /// When it is of no kind, of two, of one that this build does not have, or when a key that the kind needs is
    /// missing. Never for a port of a checked configuration.
    pub fn kind(&self) -> Result<PortKind, Refused> {
        self.kind_at(&[Step::Key("port".into()), Step::Element(0, Some(self.name.clone()))])
    }

    pub(crate) fn kind_at(&self, at: &[Step]) -> Result<PortKind, Refused> {
        let key = |key: &str| -> Path { at.iter().cloned().chain([Step::Key(key.into())]).collect() };
        match (self.nic, self.uplink) {
            (Some(Nic::VirtioNet), None) => {
                let Some(vhost_user) = &self.vhost_user else {
                    return Err(refuse(
                        key("vhost_user"),
                        "a virtio-net port needs the key `vhost_user`",
                        "vhost_user = { socket = \"/run/fabnic/NAME.sock\", role = \"server\" }",
                    ));
                };
                Ok(PortKind::VirtioNet(VirtioNet {
                    socket: vhost_user.socket.clone(),
                    role: vhost_user.role,
                    mac: self.mac.unwrap_or_else(|| Mac::of_name(&self.name)),
                    queues: self.queues.unwrap_or(DEFAULT_QUEUES),
                    queue_size: self.queue_size.unwrap_or(DEFAULT_QUEUE_SIZE),
                }))
            }
            (Some(nic @ (Nic::Avf | Nic::E1000)), None) => {
                let Some(vfio_user) = &self.vfio_user else {
                    return Err(refuse(
                        key("vfio_user"),
                        format!("an {} port needs the key `vfio_user`", nic.as_str()),
                        "vfio_user = { socket = \"/run/fabnic/NAME.sock\" }",
                    ));
                };
                let (socket, mmap) = (vfio_user.socket.clone(), vfio_user.mmap);
                let mac = self.mac.unwrap_or_else(|| Mac::of_name(&self.name));
                Ok(match nic {
                    Nic::Avf => PortKind::Avf(Avf {
                        socket,
                        mmap,
                        mac,
                        queues: self.queues.unwrap_or(DEFAULT_QUEUES),
                        generation: self.generation.unwrap_or(DEFAULT_AVF_GENERATION),
                        trust: self.trust.unwrap_or(false),
                        spoofchk: self.spoofchk.unwrap_or(false),
                    }),
                    _ => PortKind::E1000(E1000 { socket, mmap, mac }),
                })
            }
            (None, Some(Uplink::Tap)) => {
                let Some(device) = &self.device else {
                    return Err(refuse(
                        key("device"),
                        "a tap uplink needs the key `device`",
                        "device = \"tap0\"",
                    ));
                };
                Ok(PortKind::Tap(Tap {
                    device: device.clone(),
                    queues: self.queues.unwrap_or(1),
                    offloads: self.offloads.unwrap_or(true),
                }))
            }
            (None, Some(Uplink::Pcap)) => {
                if self.replay.is_none() && self.capture.is_none() {
                    return Err(refuse(
                        key("replay"),
                        "a pcap uplink needs a file",
                        "replay = \"FILE\", capture = \"FILE\" or both",
                    ));
                }
                Ok(PortKind::Pcap(Pcap {
                    replay: self.replay.clone(),
                    capture: self.capture.clone(),
                    pace: match self.rate {
                        None => Pace::Recorded,
                        Some(rate) => {
                            std::num::NonZeroU64::new(rate).map_or(Pace::Unlimited, Pace::PerSecond)
                        }
                    },
                    repeat: self.repeat.unwrap_or(false),
                }))
            }
            (None, Some(Uplink::Loopback)) => Ok(PortKind::Loopback),
            (None, Some(Uplink::Xdp)) => Err(refuse(
                key("uplink"),
                "`xdp` is known, but not in this build",
                "uplink = \"tap\", \"pcap\" or \"loopback\"",
            )),
            (Some(_), Some(_)) => Err(refuse(
                key("uplink"),
                "a port has a `nic` or an `uplink`, not both",
                "one of the two keys",
            )),
            (None, None) => Err(refuse(
                at.to_vec(),
                "the port is of no kind",
                "nic = \"virtio-net\", \"avf\" or \"e1000\", or uplink = \"tap\", \"pcap\" or \"loopback\"",
            )),
        }
    }
}
