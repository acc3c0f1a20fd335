use fabnic_memory::AddressSpace;
use fabnic_port::{PortId, PortKind};
use fabnic_virtqueue::driver::{Driver, footprint};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

const SIZE: u16 = 8;

fn config() -> VirtioNetConfig {
    VirtioNetConfig {
        mac: MacAddr::new([0x52, 0x54, 0, 1, 2, 3]),
        mtu: 1500,
        queue_pairs: 2,
        queue_size_max: 256,
        withheld: Features::empty(),
        speed: 25_000,
    }
}

struct Bench {
    port: Arc<Port>,
    nic: VirtioNet,
    map: Arc<Map>,
    announced: Arc<Mutex<Vec<MacAddr>>>,
}

impl Bench {
    fn new(config: VirtioNetConfig) -> Bench {
        let port = Arc::new(Port::new(PortId(1), "vm1", PortKind::VirtioNet, 2));
        let announced = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&announced);
        let nic =
            VirtioNet::new(Arc::clone(&port), config, true, Box::new(move |mac| heard.lock().push(mac)));
        let (map, _file) = Map::anonymous(1 << 20).unwrap();
        Bench { port, nic, map, announced }
    }

    /// Memory that a ring lies in, as its driver leaves it, and what a session says of it.
    fn setup(&self, ring: u16, features: Features) -> RingSetup {
        let packed = features.contains(Features::RING_PACKED);
        let base = if packed { 0x8000_8000 } else { 0 };
        let layout = RingConfig {
            size: SIZE,
            packed,
            desc: 0,
            driver: 0,
            device: 0,
            event_idx: false,
            in_order: false,
            base,
        };
        let config = Driver::new(&self.map, footprint(SIZE) * u64::from(ring), layout).config();
        RingSetup {
            ring,
            map: Arc::clone(&self.map),
            features: features.bits(),
            size: SIZE,
            desc: config.desc,
            driver: config.driver,
            device: config.device,
            base,
            enabled: true,
            kick: None,
            call: None,
            log: None,
            log_used: None,
            journal: None,
        }
    }

    fn installed(&self) -> (Vec<bool>, Vec<bool>) {
        (
            self.port.egress().iter().map(|cell| cell.is_installed()).collect(),
            self.port.ingress().iter().map(|cell| cell.is_installed()).collect(),
        )
    }
}

#[test]
fn rings_become_queues_and_go_again() {
    for features in [Features::VERSION_1, Features::VERSION_1 | Features::RING_PACKED] {
        let mut bench = Bench::new(config());
        assert_eq!(bench.nic.rings(), 4);
        assert_eq!(bench.port.egress_in_use(), 0);
        for ring in [0, 3] {
            bench.nic.start_ring(bench.setup(ring, features)).unwrap();
        }
        assert_eq!(bench.installed(), (vec![true, false], vec![false, true]));
        assert_eq!(bench.port.egress_in_use(), 1);
        bench.nic.set_memory(0, &Map::anonymous(1 << 20).unwrap().0).unwrap();
        let small = Map::anonymous(4096).unwrap().0;
        assert!(bench.nic.set_memory(3, &small).is_err(), "the ring is not in that memory");
        let base = bench.setup(0, features).base;
        assert_eq!(bench.nic.stop_ring(0), Some(base));
        assert_eq!(bench.nic.stop_ring(0), None, "it is not there any more");
        assert_eq!(bench.nic.stop_ring(3), Some(base));
        assert_eq!(bench.installed(), (vec![false; 2], vec![false; 2]));
        assert_eq!(bench.port.egress_in_use(), 0);
        // What is told of rings that are not there changes nothing.
        bench.nic.set_enabled(1, true);
        bench.nic.set_call(200, None);
        assert!(bench.nic.set_memory(200, &bench.map).is_ok());
    }
}

#[test]
fn a_ring_that_cannot_be_says_why() {
    let mut bench = Bench::new(VirtioNetConfig { queue_size_max: 4, ..config() });
    let reason = bench.nic.start_ring(bench.setup(1, Features::VERSION_1)).unwrap_err().to_string();
    assert_eq!(reason, "ring 1: 8 descriptors, expected at most 4");
    let mut bench = Bench::new(config());
    let outside = RingSetup { desc: 1 << 40, ..bench.setup(0, Features::VERSION_1) };
    assert!(bench.nic.start_ring(outside).unwrap_err().to_string().contains("0x10000000000"));
    let beyond = RingSetup { ring: 4, ..bench.setup(0, Features::VERSION_1) };
    assert!(bench.nic.start_ring(beyond).is_err());
    assert_eq!(bench.installed(), (vec![false; 2], vec![false; 2]));
}

