//! What dies and comes back: the daemon, killed under load; a VMM, killed and replaced by another.

use anyhow::{Context as _, Result, bail, ensure};
use fabnic_lab::{Daemon, GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, mac, worker_cpu};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
/// Pings a second of the background load.
const PINGS_A_SECOND: usize = 20;

struct Pair {
    daemon: Daemon,
    vms: [Vm; 2],
}

fn spec(rig: &Rig, index: usize, packed: bool, listen: bool) -> VmSpec {
    let mut nic = Nic::new(rig.path(&format!("s{index}")), &mac(index));
    nic.packed = packed;
    nic.listen = listen;
    VmSpec::new(&format!("vm{index}"), GuestKernel::Linux6_12).with_nic(nic)
}

fn address(vm: &mut Vm, index: usize) -> Result<()> {
    vm.sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up", IPS[index])).map(|_| ())
}

/// `role` is the daemon's.
fn start(rig: &Rig, role: &str) -> Result<Pair> {
    let mut config = rig.config(&[worker_cpu()]);
    for index in 0..2 {
        let socket = rig.path(&format!("s{index}"));
        config =
            config.virtio_net(&format!("vm{index}"), &socket, role, &mac(index), "vlan = { access = 10 }");
    }
    let daemon = rig.daemon(&config)?;
    let listen = role == "client";
    let mut first = Vm::start(rig.lab(), &spec(rig, 0, false, listen), rig.dir())?;
    let mut second = Vm::start(rig.lab(), &spec(rig, 1, true, listen), rig.dir())?;
    first.wait_ready()?;
    second.wait_ready()?;
    let mut vms = [first, second];
    for (index, vm) in vms.iter_mut().enumerate() {
        address(vm, index)?;
    }
    vms[0].sh(&format!("ping -c 3 -W 20 {}", IPS[1]))?;
    Ok(Pair { daemon, vms })
}

/// Sequence numbers of the pings that were answered, in order of arrival.
fn answered(text: &str) -> Vec<usize> {
    text.lines()
        .filter_map(|line| line.split("seq=").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect()
}

/// The longest run of unanswered pings.
fn longest_gap(answered: &[usize]) -> usize {
    answered.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1)).max().unwrap_or_default()
}

#[test]
fn gaps_are_found() {
    let text = "64 bytes from 198.18.0.2: seq=0 ttl=64 time=1 ms\n64 bytes from 198.18.0.2: seq=1 ttl=64 time=1 ms\n\
                64 bytes from 198.18.0.2: seq=5 ttl=64 time=1 ms\n3 packets received\n";
    assert_eq!(answered(text), [0, 1, 5]);
    assert_eq!(longest_gap(&answered(text)), 3);
}

/// TCP and pings run while the daemon is killed three times; both go on by themselves.
fn daemon_killed_under_load(name: &str, role: &str) -> Result<()> {
    let Some(rig) = Rig::new(name)? else { return Ok(()) };
    let Pair { mut daemon, mut vms } = start(&rig, role)?;
    vms[1].sh("iperf3 -s -D")?;
    let seconds = 14;
    vms[0].sh(&format!("iperf3 -J -i 1 -t {seconds} -c {} >/tmp/tcp.json 2>&1 &", IPS[1]))?;
    let pings = vms[1].shell().start(&format!(
        "ping -i {} -c {} -W 2 {}",
        1.0 / PINGS_A_SECOND as f64,
        PINGS_A_SECOND * seconds,
        IPS[0]
    ))?;
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_secs(2));
        daemon.kill_and_restart()?;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    let reply = vms[1].shell().finish(pings, deadline)?;
    let answered = answered(&reply.text);
    let last = answered.last().copied().unwrap_or_default();
    let gap = longest_gap(&answered);
    eprintln!(
        "  {} of {} pings answered, longest gap {gap} pings ({} ms)",
        answered.len(),
        PINGS_A_SECOND * seconds,
        gap * 1000 / PINGS_A_SECOND
    );
    if last + PINGS_A_SECOND <= PINGS_A_SECOND * seconds {
        let ports = daemon.fabnic(&["port", "show"])?;
        bail!("after ping {last} no more was answered:\n{ports}\n{}", daemon.child().log_tail());
    }
    // A killed daemon takes a moment to start; guests go on within a second of that. The rest is room for a busy
    // machine: an outage that needs the guest's help would last until the end.
    ensure!(gap < 5 * PINGS_A_SECOND, "{gap} pings in a row were lost");

    let text = vms[0].sh("sleep 2; cat /tmp/tcp.json")?;
    let result: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("iperf3 gave no JSON: {text}"))?;
    let last = result["intervals"].as_array().and_then(|intervals| intervals.last());
    let bytes =
        last.and_then(|interval| interval["sum"]["bytes"].as_f64()).context("iperf3 gave no intervals")?;
    ensure!(bytes > 0.0, "TCP stood still at the end: {text}");
    for vm in vms {
        vm.power_off()?;
    }
    daemon.stop()
}

#[test]
fn the_daemon_is_killed_under_load_in_server_role() -> Result<()> {
    daemon_killed_under_load("kill -9 of the daemon, server role", "server")
}

#[test]
fn the_daemon_is_killed_under_load_in_client_role() -> Result<()> {
    daemon_killed_under_load("kill -9 of the daemon, client role", "client")
}

#[test]
fn a_vmm_dies_and_another_takes_its_port() -> Result<()> {
    let Some(rig) = Rig::new("kill -9 of a VMM")? else { return Ok(()) };
    let Pair { mut daemon, vms } = start(&rig, "server")?;
    let [mut first, mut second] = vms;
    // Under load, and with other features each time.
    for packed in [true, false] {
        first.sh(&format!("ping -i 0.01 {} >/dev/null 2>&1 &", IPS[1]))?;
        first.qemu().kill();
        drop(first);
        daemon.child().must_run()?;
        first = Vm::boot(rig.lab(), &spec(&rig, 0, packed, false), rig.dir())?;
        address(&mut first, 0)?;
        first.sh(&format!("ping -c 1 -W 20 {0} >/dev/null; ping -c 5 -i 0.2 -W 20 {0}", IPS[1]))?;
        second.sh(&format!("ping -c 5 -i 0.2 -W 20 {}", IPS[0]))?;
    }
    let ports = daemon.ask(&["port", "show"])?;
    let port = ports
        .as_array()
        .and_then(|ports| ports.iter().find(|port| port["name"] == "vm0"))
        .context("the daemon shows no port vm0")?;
    ensure!(port["peer"]["connections"].as_u64() >= Some(3), "three VMMs came: {port}");
    first.power_off()?;
    second.power_off()?;
    daemon.stop()
}
