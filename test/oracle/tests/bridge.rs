//! The switch against the kernel's bridge: random configurations, the same frames, frame by frame.
//!
//! What is left out because the two are meant to differ is told in docs/switch-l2.md: link-local groups, the MTU of the
//! sending port, static entries that the kernel lets move.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use fabnic_oracle::{Bridge, BridgePort, Fabric, Filtering, compare_vlans, in_namespace, settings};
use fabnic_switch::SwitchConfig;
use fabnic_wire::Vid;

/// Configurations of each kind.
const CASES: u32 = 24;
const PATIENCE: Duration = Duration::from_secs(30);

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

#[test]
fn addresses_and_flooding_are_as_in_a_bridge_that_ignores_tags() {
    let test = "addresses_and_flooding_are_as_in_a_bridge_that_ignores_tags";
    let Some(inside) = in_namespace(test) else { return };
    eprintln!("{}", compare_vlans(&inside, Filtering::Off, &[0x8100], CASES).unwrap());
}

fn tags(test: &str, filtering: Filtering) {
    let Some(inside) = in_namespace(test) else { return };
    if !Bridge::can_filter(&inside).unwrap() {
        eprintln!(
            "SKIPPED, NOTHING WAS TESTED: the bridge of this kernel cannot look at tags, expected one with \
             CONFIG_BRIDGE_VLAN_FILTERING"
        );
        return;
    }
    eprintln!("{}", compare_vlans(&inside, filtering, &[0x8100, 0x88a8], CASES).unwrap());
}

#[test]
fn vlans_are_as_in_a_bridge_that_filters_them() {
    tags("vlans_are_as_in_a_bridge_that_filters_them", Filtering::Dot1Q);
}

#[test]
fn service_tags_are_as_in_a_bridge_that_filters_them() {
    tags("service_tags_are_as_in_a_bridge_that_filters_them", Filtering::Dot1Ad);
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
