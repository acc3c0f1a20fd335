//! PCI cards, from the configuration to the VMM and back.

#![allow(clippy::unwrap_used, reason = "tests, and what they are made of")]

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabnic_agent::{Agent, AgentOptions};
use fabnic_api::{ApplyError, Backend as _};
use fabnic_model::{AdminState, Config, Effect, Port};
use vfio_user::Client;

struct Bench {
    dir: tempfile::TempDir,
    agent: std::sync::Arc<Agent>,
}

impl Bench {
    fn new(ports: impl FnOnce(&dyn Fn(&str) -> String) -> Vec<Port>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut config = Config { port: ports(&path), ..Config::default() };
        config.daemon.api = path("api.sock");
        let agent = Agent::start(config, AgentOptions::default()).unwrap();
        Bench { dir, agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&self, name: &str, change: impl FnOnce(&mut Port)) -> Effect {
        let mut config = self.agent.config();
        change(config.port.iter_mut().find(|port| port.name == name).unwrap());
        self.agent.apply(config, false).unwrap().iter().map(fabnic_model::Change::effect).max().unwrap()
    }

    fn pci(&self, name: &str) -> fabnic_api::PciStatus {
        self.agent.port(name).unwrap().peer.unwrap().pci.unwrap()
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn dword(client: &mut Client, region: u32, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    client.region_read(region, offset, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn an_e1000_is_what_the_port_says() {
    const STATUS: u64 = 8;
    const LINK_UP: u32 = 2;
    const RAL: u64 = 0x5400;
    let bench = Bench::new(|path| {
        let mut port = Port::e1000("vm1", path("vm1"));
        port.mac = Some("52:54:00:12:34:56".parse().unwrap());
        vec![port]
    });
    let mut client = Client::new(&bench.path("vm1")).unwrap();
    assert_eq!(dword(&mut client, 7, 0), 0x100e_8086);
    assert_eq!(dword(&mut client, 0, RAL), 0x1200_5452);
    assert_eq!(dword(&mut client, 0, STATUS) & LINK_UP, LINK_UP);
    let status = bench.agent.port("vm1").unwrap();
    assert_eq!((status.kind.as_str(), status.queues.configured), ("e1000", 1));

    let memory = tempfile::tempfile().unwrap();
    memory.set_len(1 << 20).unwrap();
    client.dma_map(0, 0, 1 << 20, memory.as_raw_fd()).unwrap();
    assert!(!bench.pci("vm1").bus_master);
    client.region_write(7, 4, &[7, 0]).unwrap();
    let pci = bench.pci("vm1");
    assert!(pci.bus_master && !pci.mmap);
    assert_eq!((pci.memory_bytes, pci.vectors, pci.faults, pci.refused), (1 << 20, 0, 0, 0));

    // The driver's link follows the port's.
    let effect = bench.set("vm1", |port| port.state = AdminState::Disable);
    assert_eq!(effect, Effect::Live);
    assert_eq!(dword(&mut client, 0, STATUS) & LINK_UP, 0);
    bench.set("vm1", |port| port.state = AdminState::Auto);
    eventually("a link", || dword(&mut client, 0, STATUS) & LINK_UP == LINK_UP);
    // And its address, when it is reset.
    bench.set("vm1", |port| port.mac = Some("52:54:00:99:99:99".parse().unwrap()));
    client.reset().unwrap();
    assert_eq!(dword(&mut client, 0, RAL), 0x9900_5452);

    let effect = bench.set("vm1", |port| port.vfio_user.as_mut().unwrap().mmap = true);
    assert_eq!(effect, Effect::Recreate);
    assert!(client.reset().is_err(), "the card was taken away");
    let client = Client::new(&bench.path("vm1")).unwrap();
    assert!(client.region(0).unwrap().file_offset.is_some());
    assert!(bench.pci("vm1").mmap);
    drop(client);
    eventually("nobody", || !bench.agent.port("vm1").unwrap().peer.unwrap().connected);
    assert_eq!(bench.agent.port("vm1").unwrap().reason.as_deref(), Some("the client hung up"));
}

#[test]
fn an_avf_is_what_the_port_says() {
    const VFGEN_RSTAT: u64 = 0x8800;
    let bench = Bench::new(|path| {
        let mut port = Port::avf("vf7", path("vf7"));
        port.queues = Some(3);
        vec![port]
    });
    let mut client = Client::new(&bench.path("vf7")).unwrap();
    assert_eq!(dword(&mut client, 7, 0), 0x1889_8086);
    assert_eq!(dword(&mut client, 0, VFGEN_RSTAT), 2, "VFR_VFACTIVE");
    let status = bench.agent.port("vf7").unwrap();
    assert_eq!((status.kind.as_str(), status.queues.configured), ("avf", 3));
    assert_eq!(bench.pci("vf7").vectors, u16::try_from(client.get_irq_info(2).unwrap().count).unwrap());
    for change in [|port: &mut Port| port.trust = Some(true), |port: &mut Port| port.spoofchk = Some(true)] {
        assert_eq!(bench.set("vf7", change), Effect::Live);
    }
    bench.set("vf7", |port| port.mac = Some("52:54:00:99:99:99".parse().unwrap()));
    client.reset().unwrap();
    assert_eq!(bench.set("vf7", |port| port.generation = Some(1)), Effect::Recreate);
    assert!(client.reset().is_err());
}

#[test]
fn a_card_that_cannot_be_is_refused_with_its_key() {
    let bench = Bench::new(|path| vec![Port::e1000("vm1", path("vm1"))]);
    let mut config = bench.agent.config();
    config.port.push(Port::avf("vf7", "/nonexistent/vf7"));
    match bench.agent.apply(config, false).unwrap_err() {
        ApplyError::Failed { key, problem, .. } => {
            assert_eq!(key, "port[vf7].vfio_user.socket");
            assert!(problem.contains("/nonexistent/vf7"), "{problem}");
        }
        other => panic!("{other}"),
    }
    // A socket moves from one port to the next, and from one protocol to the other.
    let mut config = bench.agent.config();
    config.port = vec![Port::avf("vf7", bench.path("vm1").display().to_string())];
    bench.agent.apply(config.clone(), false).unwrap();
    let mut client = Client::new(&bench.path("vm1")).unwrap();
    assert_eq!(dword(&mut client, 7, 0), 0x1889_8086);
    config.port.clear();
    bench.agent.apply(config, false).unwrap();
    assert!(!bench.path("vm1").exists());
}
