//! A daemon without a switch, served on a socket in a directory of its own: what clients of the API are tested with.
//!
//! It keeps a configuration and really compares and applies; what a switch would count and learn is made up, the
//! same for each run.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "tests, and what they are made of")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use fabnic_api::Refused as TenantRefused;
use fabnic_api::{
    ApplyError, Audit, Backend, BindingFilter, BindingStatus, CaptureDirection, CaptureRequest,
    CaptureSender, CaptureStream, ConnectionFilter, ConnectionPage, ConnectionSide, ConnectionStatus,
    ConntrackStatus, Counters, DropExplained, EventBus, EventKind, FdbEntry, FdbFilter, FdbKind, FdbOfPort,
    FdbPage, FdbRefusals, FdbStatus, FdbTable, FlowCache, FlowFilter, FlowStatus, GroupStatus, Health,
    LinkState, LldpStatus, MdbCounters, MdbEntry, MdbFilter, MdbKind, MdbMode, MdbQuerier, MdbRouter,
    MdbSide, MdbSource, MdbVlan, MeterFilter, MeterPlace, MeterStatus, MirrorStatus, MulticastCount,
    MulticastStatus, Passed, Peer, PortStats, PortStatus, QueuePairs, QueueStats, RecentDrop, RingFormat,
    RuleStatus, StateRestored, StateSaved, StateStatus, Stats, SwitchTotals, TenantDoor, TenantStatus,
    TokenBucket, TraceReport, TraceRequest, TraceStep, TraceTarget, WorkerStatus, ZoneStatus,
    capture_channel, server::Options,
};
use fabnic_model::{
    Change, Config, Desired, Domain, Edit, EditError, Object as _, PortKind, Refused, Rule, Tenant, diff,
    parse, tenant::Quota,
};

/// The configuration that the fake starts with.
pub const START: &str = r#"
[daemon]
api = "/run/fabnic/api.sock"
workers = [1]

[[port]]
name = "vm1"
nic = "virtio-net"
vhost_user = { socket = "/run/fabnic/vm1.sock", role = "server" }
mac = "52:54:00:00:00:01"
vlan = { access = 10 }

[[port]]
name = "vm2"
nic = "virtio-net"
vhost_user = { socket = "/run/fabnic/vm2.sock", role = "client" }
mac = "52:54:00:00:00:02"
vlan = { access = 10 }
queues = 2
tenant = "blue"
tenant_keys = ["mtu"]

[[port]]
name = "up0"
uplink = "tap"
device = "tap0"
vlan = { trunk = [10, "20-29"], native = 1 }

[[fdb]]
mac = "52:54:00:00:00:99"
vlan = 10
port = "up0"

[[tenant]]
name = "blue"
token = "sha256:87705a77071a77b9ccd83d32507a14b66a40b9f32221207ac36828561c345fc6"
quota = { rules = 2 }

[[vlan]]
id = 10
snooping = true
mdb = [{ group = "239.1.1.1", port = "up0" }]

[[meter]]
name = "gold"
rate = "10mbit"
peak_rate = "20mbit"

[[group]]
name = "web"
addresses = ["10.0.0.1", "10.1.0.0/16"]

[[mirror]]
name = "tap"
to = "up0"
port = "vm1"

[[rule]]
name = "web"
port = "vm1"
priority = 100
match = { ip_proto = "tcp", dst_ip = "group:web", dst_port = "80-90" }
action = ["count", { mirror = "tap" }, "pass"]

[[rule]]
name = "no-telnet"
tenant = "blue"
direction = "egress"
match = { ip_proto = "tcp", dst_port = 23 }
action = ["drop"]
"#;

/// The token of tenant blue, whose hash is in [`START`].
pub const TOKEN: &str = "blue-and-secret";

/// The daemon that is not there.
pub struct Fake {
    desired: Mutex<Desired>,
    events: EventBus,
    learned: Mutex<Vec<FdbEntry>>,
    /// Captures without an end: a quiet port's.
    endless: Mutex<Vec<CaptureSender>>,
}

