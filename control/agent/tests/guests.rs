//! Guests on ports of an agent: everything composed, in one process.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::path::Path;
use std::time::{Duration, Instant};

use fabnic_agent::{Agent, AgentOptions};
use fabnic_api::{Backend as _, Counters, FdbFilter, LinkState, RingFormat};
use fabnic_model::{AdminState, Config, Mac, Port, Role, Vid, Vlan};
use fabnic_testkit::driver::{NetDriver, NetLayout, Piece, RingOptions};
use fabnic_testkit::features::{protocol, virtio};
use fabnic_testkit::front_end::FrontEnd;
use fabnic_testkit::guest::{Session, Wishes};
use fabnic_testkit::memory::{Backing, GuestMemory};
use fabnic_testkit::packets;
use fabnic_wire::Offload;

const PATIENCE: Duration = Duration::from_secs(20);
const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n]
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Guest {
    session: Session,
    driver: NetDriver,
    _memory: GuestMemory,
}

impl Guest {
    fn boot(socket: &Path, packed: bool) -> Guest {
        let front_end = FrontEnd::connect(socket, PATIENCE).unwrap();
        let mut wishes = Wishes::default();
        wishes.protocol |= protocol::CONFIG | protocol::RARP;
        if packed {
            wishes.want |= virtio::RING_PACKED;
        }
        let mut session = Session::open(front_end, wishes).unwrap();
        let ring = RingOptions { packed, ..RingOptions::default() };
        let layout = NetLayout { ring, ..NetLayout::default() };
        let mut memory = GuestMemory::new(layout.bytes(), Backing::Ordinary).unwrap();
        let driver = NetDriver::new(&mut memory, layout).unwrap();
        session.start(&memory, &driver.ring_starts()).unwrap();
        Guest { session, driver, _memory: memory }
    }

    fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.driver.send(&self.session, 0, &[(Offload::PLAIN, frame)]).unwrap(), 1);
    }

    /// Everything that is there now.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.driver.receive(&self.session, 0, 256, |frame| frames.push(frame.frame.to_vec())).unwrap();
        frames
    }

    /// The next frame, which has to come.
    fn next(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        eventually("a frame", || {
            frames = self.take();
            !frames.is_empty()
        });
        assert_eq!(frames.len(), 1);
        frames.remove(0)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    agent: std::sync::Arc<Agent>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let port = |name: &str| {
            let socket = dir.path().join(format!("{name}.sock")).display().to_string();
            Port::virtio_net(name, socket, Role::Server)
        };
        let mut config = Config { port: ["vm1", "vm2", "vm3"].map(port).to_vec(), ..Config::default() };
        config.daemon.api = dir.path().join("api.sock").display().to_string();
        change(&mut config);
        let agent = Agent::start(config, AgentOptions::default()).unwrap();
        Bench { dir, agent }
    }

    fn boot(&self, name: &str, packed: bool) -> Guest {
        let guest = Guest::boot(&self.dir.path().join(format!("{name}.sock")), packed);
        eventually("up", || self.agent.port(name).unwrap().link == LinkState::Up);
        guest
    }

    fn set(&self, name: &str, change: impl FnOnce(&mut Port)) {
        let mut config = self.agent.config();
        change(config.port.iter_mut().find(|port| port.name == name).unwrap());
        self.agent.apply(config, false).unwrap();
    }

    fn counters(&self, name: &str) -> Counters {
        self.agent.stats().ports.into_iter().find(|port| port.name == name).unwrap().counters
    }

    fn dropped(&self, name: &str, reason: &str) -> u64 {
        let counters = self.counters(name);
        [counters.rx_drops, counters.tx_drops].iter().filter_map(|drops| drops.get(reason)).sum()
    }
}

