//! The types of the file, key by key.
//!
//! The shape is the file's own, flat and with options, because it is what people read, write and diff; what a port
//! *is* comes from [`crate::kind`]. The first paragraph of each doc comment is the key's text in
//! `docs/configuration.md`.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Answer, Conntrack, Group, Guard, Lldp, Mac, Meter, Mirror, Multicast, Police, PortNat, Priority, Rate,
    Rule, Storm, Tenant, Vid, Vlan, VlanProto, VlanTable, Zone,
};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The daemon itself.
    pub daemon: Daemon,
    /// The ports of the switch, one table each. The name is what a port is known by: in commands, metrics, and from
    /// one configuration to the next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<Port>,
    /// Static entries of the forwarding database, one table each. They neither age nor move.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<StaticFdb>,
    /// VLANs of which more is to be said than which ports carry them, one table each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlan: Vec<VlanTable>,
    /// Zones of connections of which something else than usual is to be said, one table each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zone: Vec<Zone>,
    /// What LLDP says of the switch.
    #[serde(skip_serializing_if = "Lldp::is_default")]
    pub lldp: Lldp,
    /// Tenants, one table each: control domains beside infrastructure's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<Tenant>,
    /// Security groups, one table each: named sets of addresses that rules speak of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<Arc<Group>>,
    /// Meters, one table each: rates that rules hold packets to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meter: Vec<Meter>,
    /// Mirrors, one table each: copies of what passes, for those who watch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<Mirror>,
    /// Rules, one table each: which packets pass, and what is done with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<Arc<Rule>>,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Daemon {
    /// Unix socket on which the daemon serves its API, at most 107 bytes long.
    pub api: String,
    /// CPUs that forward packets, a worker thread pinned to each. Empty: one worker, not pinned.
    pub workers: Vec<u32>,
    /// Most entries of the forwarding database, 1 to 16777216. Addresses beyond are not learned; frames to them are
    /// flooded.
    #[schemars(range(min = 1, max = 16_777_216))]
    #[schema(minimum = 1, maximum = 16_777_216)]
    pub fdb_entries: u32,
    /// Seconds after which a learned address that was not seen is forgotten, up to 1000000. 0: never.
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schema(maximum = 1_000_000)]
    pub fdb_ageing: u32,
    /// When an address that keeps moving between ports is held where it is: `{ moves = 5, window = 180, hold = 60 }`.
    /// Unless said, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_damping: Option<MacDamping>,
    /// Flows that each worker keeps in its flow cache, 64 to 16777216, rounded up to a power of two. More flows than
    /// this are forwarded as correctly, at the price of a walk through the pipeline for each miss.
    #[schemars(range(min = 64, max = 16_777_216))]
    #[schema(minimum = 64, maximum = 16_777_216)]
    pub flow_entries: u32,
    /// Whether flows are told apart up to their ports and counted even if nothing else asks for it, for `fabnic top` and
    /// `GET /v1/flows`. It costs each packet a longer look-up. False unless said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flow_counters: bool,
    /// File to which each change and each refusal is appended, with who asked for it, as lines of JSON. Unless said, only
    /// the last entries are kept, in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    /// File in which what the switch has learned and what runs in it (addresses, bindings, memberships, connections, tokens of
    /// meters, counters) is kept, so that it outlives the daemon. Unless said, `switch.state` beside the file of `--state`, or
    /// in systemd's STATE_DIRECTORY; without those it ends with the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_state: Option<String>,
    /// Seconds between two savings of it, up to 86400: what a daemon that is killed loses at most. 0: only when the daemon
    /// ends.
    #[schemars(range(min = 0, max = 86_400))]
    #[schema(maximum = 86_400)]
    pub saved_state_interval: u32,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,fabnic_switch=debug`.
    pub log: String,
}

/// When an address that keeps moving between ports is held where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MacDamping {
    /// Moves that are allowed within the window; the next one holds the address.
    pub moves: u32,
    /// Seconds, from the first move on.
    pub window: u32,
    /// Seconds for which it is held.
    pub hold: u32,
}

impl Default for MacDamping {
    fn default() -> Self {
        Self { moves: 5, window: 180, hold: 60 }
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            api: "/run/fabnic/api.sock".into(),
            workers: Vec::new(),
            fdb_entries: 1 << 20,
            fdb_ageing: 300,
            mac_damping: None,
            flow_entries: 1 << 16,
            flow_counters: false,
            audit: None,
            saved_state: None,
            saved_state_interval: 30,
            log: "info".into(),
        }
    }
}

/// A port of the switch. It has either `nic` (a network card for a VM) or `uplink` (a way out); which of the other
/// keys it may have follows from that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice in the file.
    pub name: String,
    /// Tenant whose port it is. Unless said, it is infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Keys of the port that its tenant may change, of `state`, `mtu` and `learning`. Unless said, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenant_keys: Vec<String>,
    /// A network card for a VM, of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<Nic>,
    /// A way out of the switch, of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Uplink>,

    /// How the VMM reaches a `virtio-net` port: `{ socket = "/run/fabnic/vm1.sock", role = "server" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_user: Option<VhostUser>,
    /// How the VMM reaches an `avf` or `e1000` port: `{ socket = "/run/fabnic/vf7.sock" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfio_user: Option<VfioUser>,
    /// Queue pairs, 1 to 128. Of a `virtio-net` port: the most that a driver may use, 8 unless said. Of an `avf` port
    /// the same, at most 16. Of a `tap` uplink: as many as are opened, 1 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    #[schema(minimum = 1, maximum = 128)]
    pub queues: Option<u16>,
    /// Largest ring that a driver may set up on a `virtio-net` port: a power of two, 64 to 32768; 4096 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 32768))]
    #[schema(minimum = 64, maximum = 32768)]
    pub queue_size: Option<u16>,
    /// Generation of cards that an `avf` port pretends to be of, 1 (the base that all have) to 4; 3 unless said.
    /// A driver negotiates what there is, so that one image runs on all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4))]
    #[schema(minimum = 1, maximum = 4)]
    pub generation: Option<u8>,
    /// Whether the guest of a `nic` port may be promiscuous, and that of an `avf` port have addresses as it likes. False
    /// unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
    /// Whether frames from other addresses than the port's own (`mac` and `guard.mac`) are dropped. False unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoofchk: Option<bool>,
    /// MAC address of a `nic` port. Unless said, a locally administered one that is made from the name and stays the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,

    /// Network device of a `tap` uplink, at most 15 bytes. It is made if it does not exist, and no script is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether a `tap` uplink exchanges 64 KiB frames and unfinished checksums with the kernel. True unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offloads: Option<bool>,

    /// File (pcap or pcapng) whose frames a `pcap` uplink feeds into the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
    /// File (pcapng) into which a `pcap` uplink writes what is delivered to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<String>,
    /// Frames a second that are replayed. 0: as fast as they are taken. Unless said, at the times in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Whether replay starts over at the end of the file. False unless said.
    #[serde(default, rename = "loop", skip_serializing_if = "Option::is_none")]
    pub repeat: Option<bool>,

    /// The port's VLANs: `{ access = 10 }`, or `{ trunk = [10, 20, "100-199"], native = 1 }`.
    #[serde(default)]
    pub vlan: Vlan,
    /// Which tags tell the port's VLANs: `802.1q`, or `802.1ad` (service tags, customers' own go through as they are).
    #[serde(default, skip_serializing_if = "VlanProto::is_default")]
    pub proto: VlanProto,
    /// Numbers that VLANs have on the port's wire where they differ from the switch's: `{ 10 = 110 }` is VLAN 10 on the
    /// wire and 110 in the switch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vlan_map: BTreeMap<String, Vid>,
    /// Priority of frames that bring none that is believed, 0 to 7.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 7))]
    #[schema(maximum = 7)]
    pub qos: u8,
    /// Whom the port believes about priorities, and how it writes them: `{ trust = "dscp" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Rate at which the port is read at most: what it sends beyond waits in its own ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tx_rate: Option<Rate>,
    /// Rate up to which the port is read before all that has no guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tx_rate: Option<Rate>,
    /// The port's share of what is left, against other ports of its priority: 1 to 65535, 100 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    #[schema(minimum = 1)]
    pub tx_weight: Option<u16>,
    /// Ports of priority 7 are read before those of 6, and so on to 0, strictly.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 7))]
    #[schema(maximum = 7)]
    pub tx_priority: u8,
    /// Whether those that send to the port have fair shares of it, by their weights, while it is congested. False unless
    /// said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fair_share: bool,
    /// Rate with its burst beyond which what the port sends is dropped: for senders that cannot be held, `10mbit burst 64k`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub police: Option<Police>,
    /// Rate with its burst beyond which what is sent to the port is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub police_egress: Option<Police>,
    /// How much the port may flood: `{ broadcast = "1kpps" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// How the port's packets are tracked: `{ zone = 1, incoming = "answers" }`. Not at all unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<Conntrack>,
    /// An address of the port that is another one to everybody else: `{ inside = "10.0.0.5", outside = "203.0.113.5" }`. It
    /// needs `conntrack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<PortNat>,
    /// Whether the port may talk only to ports that are not isolated. False unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Whether addresses learned on the port stick: no other port takes them while they live. False unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
    /// Whether unicast to unknown addresses is flooded to the port.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub flood: bool,
    /// Whether multicast is flooded to the port.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub mcast_flood: bool,
    /// Whether broadcast is flooded to the port.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub bcast_flood: bool,
    /// The only unicast addresses whose frames may reach the port; any unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unicast_filter: Option<Vec<Mac>>,
    /// The only groups whose frames may reach the port, broadcast apart; any unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_filter: Option<Vec<Mac>>,
    /// Whether the guest's own lists of addresses are looked at before something is flooded to it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub guest_lists: bool,
    /// Whether a multicast router is behind the port, and how what hosts behind it leave is taken: `{ router = "never" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Multicast>,
    /// What frames from the port are checked for: `{ ipv4 = true, arp = true, ip = ["10.0.0.5"] }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// What the switch answers on the port by itself: `{ arp = true, dhcp = { .. } }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Largest layer-3 packet in a frame to or from the port, in bytes: without Ethernet header and VLAN tags, 68 to
    /// 65535. Larger frames are dropped and counted; a 64 KiB frame that is to be segmented is judged by its segment
    /// size. A guest that negotiates it is told.
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 68, max = 65535))]
    #[schema(minimum = 68)]
    pub mtu: u16,
    /// Link state: `auto` follows the other side, `enable` is always up, `disable` is down and passes nothing.
    #[serde(default)]
    pub state: AdminState,
    /// Whether source addresses seen on this port are learned.
    #[serde(default = "yes")]
    pub learning: bool,
    /// Most addresses that are learned on this port, so that one guest cannot fill the table.
    #[serde(default = "default_fdb_limit")]
    pub fdb_limit: u32,
}

