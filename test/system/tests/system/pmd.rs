//! DPDK's driver for adaptive virtual functions, in a guest: testpmd with two cards stands between two hosts, each behind
//! an uplink in a VLAN of its own. What passes is judged by the hosts' kernels and by the counters of all three.

use anyhow::{Context as _, Result};
use fabnic_lab::{Daemon, GuestKernel, Launch, Namespace, Nic, Vm, VmSpec, output};
use fabnic_system::{Rig, Totals, mac, port_frames, worker_cpu};

const IPS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

/// testpmd in the guest, which takes commands from a pipe.
struct Testpmd {
    vm: Vm,
}

impl Testpmd {
    fn start(mut vm: Vm) -> Result<Self> {
        vm.sh(
            "modprobe vfio_iommu_type1 && modprobe vfio-pci && for card in /sys/bus/pci/devices/*; do \
             [ $(cat $card/device) = 0x1889 ] || continue; echo vfio-pci > $card/driver_override; \
             echo ${card##*/} > /sys/bus/pci/drivers_probe; done; ls /sys/bus/pci/drivers/vfio-pci/*/device; \
             echo 72 > /proc/sys/vm/nr_hugepages; mkdir -p /opt/huge; mount -t hugetlbfs -o pagesize=2M none /opt/huge; \
             mkfifo /tmp/in; chmod 755 /",
        )?;
        vm.sh(
            "export LD_LIBRARY_PATH=$(echo /usr/lib/x86_64-linux-gnu/dpdk/*); (sleep 100000 > /tmp/in &); \
             export _STDBUF_O=L LD_PRELOAD=/usr/libexec/coreutils/libstdbuf.so; (dpdk-testpmd -l 0,1 --huge-dir=/opt/huge -d $LD_LIBRARY_PATH/librte_mempool_ring.so --in-memory -m 128 -- \
             -i --nb-cores=1 --rxq=2 --txq=2 --rxd=256 --txd=256 --total-num-mbufs=8192 < /tmp/in > /tmp/pmd.log 2>&1 &)",
        )?;
        let mut testpmd = Self { vm };
        testpmd.wait_for("Checking link statuses", 1)?;
        Ok(testpmd)
    }

    /// Waits until its output has a line with these words so many times.
    fn wait_for(&mut self, words: &str, times: usize) -> Result<()> {
        self.vm
            .sh(&format!(
                "for i in $(seq 300); do [ $(grep -c '{words}' /tmp/pmd.log) -ge {times} ] && exit; sleep 0.1; done; \
                 tail -n 30 /tmp/pmd.log; false"
            ))
            .map(|_| ())
    }

    /// Gives commands, and what it said to them. An unknown command's complaint marks the end.
    fn ask(&mut self, commands: &[&str]) -> Result<String> {
        let lines: String = commands.iter().map(|command| format!("{command}\\n")).collect();
        let said = self.vm.sh(&format!(
            "n=$(wc -c < /tmp/pmd.log); printf '{lines}fabnic_mark\\n' > /tmp/in; for i in $(seq 300); do \
             tail -c +$((n+1)) /tmp/pmd.log | grep -q 'Command not found' && break; sleep 0.1; done; \
             tail -c +$((n+1)) /tmp/pmd.log"
        ))?;
        anyhow::ensure!(said.contains("Command not found"), "testpmd did not answer {commands:?}: {said}");
        for complaint in ["not supported", "Failed", "fail to", "Bad arguments", "error"] {
            anyhow::ensure!(!said.contains(complaint), "testpmd complains at {commands:?}: {said}");
        }
        Ok(said)
    }

    /// Stops forwarding and gives the frames that it received on each queue of port 0, and sent from port 1.
    fn stop(&mut self) -> Result<([u64; 2], u64)> {
        let said = self.ask(&["stop"])?;
        let number = |text: Option<&str>, word: &str| -> Option<u64> {
            text?.split(word).nth(1)?.split_whitespace().next()?.parse().ok()
        };
        // A queue that has seen nothing is not shown.
        let queue = |queue: usize| {
            let at = format!("Forward Stats for RX Port= 0/Queue= {queue} ");
            number(said.split(&at).nth(1), "RX-packets:").unwrap_or(0)
        };
        let sent = number(said.split("Forward statistics for port 1").nth(1), "TX-packets:");
        Ok(([queue(0), queue(1)], sent.with_context(|| format!("testpmd shows no statistics: {said}"))?))
    }
}

