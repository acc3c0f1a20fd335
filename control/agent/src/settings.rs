//! From the words of the configuration to those of the switch.

use fabnic_model::mirror::MirrorDirection;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fabnic_model::answer::{self, SERVER_MAC};
use fabnic_model::guard::Bpdu;
use fabnic_model::meter::{ColorFrom, Conform};
use fabnic_model::multicast::{RouterPort as ModelRouterPort, Unregistered as ModelUnregistered};
use fabnic_model::priority::Trust as ModelTrust;
use fabnic_model::rule::value::Prefix;
use fabnic_model::{AdminState, Answer, Config, Guard, Nic, Object as _, Port, Priority, Vlan, VlanProto};
use fabnic_model::{Burst, Multicast, Police, PortNat, Rate, Storm, Zone};
use fabnic_switch::{
    Algorithm, ColorAction, ColorAware, Incoming, MeterSettings, NamedMeter, OneToOne, PortMulticast,
    PortTracking, QuerierSettings, RouterPort, StaticGroup, StormLimit, StormSettings, TenantPolicy,
    TenantQuota, Timeout, Unit, Unregistered, VlanSnooping, ZoneSettings,
};
use fabnic_switch::{
    AnswerSettings, BoundAddress, BpduGuard, Dhcp6Settings, DhcpSettings, Gateway, GuardSettings,
    LldpIdentity, LldpMode, MirrorSettings, Policy, PortSettings, PrioritySettings, ReceiveFilter,
    RouterSettings, SAME, Trust, VlanMode, VlanProtocol, VlanTranslation,
};
use fabnic_wire::{MacAddr, Vid};

use crate::agent::Running;

/// A VLAN as the packet world has it. Both types hold 1 to 4094, so that nothing is lost.
pub(crate) fn vid(vid: fabnic_model::Vid) -> Vid {
    Vid::new(vid.get()).unwrap_or(Vid::DEFAULT)
}

/// A VLAN as the configuration has it.
pub(crate) fn model_vid(vid: Vid) -> fabnic_model::Vid {
    fabnic_model::Vid::new(vid.get()).unwrap_or(fabnic_model::Vid::DEFAULT)
}

/// An address as the packet world has it.
pub(crate) fn mac(mac: fabnic_model::Mac) -> MacAddr {
    MacAddr::new(mac.0)
}

/// An address as the configuration has it.
pub(crate) fn model_mac(mac: MacAddr) -> fabnic_model::Mac {
    fabnic_model::Mac(mac.octets())
}

/// What the switch must know of a port.
pub(crate) fn of_port(port: &Port, tenant: Option<u32>) -> PortSettings {
    let plain = PortSettings::default();
    PortSettings {
        enabled: port.state != AdminState::Disable,
        mtu: u32::from(port.mtu),
        vlan: match &port.vlan {
            Vlan::Access(access) => VlanMode::Access(vid(*access)),
            Vlan::Trunk { allowed, native } => {
                VlanMode::Trunk { vlans: allowed.iter().map(vid).collect(), native: native.map(vid) }
            }
        },
        learning: port.learning,
        fdb_limit: port.fdb_limit,
        vlan_protocol: match port.proto {
            VlanProto::Dot1Q => VlanProtocol::Dot1Q,
            VlanProto::Dot1Ad => VlanProtocol::Dot1Ad,
        },
        vlan_translation: translation(&port.vlan_map),
        priority: priority(port.qos, port.priority.as_ref()),
        sticky: port.sticky,
        isolated: port.isolated,
        tenant,
        receive: ReceiveFilter {
            flood: port.flood,
            mcast_flood: port.mcast_flood,
            bcast_flood: port.bcast_flood,
            unicast: port.unicast_filter.as_ref().map(|list| list.iter().copied().map(mac).collect()),
            multicast: port.multicast_filter.as_ref().map(|list| list.iter().copied().map(mac).collect()),
            guest_lists: port.guest_lists,
            trust: port.trust.unwrap_or(false),
        },
        guard: guard(port),
        answer: port.answer.as_ref().map(answers).unwrap_or_default(),
        max_tx_rate: port.max_tx_rate.map(rate),
        min_tx_rate: port.min_tx_rate.map(rate),
        tx_weight: port.tx_weight.unwrap_or(plain.tx_weight),
        tx_priority: port.tx_priority,
        fair_share: port.fair_share,
        police_ingress: port.police.map(policer),
        police_egress: port.police_egress.map(policer),
        storm: port.storm.as_ref().map(storm).unwrap_or_default(),
        multicast: port.multicast.as_ref().map(multicast).unwrap_or_default(),
        tracking: port.conntrack.as_ref().map(|conntrack| tracking(conntrack, port.nat.as_ref())),
    }
}

