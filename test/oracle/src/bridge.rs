//! The kernel's bridge with TAP devices as its ports.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fabnic_memory::Map;
use fabnic_port::{Burst, Egress as _, Ingress as _, Tally};
use fabnic_tap::{Tap, TapConfig, TapEgress, TapIngress};
use fabnic_wire::{MacAddr, Vid};

use crate::Inside;
use crate::fabric::{bytes, load};

/// Whether and how the bridge looks at tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// It does not: tags are part of what frames carry.
    Off,
    /// 802.1Q tags.
    Dot1Q,
    /// 802.1ad tags.
    Dot1Ad,
}

/// How a port of the bridge is set, in the words of `bridge`.
#[derive(Clone, Debug)]
pub struct BridgePort {
    /// Its tagged VLANs.
    pub tagged: Vec<Vid>,
    /// The VLAN of what comes untagged, which leaves untagged.
    pub pvid: Option<Vid>,
    /// `learning`.
    pub learning: bool,
    /// `isolated`.
    pub isolated: bool,
    /// `flood`, `mcast_flood`, `bcast_flood`.
    pub flooded: [bool; 3],
}

/// The address of the bridge itself.
const OWN: MacAddr = MacAddr([0x0a, 0, 0, 0, 2, 0]);

struct Side {
    tap: Tap,
    ingress: TapIngress,
    egress: TapEgress,
}

/// A bridge `br0` and its ports `tap0`, `tap1` and so on.
pub struct Bridge {
    sides: Vec<Side>,
    memory: Arc<Map>,
    burst: Burst,
}

impl core::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bridge").field("ports", &self.sides.len()).finish_non_exhaustive()
    }
}

