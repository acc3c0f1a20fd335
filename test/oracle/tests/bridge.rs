//! The switch against the kernel's bridge: random configurations, the same frames, frame by frame.
//!
//! What is left out because the two are meant to differ is told in docs/switch-l2.md: link-local groups, the MTU of the
//! sending port, static entries that the kernel lets move.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fabnic_oracle::{Bridge, BridgePort, Fabric, Filtering, Inside, in_namespace};
use fabnic_switch::{PortSettings, ReceiveFilter, SwitchConfig, VlanMode, VlanProtocol};
use fabnic_wire::{MacAddr, Vid};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const PORTS: usize = 5;
/// Configurations of each kind.
const CASES: u32 = 24;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct Case {
    ports: Vec<BridgePort>,
    /// Address, VLAN and port of entries that neither move nor age.
    pinned: Vec<(u8, Vid, usize)>,
    frames: Vec<(usize, Vec<u8>)>,
}

fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap()
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn port() -> impl Strategy<Value = BridgePort> {
    let tagged = prop::collection::btree_set(1..5_u16, 0..5);
    let pvid = prop::option::weighted(0.8, 1..5_u16);
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.3), prop::array::uniform3(0..4_u8));
    (any::<bool>(), tagged, pvid, flags).prop_map(|(access, tagged, pvid, (learning, isolated, flooded))| {
        let tagged: BTreeSet<u16> = if access { BTreeSet::new() } else { tagged };
        BridgePort {
            tagged: tagged.into_iter().map(vid).collect(),
            pvid: pvid.map(vid),
            learning,
            isolated,
            flooded: flooded.map(|n| n > 0),
        }
    })
}

fn address() -> impl Strategy<Value = [u8; 6]> {
    (0..20_u8, 0..6_u8).prop_map(|(which, n)| match which {
        0..14 => station(n),
        14..16 => [0xff; 6],
        16 => [1, 0, 0x5e, 0, 0, n],
        17 => [0x33, 0x33, 0, 0, 0, n],
        18 => [1, 0x80, 0xc2, 0, 0, 0x10 + n],
        _ => [0; 6],
    })
}

fn frame(kinds: &'static [u16]) -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec((0..kinds.len(), 0..9_u16, 0..16_u16), 0..3);
    (address(), address(), tags, 0..60_usize, any::<u8>()).prop_map(move |(dst, src, tags, more, fill)| {
        let mut bytes = [dst, src].concat();
        for (kind, number, priority) in tags {
            let number = if number == 8 { 4095 } else { number % 6 };
            bytes.extend(kinds[kind].to_be_bytes());
            bytes.extend((number | priority << 12).to_be_bytes());
        }
        // An EtherType for experiments (IEEE 802, section 9.2.3), so that nobody looks behind it.
        bytes.extend([0x88, 0xb5]);
        bytes.resize(60 + more, fill);
        bytes
    })
}

fn case(kinds: &'static [u16]) -> impl Strategy<Value = Case> {
    let pinned = prop::collection::vec((0..6_u8, (1..5_u16).prop_map(vid), 0..PORTS), 0..3);
    let frames = prop::collection::vec((0..PORTS, frame(kinds)), 20..120);
    (prop::collection::vec(port(), PORTS), pinned, frames).prop_map(|(ports, pinned, frames)| Case {
        ports,
        pinned,
        frames,
    })
}

/// The same in the switch's words. A bridge that does not look at tags is one VLAN whose frames carry what they like.
fn settings(port: &BridgePort, filtering: Filtering) -> PortSettings {
    let vlan = match (filtering, port.pvid) {
        (Filtering::Off, _) => VlanMode::Access(Vid::DEFAULT),
        (_, Some(pvid)) if port.tagged.is_empty() => VlanMode::Access(pvid),
        (_, native) => VlanMode::Trunk { vlans: port.tagged.iter().copied().collect(), native },
    };
    let [flood, mcast_flood, bcast_flood] = port.flooded;
    PortSettings {
        vlan,
        vlan_protocol: match filtering {
            Filtering::Dot1Q => VlanProtocol::Dot1Q,
            Filtering::Off | Filtering::Dot1Ad => VlanProtocol::Dot1Ad,
        },
        learning: port.learning,
        isolated: port.isolated,
        receive: ReceiveFilter { flood, mcast_flood, bcast_flood, ..ReceiveFilter::default() },
        ..PortSettings::default()
    }
}

