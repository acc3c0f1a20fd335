//! What many ports and VLANs cost: memory and time of a change of configuration.
//!
//! `cargo run --release -p fabnic-switch --example port_scale`: 4,096 trunks that carry all 4,094 VLANs, and 10,000 access
//! ports, none of them connected.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use fabnic_port::{Burst, Fault, Ingress, Port, PortId, PortKind};
use fabnic_switch::{InlineSwitch, PortSettings, SwitchConfig, VlanMode, VlanSet};
use fabnic_wire::Vid;

const TRUNKS: u32 = 4096;
const ACCESS: u32 = 10_000;

fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap_or(Vid::DEFAULT)
}

/// Memory in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn settings(index: u32, vlans: &VlanSet) -> PortSettings {
    let vlan = match index.checked_sub(TRUNKS) {
        None => VlanMode::Trunk { vlans: vlans.clone(), native: None },
        Some(index) => VlanMode::Access(vid((index % 4094) as u16 + 1)),
    };
    PortSettings { vlan, ..PortSettings::default() }
}

/// A broadcast in each VLAN in turn.
struct Broadcasts {
    next: u16,
    map: Arc<fabnic_memory::Map>,
}

impl Ingress for Broadcasts {
    fn backlog(&mut self) -> usize {
        1
    }
    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.begin(&self.map);
        let [high, low] = self.next.to_be_bytes();
        let mut frame = [0xff; 64];
        if let Some(head) = frame.get_mut(6..18) {
            head.copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x81, 0, high, low, 0x88, 0xb5]);
        }
        burst.push_bytes(&frame);
        self.next = self.next % 4094 + 1;
        Ok(())
    }
    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }
    fn arm(&mut self) -> bool {
        true
    }
    fn disarm(&mut self) {}
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let all: VlanSet = (1..=4094).map(vid).collect();
    let ports: Vec<_> = (0..TRUNKS + ACCESS)
        .map(|id| Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1)))
        .collect();
    let (map, _) = fabnic_memory::Map::anonymous(4096)?;
    if let Some(cell) = ports.first().and_then(|port| port.ingress().first()) {
        cell.install(Box::new(Broadcasts { next: 1, map }));
    }
    let mut switch = InlineSwitch::new(&SwitchConfig::default());
    let configured = || (0..).zip(&ports).map(|(id, port)| (Arc::clone(port), settings(id, &all))).collect();
    let empty = resident();
    for round in ["first", "again"] {
        let list = configured();
        let begun = Instant::now();
        switch.set_ports(list);
        println!("set_ports, {round}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    println!("memory of the ports in the switch: {} KiB", resident().saturating_sub(empty));
    let (before, begun) = (resident(), Instant::now());
    for _ in 0..4094 {
        switch.poll(PortId(0), 0)?;
        while switch.deliver_slice() > 0 {}
    }
    let copies = switch.totals().dropped;
    println!(
        "a first broadcast in each VLAN: {:.1} us each, {:.1} ns a copy, memory of the lists {} KiB",
        begun.elapsed().as_secs_f64() * 1e6 / 4094.0,
        begun.elapsed().as_secs_f64() * 1e9 / copies as f64,
        resident().saturating_sub(before),
    );
    Ok(())
}