const fn unit(rate: Rate) -> (Unit, u64) {
    match rate {
        Rate::Bits(per_second) => (Unit::Bits, per_second),
        Rate::Packets(per_second) => (Unit::Packets, per_second),
    }
}

fn rate(rate: Rate) -> fabnic_switch::Rate {
    let (unit, per_second) = unit(rate);
    fabnic_switch::Rate { unit, per_second }
}

/// In the rate's own unit; of the same kind, as was checked.
fn burst(rate: Rate, burst: Option<Burst>) -> u64 {
    let (unit, per_second) = unit(rate);
    match burst {
        Some(Burst::Bytes(units) | Burst::Packets(units)) => units,
        None => unit.default_burst(per_second),
    }
}

pub(crate) fn policer(police: Police) -> MeterSettings {
    let (unit, per_second) = unit(police.rate);
    MeterSettings::policer(unit, per_second, burst(police.rate, police.burst))
}

fn tracking(conntrack: &fabnic_model::Conntrack, nat: Option<&PortNat>) -> PortTracking {
    PortTracking {
        zone: conntrack.zone,
        limit: conntrack.limit,
        incoming: match conntrack.incoming {
            fabnic_model::conntrack::Incoming::Any => Incoming::Any,
            fabnic_model::conntrack::Incoming::Answers => Incoming::Answers,
        },
        drop_invalid: conntrack.drop_invalid,
        nat: None,
        one_to_one: nat.map(|nat| OneToOne { inside: nat.inside, outside: nat.outside }),
    }
}

/// Queries without an address of their own give way to everybody's.
fn snooping(vlan: &fabnic_model::answer::VlanTable, ports: &Running) -> Option<VlanSnooping> {
    let said = vlan.multicast.clone().unwrap_or_default();
    let v4 = vlan.gateway.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = vlan.gateway.iter().find_map(|address| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        _ => None,
    });
    let querier = QuerierSettings {
        mac: mac(vlan.gateway_mac.unwrap_or(SERVER_MAC)),
        v4: Some(said.querier_ip.or(v4).unwrap_or(Ipv4Addr::UNSPECIFIED)),
        v6: said.querier_ip6.or(v6),
        igmp_version: said.igmp_version,
        mld_version: said.mld_version,
    };
    let members = vlan
        .mdb
        .iter()
        .filter_map(|member| Some(StaticGroup { group: member.group, port: ports.port_id(&member.port)? }));
    vlan.snooping.then(|| VlanSnooping {
        querier: vlan.querier.then_some(querier),
        static_groups: members.collect(),
        unregistered: match said.unregistered {
            ModelUnregistered::Routers => Unregistered::Routers,
            ModelUnregistered::Flood => Unregistered::Flood,
            ModelUnregistered::Drop => Unregistered::Drop,
        },
        routers: said.routers.iter().filter_map(|name| ports.port_id(name)).collect(),
        robustness: said.robustness,
        query_interval_s: said.query_interval,
        max_response_ms: said.max_response_ms,
        last_member_interval_ms: said.last_member_interval_ms,
        max_entries: said.limit,
        vlan: vid(vlan.id),
    })
}

fn multicast(multicast: &Multicast) -> PortMulticast {
    PortMulticast {
        router: match multicast.router {
            ModelRouterPort::Auto => RouterPort::Auto,
            ModelRouterPort::Always => RouterPort::Always,
            ModelRouterPort::Never => RouterPort::Never,
        },
        fast_leave: multicast.fast_leave,
        max_entries: multicast.limit,
    }
}

