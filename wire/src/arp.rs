//! ARP (RFC 826) and RARP (RFC 903) for IPv4 over Ethernet.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16, transmute,
};

use crate::{
    EtherType, MacAddr,
    ethernet::{ETHERNET_LEN, EthernetHeader, MIN_FRAME_LEN},
};

/// An ARP packet of IPv4 over Ethernet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// 1: Ethernet.
    pub hardware_type: U16,
    /// 0x0800: IPv4.
    pub protocol_type: U16,
    /// 6.
    pub hardware_len: u8,
    /// 4.
    pub protocol_len: u8,
    /// What it is: [`ArpPacket::REQUEST`] and so on.
    pub operation: U16,
    /// Sender's MAC address.
    pub sender_mac: MacAddr,
    /// Sender's IPv4 address.
    pub sender_ip: [u8; 4],
    /// Target's MAC address; zero in a request.
    pub target_mac: MacAddr,
    /// Target's IPv4 address.
    pub target_ip: [u8; 4],
}

impl ArpPacket {
    /// Bytes.
    pub const LEN: usize = 28;
    /// Who has the target's IPv4 address?
    pub const REQUEST: u16 = 1;
    /// The sender has it.
    pub const REPLY: u16 = 2;
    /// RARP: who knows the IPv4 address of the target's MAC address?
    pub const REVERSE_REQUEST: u16 = 3;

    /// The packet at the start of the bytes, if it is about IPv4 over Ethernet.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<&Self> {
        let (packet, _) = Self::ref_from_prefix(bytes).ok()?;
        let of_ipv4 = (packet.hardware_type.get(), packet.hardware_len, packet.protocol_len) == (1, 6, 4)
            && packet.protocol_type.get() == EtherType::IPV4.0;
        of_ipv4.then_some(packet)
    }
}

/// The broadcast RARP request by which `mac` is announced after a move, padded to the shortest Ethernet frame: what
/// VHOST_USER_SEND_RARP asks a back end to send, byte for byte what QEMU sends (net/announce.c).
pub fn rarp_announce(mac: MacAddr) -> [u8; MIN_FRAME_LEN] {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Announce {
        ethernet: EthernetHeader,
        arp: ArpPacket,
        padding: [u8; MIN_FRAME_LEN - ETHERNET_LEN - ArpPacket::LEN],
    }
    transmute!(Announce {
        ethernet: EthernetHeader {
            dst: MacAddr::BROADCAST,
            src: mac,
            ethertype: U16::new(EtherType::RARP.0)
        },
        arp: ArpPacket {
            hardware_type: U16::new(1),
            protocol_type: U16::new(EtherType::IPV4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(ArpPacket::REVERSE_REQUEST),
            sender_mac: mac,
            sender_ip: [0; 4],
            target_mac: mac,
            target_ip: [0; 4],
        },
        padding: [0; 18],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_is_read_back() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
        let frame = rarp_announce(mac);
        let (ethernet, rest) = EthernetHeader::split(&frame).unwrap();
        assert_eq!((ethernet.dst, ethernet.src), (MacAddr::BROADCAST, mac));
        assert_eq!(ethernet.ethertype(), EtherType::RARP);
        let arp = ArpPacket::parse(rest).unwrap();
        assert_eq!((arp.operation.get(), arp.sender_mac, arp.target_mac), (3, mac, mac));
        assert_eq!(&frame[14..22], [0, 1, 8, 0, 6, 4, 0, 3]);
    }

    #[test]
    fn other_hardware_is_none() {
        let mut arp = rarp_announce(MacAddr::ZERO)[14..].to_vec();
        assert!(ArpPacket::parse(&arp).is_some());
        assert!(ArpPacket::parse(&arp[..27]).is_none());
        arp[4] = 8;
        assert!(ArpPacket::parse(&arp).is_none());
    }
}
