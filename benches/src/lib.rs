//! The cost of the whole path in one thread: instructions and allocations.
//!
//! Two light guests and the switch between them, without sockets and threads, on any of the cards:
//!
//! ```text
//!   driver --ring--> Transmit -> InlineSwitch -> Receive --ring--> driver
//!     a                  (vlan, learning, counters)                  b     and the other way
//! ```
//!
//! Time would say little on a shared machine, so what is counted is what repeats: instructions, by callgrind
//! (`path_cost`, compared with `benches/budget.toml` by `cargo xtask bench instructions`), and allocations, by a test.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use fabnic_memory::{Map, RegionSpec};
use fabnic_port::{Port, PortId};
use fabnic_switch::{
    Action, Algorithm, BoundAddress, Change, ColorAction, ColorAware, CtState, Direction, Domain,
    GuardSettings, InlineSwitch, Match, MeterSettings, Policy, PortSettings, PortTracking, RuleId, RuleSpec,
    StormLimit, StormSettings, SwitchConfig, TenantPolicy, Term, Unit, VlanSnooping,
};
use fabnic_testkit::driver::light::{FlowFields, Prebuilt, flow_mac, flow_ports};
use fabnic_testkit::memory::GuestMemory;
use fabnic_testkit::packets::{Packet, tcp};
use fabnic_wire::offload::{GSO_TCPV4, NEEDS_CSUM};
use fabnic_wire::{Offload, Vid};

mod cards;
mod virtio;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The guests' cards.
    pub nic: Nic,
    /// Bytes of a frame. One that is longer than [`LONGEST`] is a TCP frame that its sender leaves to be segmented (TSO).
    pub size: usize,
    /// Flows, told apart by both addresses; with [`On::All`] by their ports, so that each is a connection.
    pub flows: u32,
    /// What else the switch is to do.
    pub on: On,
}

/// A card and its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net with split rings.
    Split {
        /// IN_ORDER negotiated.
        in_order: bool,
    },
    /// virtio-net with packed rings.
    Packed {
        /// IN_ORDER negotiated.
        in_order: bool,
    },
    /// An Adaptive Virtual Function.
    Avf,
    /// An 82540EM.
    E1000,
}

impl std::str::FromStr for Nic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Nic> {
        match text {
            "split" => Ok(Nic::Split { in_order: false }),
            "packed" => Ok(Nic::Packed { in_order: false }),
            "avf" => Ok(Nic::Avf),
            "e1000" => Ok(Nic::E1000),
            other => anyhow::bail!("`{other}` is not one of split, packed, avf, e1000"),
        }
    }
}

/// What the switch does besides forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    /// Addresses, VLANs, learning, counters: what is always on.
    #[default]
    Plain,
    /// Flows up to their ports told apart and counted.
    Flows,
    /// Every policy feature that a port of a cloud has: guards, connection tracking, rules of both domains and directions,
    /// meters, storm control, multicast snooping, counted flows.
    All,
}

const FAST: MeterSettings = MeterSettings {
    unit: Unit::Bits,
    algorithm: Algorithm::SingleRate { cir: 390_000_000_000, cbs: 1 << 30, ebs: 0 },
    color_aware: ColorAware::No,
    overhead: 0,
    yellow: ColorAction::Pass,
    red: ColorAction::Drop,
};

impl On {
    fn policy(self) -> Policy {
        let vlan = Vid::DEFAULT;
        match self {
            On::Plain => Policy::default(),
            On::Flows => Policy { flow_counters: true, ..Policy::default() },
            On::All => Policy {
                flow_counters: true,
                multicast: vec![VlanSnooping::new(vlan)],
                tenants: vec![TenantPolicy { tenant: 1, police_ingress: Some(FAST), max_tx_rate: None }],
                ..Policy::default()
            },
        }
    }

    /// Guards against spoofing, connection tracking, a meter of its own under its tenant's, storm control.
    fn settings(self, id: u8) -> PortSettings {
        if self != On::All {
            return PortSettings::default();
        }
        let limit = StormLimit { unit: Unit::Packets, rate: 1000, burst: 100 };
        let address = BoundAddress::one(Ipv4Addr::new(10, 0, 0, id + 1).into());
        PortSettings {
            tenant: Some(1),
            guard: GuardSettings { mac: false, addresses: [address].into(), ..GuardSettings::strict([]) },
            tracking: Some(PortTracking { zone: 1, ..PortTracking::default() }),
            police_ingress: Some(FAST),
            storm: StormSettings {
                broadcast: Some(limit),
                multicast: Some(limit),
                unknown_unicast: Some(limit),
            },
            ..PortSettings::default()
        }
    }

    /// Rules of both domains and directions: each counts; the tenant lets through what belongs to a connection or opens one to
    /// a port that it serves, and drops the rest.
    fn rules(self) -> Vec<Change> {
        if self != On::All {
            return Vec::new();
        }
        let rule = |id, domain, direction, priority, terms: Vec<Term>, action| {
            Change::Add(RuleSpec {
                id: RuleId(id),
                domain,
                direction,
                group: 0,
                priority,
                name: format!("rule {id}"),
                matches: vec![Match::new(terms)],
                actions: vec![action],
            })
        };
        let (infra, tenant) = (Domain::Infrastructure, Domain::Tenant(1));
        let established = Term::CtState { value: CtState::ESTABLISHED, mask: CtState::ESTABLISHED };
        let net = Term::dst_net4([10, 0, 0, 0], 8);
        let served = Term::DstPort { min: 1, max: 0x1fff };
        vec![
            rule(1, infra, Direction::In, 1, vec![Term::DstPort { min: 6666, max: 6666 }], Action::Drop),
            rule(2, infra, Direction::In, 9, vec![net], Action::Pass),
            rule(3, tenant, Direction::In, 1, vec![established], Action::Pass),
            rule(4, tenant, Direction::In, 2, vec![net], Action::Pass),
            rule(5, tenant, Direction::Out, 1, vec![established], Action::Pass),
            rule(6, tenant, Direction::Out, 2, vec![served], Action::Pass),
            rule(7, tenant, Direction::Out, 9, vec![], Action::Drop),
            rule(8, infra, Direction::Out, 9, vec![net], Action::Pass),
        ]
    }
}