fn zone(zone: &Zone) -> (u16, ZoneSettings) {
    let plain = ZoneSettings::default();
    // Both have the same names.
    let class = |name: &str| Timeout::ALL.iter().copied().find(|class| class.label() == name);
    let settings = ZoneSettings {
        limit: zone.limit.unwrap_or(plain.limit),
        timeouts: zone.timeouts.said().filter_map(|(name, seconds)| Some((class(name)?, seconds))).collect(),
        loose: zone.loose,
        liberal: zone.liberal,
        max_retransmissions: zone.max_retransmissions.unwrap_or(plain.max_retransmissions),
    };
    (zone.id, settings)
}

fn storm(storm: &Storm) -> StormSettings {
    let limit = |police: Police| {
        let (unit, rate) = unit(police.rate);
        StormLimit { unit, rate, burst: burst(police.rate, police.burst) }
    };
    StormSettings {
        broadcast: storm.broadcast.map(limit),
        multicast: storm.multicast.map(limit),
        unknown_unicast: storm.unknown_unicast.map(limit),
    }
}

fn conform(conform: Conform) -> ColorAction {
    match conform {
        Conform::Pass => ColorAction::Pass,
        Conform::Drop => ColorAction::Drop,
        Conform::Dscp(dscp) => ColorAction::SetDscp(dscp),
    }
}

fn meter(meter: &fabnic_model::Meter) -> NamedMeter {
    let (unit, cir) = unit(meter.rate);
    let cbs = burst(meter.rate, meter.burst);
    let second = |rate: Rate| (self::unit(rate).1, burst(rate, meter.excess_burst));
    let algorithm = match (meter.peak_rate, meter.excess_rate) {
        (Some(peak), _) => {
            let (pir, pbs) = second(peak);
            Algorithm::TwoRate { cir, cbs, pir, pbs }
        }
        (None, Some(excess)) => {
            let (eir, ebs) = second(excess);
            Algorithm::TwoRateEfficient { cir, cbs, eir, ebs }
        }
        (None, None) => {
            let ebs = meter.excess_burst.map_or(0, |excess| burst(meter.rate, Some(excess)));
            Algorithm::SingleRate { cir, cbs, ebs }
        }
    };
    NamedMeter {
        parent: meter.parent.as_ref().map(|parent| fabnic_model::qualified(meter.tenant(), parent)),
        name: meter.qualified(),
        settings: MeterSettings {
            unit,
            algorithm,
            color_aware: match (meter.color_aware, meter.color_from) {
                (false, _) => ColorAware::No,
                (true, ColorFrom::Meters) => ColorAware::Meters,
                (true, ColorFrom::Dscp) => ColorAware::Dscp,
            },
            overhead: meter.overhead,
            yellow: conform(meter.yellow),
            red: conform(meter.red),
        },
    }
}

/// The pairs were checked: what is no VLAN is left out.
fn translation(map: &BTreeMap<String, fabnic_model::Vid>) -> VlanTranslation {
    let pairs = map.iter().filter_map(|(wire, vlan)| Some((vid(wire.parse().ok()?), vid(*vlan))));
    VlanTranslation::new(pairs).unwrap_or_default()
}

fn priority(default: u8, priority: Option<&Priority>) -> PrioritySettings {
    let Some(priority) = priority else { return PrioritySettings { default, ..PrioritySettings::default() } };
    let mut from_dscp = PrioritySettings::CLASS_SELECTORS;
    for (dscp, to) in priority.dscps() {
        if let Some(place) = from_dscp.get_mut(usize::from(dscp)) {
            *place = to;
        }
    }
    PrioritySettings {
        default,
        trust: match priority.trust {
            ModelTrust::Pcp => Trust::Pcp,
            ModelTrust::Dscp => Trust::Dscp,
            ModelTrust::Nothing => Trust::Nothing,
        },
        regenerate: priority.regenerate.unwrap_or(SAME),
        from_dscp: Arc::new(from_dscp),
        to_pcp: priority.to_pcp.unwrap_or(SAME),
        to_dscp: priority.to_dscp,
    }
}

