//! Unmodified Linux guests on many workers, with the daemon in client role, that also reach the host through an uplink.

use anyhow::Result;
use fabnic_lab::{GuestKernel, Namespace, Nic, VmSpec};
use fabnic_system::{Rig, cpus, mac};

use crate::guest::{self, address, end, ping, serve, transfer};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const HOST: &str = "198.18.0.254";
const QUEUES: u16 = 2;

#[test]
fn many_workers_client_role_and_a_tap_uplink() -> Result<()> {
    let Some(rig) = Rig::new("many workers")? else { return Ok(()) };
    let host = Namespace::create("test")?;
    // As many workers as there are CPUs, up to four.
    let workers: Vec<usize> = (0..cpus().min(4)).collect();
    let vlan = "vlan = { access = 10 }";
    let mut config = rig.config(&workers).tap("up0", "tap0", vlan);
    for index in 0..2 {
        let more = format!("{vlan}\nqueues = {QUEUES}");
        let socket = rig.path(&format!("s{index}"));
        config = config.virtio_net(&format!("vm{index}"), &socket, "client", &mac(index), &more);
    }
    let daemon = rig.daemon_in(&host, &config)?;
    host.ip(&["addr", "add", &format!("{HOST}/24"), "dev", "tap0"])?;
    host.ip(&["link", "set", "tap0", "up"])?;

    let spec = |index: usize| {
        let mut nic = Nic::new(rig.path(&format!("s{index}")), &mac(index));
        nic.queues = QUEUES;
        nic.packed = index == 1;
        nic.listen = true;
        let mut spec = VmSpec::new(&format!("vm{index}"), GuestKernel::Linux6_12).with_nic(nic);
        spec.cpus = QUEUES;
        spec
    };
    let [mut first, mut second] = guest::boot(&rig, &[spec(0), spec(1)])?;
    for (vm, ip) in [&mut first, &mut second].into_iter().zip(IPS) {
        address(vm, "eth0", ip)?;
        vm.sh(&format!("ethtool -L eth0 combined {QUEUES}"))?;
    }
    ping(&mut first, IPS[1], "")?;
    serve(&mut second)?;
    transfer(&mut first, IPS[1], 8)?;
    let shown = daemon.ask(&["worker", "show"])?;
    assert_eq!(shown.as_array().map(Vec::len), Some(workers.len()), "{shown}");

    eprintln!("  the host");
    ping(&mut first, HOST, "")?;
    let _server = rig.lab().program("iperf3").args(["-s", "-B", HOST]).in_netns(host.name()).spawn()?;
    first.sh("sleep 2")?;
    transfer(&mut first, HOST, 8)?;
    end(daemon, [first, second])
}
