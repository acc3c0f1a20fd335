//! The four switches: Fabnic, and its peers. Each runs on one CPU between two vhost-user sockets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fabnic_lab::{Child, Lab, Launch, output};
use serde::Serialize;

use super::measure::Case;
use crate::cargo::release_dir;

/// CPU of the switch.
pub(crate) const SWITCH_CPU: usize = 1;
/// CPU of both guests.
pub(crate) const GUEST_CPU: usize = 0;

/// A switch that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// This project, with VLANs, learning, counters and drop reasons.
    Fabnic,
    /// DPDK's testpmd: forwards port to port, no switching at all.
    Testpmd,
    /// Open vSwitch with DPDK and one fixed flow for each port.
    OvsFlow,
    /// Open vSwitch with DPDK as a learning switch.
    OvsNormal,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Fabnic, Self::Testpmd, Self::OvsFlow, Self::OvsNormal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fabnic => "fabnic",
            Self::Testpmd => "testpmd",
            Self::OvsFlow => "ovs-flow",
            Self::OvsNormal => "ovs-normal",
        }
    }

    /// Whether the guests must listen, and the switch connects.
    pub(crate) fn connects(self) -> bool {
        matches!(self, Self::OvsFlow | Self::OvsNormal)
    }
}

/// A switch that runs.
#[derive(Debug)]
pub(crate) struct Switch {
    peer: Peer,
    lab: Lab,
    dir: PathBuf,
    /// The switch's processes; the last one is the data path.
    children: Vec<Child>,
}

/// The two sockets that guests meet the switch at.
pub(crate) fn sockets(dir: &Path) -> [PathBuf; 2] {
    [dir.join("s0"), dir.join("s1")]
}

/// A program of the tree that is given huge pages.
pub(crate) fn with_huge_pages(lab: &Lab, program: &str) -> Launch {
    let mut launch = lab.program(program);
    launch.env("FABNIC_HUGETLBFS", "1");
    launch
}

impl Switch {
    /// Starts one, with its files in `dir`.
    pub(crate) fn start(peer: Peer, lab: &Lab, dir: &Path, case: &Case) -> Result<Self> {
        let mut switch = Self { peer, lab: lab.clone(), dir: dir.to_owned(), children: Vec::new() };
        match peer {
            Peer::Fabnic => switch.start_fabnic(case)?,
            Peer::Testpmd => switch.start_testpmd()?,
            Peer::OvsFlow | Peer::OvsNormal => switch.start_ovs()?,
        }
        Ok(switch)
    }

    fn start_fabnic(&mut self, case: &Case) -> Result<()> {
        let api = self.dir.join("api.sock");
        let mut config =
            format!("[daemon]\napi = {:?}\nworkers = [{SWITCH_CPU}]\n", api.display().to_string());
        let ring = case.traffic.ring;
        let mut add = |name: String, socket: &Path, mac: String, mapped: bool| {
            let socket = socket.display().to_string();
            let transport = match ring.is_card() {
                true => format!("vfio_user = {{ socket = {socket:?}, mmap = {mapped} }}"),
                false => format!("vhost_user = {{ socket = {socket:?}, role = \"server\" }}"),
            };
            config.push_str(&format!(
                "\n[[port]]\nname = \"{name}\"\nnic = {:?}\n{transport}\nmac = \"{mac}\"\n\
                 vlan = {{ access = 10 }}\n",
                ring.nic()
            ));
        };
        for (index, socket) in sockets(&self.dir).iter().enumerate() {
            let mac = format!("02:00:00:00:00:0{}", index + 1);
            add(format!("guest{index}"), socket, mac, case.mapped);
        }
        for index in 0..case.idle_ports {
            let mac = format!("02:00:00:01:{:02x}:{:02x}", index >> 8, index & 0xff);
            // A port whose tails are mapped is never idle.
            add(format!("idle{index}"), &self.dir.join(format!("idle{index}")), mac, false);
        }
        let file = self.dir.join("fabnic.toml");
        std::fs::write(&file, config).context("cannot write a configuration")?;
        let mut launch = Launch::on_host(release_dir().join("fabnicd"));
        launch.arg("--config").arg(&file).log_to(self.dir.join("switch.log"));
        let mut child = launch.spawn()?;
        let ready = sockets(&self.dir);
        child.wait_until("its sockets", Duration::from_secs(120), || {
            api.exists() && ready.iter().all(|socket| socket.exists())
        })?;
        self.children.push(child);
        Ok(())
    }

