//! What an administrator can change on an Adaptive Virtual Function while it runs, with the stock driver: after each of
//! it the guest still reaches its neighbour, and the kernel has nothing to say.

use anyhow::{Context as _, Result};
use fabnic_lab::{Daemon, GuestKernel, Nic, Vm, VmSpec};
use fabnic_system::{Rig, mac, worker_cpu};

use crate::guest::{self, address, complaints, end, load, serve, wait_for_carrier};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const VLAN: &str = "vlan = { access = 10 }";

fn ping(vm: &mut Vm, after: &str) -> Result<()> {
    wait_for_carrier(vm, "eth0", true)
        .and_then(|()| guest::ping(vm, IPS[1], ""))
        .with_context(|| format!("after {after}"))
}

/// A guest with the card, whose port has `more`, and its neighbour; both are up and reach each other.
fn pair(rig: &Rig, kernel: GuestKernel, more: &str) -> Result<(Daemon, Vm, Vm)> {
    let more = format!("{VLAN}\nqueues = 4\ntrust = true\n{more}");
    let config = rig.config(&[worker_cpu()]).pci("vm0", "avf", &rig.path("s0"), &mac(0), &more).virtio_net(
        "vm1",
        &rig.path("s1"),
        "server",
        &mac(1),
        VLAN,
    );
    let daemon = rig.daemon(&config)?;
    let mut card = VmSpec::new("vm0", kernel).with_nic(Nic::vfio_user(rig.path("s0")));
    card.cpus = 2;
    let virtio = VmSpec::new("vm1", kernel).with_nic(Nic::new(rig.path("s1"), &mac(1)));
    let [mut guest, mut other] = guest::boot(rig, &[card, virtio])?;
    address(&mut other, "eth0", IPS[1])?;
    serve(&mut other)?;
    load(&mut guest, "iavf", "eth0", &mac(0))?;
    address(&mut guest, "eth0", IPS[0])?;
    ping(&mut guest, "the start")?;
    Ok((daemon, guest, other))
}

fn settings(guest: &mut Vm, kernel: GuestKernel) -> Result<()> {
    for offload in ["tx", "tso", "gso", "rx", "rxhash", "sg", "rxvlan", "txvlan"] {
        for state in ["off", "on"] {
            guest.sh(&format!("ethtool -K eth0 {offload} {state} || true"))?;
            ping(guest, &format!("{offload} {state}"))?;
            if matches!(offload, "tx" | "tso" | "rx" | "sg") {
                let sent = format!(
                    "iperf3 -n 500K -c {0} >/dev/null && iperf3 -R -n 500K -c {0} >/dev/null",
                    IPS[1]
                );
                guest.sh(&sent).with_context(|| format!("TCP after {offload} {state}"))?;
            }
        }
    }
    for change in [
        "ethtool -G eth0 rx 128 tx 256",
        "ethtool -L eth0 combined 1",
        "ethtool -L eth0 combined 2",
        "ethtool -C eth0 adaptive-rx off rx-usecs 20",
        "ethtool -C eth0 rx-usecs 0",
        "ethtool -C eth0 adaptive-rx on",
        "ethtool -X eth0 equal 1",
        "ethtool -X eth0 default",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 mtu 1500",
        "ip link set eth0 promisc on",
        "ip link set eth0 promisc off",
    ] {
        let reply = guest.run(change)?;
        // Debian's 6.1 waits for its own reset with a lock held that the reset needs, and says "busy" after 5 s; the
        // change is made all the same. And it takes what this ethtool says of the table (-X) for nonsense.
        let is_known = kernel == GuestKernel::Linux6_1
            && (reply.text.contains("busy") || change.starts_with("ethtool -X"));
        anyhow::ensure!(reply.status == 0 || is_known, "{change}: {}", reply.text);
        ping(guest, change)?;
    }
    guest.sh("ping -f -q -w 3 198.18.0.2 >/dev/null & for i in 1 2 3; do echo 1 > /sys/class/net/eth0/device/reset; sleep 1; done; wait")
        .context("function-level resets under load")?;
    ping(guest, "function-level resets")?;
    guest.sh("for i in $(seq 30); do ip link set eth0 down; ip link set eth0 up; done")?;
    ping(guest, "30 times down and up")?;
    complaints(guest)
}

#[test]
fn generation_3_with_kernel_6_1() -> Result<()> {
    let Some(rig) = Rig::new("avf generation 3, kernel 6.1")? else { return Ok(()) };
    let (daemon, mut guest, other) = pair(&rig, GuestKernel::Linux6_1, "generation = 3")?;
    settings(&mut guest, GuestKernel::Linux6_1)?;
    end(daemon, [guest, other])
}

#[test]
fn generation_4_with_kernel_7() -> Result<()> {
    let Some(rig) = Rig::new("avf generation 4, kernel 7.x")? else { return Ok(()) };
    let (daemon, mut guest, mut other) = pair(&rig, GuestKernel::Linux7, "generation = 4")?;
    steer(&mut guest, &mut other)?;
    settings(&mut guest, GuestKernel::Linux7)?;
    end(daemon, [guest, other])
}

