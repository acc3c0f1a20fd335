use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn empty(max: usize) -> Bindings {
    Bindings::new(max, Arc::new(Versions::new()))
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

fn binding(n: u8, port: u32, mac: u8, origin: BindingOrigin, expires: Option<u32>) -> Binding {
    Binding {
        vlan: Vid::DEFAULT,
        address: ip(n),
        port: PortId(port),
        mac: MacAddr::new([2, 0, 0, 0, 0, mac]),
        origin,
        expires,
    }
}

#[test]
fn leases_end_and_are_prolonged() {
    let table = empty(100);
    let before = table.version_of(Vid::DEFAULT, ip(1));
    table.learn(binding(1, 1, 1, BindingOrigin::Dhcp, Some(100)), 9).unwrap();
    let after = table.version_of(Vid::DEFAULT, ip(1));
    assert_ne!(before, after);
    table.learn(binding(1, 1, 1, BindingOrigin::Dhcp, Some(200)), 9).unwrap();
    assert_eq!(table.version_of(Vid::DEFAULT, ip(1)), after, "a longer lease changes no decision");
    assert_eq!(table.expire(199), 0);
    assert_eq!(table.expire(200), 1);
    assert_ne!(table.version_of(Vid::DEFAULT, ip(1)), after);
    assert!(table.is_empty());
}

#[test]
fn who_wins() {
    use BindingOrigin::{Dhcp, Slaac};
    let table = empty(100);
    table.learn(binding(1, 1, 1, Slaac, Some(9)), 9).unwrap();
    assert_eq!(table.learn(binding(1, 2, 2, Slaac, Some(9)), 9), Err(BindingError::Taken), "first come");
    table.learn(binding(1, 2, 2, Dhcp, Some(9)), 9).unwrap();
    assert_eq!(table.learn(binding(1, 1, 1, Slaac, None), 9), Err(BindingError::Taken));
    table.learn(binding(1, 3, 3, Dhcp, Some(9)), 9).unwrap();
    assert_eq!(table.lookup(Vid::DEFAULT, ip(1)).unwrap().port, PortId(3), "the server changed its mind");
    table.configure([binding(1, 4, 4, Dhcp, None)]);
    let held = table.lookup(Vid::DEFAULT, ip(1)).unwrap();
    assert_eq!((held.port, held.origin), (PortId(4), BindingOrigin::Static));
    assert_eq!(table.learn(binding(1, 3, 3, Dhcp, Some(9)), 9), Err(BindingError::Taken));
    assert!(!table.give_back(Vid::DEFAULT, ip(1), PortId(4), MacAddr::new([2, 0, 0, 0, 0, 4])));
    assert_eq!(table.expire(u32::MAX), 0);
    table.configure([]);
    assert!(table.is_empty());
}

#[test]
fn the_table_has_a_limit_too() {
    let table = empty(2);
    table.configure([binding(9, 9, 9, BindingOrigin::Static, None)]);
    table.learn(binding(1, 1, 1, BindingOrigin::Dhcp, None), 9).unwrap();
    table.learn(binding(2, 2, 1, BindingOrigin::Dhcp, None), 9).unwrap();
    let third = binding(3, 3, 1, BindingOrigin::Dhcp, None);
    assert_eq!(table.learn(third, 9), Err(BindingError::TableFull));
    table.remove_port(PortId(1));
    assert_eq!(table.learn(third, 9), Ok(()));
}

/// The same table, slow and obvious.
#[derive(Default)]
struct Model(BTreeMap<u8, Binding>);

impl Model {
    fn learn(&mut self, n: u8, new: Binding, limit: u32) -> bool {
        let right = |origin| match origin {
            BindingOrigin::Static => 2,
            BindingOrigin::Slaac => 0,
            _ => 1,
        };
        if let Some(old) = self.0.get(&n) {
            let same = old.port == new.port && old.mac == new.mac;
            if same && right(old.origin) > right(new.origin) {
                return true;
            }
            if !same && (right(old.origin) > right(new.origin) || right(new.origin) == 0) {
                return false;
            }
            if same {
                self.0.insert(n, new);
                return true;
            }
        }
        let others = self
            .0
            .iter()
            .filter(|(at, b)| **at != n && b.port == new.port && b.origin != BindingOrigin::Static);
        if others.count() >= limit as usize {
            return false;
        }
        self.0.insert(n, new);
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    Learn { n: u8, port: u32, mac: u8, origin: u8, lease: Option<u32> },
    GiveBack { n: u8, port: u32, mac: u8 },
    Remove(u8),
    Configure(Vec<(u8, u32)>),
    RemovePort(u32),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let lease = prop::option::weighted(0.8, 1..20_u32);
    prop_oneof![
        8 => (0..6_u8, 0..3_u32, 0..2_u8, 0..3_u8, lease)
            .prop_map(|(n, port, mac, origin, lease)| Step::Learn { n, port, mac, origin, lease }),
        2 => (0..6_u8, 0..3_u32, 0..2_u8).prop_map(|(n, port, mac)| Step::GiveBack { n, port, mac }),
        1 => (0..6_u8).prop_map(Step::Remove),
        1 => prop::collection::vec((0..6_u8, 0..3_u32), 0..3).prop_map(Step::Configure),
        1 => (0..3_u32).prop_map(Step::RemovePort),
        3 => (0..10_u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_table_is_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let (table, mut model, mut now) = (empty(1000), Model::default(), 0);
        for step in steps {
            let owners = |model: &Model| -> Vec<_> {
                model.0.iter().map(|(n, b)| (*n, b.port, b.mac)).collect()
            };
            let (before, versions) =
                (owners(&model), (0..6).map(|n| table.version_of(Vid::DEFAULT, ip(n))).collect::<Vec<_>>());
            match step {
                Step::Learn { n, port, mac, origin, lease } => {
                    let origin = [BindingOrigin::Slaac, BindingOrigin::Dhcp, BindingOrigin::Dhcp6][usize::from(origin)];
                    let new = binding(n, port, mac, origin, lease.map(|lease| now + lease));
                    prop_assert_eq!(table.learn(new, 3).is_ok(), model.learn(n, new, 3));
                }
                Step::GiveBack { n, port, mac } => {
                    let mac = MacAddr::new([2, 0, 0, 0, 0, mac]);
                    let own = model.0.get(&n).is_some_and(|b| {
                        b.port == PortId(port) && b.mac == mac && b.origin != BindingOrigin::Static
                    });
                    if own {
                        model.0.remove(&n);
                    }
                    prop_assert_eq!(table.give_back(Vid::DEFAULT, ip(n), PortId(port), mac), own);
                }
                Step::Remove(n) => {
                    prop_assert_eq!(table.remove(Vid::DEFAULT, ip(n)), model.0.remove(&n));
                }
                Step::Configure(wanted) => {
                    model.0.retain(|_, b| b.origin != BindingOrigin::Static);
                    let wanted: Vec<_> =
                        wanted.into_iter().map(|(n, port)| binding(n, port, 0, BindingOrigin::Static, None)).collect();
                    for b in wanted.iter().rev() {
                        let IpAddr::V4(address) = b.address else { unreachable!() };
                        model.0.insert(address.octets()[3], *b);
                    }
                    table.configure(wanted);
                }
                Step::RemovePort(port) => {
                    model.0.retain(|_, b| b.port != PortId(port) || b.origin == BindingOrigin::Static);
                    table.remove_port(PortId(port));
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    model.0.retain(|_, b| b.expires.is_none_or(|at| at > now));
                    table.expire(now);
                }
            }
            prop_assert_eq!(table.entries(), model.0.values().copied().collect::<Vec<_>>());
            // Whatever changed its owner has another version.
            let after = owners(&model);
            for (n, old) in (0..6).zip(versions) {
                let owner = |all: &[(u8, PortId, MacAddr)]| all.iter().find(|(at, ..)| *at == n).copied();
                if owner(&before) != owner(&after) {
                    prop_assert_ne!(table.version_of(Vid::DEFAULT, ip(n)), old);
                }
            }
        }
    }
}