fn guard(port: &Port) -> GuardSettings {
    let none = Guard::default();
    let guard = port.guard.as_ref().unwrap_or(&none);
    let bound = |prefix: &Prefix| BoundAddress {
        address: prefix.address,
        prefix_len: prefix.length,
        mac: None,
        vlan: None,
    };
    let outside = |nat: &PortNat| BoundAddress {
        address: nat.outside,
        prefix_len: if nat.outside.is_ipv4() { 32 } else { 128 },
        mac: None,
        vlan: None,
    };
    let v6 = |prefix: &Prefix| match prefix.address {
        std::net::IpAddr::V6(address) => Some((address, prefix.length)),
        std::net::IpAddr::V4(_) => None,
    };
    GuardSettings {
        trusted: guard.trusted,
        macs: port.effective_mac().into_iter().chain(guard.mac.iter().copied()).map(mac).collect(),
        // An adaptive virtual function checks it itself, against the list that its driver was granted.
        mac: port.spoofchk.unwrap_or(false) && port.nic != Some(Nic::Avf),
        vlan: guard.vlan,
        ipv4: guard.ipv4,
        ipv6: guard.ipv6,
        arp: guard.arp,
        nd: guard.nd,
        dhcp_server: guard.dhcp_server,
        dhcp6_server: guard.dhcp6_server,
        ra: guard.ra,
        bpdu: match guard.bpdu {
            Bpdu::Off => BpduGuard::Off,
            Bpdu::Drop => BpduGuard::Drop,
            Bpdu::Stop => BpduGuard::Stop,
        },
        // What it is outside is bound to it as well: so it is that the switch answers for it.
        addresses: guard.ip.iter().map(bound).chain(port.nat.as_ref().map(outside)).collect(),
        learn_dhcp: guard.learn_dhcp,
        learn_dhcp6: guard.learn_dhcp6,
        slaac: guard.slaac.as_ref().map(|prefixes| prefixes.iter().filter_map(v6).collect()),
        max_bindings: guard.max_bindings,
    }
}

fn answers(answer: &Answer) -> AnswerSettings {
    let server = |given: Option<fabnic_model::Mac>| mac(given.unwrap_or(SERVER_MAC));
    let prefix = |prefix: &Prefix| match prefix.address {
        std::net::IpAddr::V6(address) => Some(fabnic_wire::nd::Prefix {
            prefix: address,
            len: prefix.length,
            on_link: true,
            autonomous: true,
            valid: 2_592_000,
            preferred: 604_800,
        }),
        std::net::IpAddr::V4(_) => None,
    };
    let route = |route: &answer::Route| match route.to.address {
        std::net::IpAddr::V4(address) => Some((address, route.to.length, route.via)),
        std::net::IpAddr::V6(_) => None,
    };
    AnswerSettings {
        arp: answer.arp,
        nd: answer.nd,
        dhcp: answer.dhcp.as_ref().map(|dhcp| {
            Arc::new(DhcpSettings {
                address: dhcp.address,
                prefix_len: dhcp.prefix_length,
                server: (server(dhcp.server_mac), dhcp.server),
                gateway: dhcp.gateway,
                dns: dhcp.dns.clone(),
                domain: dhcp.domain.clone(),
                host_name: dhcp.host_name.clone(),
                mtu: dhcp.mtu,
                routes: dhcp.routes.iter().filter_map(route).collect(),
                lease: dhcp.lease,
            })
        }),
        dhcp6: answer.dhcp6.as_ref().map(|dhcp6| {
            Arc::new(Dhcp6Settings {
                address: dhcp6.address,
                server_mac: server(dhcp6.server_mac),
                dns: dhcp6.dns.clone(),
                preferred: dhcp6.preferred,
                valid: dhcp6.valid,
            })
        }),
        router: answer.ra.as_ref().map(|router| {
            Arc::new(RouterSettings {
                mac: server(router.mac),
                lifetime: router.lifetime,
                hop_limit: router.hop_limit,
                managed: router.managed,
                other: router.other,
                mtu: router.mtu,
                prefixes: router.prefixes.iter().filter_map(prefix).collect(),
                dns: router.dns.clone(),
                interval: router.interval,
            })
        }),
        lldp: match answer.lldp {
            answer::LldpMode::Off => LldpMode::Off,
            answer::LldpMode::Receive => LldpMode::Receive,
            answer::LldpMode::Transmit => LldpMode::Transmit,
            answer::LldpMode::Both => LldpMode::Both,
        },
        rate: answer.rate,
    }
}

