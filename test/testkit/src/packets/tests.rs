use fabnic_wire::checksum::{Verification, verify};

use super::*;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn valid(frame: &[u8]) -> bool {
    verify(frame) == Verification::Good
}

#[test]
fn checksums_are_right() {
    let v4 = Packet::ethernet(B, A).ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    let v6 = Packet::ethernet(B, A).vlan(5, 3).ipv6([1; 16], [2; 16]);
    for base in [v4, v6] {
        assert!(valid(&base.clone().udp(1, 2).payload(b"odd").build()));
        assert!(valid(
            &base.clone().tcp(1, 2, 3, 4, tcp::SYN).tcp_options(&[2, 4, 5, 0xb4]).size(900).build()
        ));
    }
}

#[test]
fn a_partial_checksum_is_not_a_whole_one() {
    let packet = Packet::ethernet(B, A).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).payload(b"hello");
    assert!(valid(&packet.clone().build()));
    assert!(!valid(&packet.partial_checksum().build()));
}

#[test]
fn sizes_and_places() {
    let packet = Packet::ethernet(B, A).vlan(10, 0).ipv6([1; 16], [2; 16]).udp(1, 2);
    assert_eq!((packet.l3(), packet.l4(), packet.headers()), (18, 58, 66));
    assert_eq!(packet.clone().size(1514).build().len(), 1514);
    assert_eq!(packet.clone().size(10).build().len(), 66);
    assert_eq!(arp_request(A, [10, 0, 0, 1], [10, 0, 0, 2]).len(), 60);
}