impl Fake {
    fn new() -> Self {
        let learned = |vlan: u16, last: u8, port: &str, age_seconds, moves| FdbEntry {
            vlan: fabnic_model::Vid::new(vlan).unwrap(),
            mac: fabnic_model::Mac([0x52, 0x54, 0, 0, 0, last]),
            port: port.into(),
            kind: FdbKind::Learned,
            age_seconds,
            moves,
        };
        Self {
            desired: Mutex::new(Desired::new(parse(START).unwrap())),
            events: EventBus::default(),
            learned: Mutex::new(vec![
                learned(1, 0x50, "up0", 299, 0),
                learned(10, 0x01, "vm1", 3, 0),
                learned(10, 0x02, "vm2", 75, 4),
            ]),
            endless: Mutex::default(),
        }
    }

    /// Whether the client of an endless capture went.
    pub fn capture_is_closed(&self) -> bool {
        self.endless.lock().unwrap().iter().any(CaptureSender::is_closed)
    }
}

fn not_ready() -> DropExplained {
    DropExplained {
        reason: "not_ready".into(),
        explanation: "No queue of the receiving port is ready.".into(),
    }
}

fn counters(frames: u64) -> Counters {
    Counters {
        rx_frames: frames,
        rx_bytes: frames * 64,
        tx_frames: frames / 2,
        tx_bytes: frames * 32,
        bursts: frames / 25,
        calls: frames / 100,
        kicks: frames / 200,
        ..Counters::default()
    }
}

impl Backend for Fake {
    fn health(&self) -> Health {
        let ports = self.ports();
        Health {
            healthy: true,
            reason: None,
            version: "0.1.0".into(),
            pid: 4242,
            uptime_seconds: 93_784,
            ports: ports.len(),
            ports_up: ports.iter().filter(|p| p.link == LinkState::Up).count(),
            workers: 1,
        }
    }

    fn config(&self) -> Config {
        self.desired.lock().unwrap().config().clone()
    }

    fn apply(&self, domain: &Domain, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        desired.check_cpus(&[0, 1])?;
        if let Some(port) = desired.port.iter().find(|p| p.device.as_deref() == Some("busy0")) {
            return Err(ApplyError::Failed {
                key: format!("port[{}].device", port.name),
                problem: "busy0: Device or resource busy (os error 16)".into(),
                expected: "a device that nobody else has opened".into(),
            });
        }
        let mut running = self.desired.lock().unwrap();
        let changes = diff(running.config(), &desired);
        for change in &changes {
            domain.permits(change, &running.before(change)).map_err(EditError::Forbidden)?;
        }
        if !dry_run {
            *running = Desired::new(desired);
            let first = changes.iter().map(ToString::to_string).collect();
            self.events.send(EventKind::Applied { changes: changes.len() as u64, first });
        }
        Ok(changes)
    }

    fn edit(&self, domain: &Domain, edits: &[Edit], dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        let mut desired = self.desired.lock().unwrap().clone();
        for edit in edits {
            if let Some(change) = desired.plan(domain, edit)? {
                desired.carry_out(&change);
            }
        }
        let config = desired.config().clone();
        config.check()?;
        self.apply(domain, config, dry_run)
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.config().tenant
    }

    fn tenant_status(&self, domain: &Domain) -> Vec<TenantStatus> {
        let config = self.config();
        let seen = config.tenant.iter().filter(|tenant| domain.sees(Some(&tenant.name)));
        seen.map(|tenant| TenantStatus {
            name: tenant.name.clone(),
            socket: tenant.socket.clone(),
            uids: tenant.uids.clone(),
            has_token: tenant.token.is_some(),
            quota: tenant.quota,
            used: Quota {
                rules: 1,
                groups: 0,
                addresses: 0,
                meters: 0,
                mirrors: 0,
                connections: 1,
                fdb_entries: 1,
            },
            refused: TenantRefused { connections: 5, fdb_entries: 6 },
            ports: vec!["vm2".into()],
        })
        .collect()
    }