    fn start_testpmd(&mut self) -> Result<()> {
        let mut launch = with_huge_pages(&self.lab, "dpdk-testpmd");
        launch.arg("--lcores").arg(format!("0@{GUEST_CPU},1@{SWITCH_CPU}"));
        launch.args(["--no-pci", "-m", "512", "--single-file-segments", "--file-prefix=fabnic-peer"]);
        for (index, socket) in sockets(&self.dir).iter().enumerate() {
            launch.arg(format!("--vdev=net_vhost{index},iface={}", socket.display()));
        }
        launch.args(["--", "--auto-start", "--forward-mode=io", "--nb-cores=1", "--txd=1024", "--rxd=1024"]);
        // Without a terminal it forwards until its input ends.
        launch.arg("-i").with_stdin().log_to(self.dir.join("switch.log"));
        let mut child = launch.spawn()?;
        let ready = sockets(&self.dir);
        child.wait_until("its sockets", Duration::from_secs(30), || {
            ready.iter().all(|socket| socket.exists())
        })?;
        self.children.push(child);
        Ok(())
    }

    fn start_ovs(&mut self) -> Result<()> {
        let dir = self.dir.display().to_string();
        let log = self.dir.join("switch.log");
        let ovs = |program: &str| {
            let mut launch = with_huge_pages(&self.lab, program);
            launch.env("OVS_RUNDIR", &dir).env("OVS_DBDIR", &dir).env("OVS_LOGDIR", &dir).log_to(&log);
            launch
        };
        let db = format!("--db=unix:{dir}/db.sock");
        output(
            ovs("ovsdb-tool")
                .arg("create")
                .arg(format!("{dir}/conf.db"))
                .arg("/usr/share/openvswitch/vswitch.ovsschema"),
        )?;
        let mut server = ovs("ovsdb-server")
            .arg(format!("{dir}/conf.db"))
            .arg(format!("--remote=punix:{dir}/db.sock"))
            .on_cpu(GUEST_CPU)
            .spawn()?;
        let db_socket = self.dir.join("db.sock");
        server.wait_until("its socket", Duration::from_secs(20), || db_socket.exists())?;
        self.children.push(server);
        output(ovs("ovs-vsctl").args([&db, "--no-wait", "init"]))?;
        output(
            ovs("ovs-vsctl")
                .args([&db, "--no-wait", "set", "Open_vSwitch", "."])
                .arg("other_config:dpdk-init=true")
                .arg(format!("other_config:dpdk-lcore-mask={:#x}", 1 << GUEST_CPU))
                .arg(format!("other_config:pmd-cpu-mask={:#x}", 1 << SWITCH_CPU))
                .arg("other_config:dpdk-extra=--no-pci -m 512 --file-prefix=fabnic-peer"),
        )?;
        let switch = ovs("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
            .arg(format!("unix:{dir}/db.sock"))
            .arg(format!("--unixctl={dir}/control"))
            .spawn()?;
        self.children.push(switch);
        let mut add = ovs("ovs-vsctl");
        add.args([
            &db,
            "--timeout=60",
            "add-br",
            "br0",
            "--",
            "set",
            "bridge",
            "br0",
            "datapath_type=netdev",
        ]);
        for (index, socket) in sockets(&self.dir).iter().enumerate() {
            let port = format!("p{index}");
            add.args(["--", "add-port", "br0", &port, "--", "set", "Interface", &port]);
            add.arg("type=dpdkvhostuserclient")
                .arg(format!("options:vhost-server-path={}", socket.display()));
            add.arg(format!("ofport_request={}", index + 1));
        }
        output(&add).with_context(|| self.log_tail())?;
        if self.peer == Peer::OvsFlow {
            output(ovs("ovs-ofctl").args(["del-flows", "br0"]))?;
            for (from, to) in [(1, 2), (2, 1)] {
                output(
                    ovs("ovs-ofctl")
                        .args(["add-flow", "br0"])
                        .arg(format!("in_port={from},actions=output:{to}")),
                )?;
            }
        }
        Ok(())
    }

    /// The process of the data path.
    pub(crate) fn id(&self) -> Option<u32> {
        self.children.last().map(Child::id)
    }

    /// Fails, with the end of its log, if the switch has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.children.iter_mut().try_for_each(Child::must_run)
    }