/// Runs one of iproute2's programs over a list of commands, one a line. Gives what it shows, with statistics.
pub(crate) fn batch(program: &str, commands: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(["-statistics", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} (iproute2) is needed"))?;
    child.stdin.take().context("a pipe was asked for")?.write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} refused: {errors}\n{commands}");
    Ok(String::from_utf8(output.stdout)?)
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Bridge {
    /// The TAP devices, not in a bridge yet.
    ///
    /// # Errors
    /// If one cannot be made.
    pub fn new(_: &Inside, ports: usize) -> Result<Bridge> {
        let (memory, _) = Map::anonymous(1 << 17).context("no memory for frames")?;
        let mut sides = Vec::new();
        for n in 0..ports {
            let config = TapConfig {
                offloads: false,
                mtu: Some(1500),
                mac: Some(MacAddr::new([0x0a, 0, 0, 0, 1, u8::try_from(n)?])),
                ..TapConfig::new(format!("tap{n}"))
            };
            let tap = Tap::open(&config)?;
            let (ingress, egress) = tap.pair(0)?;
            sides.push(Side { tap, ingress, egress });
        }
        Ok(Bridge { sides, memory, burst: Burst::new() })
    }

    /// Whether this kernel's bridge can look at tags at all.
    ///
    /// # Errors
    /// If there is no bridge in this kernel.
    pub fn can_filter(_: &Inside) -> Result<bool> {
        batch("ip", "link add probe type bridge\n").context("this kernel has no bridge")?;
        let can = batch("ip", "link set probe type bridge vlan_filtering 1\n").is_ok();
        batch("ip", "link del probe\n")?;
        Ok(can)
    }

    /// Makes the bridge anew, with these ports and an empty forwarding database. `ageing`: in seconds.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn configure(&mut self, filtering: Filtering, ageing: u32, ports: &[BridgePort]) -> Result<()> {
        ensure!(ports.len() == self.sides.len(), "{} ports, expected {}", ports.len(), self.sides.len());
        let kind = match filtering {
            Filtering::Off => "",
            Filtering::Dot1Q => "vlan_filtering 1 vlan_default_pvid 0 vlan_protocol 802.1Q",
            Filtering::Dot1Ad => "vlan_filtering 1 vlan_default_pvid 0 vlan_protocol 802.1ad",
        };
        // Gone the first time.
        let _ = batch("ip", "link del br0\n");
        let mut links = format!(
            "link add br0 address {OWN} type bridge {kind} stp_state 0 mcast_snooping 0 ageing_time {}\n",
            ageing * 100
        );
        links.push_str("link set br0 up\n");
        let mut settings = String::new();
        for (side, port) in self.sides.iter().zip(ports) {
            let tap = side.tap.name();
            writeln!(links, "link set {tap} master br0")?;
            let [unicast, multicast, broadcast] = port.flooded.map(switch);
            writeln!(
                settings,
                "link set dev {tap} learning {} isolated {} flood {unicast} mcast_flood {multicast} bcast_flood {broadcast}",
                switch(port.learning),
                switch(port.isolated),
            )?;
            if filtering == Filtering::Off {
                continue;
            }
            for vid in port.tagged.iter().filter(|vid| Some(**vid) != port.pvid) {
                writeln!(settings, "vlan add dev {tap} vid {vid}")?;
            }
            if let Some(pvid) = port.pvid {
                writeln!(settings, "vlan add dev {tap} vid {pvid} pvid untagged")?;
            }
        }
        batch("ip", &links)?;
        batch("bridge", &settings)?;
        // What the stack sent while devices came and went is none of the test's.
        self.drain()?;
        Ok(())
    }

    /// Watches who listens to which group, in all versions, and asks nobody; hosts at one port leave at once.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn snoop(&mut self, fast_leave: usize) -> Result<()> {
        let tap = self.sides.get(fast_leave).context("no such port")?.tap.name();
        batch(
            "ip",
            "link set br0 type bridge mcast_snooping 1 mcast_querier 0 mcast_igmp_version 3 mcast_mld_version 2\n",
        )?;
        batch("bridge", &format!("link set dev {tap} fastleave on\n"))?;
        self.drain().map(drop)
    }

    /// An entry that neither moves nor ages. `vlan`: `None` of a bridge that does not filter.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn pin(&mut self, mac: MacAddr, vlan: Option<Vid>, port: usize) -> Result<()> {
        let tap = self.sides.get(port).context("no such port")?.tap.name();
        let vlan = vlan.map(|vid| format!("vlan {vid} ")).unwrap_or_default();
        batch("bridge", &format!("fdb replace {mac} dev {tap} {vlan}master static sticky\n")).map(drop)
    }

    /// What the bridge has learned: the VLAN, unless it does not filter, the address, the number of the port.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn learned(&self) -> Result<BTreeSet<(Option<u16>, MacAddr, u32)>> {
        let output = Command::new("bridge").args(["fdb", "show", "br", "br0"]).output()?;
        ensure!(output.status.success(), "bridge fdb show failed");
        let text = String::from_utf8(output.stdout)?;
        let mut learned = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Of the device alone, or set by hand.
            if !words.contains(&"master") || words.contains(&"permanent") || words.contains(&"static") {
                continue;
            }
            let after = |word| words.iter().skip_while(|w| **w != word).nth(1).copied();
            let mac =
                words.first().context("an empty line")?.parse().map_err(|_| anyhow!("no address: {line}"))?;
            let port = after("dev").and_then(|dev| dev.strip_prefix("tap")).context("no port")?.parse()?;
            learned.insert((after("vlan").map(str::parse).transpose()?, mac, port));
        }
        Ok(learned)
    }

    /// Sends a frame into a port; gives what left each.
    ///
    /// # Errors
    /// If a device is gone.
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Result<Vec<Vec<Vec<u8>>>> {
        load(&mut self.burst, &self.memory, frame)?;
        let side = self.sides.get_mut(port).context("no such port")?;
        let mut tally = Tally::default();
        side.egress.deliver(&mut self.burst, &[0], &mut tally)?;
        if tally.frames != 1 {
            bail!("the kernel refused a frame of {} bytes", frame.len());
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut all = Vec::new();
        for side in &mut self.sides {
            let mut got = Vec::new();
            loop {
                side.ingress.receive(&mut self.burst)?;
                if self.burst.is_empty() {
                    break;
                }
                let all = (0..self.burst.len()).map(|index| bytes(&self.burst, index));
                // What the bridge sends itself, joining groups, is no answer to anything.
                got.extend(all.filter(|frame| frame.get(6..12) != Some(&OWN.octets())));
                side.ingress.complete(&self.burst);
            }
            all.push(got);
        }
        Ok(all)
    }
}