    fn rules(&self, domain: &Domain) -> Vec<RuleStatus> {
        let config = self.config();
        let seen = config.rule.iter().filter(|rule| domain.sees(rule.tenant()));
        seen.map(|rule| RuleStatus {
            id: rule.qualified(),
            text: rule.to_string(),
            rule: Rule::clone(rule),
            frames: 12,
            bytes: 768,
            last_used_seconds: (rule.name == "web").then_some(75),
        })
        .collect()
    }

    fn rule(&self, domain: &Domain, name: &str) -> Option<RuleStatus> {
        self.rules(domain)
            .into_iter()
            .find(|rule| rule.id == name || (domain.tenant().is_some() && rule.rule.name == name))
    }

    fn groups(&self, domain: &Domain) -> Vec<GroupStatus> {
        let config = self.config();
        let seen = config.group.iter().filter(|group| domain.sees(group.tenant()));
        seen.map(|group| GroupStatus { id: group.qualified(), group: (**group).clone() }).collect()
    }

    fn mirrors(&self, domain: &Domain) -> Vec<MirrorStatus> {
        let config = self.config();
        let seen = config.mirror.into_iter().filter(|mirror| domain.sees(mirror.tenant()));
        seen.map(|mirror| MirrorStatus { id: mirror.qualified(), mirror, seen: 30, copied: 10 }).collect()
    }

    fn flows(&self, domain: &Domain, filter: &FlowFilter) -> Vec<FlowStatus> {
        let flow = FlowStatus {
            port: "vm1".into(),
            src_mac: fabnic_model::Mac([0x52, 0x54, 0, 0, 0, 1]),
            dst_mac: fabnic_model::Mac([0x52, 0x54, 0, 0, 0, 2]),
            vlan: 10,
            protocol: "ipv6".into(),
            src_ip: Some("2001:db8::1".into()),
            dst_ip: Some("2001:db8::2".into()),
            ip_proto: Some("tcp".into()),
            src_port: Some(40_000),
            dst_port: Some(443),
            to: "vm2".into(),
            frames: 900,
            bytes: 57_600,
        };
        let is_meant = domain.tenant().is_none() && filter.port.as_ref().is_none_or(|port| port == "vm1");
        if is_meant { vec![flow] } else { Vec::new() }
    }

    fn bindings(&self, domain: &Domain, _: &BindingFilter) -> Vec<BindingStatus> {
        let binding = BindingStatus {
            vlan: 10,
            address: "10.0.0.1".into(),
            port: "vm1".into(),
            mac: fabnic_model::Mac([0x52, 0x54, 0, 0, 0, 1]),
            origin: "dhcp".into(),
            expires_seconds: Some(3600),
        };
        if domain.tenant().is_none() { vec![binding] } else { Vec::new() }
    }

    fn bindings_forget(&self, filter: &BindingFilter) -> u64 {
        u64::from(filter.port.as_deref() == Some("vm1"))
    }

    fn connections(&self, domain: &Domain, filter: &ConnectionFilter) -> ConnectionPage {
        let side = |src: &str, dst: &str, ports: Option<(u16, u16)>, frames| ConnectionSide {
            src_ip: src.parse().unwrap(),
            dst_ip: dst.parse().unwrap(),
            src_port: ports.map(|(src, _)| src),
            dst_port: ports.map(|(_, dst)| dst),
            icmp_id: ports.is_none().then_some(7),
            passed: Passed { frames, bytes: frames * 64 },
        };
        let tcp = ConnectionStatus {
            zone: 1,
            port: "vm1".into(),
            ip_proto: "tcp".into(),
            state: "+trk+est+snat".into(),
            tcp: Some("ESTABLISHED".into()),
            assured: true,
            mark: 5,
            original: side("10.0.0.1", "192.0.2.7", Some((40_000, 443)), 12),
            reply: side("192.0.2.7", "203.0.113.1", Some((443, 40_000)), 9),
            expires_seconds: 431_999,
            age_seconds: 12,
        };
        let echo = ConnectionStatus {
            zone: 2,
            port: "vm2".into(),
            ip_proto: "icmpv6".into(),
            state: "+trk+new".into(),
            tcp: None,
            assured: false,
            mark: 0,
            original: side("2001:db8::2", "2001:db8::1", None, 1),
            reply: side("2001:db8::1", "2001:db8::2", None, 0),
            expires_seconds: 29,
            age_seconds: 1,
        };
        let tenant = |port: &str| (port == "vm2").then_some("blue");
        let meant = |c: &ConnectionStatus| {
            domain.sees(tenant(&c.port))
                && filter.port.as_ref().is_none_or(|port| *port == c.port)
                && filter.zone.is_none_or(|zone| zone == c.zone)
        };
        let mut entries: Vec<_> = [tcp, echo].into_iter().filter(meant).collect();
        let next = (entries.len() > filter.limit()).then_some(4096);
        entries.truncate(filter.limit());
        ConnectionPage { entries, next }
    }

