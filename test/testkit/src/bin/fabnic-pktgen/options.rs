//! What can be asked for on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use fabnic_testkit::front_end::Sequence;
use fabnic_testkit::memory::Backing;
use fabnic_wire::MacAddr;

/// A port's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nic {
    /// virtio-net, over vhost-user.
    VirtioNet,
    /// An Adaptive Virtual Function, over vfio-user.
    Avf,
    /// An 82540EM, over vfio-user.
    E1000,
}

/// One port: a guest on one vhost-user or vfio-user socket.
#[derive(Clone, Debug)]
pub(crate) struct PortOptions {
    /// The socket.
    pub(crate) socket: PathBuf,
    /// The card behind it.
    pub(crate) nic: Nic,
    /// Listen there instead of connecting.
    pub(crate) server: bool,
    /// Packed rings.
    pub(crate) packed: bool,
    /// Entries of each ring.
    pub(crate) queue_size: u16,
    /// Queue pairs.
    pub(crate) queues: u16,
    /// Own address; by default 02:00:00:00:00:01 and up.
    pub(crate) mac: Option<MacAddr>,
    /// The address to send to; by default that of the other port of the pair.
    pub(crate) peer: Option<MacAddr>,
    /// Negotiate mergeable receive buffers.
    pub(crate) mergeable: bool,
    /// Negotiate IN_ORDER.
    pub(crate) in_order: bool,
    /// Negotiate EVENT_IDX.
    pub(crate) event_idx: bool,
    /// Use indirect descriptors.
    pub(crate) indirect: bool,
    /// Bytes of a receive buffer.
    pub(crate) rx_buffer: u32,
    /// Most bytes of one transmit descriptor.
    pub(crate) tx_piece: u32,
    /// VLAN tag on what is sent.
    pub(crate) vlan: Option<u16>,
    /// Order of the opening messages.
    pub(crate) sequence: Sequence,
    /// Pages.
    pub(crate) memory: Backing,
    /// Own IPv4 address.
    pub(crate) ip: Option<[u8; 4]>,
    /// IPv4 address to send to.
    pub(crate) peer_ip: Option<[u8; 4]>,
}

impl PortOptions {
    pub(crate) fn new(socket: PathBuf) -> PortOptions {
        PortOptions {
            socket,
            nic: Nic::VirtioNet,
            server: false,
            packed: false,
            queue_size: 1024,
            queues: 1,
            mac: None,
            peer: None,
            mergeable: true,
            in_order: false,
            event_idx: false,
            indirect: false,
            rx_buffer: 2048,
            tx_piece: 32768,
            vlan: None,
            sequence: Sequence::VirtioUser,
            memory: Backing::HugeIfFree,
            ip: None,
            peer_ip: None,
        }
    }
}

fn switch(value: &str) -> anyhow::Result<bool> {
    match value {
        "on" | "1" | "true" | "yes" => Ok(true),
        "off" | "0" | "false" | "no" => Ok(false),
        _ => bail!("{value:?} is neither on nor off"),
    }
}