/// Packets that a receive queue of the guest has seen.
fn packets(guest: &mut Vm, queue: usize) -> Result<u64> {
    let text = guest.sh(&format!("ethtool -S eth0 | sed -n 's/^ *rx-{queue}.packets: //p'"))?;
    text.trim().parse().with_context(|| format!("packets of queue {queue}: {text:?}"))
}

/// So many packets are a flow, or many.
const MANY: u64 = 400;
/// So few more may have come for other reasons.
const FEW: u64 = 20;

/// UDP from many ports of the neighbour to one of the guest: gives how many more packets each queue has seen.
fn send(guest: &mut Vm, other: &mut Vm, port: u16) -> Result<[u64; 2]> {
    let before = [packets(guest, 0)?, packets(guest, 1)?];
    let (address, mac) = (IPS[0], mac(0));
    let words = format!(
        "count {MANY}|pkt_size 100|delay 100000|dst {address}|dst_mac {mac}|udp_dst_min {port}|udp_dst_max {port}|\
         udp_src_min 20000|udp_src_max 20999|flag UDPSRC_RND"
    );
    let words: String =
        words.split('|').map(|word| format!("echo {word} > /proc/net/pktgen/eth0 && ")).collect();
    other.sh(&format!(
        "modprobe pktgen; echo rem_device_all > /proc/net/pktgen/kpktgend_0; \
         echo add_device eth0 > /proc/net/pktgen/kpktgend_0 && {words} echo start > /proc/net/pktgen/pgctrl"
    ))?;
    // A ping is answered behind all of them.
    ping(guest, "a flow of UDP")?;
    Ok([packets(guest, 0)? - before[0], packets(guest, 1)? - before[1]])
}

/// Everything to that port must come on that queue; `None`: nothing at all may come.
fn comes_on(guest: &mut Vm, other: &mut Vm, port: u16, queue: Option<usize>, after: &str) -> Result<()> {
    let seen = send(guest, other, port)?;
    for (at, seen) in seen.into_iter().enumerate() {
        let right = if queue == Some(at) { seen >= MANY } else { seen <= FEW };
        anyhow::ensure!(
            right,
            "{after}: {MANY} frames to port {port} were to come on {queue:?}: {seen:?} on {at}"
        );
    }
    Ok(())
}

/// Advanced RSS and the flow director, as `ethtool` sets them: packets land on the queue that they are told to.
fn steer(guest: &mut Vm, other: &mut Vm) -> Result<()> {
    guest.sh("ethtool -K eth0 ntuple on && ethtool -k eth0 | grep -q 'ntuple-filters: on'")?;

    eprintln!("  ethtool -N rx-flow-hash");
    let fields = guest.sh("ethtool -N eth0 rx-flow-hash udp4 sdfn && ethtool -n eth0 rx-flow-hash udp4")?;
    anyhow::ensure!(fields.contains("L4 bytes 2 & 3"), "what is hashed of UDP: {fields}");
    let seen = send(guest, other, 5000)?;
    anyhow::ensure!(seen.iter().all(|seen| *seen > MANY / 8), "ports were to be hashed: {seen:?}");
    guest.sh("ethtool -N eth0 rx-flow-hash udp4 sd")?;
    let seen = send(guest, other, 5000)?;
    anyhow::ensure!(seen.iter().any(|seen| *seen <= FEW), "addresses only were to be hashed: {seen:?}");

    eprintln!("  ethtool -X");
    guest.sh("ethtool -X eth0 weight 1 0")?;
    comes_on(guest, other, 7777, Some(0), "weight 1 0")?;
    guest.sh("ethtool -X eth0 weight 0 1")?;
    comes_on(guest, other, 7777, Some(1), "weight 0 1")?;
    let table = guest.sh("ethtool -x eth0")?;
    anyhow::ensure!(table.contains("    0:      1     1     1     1     1     1     1     1"), "{table}");
    // A table that somebody has set keeps the driver from using fewer queues.
    guest.sh("ethtool -X eth0 default")?;

    eprintln!("  ethtool -U");
    for queue in [1_usize, 0] {
        guest.sh(&format!("ethtool -U eth0 flow-type udp4 dst-port 7777 action {queue} loc 1"))?;
        comes_on(guest, other, 7777, Some(queue), &format!("a rule to queue {queue}"))?;
        if queue == 1 {
            guest.sh("ethtool -U eth0 delete 1")?;
        }
    }
    guest.sh(&format!("ethtool -U eth0 flow-type udp4 src-ip {} dst-port 7779 action -1 loc 2", IPS[1]))?;
    comes_on(guest, other, 7779, None, "a rule that drops")?;
    let rules = guest.sh("ethtool --show-ntuple eth0")?;
    for words in ["Total 2 rules", "Dest port: 7777", "Direct to queue 0", "Dest port: 7779", "Action: Drop"]
    {
        anyhow::ensure!(rules.contains(words), "{words} is not among the rules: {rules}");
    }
    eprintln!("  down and up");
    guest.sh("ip link set eth0 down; ip link set eth0 up")?;
    ping(guest, "down and up")?;
    comes_on(guest, other, 7777, Some(0), "down and up")?;
    guest.sh("ethtool -U eth0 delete 1 && ethtool -U eth0 delete 2")?;
    let seen = send(guest, other, 7779)?;
    anyhow::ensure!(seen[0] + seen[1] >= MANY, "the rule that drops is gone: {seen:?}");
    complaints(guest)
}
