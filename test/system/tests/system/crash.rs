//! What dies and comes back: the daemon, killed under load; a VMM, killed and replaced by another.

use anyhow::{Context as _, Result, bail, ensure};
use fabnic_lab::{Daemon, GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, mac, worker_cpu};

use crate::guest::{self, address, ip, ping};

/// The daemon's role on each link of the pair, which has two: it listens on one and connects on the other.
const ROLES: [&str; 2] = ["server", "client"];
/// Pings a second of the background load.
const PINGS_A_SECOND: usize = 20;

fn mac_of(vm: usize, link: usize) -> String {
    mac(vm * ROLES.len() + link)
}

struct Pair {
    daemon: Daemon,
    vms: [Vm; 2],
}

/// `packed` are the rings of the first link; the second one has the others.
fn spec(rig: &Rig, vm: usize, packed: bool) -> VmSpec {
    let mut spec = VmSpec::new(&format!("vm{vm}"), GuestKernel::Linux6_12);
    for (link, role) in ROLES.iter().enumerate() {
        let mut nic = Nic::new(rig.path(&format!("s{vm}{link}")), &mac_of(vm, link));
        nic.packed = packed == (link == 0);
        nic.listen = *role == "client";
        spec = spec.with_nic(nic);
    }
    spec
}

fn come_up(vm: &mut Vm, index: usize) -> Result<()> {
    (0..ROLES.len()).try_for_each(|link| address(vm, &format!("eth{link}"), &ip(index, link)))
}

fn start(rig: &Rig) -> Result<Pair> {
    let mut config = rig.config(&[worker_cpu()]);
    for vm in 0..2 {
        for (link, role) in ROLES.iter().enumerate() {
            let socket = rig.path(&format!("s{vm}{link}"));
            let vlan = format!("vlan = {{ access = {} }}", 10 + link);
            config = config.virtio_net(&format!("vm{vm}-{link}"), &socket, role, &mac_of(vm, link), &vlan);
        }
    }
    let daemon = rig.daemon(&config)?;
    let mut vms = guest::boot(rig, &[spec(rig, 0, false), spec(rig, 1, true)])?;
    for (index, vm) in vms.iter_mut().enumerate() {
        come_up(vm, index)?;
    }
    for link in 0..ROLES.len() {
        ping(&mut vms[0], &ip(1, link), "")?;
    }
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

/// TCP and pings run over both links while the daemon is killed three times; all go on by themselves. Then a VMM is
/// killed under load, twice, and others with other features take its ports.
#[test]
fn the_daemon_and_then_a_vmm_are_killed_under_load() -> Result<()> {
    let Some(rig) = Rig::new("kill -9 of the daemon and of a VMM")? else { return Ok(()) };
    let Pair { mut daemon, mut vms } = start(&rig)?;
    daemon_is_killed(&mut daemon, &mut vms)?;
    vmm_is_killed(&rig, &mut daemon, vms)?;
    daemon.stop()
}

fn daemon_is_killed(daemon: &mut Daemon, vms: &mut [Vm; 2]) -> Result<()> {
    let seconds = 14;
    for link in 0..ROLES.len() {
        vms[1].sh(&format!("iperf3 -s -D -p {}", 5201 + link))?;
        vms[0].sh(&format!(
            "iperf3 -J -i 1 -t {seconds} -c {} -p {} >/tmp/tcp{link}.json 2>&1 &",
            ip(1, link),
            5201 + link
        ))?;
        vms[1].sh(&format!(
            "ping -i {} -c {} -W 2 {} >/tmp/ping{link} 2>&1 & echo $! >/tmp/ping{link}.pid",
            1.0 / PINGS_A_SECOND as f64,
            PINGS_A_SECOND * seconds,
            ip(0, link)
        ))?;
    }
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_secs(2));
        daemon.kill_and_restart()?;
    }
    for (link, role) in ROLES.iter().enumerate() {
        let text = vms[1].sh(&format!(
            "while kill -0 $(cat /tmp/ping{link}.pid) 2>/dev/null; do sleep 0.2; done; cat /tmp/ping{link}"
        ))?;
        let answered = answered(&text);
        let last = answered.last().copied().unwrap_or_default();
        let gap = longest_gap(&answered);
        eprintln!(
            "  {role} role: {} of {} pings answered, longest gap {gap} pings ({} ms)",
            answered.len(),
            PINGS_A_SECOND * seconds,
            gap * 1000 / PINGS_A_SECOND
        );
        if last + PINGS_A_SECOND <= PINGS_A_SECOND * seconds {
            let ports = daemon.fabnic(&["port", "show"])?;
            bail!(
                "{role} role: after ping {last} no more was answered:\n{ports}\n{}",
                daemon.child().log_tail()
            );
        }
        // A killed daemon takes a moment to start; guests go on within a second of that. The rest is room for a busy
        // machine: an outage that needs the guest's help would last until the end.
        ensure!(gap < 5 * PINGS_A_SECOND, "{role} role: {gap} pings in a row were lost");
        let text = vms[0].sh(&format!("sleep 2; cat /tmp/tcp{link}.json"))?;
        let result: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("iperf3 gave no JSON: {text}"))?;
        let last = result["intervals"].as_array().and_then(|intervals| intervals.last());
        let bytes = last
            .and_then(|interval| interval["sum"]["bytes"].as_f64())
            .context("iperf3 gave no intervals")?;
        ensure!(bytes > 0.0, "{role} role: TCP stood still at the end: {text}");
    }
    Ok(())
}

fn vmm_is_killed(rig: &Rig, daemon: &mut Daemon, vms: [Vm; 2]) -> Result<()> {
    let [mut first, mut second] = vms;
    for packed in [true, false] {
        first.sh(&format!("ping -i 0.01 {} >/dev/null 2>&1 &", ip(1, 0)))?;
        first.qemu().kill();
        drop(first);
        daemon.child().must_run()?;
        first = Vm::boot(rig.lab(), &spec(rig, 0, packed), rig.dir())?;
        come_up(&mut first, 0)?;
        for link in 0..ROLES.len() {
            ping(&mut first, &ip(1, link), "")?;
            ping(&mut second, &ip(0, link), "")?;
        }
    }
    let ports = daemon.ask(&["port", "show"])?;
    for link in 0..ROLES.len() {
        let name = format!("vm0-{link}");
        let port = ports
            .as_array()
            .and_then(|ports| ports.iter().find(|port| port["name"] == name.as_str()))
            .with_context(|| format!("the daemon shows no port {name}"))?;
        ensure!(port["peer"]["connections"].as_u64() >= Some(3), "three VMMs came: {port}");
    }
    first.power_off()?;
    second.power_off()
}