const fn default_mtu() -> u16 {
    1500
}
const fn default_fdb_limit() -> u32 {
    65536
}
const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Port {
    /// A port with this name and nothing else said: neither a `nic` nor an `uplink` yet.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tenant: None,
            tenant_keys: Vec::new(),
            nic: None,
            uplink: None,
            vhost_user: None,
            vfio_user: None,
            queues: None,
            queue_size: None,
            generation: None,
            trust: None,
            spoofchk: None,
            mac: None,
            device: None,
            offloads: None,
            replay: None,
            capture: None,
            rate: None,
            repeat: None,
            vlan: Vlan::default(),
            proto: VlanProto::default(),
            vlan_map: BTreeMap::new(),
            qos: 0,
            priority: None,
            max_tx_rate: None,
            min_tx_rate: None,
            tx_weight: None,
            tx_priority: 0,
            fair_share: false,
            police: None,
            police_egress: None,
            storm: None,
            conntrack: None,
            nat: None,
            isolated: false,
            sticky: false,
            flood: true,
            mcast_flood: true,
            bcast_flood: true,
            unicast_filter: None,
            multicast_filter: None,
            guest_lists: true,
            multicast: None,
            guard: None,
            answer: None,
            mtu: default_mtu(),
            state: AdminState::default(),
            learning: true,
            fdb_limit: default_fdb_limit(),
        }
    }

    /// A `virtio-net` port on a vhost-user socket, everything else as by default.
    #[must_use]
    pub fn virtio_net(name: impl Into<String>, socket: impl Into<String>, role: Role) -> Self {
        Self {
            nic: Some(Nic::VirtioNet),
            vhost_user: Some(VhostUser { socket: socket.into(), role }),
            ..Self::named(name)
        }
    }

    /// An e1000 port on a vfio-user socket, everything else as by default.
    #[must_use]
    pub fn e1000(name: impl Into<String>, socket: impl Into<String>) -> Self {
        Self {
            nic: Some(Nic::E1000),
            vfio_user: Some(VfioUser { socket: socket.into(), mmap: false }),
            ..Self::named(name)
        }
    }

    /// An adaptive virtual function on a vfio-user socket, everything else as by default.
    #[must_use]
    pub fn avf(name: impl Into<String>, socket: impl Into<String>) -> Self {
        Self { nic: Some(Nic::Avf), ..Self::e1000(name, socket) }
    }

    /// A TAP uplink, everything else as by default.
    #[must_use]
    pub fn tap(name: impl Into<String>, device: impl Into<String>) -> Self {
        Self { uplink: Some(Uplink::Tap), device: Some(device.into()), ..Self::named(name) }
    }

    /// The MAC address of a `nic` port: the configured one, or the one made from the name. `None` for an uplink.
    #[must_use]
    pub fn effective_mac(&self) -> Option<Mac> {
        self.nic.map(|_| self.mac.unwrap_or_else(|| Mac::of_name(&self.name)))
    }
}