    fn connections_flush(&self, domain: &Domain, filter: &ConnectionFilter) -> u64 {
        self.connections(domain, filter).entries.len() as u64
    }

    fn state(&self) -> StateStatus {
        let records = |n| [("fdb".to_owned(), n), ("connections".to_owned(), 7)].into();
        StateStatus {
            file: Some("/var/lib/fabnic/switch.state".into()),
            interval_seconds: 30,
            saves: 12,
            failures: 1,
            problem: None,
            saved: self.state_save().ok(),
            restored: Some(StateRestored {
                written_by: "fabnicd 0.1.0".into(),
                saved_at: 1_700_000_000,
                passed_seconds: 4,
                restored: records(3),
                lost: [("fdb".to_owned(), [("unconfigured".to_owned(), 2)].into())].into(),
                ..StateRestored::default()
            }),
        }
    }

    fn state_save(&self) -> Result<StateSaved, ApplyError> {
        let records = [("fdb".to_owned(), 3), ("connections".to_owned(), 7)].into();
        Ok(StateSaved { at: 1_700_000_030, bytes: 2048, milliseconds: 3, records })
    }

    fn state_export(&self, port: &str) -> Result<Vec<u8>, ApplyError> {
        Ok(format!("the state of {port}").into_bytes())
    }

    fn state_import(&self, port: &str, bytes: &[u8]) -> Result<StateRestored, ApplyError> {
        if bytes != format!("the state of {port}").as_bytes() {
            let expected = "the state of one port, as another switch gave it";
            return Err(Refused::one("body", "this is no saved state", expected).into());
        }
        Ok(self.state().restored.unwrap_or_default())
    }

    fn conntrack(&self) -> ConntrackStatus {
        let zone = |zone, connections| ZoneStatus {
            zone,
            connections,
            created: 100,
            expired: 98,
            refused: 3,
            invalid: 4,
        };
        ConntrackStatus {
            connections: 2,
            peak: 70,
            refused: 1,
            exhausted: 0,
            zones: vec![zone(1, 1), zone(2, 1)],
        }
    }

    fn meters(&self, domain: &Domain, filter: &MeterFilter) -> Vec<MeterStatus> {
        let passed = |frames| Passed { frames, bytes: frames * 64 };
        let meter = |id: &str, place, packets, peak| MeterStatus {
            id: id.into(),
            place,
            packets,
            committed: TokenBucket { rate: Some(10_000_000), burst: 65_536, tokens: -120 },
            peak,
            excess: None,
            green: passed(100),
            yellow: passed(10),
            red: passed(1),
            refused_by_other: passed(0),
        };
        let peak = TokenBucket { rate: Some(20_000_000), burst: 65_536, tokens: 300 };
        let config = self.config();
        let named = config.meter.iter().filter(|meter| domain.sees(meter.tenant()));
        let mut list: Vec<_> =
            named.map(|named| meter(&named.qualified(), MeterPlace::Rule, false, Some(peak))).collect();
        if filter.port.is_some() {
            list.clear();
        }
        if filter.port.as_ref().is_none_or(|port| port == "vm2") {
            list.push(meter("vm2", MeterPlace::StormBroadcast, true, None));
        }
        list
    }