impl std::str::FromStr for On {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<On> {
        match text {
            "plain" => Ok(On::Plain),
            "flows" => Ok(On::Flows),
            "all" => Ok(On::All),
            other => anyhow::bail!("`{other}` is not one of plain, flows, all"),
        }
    }
}

/// The longest frame that goes over a wire in one piece.
pub const LONGEST: usize = 1518;
const RING: u16 = 256;

impl Case {
    pub(crate) fn is_large(self) -> bool {
        self.size > LONGEST
    }

    pub(crate) fn fields(self) -> FlowFields {
        match self.on {
            On::All if !self.is_large() => FlowFields::Ip,
            _ => FlowFields::Mac,
        }
    }
}

/// The path, ready to be driven.
pub struct Path {
    switch: InlineSwitch,
    guests: Vec<Guest>,
}

struct Guest {
    driver: Box<dyn Driver>,
    id: PortId,
}

/// What a light driver does.
trait Driver {
    /// Uses what came and sends a ring full.
    fn turn(&mut self);
    /// Frames received.
    fn received(&self) -> u64;
}

impl Path {
    /// Sets everything up; every flow was learned when this returns.
    pub fn new(case: Case) -> Result<Path> {
        let mut switch = InlineSwitch::new(&SwitchConfig::default());
        let (mut guests, mut ports) = (Vec::new(), Vec::new());
        for id in 0..2_u8 {
            let (driver, port) = connect(case, id)?;
            guests.push(Guest { driver, id: port.id });
            ports.push((port, case.on.settings(id)));
        }
        switch.configure(ports, case.on.policy());
        switch.change_rules(&case.on.rules())?;
        let mut path = Path { switch, guests };
        for _ in 0..2 + 4 * case.flows / u32::from(RING) {
            path.guests();
            path.switch();
        }
        Ok(path)
    }

    /// Lets both guests use what they got and send a ring full.
    pub fn guests(&mut self) {
        for guest in &mut self.guests {
            guest.driver.turn();
        }
    }

    /// Lets the switch move everything that waits. Gives the number of frames.
    #[inline(never)]
    pub fn switch(&mut self) -> usize {
        let mut frames = 0;
        for guest in &self.guests {
            while let Ok(moved @ 1..) = self.switch.poll(guest.id, 0) {
                frames += moved;
            }
        }
        frames
    }

    /// Frames that the guests received.
    pub fn received(&self) -> u64 {
        self.guests.iter().map(|guest| guest.driver.received()).sum()
    }

    /// Frames that were dropped anywhere.
    pub fn dropped(&self) -> u64 {
        self.switch.totals().dropped
    }
}

/// The frame of one flow, from guest `id` to the other.
fn frame(case: Case, id: u8, flow: u32) -> Prebuilt {
    let mac = |id: u8| [2, 0, 0, 0, 0, id + 1];
    let (by_address, (source, destination)) = match case.fields() {
        FlowFields::Mac => (flow, (1, 2)),
        FlowFields::Ip => (0, flow_ports(flow)),
    };
    let packet = Packet::ethernet(flow_mac(mac(1 - id), by_address), flow_mac(mac(id), by_address))
        .ipv4([10, 0, 0, id + 1], [10, 0, 0, 2 - id]);
    if !case.is_large() {
        let bytes = packet.udp(source, destination).size(case.size).build();
        return Prebuilt { header: Offload::PLAIN.encode(0), bytes };
    }
    let packet = packet.tcp(1, 2, 1, 1, tcp::ACK).partial_checksum().size(case.size);
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: u16::try_from(packet.headers()).unwrap_or(0),
        gso_size: 1460,
        csum_start: u16::try_from(packet.l4()).unwrap_or(0),
        csum_offset: 16,
    };
    Prebuilt { header: offload.encode(0), bytes: packet.build() }
}

fn connect(case: Case, id: u8) -> Result<(Box<dyn Driver>, Arc<Port>)> {
    let is_card = matches!(case.nic, Nic::Avf | Nic::E1000);
    anyhow::ensure!(!is_card || !case.is_large(), "a turn of large frames overruns the ring of a card");
    match case.nic {
        Nic::Split { in_order } => virtio::connect(case, false, in_order, id),
        Nic::Packed { in_order } => virtio::connect(case, true, in_order, id),
        Nic::Avf => cards::connect_avf(case, id),
        Nic::E1000 => cards::connect_e1000(case, id),
    }
}

/// The memory of a guest as its VMM shares it: other mappings of the same files.
fn shared_map(memory: &GuestMemory) -> Result<Arc<Map>> {
    let spec = |(index, region): (usize, &fabnic_testkit::memory::Region)| -> Result<RegionSpec> {
        let file = memory.file(index).context("a region has a file")?.try_clone_to_owned()?;
        let (guest_addr, user_addr, len) = (region.guest_addr, region.user_addr, region.len);
        Ok(RegionSpec { guest_addr, user_addr, len, offset: 0, file })
    };
    Ok(Map::new(memory.regions().iter().enumerate().map(spec).collect::<Result<_>>()?)?)
}