/// Kinds of network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nic {
    /// Para-virtual, over vhost-user.
    VirtioNet,
    /// Intel Adaptive Virtual Function, over vfio-user.
    Avf,
    /// Intel 82540EM, over vfio-user.
    E1000,
}

impl Nic {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio-net",
            Self::Avf => "avf",
            Self::E1000 => "e1000",
        }
    }
}

/// Kinds of uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// A TAP device of the host's kernel.
    Tap,
    /// Files: replay into the switch, capture out of it.
    Pcap,
    /// Every frame that is delivered to the port comes back from it. For tests.
    Loopback,
    /// AF_XDP on a network card of the host. Known, but not in this build.
    Xdp,
}

impl Uplink {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Pcap => "pcap",
            Self::Loopback => "loopback",
            Self::Xdp => "xdp",
        }
    }
}

/// A vhost-user connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VhostUser {
    /// Unix socket of the connection, at most 107 bytes long.
    pub socket: String,
    /// `server`: Fabnic listens and VMMs come and go. `client`: the VMM listens, Fabnic connects, again and again.
    #[serde(default)]
    pub role: Role,
}

/// Which side listens on a vhost-user socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Fabnic listens.
    #[default]
    Server,
    /// The VMM listens, Fabnic connects and reconnects.
    Client,
}

impl Role {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// A vfio-user connection, on which Fabnic listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VfioUser {
    /// Unix socket of the connection, at most 107 bytes long.
    pub socket: String,
    /// Whether the guest may write doorbells without leaving the VM. The port's queues are polled all the time then, and
    /// with QEMU every other access to the device waits for its answer. False unless said.
    #[serde(default)]
    pub mmap: bool,
}

/// Administrative link state, in the words of `ip link set vf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// The link is up while the other side is there and ready.
    #[default]
    Auto,
    /// The link is up whatever the other side does.
    Enable,
    /// The link is down and nothing passes, in either direction.
    Disable,
}

impl AdminState {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// A static entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticFdb {
    /// Address of a station: not a group address.
    pub mac: Mac,
    /// VLAN in which it is reached, one of the port's.
    pub vlan: Vid,
    /// Name of the port behind which it is.
    pub port: String,
}