impl FromStr for PortOptions {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<PortOptions> {
        let mut options = PortOptions::new(PathBuf::new());
        for field in text.split(',') {
            let (key, value) =
                field.split_once('=').with_context(|| format!("{field:?}: expected KEY=VALUE"))?;
            let number = || value.parse::<u32>().with_context(|| format!("{key}: {value:?} is no number"));
            let small =
                || value.parse::<u16>().with_context(|| format!("{key}: {value:?} is no 16-bit number"));
            let mac = || value.parse::<MacAddr>().with_context(|| key.to_owned());
            let ip = || {
                let parsed = value.parse::<std::net::Ipv4Addr>();
                parsed.map(|ip| ip.octets()).with_context(|| format!("{key}: {value:?} is no IPv4 address"))
            };
            match key {
                "socket" => options.socket = PathBuf::from(value),
                "nic" => {
                    options.nic = match value {
                        "virtio-net" => Nic::VirtioNet,
                        "avf" => Nic::Avf,
                        "e1000" => Nic::E1000,
                        _ => bail!("nic={value}: expected virtio-net, avf or e1000"),
                    }
                }
                "role" => {
                    options.server = match value {
                        "server" => true,
                        "client" => false,
                        _ => bail!("role={value}: expected client or server"),
                    }
                }
                "ring" => {
                    options.packed = match value {
                        "packed" => true,
                        "split" => false,
                        _ => bail!("ring={value}: expected split or packed"),
                    }
                }
                "queue-size" => options.queue_size = small()?,
                "queues" => options.queues = small()?,
                "mac" => options.mac = Some(mac()?),
                "peer" => options.peer = Some(mac()?),
                "mergeable" => options.mergeable = switch(value).context("mergeable")?,
                "in-order" => options.in_order = switch(value).context("in-order")?,
                "event-idx" => options.event_idx = switch(value).context("event-idx")?,
                "indirect" => options.indirect = switch(value).context("indirect")?,
                "rx-buffer" => options.rx_buffer = number()?,
                "tx-piece" => options.tx_piece = number()?,
                "vlan" => options.vlan = Some(small()?),
                "ip" => options.ip = Some(ip()?),
                "peer-ip" => options.peer_ip = Some(ip()?),
                "sequence" => {
                    options.sequence = match value {
                        "virtio-user" => Sequence::VirtioUser,
                        "qemu" => Sequence::Qemu,
                        "cloud-hypervisor" => Sequence::CloudHypervisor,
                        _ => bail!("sequence={value}: expected virtio-user, qemu or cloud-hypervisor"),
                    }
                }
                "memory" => {
                    options.memory = match value {
                        "huge" => Backing::Huge,
                        "ordinary" => Backing::Ordinary,
                        "auto" => Backing::HugeIfFree,
                        _ => bail!("memory={value}: expected huge, ordinary or auto"),
                    }
                }
                _ => bail!(
                    "{key}: no such key; expected socket, nic, role, ring, queue-size, queues, mac, peer, mergeable, \
                     in-order, event-idx, indirect, rx-buffer, tx-piece, vlan, ip, peer-ip, sequence or memory"
                ),
            }
        }
        ensure!(!options.socket.as_os_str().is_empty(), "{text:?}: socket=PATH is missing");
        let size = options.queue_size;
        ensure!(
            size.is_power_of_two() && (2..=32768).contains(&size),
            "queue-size={size}: expected a power of two"
        );
        ensure!((1..=128).contains(&options.queues), "queues={}: expected 1 to 128", options.queues);
        ensure!(options.rx_buffer >= 64, "rx-buffer={}: expected at least 64", options.rx_buffer);
        ensure!(options.tx_piece >= 64, "tx-piece={}: expected at least 64", options.tx_piece);
        Ok(options)
    }
}

/// How frames are made and looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Pre-built frames, counted: as cheap as it goes, so that the switch is the limit.
    Light,
    /// Every frame with a number and a time stamp: loss, order, latency.
    Seq,
}

/// What tells flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fields {
    /// UDP ports.
    Ip,
    /// Both MAC addresses.
    Mac,
}

/// What a port is told.
const PORT_HELP: &str = "A port: socket=PATH[,nic=virtio-net|avf|e1000][,role=client|server][,ring=split|packed][,queue-size=1024][,queues=1][,mac=..][,peer=..] \
    [,mergeable=on][,in-order=off][,event-idx=off][,indirect=off][,rx-buffer=2048][,tx-piece=32768][,vlan=ID] \
    [,sequence=virtio-user|qemu|cloud-hypervisor][,memory=auto|huge|ordinary]";

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// The ports, each as a list of keys and values.
    #[arg(long = "port", required = true, value_name = "KEY=VALUE,..", help = PORT_HELP)]
    pub(crate) ports: Vec<PortOptions>,
    /// The CPU to run on.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// How frames are made and looked at.
    #[arg(long, value_enum, default_value = "light")]
    pub(crate) mode: Mode,
    /// Bytes of a frame, without FCS; with --tso 65226 by default.
    #[arg(long)]
    pub(crate) size: Option<usize>,
    /// Number of flows from each port.
    #[arg(long, default_value_t = 64)]
    pub(crate) flows: u32,
    /// What tells flows apart.
    #[arg(long, value_enum, default_value = "ip")]
    pub(crate) flow_fields: Fields,
    /// Send TCP frames of up to 64 KiB to be segmented by whoever cannot take them.
    #[arg(long)]
    pub(crate) tso: bool,
    /// Frames a second from each port; as many as go if not given.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Only the first port of each two sends.
    #[arg(long)]
    pub(crate) one_way: bool,
    /// Seconds before the first window.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Seconds of a window.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) window: f64,
    /// Number of windows.
    #[arg(long, default_value_t = 3)]
    pub(crate) windows: u32,
    /// A window is run for each line "window" on standard input, until it ends or says "quit". Between windows traffic
    /// goes on; a line "pause" stops it until the next line ("window", or "go").
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Light mode: touch a ring only when that many entries are used.
    #[arg(long)]
    pub(crate) gather: Option<u16>,
    /// Connect again when the back end goes away, instead of ending.
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// How long to wait for the back ends, seconds.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) patience: f64,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl RunOptions {
    /// Bytes of a frame.
    pub(crate) fn size(&self) -> usize {
        self.size.unwrap_or(if self.tso { 65226 } else { 64 })
    }
}
