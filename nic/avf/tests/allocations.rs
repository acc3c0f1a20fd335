//! The data path allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/packet.rs"]
mod packet;

use common::{Guest, MAC_A, MAC_B};
use fabnic_avf::Settings;
use fabnic_avf_driver::{IpHeader, Options, TransportHeader, Work};
use fabnic_port::{Burst, Tally};
use packet::{Packet, Proto, Shape};

fn start(mac: [u8; 6]) -> Guest {
    let settings = Settings { mac, mtu: 9000, ..Settings::default() };
    Guest::start(settings, Options { ring_len: 512, buffer_len: 4096, ..Options::default() })
}

#[test]
fn a_burst_allocates_nothing() {
    let (mut a, mut b) = (start(MAC_A), start(MAC_B));
    a.driver.set_vlan_offloads(false, true).unwrap();
    b.driver.set_vlan_offloads(true, false).unwrap();
    let shape = Shape {
        v6: false,
        proto: Proto::Tcp,
        ip_options: 0,
        tcp_options: 3,
        tag: None,
        payload: 1000,
        seed: 1,
        tcp_flags: 0x10,
    };
    let small = Packet::new(MAC_B, MAC_A, &shape);
    let large = Packet::new(MAC_B, MAC_A, &Shape { payload: 30_000, ..shape.clone() });
    let sctp = Packet::new(MAC_B, MAC_A, &Shape { proto: Proto::Sctp, payload: 5000, ..shape });
    let work = |packet: &Packet, mss, transport| Work {
        ip: IpHeader::V4Checksum,
        transport,
        lens: [packet.l3 as u16, (packet.l4 - packet.l3) as u16, (packet.payload - packet.l4) as u16],
        mss,
        tag: Some(7),
    };
    let mut burst = Burst::new();
    for round in 0..20 {
        let (transmit, bus) = a.driver.transmit(0).unwrap();
        transmit.clean();
        for _ in 0..15 {
            transmit.push(&small.bytes, &Work::default(), &[]);
            transmit.push(
                &small.unfinished(true, false),
                &work(&small, None, TransportHeader::Tcp),
                &[50, 200],
            );
            transmit.push(&sctp.bytes, &work(&sctp, None, TransportHeader::Sctp), &[]);
        }
        transmit.push(&large.unfinished(true, true), &work(&large, Some(1448), TransportHeader::Tcp), &[]);
        transmit.ring(bus);
        let mut tally = Tally::default();
        let (ingress, egress) = (&a.port.ingress()[0], &b.port.egress()[0]);
        let count = allocation_counter::measure(|| {
            let mut ingress = ingress.lock();
            let ingress = ingress.as_mut().unwrap();
            ingress.receive(&mut burst).unwrap();
            let mut picks = [0_u8; 64];
            (0_u8..).zip(picks.iter_mut()).for_each(|(n, pick)| *pick = n);
            let mut egress = egress.lock();
            egress.as_mut().unwrap().deliver(&mut burst, &picks[..46], &mut tally).unwrap();
            ingress.complete(&burst);
        });
        assert_eq!((burst.len(), tally.frames), (46, 46), "{tally:?}");
        assert_eq!(count.count_total, 0, "round {round}");
        assert_eq!(b.received(0).len(), 45 + 21);
    }
}