    fn mdb(&self, domain: &Domain, filter: &MdbFilter) -> Vec<MdbVlan> {
        let entry = |group: &str, port: &str, kind, mode, sources: &[&str]| MdbEntry {
            group: group.parse().unwrap(),
            port: port.into(),
            kind,
            mode,
            version: 3,
            expires_seconds: (mode == MdbMode::Exclude).then_some(200),
            sources: sources
                .iter()
                .map(|source| MdbSource { address: source.parse().unwrap(), expires_seconds: Some(100) })
                .collect(),
        };
        let config = self.config();
        let vlans = config.vlan.iter().filter(|table| table.snooping);
        let vlans = vlans.filter(|table| filter.vlan.is_none_or(|vlan| vlan == table.id));
        vlans
            .map(|table| {
                let fixed = table.mdb.iter().map(|member| {
                    let group = member.group.to_string();
                    entry(&group, &member.port, MdbKind::Static, MdbMode::Exclude, &[])
                });
                let mut entries: Vec<_> = fixed.collect();
                entries.push(entry("239.1.1.2", "vm1", MdbKind::Snooped, MdbMode::Include, &["10.9.9.9"]));
                entries.push(entry("239.1.1.2", "vm2", MdbKind::Snooped, MdbMode::Exclude, &[]));
                entries.retain(|entry| domain.sees((entry.port == "vm2").then_some("blue")));
                let total = entries.len() as u64;
                entries.truncate(filter.limit());
                let side = |querier| MdbSide {
                    querier,
                    restricts: true,
                    routers: vec![MdbRouter { port: "up0".into(), expires_seconds: Some(250) }],
                };
                MdbVlan {
                    vlan: table.id.get(),
                    igmp: side(Some(MdbQuerier {
                        address: "10.0.0.254".parse().unwrap(),
                        port: Some("up0".into()),
                        expires_seconds: Some(250),
                    })),
                    mld: MdbSide::default(),
                    total,
                    entries,
                    counters: Some(MdbCounters { reports: 3, ..MdbCounters::default() }),
                }
            })
            .collect()
    }

    fn fdb_status(&self, domain: &Domain) -> FdbStatus {
        let refused = FdbRefusals { port_limit: 2, sticky: 1, ..FdbRefusals::default() };
        let table = FdbTable { entries: 3, limit: 1 << 20, learned: 2, refused, ..FdbTable::default() };
        let ports = vec![FdbOfPort { port: "vm1".into(), learned: 1, limit: 65536, refused }];
        FdbStatus { table: domain.tenant().is_none().then_some(table), ports }
    }

    fn multicast(&self) -> Vec<MulticastStatus> {
        let igmp = MulticastCount { groups: 2, members: 3, routers: 1, restricts: true, asks: false };
        let counters =
            MdbCounters { queries: 7, queries_sent: 4, reports: 3, leaves: 1, ..MdbCounters::default() };
        vec![MulticastStatus { vlan: 10, igmp, mld: MulticastCount::default(), counters }]
    }

