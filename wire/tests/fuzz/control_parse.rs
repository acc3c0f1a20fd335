//! Any bytes as a message that the switch reads or answers: DHCP, DHCPv6, neighbour discovery, LLDP. What is read is bounded,
//! lies in the bytes, and comes out again when it is written.

use fabnic_wire::MacAddr;
use fabnic_wire::build::Writer;
use fabnic_wire::dhcp::{self, DhcpMessage, DhcpType};
use fabnic_wire::dhcp6::{self, Dhcp6Message};
use fabnic_wire::lldp::LldpUnit;
use fabnic_wire::nd::{self, NdMessage, NdOption};

/// The first byte says as what the others are read.
pub(crate) fn run(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    match which % 4 {
        0 => v4(bytes),
        1 => v6(bytes),
        2 => neighbour(bytes),
        _ => lldp(bytes),
    }
}

fn v4(bytes: &[u8]) {
    let Some(message) = DhcpMessage::parse(bytes) else { return };
    let options: Vec<_> = message.options().collect();
    assert!(options.len() <= dhcp::MAX_OPTIONS);
    for (code, value) in &options {
        assert!(*code != 0 && *code != 255 && value.len() <= 255);
        let first = options.iter().find(|(found, _)| found == code).map(|(_, value)| *value);
        assert_eq!(message.option(*code), first);
    }
    let mut out = [0; 1000];
    let mut to = Writer::new(&mut out);
    dhcp::reply(&mut to, &message, DhcpType::ACK, [10, 0, 0, 7].into(), [10, 0, 0, 1].into(), |options| {
        options.number(51, 3600);
    });
    let len = to.finish().expect("room for a reply");
    let reply = DhcpMessage::parse(&out[..len]).expect("a reply");
    assert_eq!((reply.message_type(), reply.lease_time()), (Some(DhcpType::ACK), Some(3600)));
    assert_eq!((reply.header.xid, reply.header.chaddr), (message.header.xid, message.header.chaddr));
    assert_eq!(reply.option(61), message.option(61));
}

fn v6(bytes: &[u8]) {
    let Some(message) = Dhcp6Message::parse(bytes) else { return };
    let mut out = [0; 4096];
    let mut to = Writer::new(&mut out);
    dhcp6::begin(&mut to, message.kind, message.transaction);
    let options: Vec<_> = message.options().collect();
    assert!(options.len() <= dhcp6::MAX_OPTIONS);
    for (code, value) in &options {
        dhcp6::put(&mut to, *code, |to| to.put(value));
    }
    if let Some(len) = to.finish() {
        assert_eq!(out[..len], bytes[..len]);
    }
    for association in message.associations() {
        assert!(association.addresses().count() <= dhcp6::MAX_OPTIONS);
        let _ = association.options.status();
    }
}

fn neighbour(bytes: &[u8]) {
    let Some((message, options)) = NdMessage::parse(bytes) else { return };
    let mut out = [0; 4096];
    let mut to = Writer::new(&mut out);
    to.put(&bytes[..4]);
    match message {
        NdMessage::RouterSolicitation => to.put(&bytes[4..8]),
        NdMessage::RouterAdvertisement(advertisement) => {
            nd::put_router_advertisement(&mut to, &advertisement)
        }
        NdMessage::NeighborSolicitation { target } => {
            to.put(&bytes[4..8]);
            to.put(&target.octets());
        }
        NdMessage::NeighborAdvertisement { flags, target } => {
            nd::put_neighbor_advertisement(&mut to, flags, target);
        }
        NdMessage::Redirect { target, destination } => {
            to.put(&bytes[4..8]);
            to.put(&target.octets());
            to.put(&destination.octets());
        }
    }
    let fixed = to.len();
    for option in options.clone() {
        nd::put_option(&mut to, &option);
    }
    let Some(len) = to.finish() else { return };
    assert_eq!(len, bytes.len());
    // What was read of the written is what was read: bits that nobody reads may differ.
    let (again, written) = NdMessage::parse(&out[..len]).expect("what was written");
    assert_eq!((again, written.clone().count()), (message, options.clone().count()));
    assert!(written.eq(options.clone()), "options from {fixed} on");
    let own = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let says = |option: NdOption<'_>| match option {
        NdOption::SourceLink(mac) | NdOption::TargetLink(mac) => mac == own,
        NdOption::Other(kind, _) => kind != 1 && kind != 2,
        _ => true,
    };
    assert_eq!(options.clone().link_is(own), options.clone().all(says));
}

fn lldp(bytes: &[u8]) {
    let Some(unit) = LldpUnit::parse(bytes) else { return };
    let mut out = [0; 4096];
    let mut to = Writer::new(&mut out);
    unit.write(&mut to, MacAddr::new([2, 0, 0, 0, 0, 1]));
    let len = to.finish().expect("room for a unit");
    let again = LldpUnit::parse(&out[14..len]).expect("what was written");
    assert_eq!((again.chassis, again.port, again.ttl), (unit.chassis, unit.port, unit.ttl));
    assert_eq!(
        (again.capabilities, again.pvid, again.max_frame),
        (unit.capabilities, unit.pvid, unit.max_frame)
    );
}