/// Gives how many copies the kernel made.
fn run(bridge: &mut Bridge, filtering: Filtering, case: &Case) -> Result<usize, TestCaseError> {
    bridge.configure(filtering, 300, &case.ports).unwrap();
    let settings: Vec<_> = case.ports.iter().map(|port| settings(port, filtering)).collect();
    let mut fabric = Fabric::new(&SwitchConfig::default(), settings.clone()).unwrap();
    for (n, vlan, port) in &case.pinned {
        let mac = MacAddr::new(station(*n));
        let (vlan, tag) = match filtering {
            Filtering::Off => (Vid::DEFAULT, None),
            _ => (*vlan, Some(*vlan)),
        };
        // The kernel takes no entry for a VLAN that the port does not carry.
        if settings[*port].vlan.is_member(vlan) {
            bridge.pin(mac, tag, *port).unwrap();
            fabric.switch.fdb().add_static(vlan, mac, fabric.ports[*port].id).unwrap();
        }
    }
    let mut copies = 0;
    for (at, (port, frame)) in case.frames.iter().enumerate() {
        let mut kernel = bridge.send(*port, frame).unwrap();
        let mut own = fabric.send(*port, frame).unwrap();
        kernel.iter_mut().chain(&mut own).for_each(|got| got.sort());
        copies += kernel.iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!(own, kernel, "frame {} from port {}: {:x?}", at, port, frame);
    }
    Ok(copies)
}

fn compare(inside: &Inside, filtering: Filtering, kinds: &'static [u16]) {
    let mut bridge = Bridge::new(inside, PORTS).unwrap();
    let state = RefCell::new((&mut bridge, 0));
    let config =
        Config { cases: CASES, max_shrink_iters: 500, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&case(kinds), |case| {
        let (bridge, copies) = &mut *state.borrow_mut();
        *copies += run(bridge, filtering, &case)?;
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (_, copies) = state.into_inner();
    assert!(copies > 500, "{copies} copies of all frames: what was compared?");
}

#[test]
fn addresses_and_flooding_are_as_in_a_bridge_that_ignores_tags() {
    let test = "addresses_and_flooding_are_as_in_a_bridge_that_ignores_tags";
    let Some(inside) = in_namespace(test) else { return };
    compare(&inside, Filtering::Off, &[0x8100]);
}

fn compare_vlans(test: &str, filtering: Filtering) {
    let Some(inside) = in_namespace(test) else { return };
    if !Bridge::can_filter(&inside).unwrap() {
        eprintln!(
            "SKIPPED, NOTHING WAS TESTED: the bridge of this kernel cannot look at tags, expected one with \
             CONFIG_BRIDGE_VLAN_FILTERING"
        );
        return;
    }
    compare(&inside, filtering, &[0x8100, 0x88a8]);
}

#[test]
fn vlans_are_as_in_a_bridge_that_filters_them() {
    compare_vlans("vlans_are_as_in_a_bridge_that_filters_them", Filtering::Dot1Q);
}

#[test]
fn service_tags_are_as_in_a_bridge_that_filters_them() {
    compare_vlans("service_tags_are_as_in_a_bridge_that_filters_them", Filtering::Dot1Ad);
}

/// To two of three ports by an address that a third is told of; then, when it has aged, to all.
#[test]
fn addresses_age_as_in_a_bridge() {
    let Some(inside) = in_namespace("addresses_age_as_in_a_bridge") else { return };
    let mut bridge = Bridge::new(&inside, 3).unwrap();
    let open = BridgePort {
        tagged: Vec::new(),
        pvid: Some(Vid::DEFAULT),
        learning: true,
        isolated: false,
        flooded: [true; 3],
    };
    bridge.configure(Filtering::Off, 1, &vec![open.clone(); 3]).unwrap();
    let ageing = Duration::from_secs(1);
    let config = SwitchConfig { ageing, ..SwitchConfig::default() };
    let mut fabric = Fabric::new(&config, vec![settings(&open, Filtering::Off); 3]).unwrap();
    let frame = |dst, src| [&station(dst)[..], &station(src), &[0x88, 0xb5], &[7; 46]].concat();
    let (announce, ask) = (frame(9, 1), frame(1, 2));
    let mut both = |port, frame: &[u8], now: u32, fabric: &mut Fabric| {
        fabric.switch.tick(now);
        let (kernel, own) = (bridge.send(port, frame).unwrap(), fabric.send(port, frame).unwrap());
        (kernel, own)
    };
    let (kernel, own) = both(1, &announce, 0, &mut fabric);
    assert_eq!(own, kernel);
    let (kernel, own) = both(0, &ask, 0, &mut fabric);
    assert_eq!(own, kernel);
    assert_eq!(own.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0], "known");
    // The kernel forgets when its timer runs, which may be late.
    let begun = Instant::now();
    let forgotten = loop {
        std::thread::sleep(Duration::from_millis(100));
        let (kernel, own) = both(0, &ask, 2, &mut fabric);
        assert_eq!(own.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 1], "two seconds are enough");
        if kernel == own {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "the kernel does not forget");
    };
    assert!(forgotten >= ageing - Duration::from_millis(200), "{forgotten:?}: not by age");
}
