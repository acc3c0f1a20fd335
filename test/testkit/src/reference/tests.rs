use super::*;
use crate::packets::{BROADCAST, Packet};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const C: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn access(vid: u16) -> PortConfig {
    PortConfig { vlan: Vlan::Access(vid), ..PortConfig::default() }
}

fn trunk(vlans: &[u16], native: Option<u16>) -> PortConfig {
    PortConfig {
        vlan: Vlan::Trunk { vlans: vlans.iter().copied().collect(), native },
        ..PortConfig::default()
    }
}

fn switch(ports: Vec<PortConfig>) -> Switch {
    Switch::new(Config { ports, ageing: 300, damping: None, rules: Vec::new() })
}

fn frame(dst: [u8; 6], src: [u8; 6]) -> Packet {
    Packet::ethernet(dst, src).payload(&[7; 46])
}

fn ports(outcome: &Outcome) -> Vec<usize> {
    outcome.delivered.iter().map(|(port, _)| *port).collect()
}

#[test]
fn floods_learns_and_forwards() {
    let mut switch = switch(vec![access(1), access(1), access(1), access(2)]);
    let first = switch.input(0, &frame(B, A).build(), 0);
    assert_eq!(ports(&first), [1, 2], "unknown: all of the VLAN but the sender");
    let back = switch.input(1, &frame(A, B).build(), 1);
    assert_eq!(ports(&back), [0]);
    assert_eq!(back.delivered[0].1, frame(A, B).build());
    assert_eq!(ports(&switch.input(0, &frame(B, A).build(), 2)), [1]);
    assert_eq!(ports(&switch.input(0, &frame(BROADCAST, A).build(), 2)), [1, 2]);
    assert_eq!(switch.input(1, &frame(B, C).build(), 2).refused, Some("same_port"));
    assert_eq!(switch.input(3, &frame(A, C).build(), 2).refused, Some("no_member"), "another VLAN");
}

#[test]
fn addresses_age_out_and_move() {
    let mut switch = switch(vec![access(1), access(1), access(1)]);
    switch.input(0, &frame(BROADCAST, A).build(), 0);
    assert_eq!(ports(&switch.input(1, &frame(A, B).build(), 300)), [0]);
    assert_eq!(ports(&switch.input(1, &frame(A, B).build(), 301)), [0, 2]);
    switch.input(2, &frame(BROADCAST, B).build(), 302);
    assert_eq!(ports(&switch.input(0, &frame(B, A).build(), 303)), [2]);
}

#[test]
fn limits_and_static_entries() {
    let mut limited = access(1);
    limited.fdb_limit = 1;
    let mut switch = switch(vec![limited, access(1), access(1)]);
    switch.input(0, &frame(BROADCAST, A).build(), 0);
    switch.input(0, &frame(BROADCAST, B).build(), 0);
    assert_eq!(switch.entries(0).len(), 1);
    switch.input(1, &frame(BROADCAST, B).build(), 0);
    // No room on port 0: B stays where it is.
    switch.input(0, &frame(BROADCAST, B).build(), 0);
    assert_eq!(switch.entries(0)[&(1, B)].port, 1);
    switch.add_static(1, C, 2);
    switch.input(1, &frame(BROADCAST, C).build(), 0);
    assert_eq!(ports(&switch.input(0, &frame(C, A).build(), 1_000_000)), [2]);
}

#[test]
fn tags_come_and_go() {
    let mut switch = switch(vec![access(10), trunk(&[10, 20], Some(30)), access(30), trunk(&[10, 30], None)]);
    let plain = frame(BROADCAST, A).build();
    let tagged = |vid, pcp| frame(BROADCAST, A).vlan(vid, pcp).build();
    let out = switch.input(0, &plain, 0);
    assert_eq!(out.delivered, [(1, tagged(10, 0)), (3, tagged(10, 0))]);
    // A tag of its own VLAN is taken by an access port; the priority goes on.
    let out = switch.input(0, &tagged(10, 5), 0);
    assert_eq!(out.delivered, [(1, tagged(10, 5)), (3, tagged(10, 5))]);
    // A priority tag is no VLAN tag, and is gone where the frame leaves untagged.
    let out = switch.input(1, &tagged(0, 6), 0);
    assert_eq!(out.delivered, [(2, plain.clone()), (3, tagged(30, 6))]);
    let out = switch.input(3, &tagged(30, 1), 0);
    assert_eq!(out.delivered, [(1, plain.clone()), (2, plain.clone())]);
    assert_eq!(switch.input(0, &tagged(20, 0), 0).refused, Some("vlan_not_allowed"));
    assert_eq!(switch.input(1, &tagged(11, 0), 0).refused, Some("vlan_not_allowed"));
    assert_eq!(switch.input(1, &tagged(4095, 0), 0).refused, Some("vlan_not_allowed"));
    assert_eq!(switch.input(3, &plain, 0).refused, Some("untagged_not_allowed"));
}

#[test]
fn states_and_sizes() {
    let (mut off, mut small) = (access(1), access(1));
    off.enabled = false;
    small.mtu = 1000;
    let mut switch = switch(vec![access(1), off, small]);
    assert_eq!(switch.input(1, &frame(BROADCAST, A).build(), 0).refused, Some("ingress_disabled"));
    switch.add_static(1, B, 1);
    assert_eq!(switch.input(0, &frame(B, A).build(), 0).refused, Some("egress_disabled"));
    let big = |len| Packet::ethernet(BROADCAST, A).size(len).build();
    assert_eq!(ports(&switch.input(0, &big(1014), 0)), [2]);
    assert_eq!(switch.input(0, &big(1015), 0).dropped, [(2, "egress_mtu")]);
    assert_eq!(switch.input(0, &big(1515), 0).refused, Some("ingress_mtu"));
    assert_eq!(ports(&switch.input_segments(0, &big(60_000), 1014, 0)), [2]);
    let tagged = Packet::ethernet(BROADCAST, A).vlan(1, 0).size(1518).build();
    assert_eq!(switch.input(0, &tagged, 0).dropped, [(2, "egress_mtu")], "the tag does not count");
}

#[test]
fn impossible_frames() {
    let mut switch = switch(vec![access(1), access(1)]);
    assert_eq!(switch.input(0, &[0; 13], 0).refused, Some("runt"));
    let tag_only = &frame(B, A).vlan(1, 0).build()[..17];
    assert_eq!(switch.input(0, tag_only, 0).refused, Some("runt"));
    assert_eq!(switch.input(0, &frame(B, [3, 0, 0, 0, 0, 1]).build(), 0).refused, Some("bad_source"));
    assert_eq!(switch.input(0, &frame(B, [0; 6]).build(), 0).refused, Some("bad_source"));
    let lldp = [1, 0x80, 0xc2, 0, 0, 0x0e];
    assert_eq!(switch.input(0, &frame(lldp, A).build(), 0).refused, Some("reserved_destination"));
    assert!(switch.entries(0).is_empty(), "none of these taught anything");
    let not_reserved = [1, 0x80, 0xc2, 0, 0, 0x10];
    assert_eq!(ports(&switch.input(0, &frame(not_reserved, A).build(), 0)), [1]);
}