    /// The end of the switch's log.
    pub(crate) fn log_tail(&self) -> String {
        self.children.last().map(Child::log_tail).unwrap_or_default()
    }

    /// Cycles and packets of the switch's poll thread since it started, where it tells.
    pub(crate) fn work(&self) -> Option<Work> {
        match self.peer {
            Peer::Fabnic => fabnic_work(&self.dir.join("api.sock")),
            Peer::OvsFlow | Peer::OvsNormal => {
                let mut launch = self.lab.program("ovs-appctl");
                launch.arg("-t").arg(self.dir.join("control")).arg("dpif-netdev/pmd-stats-show");
                ovs_work(&output(&launch).ok()?)
            }
            Peer::Testpmd => None,
        }
    }
}

/// What a switch's poll thread has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Cycles in which it moved packets.
    pub(crate) busy_cycles: u64,
    /// Packets it took in.
    pub(crate) packets: u64,
}

impl Work {
    /// Cycles a packet between two readings.
    pub(crate) fn cycles_per_packet_since(self, before: Self) -> Option<f64> {
        let packets = self.packets.checked_sub(before.packets)?;
        let cycles = self.busy_cycles.checked_sub(before.busy_cycles)?;
        (packets > 0).then(|| cycles as f64 / packets as f64)
    }
}

fn fabnic_work(api: &Path) -> Option<Work> {
    let mut launch = Launch::on_host(release_dir().join("fabnic"));
    launch.arg("--api").arg(api).args(["worker", "show", "--json"]);
    let workers: serde_json::Value = serde_json::from_str(&output(&launch).ok()?).ok()?;
    let list = workers.as_array().or_else(|| workers.get("workers")?.as_array())?;
    let sum = |name: &str| list.iter().map(|worker| worker.get(name)?.as_u64()).sum::<Option<u64>>();
    Some(Work { busy_cycles: sum("busy_cycles")?, packets: sum("packets")? })
}

/// The first poll thread of `pmd-stats-show`, as Open vSwitch 4.0 writes it.
fn ovs_work(text: &str) -> Option<Work> {
    let after = |name: &str| text.split_once(name).map(|(_, rest)| rest);
    let number = |rest: &str| rest.split_whitespace().next()?.parse::<u64>().ok();
    let used = number(after("Used TSC cycles:")?)?;
    let busy_share =
        after("busy iterations:")?.split_once('(')?.1.split('%').next()?.trim().parse::<f64>().ok()?;
    let packets = number(after("Rx packets:")?)?;
    Some(Work { busy_cycles: (used as f64 * busy_share / 100.0) as u64, packets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_thread_statistics_of_ovs_are_read() {
        let text = "pmd thread numa_id 0 core_id 1:\n\n  Iterations:              7854157  (0.88 us/it)\n  \
                    - Used TSC cycles:   1000000  ( 99.9 % of total cycles)\n  \
                    - idle iterations:       7429874  ( 18.9 % of used cycles)\n  \
                    - busy iterations:        424283  ( 80.0 % of used cycles)\n  \
                    Rx packets:              8000  (3934 Kpps, 432 cycles/pkt)\n";
        let before = ovs_work(text).unwrap();
        assert_eq!(before, Work { busy_cycles: 800_000, packets: 8000 });
        let after = Work { busy_cycles: 900_000, packets: 9000 };
        assert_eq!(after.cycles_per_packet_since(before), Some(100.0));
        assert_eq!(before.cycles_per_packet_since(after), None);
        assert_eq!(ovs_work("main thread:\n  Rx packets: 0\n"), None);
    }
}
