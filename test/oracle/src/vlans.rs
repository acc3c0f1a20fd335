//! Random configurations of addresses, VLANs and floods, given to the kernel's bridge and to the switch.
//!
//! What is left out because the two are meant to differ is told in docs/switch-l2.md: link-local groups, the MTU of the
//! sending port, static entries that the kernel lets move.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use fabnic_switch::{FdbKind, PortSettings, ReceiveFilter, SwitchConfig, VlanMode, VlanProtocol};
use fabnic_wire::{MacAddr, Vid};
use proptest::prelude::*;

use crate::verdict::{Verdict, compare, same};
use crate::{Bridge, BridgePort, Fabric, Filtering, Inside};

/// Ports of the bridge and of the switch.
const PORTS: usize = 5;

#[derive(Clone, Debug)]
struct Case {
    ports: Vec<BridgePort>,
    /// Address, VLAN and port of entries that neither move nor age.
    pinned: Vec<(u8, Vid, usize)>,
    frames: Vec<(usize, Vec<u8>)>,
}

/// `n`: one that is no VLAN stands for the default one.
fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap_or(Vid::DEFAULT)
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn port() -> impl Strategy<Value = BridgePort> {
    let tagged = prop::collection::btree_set(1..5_u16, 0..5);
    let pvid = prop::option::weighted(0.8, 1..5_u16);
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.3), prop::array::uniform3(0..4_u8));
    (any::<bool>(), tagged, pvid, flags).prop_map(|(access, tagged, pvid, (learning, isolated, flooded))| {
        let tagged: BTreeSet<u16> = if access { BTreeSet::new() } else { tagged };
        BridgePort {
            tagged: tagged.into_iter().map(vid).collect(),
            pvid: pvid.map(vid),
            learning,
            isolated,
            flooded: flooded.map(|n| n > 0),
        }
    })
}

fn address() -> impl Strategy<Value = [u8; 6]> {
    (0..20_u8, 0..6_u8).prop_map(|(which, n)| match which {
        0..14 => station(n),
        14..16 => [0xff; 6],
        16 => [1, 0, 0x5e, 0, 0, n],
        17 => [0x33, 0x33, 0, 0, 0, n],
        18 => [1, 0x80, 0xc2, 0, 0, 0x10 + n],
        _ => [0; 6],
    })
}

fn frame(kinds: &'static [u16]) -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec((0..kinds.len(), 0..9_u16, 0..16_u16), 0..3);
    (address(), address(), tags, 0..60_usize, any::<u8>()).prop_map(move |(dst, src, tags, more, fill)| {
        let mut bytes = [dst, src].concat();
        for (kind, number, priority) in tags {
            let number = if number == 8 { 4095 } else { number % 6 };
            bytes.extend(kinds[kind].to_be_bytes());
            bytes.extend((number | priority << 12).to_be_bytes());
        }
        // An EtherType for experiments (IEEE 802, section 9.2.3), so that nobody looks behind it.
        bytes.extend([0x88, 0xb5]);
        bytes.resize(60 + more, fill);
        bytes
    })
}

fn case(kinds: &'static [u16]) -> impl Strategy<Value = Case> {
    let pinned = prop::collection::vec((0..6_u8, (1..5_u16).prop_map(vid), 0..PORTS), 0..3);
    let frames = prop::collection::vec((0..PORTS, frame(kinds)), 20..120);
    (prop::collection::vec(port(), PORTS), pinned, frames).prop_map(|(ports, pinned, frames)| Case {
        ports,
        pinned,
        frames,
    })
}

/// A port of the bridge in the switch's words. A bridge that does not look at tags is one VLAN whose frames carry what they like.
pub fn settings(port: &BridgePort, filtering: Filtering) -> PortSettings {
    let vlan = match (filtering, port.pvid) {
        (Filtering::Off, _) => VlanMode::Access(Vid::DEFAULT),
        (_, Some(pvid)) if port.tagged.is_empty() => VlanMode::Access(pvid),
        (_, native) => VlanMode::Trunk { vlans: port.tagged.iter().copied().collect(), native },
    };
    let [flood, mcast_flood, bcast_flood] = port.flooded;
    PortSettings {
        vlan,
        vlan_protocol: match filtering {
            Filtering::Dot1Q => VlanProtocol::Dot1Q,
            Filtering::Off | Filtering::Dot1Ad => VlanProtocol::Dot1Ad,
        },
        learning: port.learning,
        isolated: port.isolated,
        receive: ReceiveFilter { flood, mcast_flood, bcast_flood, ..ReceiveFilter::default() },
        ..PortSettings::default()
    }
}

/// What stands in the forwarding database of the switch, in the bridge's words.
fn known(fabric: &Fabric, filtering: Filtering) -> BTreeSet<(Option<u16>, MacAddr, u32)> {
    let entries = fabric.switch.fdb().entries().into_iter().filter(|entry| entry.kind == FdbKind::Learned);
    entries
        .map(|entry| ((filtering != Filtering::Off).then_some(entry.vlan.get()), entry.mac, entry.port.0))
        .collect()
}

fn run(bridge: &mut Bridge, filtering: Filtering, case: &Case, verdict: &mut Verdict) -> Result<()> {
    bridge.configure(filtering, 300, &case.ports)?;
    let settings: Vec<_> = case.ports.iter().map(|port| settings(port, filtering)).collect();
    let mut fabric = Fabric::new(&SwitchConfig::default(), settings.clone())?;
    for (n, vlan, port) in &case.pinned {
        let mac = MacAddr::new(station(*n));
        let (vlan, tag) = match filtering {
            Filtering::Off => (Vid::DEFAULT, None),
            _ => (*vlan, Some(*vlan)),
        };
        // The kernel takes no entry for a VLAN that the port does not carry.
        if settings.get(*port).is_some_and(|settings| settings.vlan.is_member(vlan)) {
            bridge.pin(mac, tag, *port)?;
            let id = fabric.ports.get(*port).context("no such port")?.id;
            fabric.switch.fdb().add_static(vlan, mac, id)?;
        }
    }
    for (at, (port, frame)) in case.frames.iter().enumerate() {
        let kernel = bridge.send(*port, frame)?;
        verdict.count(&kernel);
        same(fabric.send(*port, frame)?, kernel, || format!("frame {at} from port {port}: {frame:02x?}"))?;
    }
    let (own, kernel) = (known(&fabric, filtering), bridge.learned()?);
    ensure!(
        own == kernel,
        "learned by the switch: {own:?}
 by the kernel: {kernel:?}"
    );
    Ok(())
}

/// `kinds`: the EtherTypes of the tags that frames carry.
///
/// # Errors
/// If the two differ, with the smallest case in which they do.
pub fn compare_vlans(
    inside: &Inside,
    filtering: Filtering,
    kinds: &'static [u16],
    cases: u32,
) -> Result<Verdict> {
    let mut bridge = Bridge::new(inside, PORTS)?;
    compare(cases, &case(kinds), |case, verdict| run(&mut bridge, filtering, &case, verdict))
}
