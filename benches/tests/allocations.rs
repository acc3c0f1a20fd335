//! Nothing is allocated while frames move.

use fabnic_benches::{Case, Nic, On, Path};

/// Allocations while `f` runs in this thread.
fn count(f: impl FnOnce()) -> u64 {
    allocation_counter::measure(f).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(count(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn moving_frames_allocates_nothing() {
    let virtio = [false, true].map(|in_order| [Nic::Split { in_order }, Nic::Packed { in_order }]);
    for nic in virtio.into_iter().flatten().chain([Nic::Avf, Nic::E1000]) {
        for (size, flows) in [(64, 1), (64, 64), (128, 64), (1514, 64)] {
            let on = if matches!(nic, Nic::Packed { .. }) { On::Flows } else { On::Plain };
            let case = Case { nic, size, flows, on };
            let mut path = Path::new(case).unwrap();
            let before = path.received();
            for _ in 0..20 {
                path.guests();
                let mut frames = 0;
                let allocations = count(|| frames = path.switch());
                assert!(frames > 0, "{case:?}");
                assert_eq!(allocations, 0, "{case:?}");
            }
            path.guests();
            assert!(path.received() > before + 1000, "{case:?}");
        }
    }
}