#[test]
fn a_stopped_port_goes_on_with_the_next_driver() {
    let mut bench = Bench::new(config());
    bench.nic.start_ring(bench.setup(0, Features::VERSION_1)).unwrap();
    bench.port.stop(Fault("a loop of descriptors".to_owned()));
    bench.nic.start_ring(bench.setup(1, Features::VERSION_1)).unwrap();
    assert!(bench.port.is_stopped(), "the same driver: it stays stopped");
    bench.nic.stop_ring(0);
    bench.nic.stop_ring(1);
    bench.nic.start_ring(bench.setup(0, Features::VERSION_1)).unwrap();
    assert!(!bench.port.is_stopped(), "reset: all rings were stopped in between");
    bench.port.stop(Fault("again".to_owned()));
    bench.nic.stop_ring(0);
    bench.nic.disconnected("gone");
    assert!(bench.port.is_stopped(), "the reason stays to be read");
    bench.nic.connected();
    assert!(!bench.port.is_stopped());
}

#[test]
fn rings_that_are_disabled_are_not_steered_to() {
    let mut bench = Bench::new(config());
    for ring in [0, 2] {
        let setup = bench.setup(ring, Features::VERSION_1);
        // The driver has given one buffer.
        bench.map.table::<u16>(AddressSpace::User, setup.driver + 2, 1).unwrap().store(0, 1);
        bench.nic.start_ring(setup).unwrap();
    }
    assert_eq!(bench.port.egress_in_use(), 2);
    bench.nic.set_enabled(2, false);
    assert_eq!(bench.port.egress_in_use(), 1);
    bench.nic.set_enabled(2, true);
    assert_eq!(bench.port.egress_in_use(), 2);
}

#[test]
fn the_configuration_space_says_what_the_port_is() {
    let bench = Bench::new(config());
    let mut space = [0xff; 17];
    assert!(bench.nic.read_config(0, &mut space));
    assert_eq!(space[..6], [0x52, 0x54, 0, 1, 2, 3]);
    assert_eq!(space[6..12], [1, 0, 2, 0, 0xdc, 0x05], "up, two pairs, MTU 1500");
    assert_eq!(space[12..], [0xa8, 0x61, 0, 0, 1], "25 Gbit/s, full duplex");
    let told = Told { link_up: false, mtu: 9000, ..bench.nic.settings().get() };
    assert!(bench.nic.settings().set(told));
    assert!(!bench.nic.settings().set(told), "nothing new");
    let mut changed = [0xff; 6];
    assert!(bench.nic.read_config(6, &mut changed));
    assert_eq!(changed, [0, 0, 2, 0, 0x28, 0x23], "down, two pairs, MTU 9000");
    let mut end = [0xff; 100];
    assert!(bench.nic.read_config(20, &mut end), "what lies behind is zero");
    assert_eq!(end, [0; 100]);
    assert!(!bench.nic.read_config(1000, &mut end));
    assert!(!bench.nic.read_config(u32::MAX, &mut end));
    let mut bench = Bench::new(config());
    assert!(bench.nic.write_config(0, &[0; 6]).unwrap_err().to_string().contains("6 bytes at 0"));
}

#[test]
fn an_mtu_beyond_the_port_s_is_refused() {
    let mut bench = Bench::new(config());
    for (mtu, fits) in [(67, false), (68, true), (1500, true), (1501, false), (u64::MAX, false)] {
        assert_eq!(bench.nic.set_mtu(mtu).is_ok(), fits, "{mtu}");
    }
}

#[test]
fn a_guest_that_cannot_announce_itself_is_announced() {
    let mut bench = Bench::new(config());
    bench.nic.announce([2, 0, 0, 0, 0, 9]);
    assert_eq!(*bench.announced.lock(), [MacAddr::new([2, 0, 0, 0, 0, 9])]);
}

#[test]
fn features_have_names() {
    let bench = Bench::new(config());
    assert_eq!(bench.nic.feature_name(34), Some("RING_PACKED"));
    assert_eq!(bench.nic.feature_name(63), None);
    assert_eq!(bench.nic.feature_name(64), None);
    for bit in (0..64).filter(|bit| bench.nic.features() >> bit & 1 == 1) {
        assert!(bench.nic.feature_name(bit).is_some(), "bit {bit}");
    }
}

proptest! {
    /// Whatever is withheld, what is offered makes sense (virtio 1.x, section 5.1.3.1).
    #[test]
    fn an_offer_is_complete_in_itself(withheld: u64) {
        let withheld = Features::from_bits_retain(withheld);
        let offered = Features::from_bits_retain(Bench::new(VirtioNetConfig { withheld, ..config() }).nic.features());
        prop_assert!(!offered.intersects(withheld));
        let needs = |some: Features, any: Features| !offered.intersects(some) || offered.intersects(any);
        prop_assert!(needs(Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO, Features::CSUM));
        prop_assert!(needs(Features::GUEST_TSO4 | Features::GUEST_TSO6, Features::GUEST_CSUM));
        prop_assert!(needs(Features::GUEST_USO4 | Features::GUEST_USO6, Features::GUEST_CSUM));
        prop_assert!(needs(Features::HOST_ECN, Features::HOST_TSO4 | Features::HOST_TSO6));
        prop_assert!(needs(Features::GUEST_ECN, Features::GUEST_TSO4 | Features::GUEST_TSO6));
        prop_assert!(needs(Features::MQ | Features::GUEST_ANNOUNCE, Features::CTRL_VQ));
    }
}