#[test]
fn guests_talk_and_follow_the_configuration() {
    let bench = Bench::new(|_| ());
    let (mut one, mut two, mut three) =
        (bench.boot("vm1", false), bench.boot("vm2", true), bench.boot("vm3", false));
    assert_eq!(bench.agent.port("vm1").unwrap().peer.unwrap().ring, Some(RingFormat::Split));
    assert_eq!(bench.agent.port("vm2").unwrap().peer.unwrap().ring, Some(RingFormat::Packed));

    // Unknown, so flooded; the answer is not.
    let hello = packets::udp(mac(2), mac(1), 1, 300);
    one.send(&hello);
    assert_eq!(two.next(), hello);
    assert_eq!(three.next(), hello);
    let answer = packets::udp(mac(1), mac(2), 1, 1514);
    two.send(&answer);
    assert_eq!(one.next(), answer);
    let port_of = |n: u8| {
        let filter = FdbFilter { mac: Some(Mac(mac(n))), ..FdbFilter::default() };
        bench.agent.fdb(&filter).entries.first().map(|entry| entry.port.clone())
    };
    assert_eq!((port_of(1).as_deref(), port_of(2).as_deref()), (Some("vm1"), Some("vm2")));
    assert!(three.take().is_empty());

    // Another VLAN, while everything runs.
    bench.set("vm3", |port| port.vlan = Vlan::Access(Vid::new(7).unwrap()));
    let all = packets::udp(BROADCAST, mac(1), 1, 60);
    one.send(&all);
    assert_eq!(two.next(), all);
    assert!(three.take().is_empty(), "not of its VLAN");

    // Down, and up again.
    bench.set("vm1", |port| port.state = AdminState::Disable);
    one.send(&all);
    eventually("dropped", || bench.dropped("vm1", "ingress_disabled") == 1);
    assert!(two.take().is_empty());
    bench.set("vm1", |port| port.state = AdminState::Auto);
    one.send(&all);
    assert_eq!(two.next(), all);

    // An MTU.
    bench.set("vm2", |port| port.mtu = 500);
    one.send(&packets::udp(mac(2), mac(1), 1, 515));
    eventually("too long", || bench.dropped("vm2", "egress_mtu") == 1);
    let fits = packets::udp(mac(2), mac(1), 1, 514);
    one.send(&fits);
    assert_eq!(two.next(), fits);

    eventually("the books balance", || bench.agent.stats().totals.in_flight() == 0);
    let totals = bench.agent.stats().totals;
    assert_eq!((totals.received, totals.dropped), (7, 2), "{totals:?}");
}

#[test]
fn a_guest_is_told_what_changes() {
    let bench = Bench::new(|config| config.port[0].mac = Some(Mac(mac(1))));
    let mut guest = bench.boot("vm1", false);
    let space = guest.session.front_end().get_config(0, 12).unwrap();
    assert_eq!(space, [0x52, 0x54, 0, 0, 0, 1, 1, 0, 8, 0, 0xdc, 0x05], "MAC, up, 8 pairs, MTU 1500");
    bench.set("vm1", |port| {
        port.mac = Some(Mac(mac(9)));
        port.mtu = 9000;
        port.state = AdminState::Disable;
    });
    let space = guest.session.front_end().get_config(0, 12).unwrap();
    assert_eq!(space, [0x52, 0x54, 0, 0, 0, 9, 0, 0, 8, 0, 0x28, 0x23]);
}

#[test]
fn a_guest_that_breaks_the_rules_loses_its_own_port_only() {
    let bench = Bench::new(|_| ());
    let (mut bad, mut two, mut three) =
        (bench.boot("vm1", false), bench.boot("vm2", false), bench.boot("vm3", true));
    // A frame that lies where the guest has no memory.
    let ring = bad.driver.ring(1).unwrap();
    assert!(ring.add(&[Piece { addr: 1 << 45, len: 100, writable: false }], 0));
    ring.publish();
    bad.session.kick(1);
    eventually("stopped", || bench.agent.port("vm1").unwrap().reason.is_some());
    let port = bench.agent.port("vm1").unwrap();
    assert_eq!(port.link, LinkState::Down);
    let reason = port.reason.unwrap();
    assert!(reason.contains("200000000000"), "where it was: {reason}");

    let frame = packets::udp(mac(3), mac(2), 1, 100);
    two.send(&frame);
    assert_eq!(three.next(), frame);

    // A driver that begins anew is welcome.
    drop(bad);
    eventually("gone", || !bench.agent.port("vm1").unwrap().peer.unwrap().connected);
    let mut good = bench.boot("vm1", true);
    assert_eq!(bench.agent.port("vm1").unwrap().reason, None);
    let frame = packets::udp(mac(2), mac(1), 1, 100);
    good.send(&frame);
    assert_eq!(two.next(), frame);
}

#[test]
fn a_guest_that_cannot_announce_itself_is_announced() {
    let bench = Bench::new(|_| ());
    let (mut moved, mut other) = (bench.boot("vm1", false), bench.boot("vm2", false));
    for _ in 0..3 {
        moved.session.front_end().send_rarp(mac(1)).unwrap();
        let rarp = other.next();
        assert_eq!(
            (&rarp[..6], &rarp[6..12], &rarp[12..14]),
            (&BROADCAST[..], &mac(1)[..], &[0x80, 0x35][..])
        );
    }
    let learned = bench.agent.fdb(&FdbFilter::default()).entries;
    assert_eq!((learned.len(), learned[0].port.as_str(), learned[0].mac), (1, "vm1", Mac(mac(1))));
    let frame = packets::udp(mac(1), mac(2), 1, 100);
    other.send(&frame);
    assert_eq!(moved.next(), frame, "and it is found there");
    assert_eq!(
        bench.agent.port("vm1").unwrap().queues.configured,
        8,
        "the queue of announcements is nobody's"
    );
}