    fn lldp(&self) -> Vec<LldpStatus> {
        vec![LldpStatus {
            port: "up0".into(),
            chassis: "52:54:00:00:00:aa".into(),
            port_id: "ge-0/0/1".into(),
            port_description: "to the lab".into(),
            name: "leaf1".into(),
            description: "a switch".into(),
            expires_seconds: 100,
        }]
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceReport, Refused> {
        if request.packet.is_none() && request.hex.is_none() {
            return Err(Refused::one(
                "packet",
                "a frame is given by its fields or by its bytes",
                "one of them",
            ));
        }
        let step = |stage: &str, notes: &[&str], outcome: Option<&str>| TraceStep {
            stage: stage.into(),
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
            outcome: outcome.map(str::to_owned),
        };
        Ok(TraceReport {
            frame: "52:54:00:00:00:01 > 52:54:00:00:00:02 IPv4 10.0.0.1:40000 > 10.0.0.2:80 TCP [S] (60 B)"
                .into(),
            steps: vec![
                step("vlan", &[], None),
                step("infra_in", &["rule web: count, mirror tap, pass"], None),
                step("forward", &["52:54:00:00:00:02 is behind vm2"], Some("sent to 1 port")),
            ],
            vlan: 10,
            operations: vec!["mirror tap".into()],
            dropped: None,
            to: vec![
                TraceTarget { port: "vm2".into(), dropped: None },
                TraceTarget { port: "up0".into(), dropped: Some(not_ready()) },
            ],
        })
    }

    fn recent_drops(&self, port: &str) -> Option<Vec<RecentDrop>> {
        self.config().find_port(port)?;
        Some(vec![RecentDrop {
            number: 7,
            seconds_ago: 75,
            direction: CaptureDirection::Rx,
            dropped: not_ready(),
            frame: "52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.2 tell 10.0.0.1 (60 B)".into(),
            length: 60,
            hex: "ffffffffffff5254000000010806".into(),
            stage: Some(TraceStep {
                stage: "infra_in".into(),
                notes: vec!["rule web".into()],
                outcome: Some("dropped: not_ready".into()),
            }),
        }])
    }

    fn events(&self) -> &EventBus {
        &self.events
    }

    fn ports(&self) -> Vec<PortStatus> {
        let config = self.config();
        let learned = self.learned.lock().unwrap();
        config
            .port
            .iter()
            .zip(1..)
            .map(|(port, id)| {
                let kind = port.kind().unwrap();
                let connected = port.name == "vm1";
                PortStatus {
                    id,
                    name: port.name.clone(),
                    tenant: port.tenant.clone(),
                    kind: kind.as_str().into(),
                    state: port.state,
                    link: if connected || port.uplink.is_some() { LinkState::Up } else { LinkState::Down },
                    reason: (port.name == "vm2").then(|| "queue 0: descriptor 7 points to itself".into()),
                    mac: port.effective_mac(),
                    mtu: port.mtu,
                    vlan: port.vlan.clone(),
                    learning: port.learning,
                    fdb_learned: learned.iter().filter(|e| e.port == port.name).count() as u64,
                    fdb_limit: port.fdb_limit,
                    fdb_refused: 2,
                    queues: QueuePairs {
                        configured: port.queues.unwrap_or(8),
                        ready: if connected { 4 } else { 0 },
                    },
                    peer: match kind {
                        PortKind::VirtioNet(nic) => Some(Peer {
                            socket: nic.socket,
                            role: nic.role,
                            connected,
                            connections: u64::from(connected),
                            features: if connected {
                                vec!["VIRTIO_F_VERSION_1".into(), "VIRTIO_NET_F_MRG_RXBUF".into()]
                            } else {
                                Vec::new()
                            },
                            ring: connected.then_some(RingFormat::Packed),
                            pci: None,
                        }),
                        _ => None,
                    },
                }
            })
            .collect()
    }

    fn port(&self, name: &str) -> Option<PortStatus> {
        assert_ne!(name, "trap", "the fake was asked to panic");
        self.ports().into_iter().find(|p| p.name == name)
    }

    fn fdb(&self, filter: &FdbFilter) -> FdbPage {
        let mut entries: Vec<FdbEntry> = self.learned.lock().unwrap().clone();
        entries.extend(self.config().fdb.into_iter().map(|e| FdbEntry {
            vlan: e.vlan,
            mac: e.mac,
            port: e.port,
            kind: FdbKind::Static,
            age_seconds: 0,
            moves: 0,
        }));
        entries.retain(|e| filter.matches(e));
        entries.sort_by_key(|e| (e.vlan, e.mac));
        FdbPage { total: entries.len() as u64, entries }
    }

    fn fdb_forget(&self, filter: &FdbFilter) -> u64 {
        let mut learned = self.learned.lock().unwrap();
        let before = learned.len();
        learned.retain(|e| !filter.matches(e));
        (before - learned.len()) as u64
    }

    fn stats(&self) -> Stats {
        // Everything that vm1 sends goes to vm2, half of it finds its ring full, and one frame is flooded.
        let mut one = counters(1000);
        one.tx_frames = 0;
        one.tx_bytes = 0;
        one.rx_drops = [("vlan_not_allowed".to_owned(), 8)].into();
        let mut two = counters(0);
        two.tx_frames = 493;
        two.tx_bytes = 31_552;
        two.tx_drops = [("not_ready".to_owned(), 9), ("ring_full".to_owned(), 490)].into();
        let mut up = counters(0);
        up.tx_frames = 1;
        up.tx_bytes = 64;
        let stats = |id, name: &str, counters: Counters| PortStats {
            id,
            name: name.into(),
            queues: vec![
                QueueStats { queue: 0, counters: counters.clone() },
                QueueStats { queue: 1, counters: Counters::default() },
            ],
            counters,
        };
        let drops = [("not_ready", 9), ("ring_full", 490), ("vlan_not_allowed", 8)];
        Stats {
            totals: SwitchTotals {
                received: 1000,
                replicated: 1,
                delivered: 494,
                dropped: 507,
                drops: drops.map(|(reason, n)| (reason.to_owned(), n)).into(),
            },
            ports: vec![stats(1, "vm1", one), stats(2, "vm2", two), stats(3, "up0", up)],
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        vec![WorkerStatus {
            id: 0,
            cpu: Some(1),
            busy_cycles: 41_500,
            idle_cycles: 124_500,
            sleeps: 3,
            wakeups: 2,
            packets: 1000,
            bursts: 40,
            cycles_per_packet: 0.0,
            burst_sizes: [1, 2, 3, 4, 10, 20, 0],
            queues: 6,
            flow_cache: FlowCache { hits: 998, misses: 2, entries: 2, capacity: 65_536 },
            tsc_hz: 2_000_000_000,
        }]
    }

    fn capture(&self, _: &Domain, request: &CaptureRequest) -> Option<CaptureStream> {
        self.config().find_port(&request.port)?;
        let (sender, stream) = capture_channel(4);
        match request.count {
            // A thread that may wait, and one block a frame after the file's head.
            Some(count) => {
                std::thread::spawn(move || {
                    let mut result = sender.send_blocking(b"HEAD".to_vec());
                    for _ in 0..count {
                        result = result.and_then(|()| sender.send_blocking(b"BLOCK".to_vec()));
                    }
                });
            }
            // A quiet port: the file's head, and then nothing.
            None => {
                sender.try_send(b"HEAD".to_vec()).unwrap();
                self.endless.lock().unwrap().push(sender);
            }
        }
        Some(stream)
    }
}

/// A fake that is served until this is dropped.
pub struct Served {
    _dir: tempfile::TempDir,
    pub socket: PathBuf,
    pub fake: Arc<Fake>,
    pub doors: tokio::sync::mpsc::UnboundedSender<TenantDoor>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves a fake on a socket of its own.
pub fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let fake = Arc::new(Fake::new());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (path, backend) = (socket.clone(), Arc::clone(&fake));
    let audit = Arc::new(Audit::default());
    let (doors, receiver) = tokio::sync::mpsc::unbounded_channel();
    let blue = std::os::unix::net::UnixListener::bind(dir.path().join("blue.sock")).unwrap();
    blue.set_nonblocking(true).unwrap();
    doors.send(TenantDoor::Open { tenant: "blue".into(), listener: blue }).unwrap();
    let (bound, is_bound) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(path).unwrap();
            bound.send(()).unwrap();
            let shutdown = async {
                // An error means that the test is over as well.
                let _ = stopped.await;
            };
            let options = Options { doors: Some(receiver), audit };
            fabnic_api::serve(listener, backend, options, shutdown).await.unwrap();
        });
    });
    is_bound.recv().unwrap();
    Served { _dir: dir, socket, fake, doors, stop: Some(stop), thread: Some(thread) }
}

impl Served {
    /// Ends the server and waits until it has.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}