/// Two hosts, each on an uplink of its own.
fn hosts(rig: &Rig) -> Result<(Daemon, [Namespace; 2])> {
    let hosts = [Namespace::create("left")?, Namespace::create("right")?];
    let mut config = rig.config(&[worker_cpu()]);
    for (index, vlan) in [10, 20].into_iter().enumerate() {
        let vlan = format!("vlan = {{ access = {vlan} }}");
        let more = format!("{vlan}\nqueues = 2\ntrust = true\ngeneration = 4");
        config = config
            .pci(&format!("vm{index}"), "avf", &rig.path(&format!("s{index}")), &mac(index), &more)
            .tap(&format!("up{index}"), &format!("tap{index}"), &vlan);
    }
    let daemon = rig.daemon_in(&hosts[0], &config)?;
    hosts[0].ip(&["link", "set", "tap1", "netns", hosts[1].name()])?;
    for (index, host) in hosts.iter().enumerate() {
        let tap = format!("tap{index}");
        host.ip(&["link", "set", &tap, "address", &mac(10 + index)])?;
        host.ip(&["addr", "add", &format!("{}/24", IPS[index]), "dev", &tap])?;
        host.ip(&["link", "set", &tap, "up"])?;
        // The other host is reached through the card on this side.
        host.ip(&["neigh", "replace", IPS[1 - index], "lladdr", &mac(index), "dev", &tap])?;
    }
    Ok((daemon, hosts))
}

/// Sends UDP from the left host, each time from another port.
fn udp(host: &Namespace, port: u16, times: u64) -> Result<()> {
    let script = format!("for i in $(seq {times}); do echo hello > /dev/udp/{}/{port}; done", IPS[1]);
    output(Launch::on_host("bash").args(["-c", &script]).in_netns(host.name()))?;
    Ok(())
}

#[test]
fn testpmd_in_a_guest() -> Result<()> {
    let Some(rig) = Rig::new("DPDK's iavf driver")? else { return Ok(()) };
    let (daemon, hosts) = hosts(&rig)?;
    let mut spec = VmSpec::new("pmd", GuestKernel::Linux7)
        .with_nic(Nic::vfio_user(rig.path("s0")))
        .with_nic(Nic::vfio_user(rig.path("s1")));
    (spec.dpdk, spec.cpus, spec.memory_mib) = (true, 2, 512);
    let mut testpmd = Testpmd::start(Vm::boot(rig.lab(), &spec, rig.dir())?)?;

    eprintln!("  checksums and TSO");
    let mut words = vec!["port stop all".to_owned(), "set fwd csum".to_owned()];
    for port in 0..2 {
        words.extend(["ip", "tcp", "udp"].map(|layer| format!("csum set {layer} hw {port}")));
        words.push(format!("tso set 700 {port}"));
    }
    words.push("port start all".to_owned());
    words.extend((0..2).map(|port| format!("set eth-peer {port} {}", mac(10 + port))));
    words.push("start".to_owned());
    testpmd.ask(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut server = rig.lab().program("iperf3");
    server.args(["-s", "--forceflush", "-B", IPS[1]]).log_to(rig.path("iperf3.log"));
    let mut server = hosts[1].spawn(&mut server)?;
    let log = rig.path("iperf3.log");
    server.wait_until("a listener", std::time::Duration::from_secs(20), || {
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("listening"))
    })?;
    for direction in ["--bidir", "-R"] {
        let mut client = rig.lab().program("iperf3");
        client.args(["-J", "-n", "1M", "-c", IPS[1], direction]).in_netns(hosts[0].name());
        output(&client).with_context(|| format!("TCP {direction} through testpmd"))?;
    }
    let (_, sent) = testpmd.stop()?;
    let (received, _) = port_frames(&daemon, "vm1")?;
    anyhow::ensure!(sent == received, "testpmd sent {sent} frames on port 1, the daemon has {received}");

    eprintln!("  RSS");
    testpmd.ask(&["set fwd rxonly", "port config all rss udp", "start"])?;
    udp(&hosts[0], 5000, 200)?;
    let (seen, _) = testpmd.stop()?;
    anyhow::ensure!(seen.iter().all(|seen| *seen > 25), "200 flows of UDP came on the queues as {seen:?}");

    eprintln!("  flow rules");
    let rule = |port: u16, action: &str| {
        format!("flow create 0 ingress pattern eth / ipv4 / udp dst is {port} / end actions {action} / end")
    };
    let rules = [rule(7777, "queue index 1"), rule(7779, "queue index 0"), rule(7778, "drop")];
    let said = testpmd.ask(&rules.each_ref().map(String::as_str))?;
    anyhow::ensure!(said.matches(" created").count() == 3, "rules were not made: {said}");
    for (port, expected) in [(7777, [0, 100]), (7779, [100, 0]), (7778, [0, 0])] {
        testpmd.ask(&["start"])?;
        udp(&hosts[0], port, 100)?;
        let (seen, _) = testpmd.stop()?;
        // Neighbour discovery and the like may come, too.
        let is_right = seen.iter().zip(expected).all(|(seen, expected)| seen.abs_diff(expected) < 20);
        anyhow::ensure!(is_right, "100 frames to port {port} were to come as {expected:?}: {seen:?}");
    }
    testpmd.ask(&["flow flush 0", "port stop all", "port close all"])?;
    testpmd.vm.power_off()?;
    Totals::settle(&daemon)?;
    daemon.stop()
}
