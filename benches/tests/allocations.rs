//! Nothing is allocated while frames move.

use fabnic_benches::{Case, On, Path};

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
    for packed in [false, true] {
        for in_order in [false, true] {
            for (size, flows) in [(64, 1), (64, 64), (128, 64), (1514, 64)] {
                let on = if packed { On::Flows } else { On::Plain };
                let case = Case { packed, in_order, size, flows, on };
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
}