/// What the switch must know besides its ports. Names were checked: what is not found is left out.
pub(crate) fn of_switch(config: &Config, ports: &Running) -> Policy {
    Policy {
        mirrors: config.mirror.iter().filter_map(|mirror| of_mirror(mirror, ports)).collect(),
        flow_counters: config.daemon.flow_counters,
        gateways: config
            .vlan
            .iter()
            .filter(|vlan| !vlan.gateway.is_empty())
            .map(|vlan| Gateway {
                vlan: vid(vlan.id),
                mac: mac(vlan.gateway_mac.unwrap_or(SERVER_MAC)),
                addresses: vlan.gateway.clone(),
            })
            .collect(),
        lldp: LldpIdentity {
            chassis: mac(config.lldp.chassis),
            name: config.lldp.name.clone(),
            description: config.lldp.description.clone(),
            interval: config.lldp.interval,
        },
        zones: config.zone.iter().map(zone).collect(),
        multicast: config.vlan.iter().filter_map(|vlan| snooping(vlan, ports)).collect(),
        meters: config.meter.iter().map(meter).collect(),
        tenants: config
            .tenant
            .iter()
            .filter_map(|tenant| {
                if tenant.police.is_none() && tenant.max_tx_rate.is_none() {
                    return None;
                }
                Some(TenantPolicy {
                    tenant: *ports.tenants.get(&tenant.name)?,
                    police_ingress: tenant.police.map(policer),
                    max_tx_rate: tenant.max_tx_rate.map(rate),
                })
            })
            .collect(),
        quotas: config
            .tenant
            .iter()
            .filter_map(|tenant| {
                Some(TenantQuota {
                    tenant: *ports.tenants.get(&tenant.name)?,
                    connections: tenant.quota.connections,
                    fdb_entries: tenant.quota.fdb_entries,
                })
            })
            .collect(),
    }
}

fn of_mirror(mirror: &fabnic_model::Mirror, ports: &Running) -> Option<MirrorSettings> {
    let of = |direction: MirrorDirection| -> Vec<_> {
        if mirror.direction == direction || mirror.direction == MirrorDirection::Both {
            mirror.port.0.iter().filter_map(|name| ports.port_id(name)).collect()
        } else {
            Vec::new()
        }
    };
    Some(MirrorSettings {
        name: mirror.qualified(),
        target: ports.port_id(&mirror.to)?,
        ingress: of(MirrorDirection::Ingress),
        egress: of(MirrorDirection::Egress),
        vlans: mirror.vlan.iter().map(vid).collect(),
        snap: mirror.snaplen,
        sample: mirror.sample.unwrap_or(1),
    })
}

/// Whether the guest is to see its link up.
pub(crate) fn link_is_up(port: &Port) -> bool {
    port.state != AdminState::Disable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_connections_have_the_same_names_on_both_sides() {
        let said =
            Timeout::ALL.iter().map(|class| (class.label().to_owned(), class.default_seconds().into()));
        let said: serde_json::Map<String, serde_json::Value> = said.collect();
        let timeouts = serde_json::from_value(said.into()).unwrap();
        let said = fabnic_model::Zone {
            id: 7,
            limit: Some(9),
            loose: false,
            liberal: true,
            max_retransmissions: Some(5),
            timeouts,
        };
        let (id, settings) = zone(&said);
        let expected = ZoneSettings {
            limit: 9,
            timeouts: Timeout::ALL.iter().map(|class| (*class, class.default_seconds())).collect(),
            loose: false,
            liberal: true,
            max_retransmissions: 5,
        };
        assert_eq!((id, settings), (7, expected));
    }
}
