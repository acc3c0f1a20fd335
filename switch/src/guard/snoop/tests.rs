use std::sync::Arc;

use super::*;
use crate::guard::GuardSettings;
use crate::guard::packets::*;
use crate::versions::Versions;

/// Port 1 and 2 are VMs, port 9 has the servers.
struct Bench {
    vm: GuardSettings,
    servers: GuardSettings,
    bindings: Bindings,
    snooper: Snooper,
    now: Tick,
    dry: bool,
}

fn bench() -> Bench {
    let vm = GuardSettings { max_bindings: 2, ..GuardSettings::strict([]) };
    let servers = GuardSettings { trusted: true, ..GuardSettings::default() };
    let bindings = Bindings::new(100, Arc::new(Versions::new()));
    Bench { vm, servers, bindings, snooper: Snooper::default(), now: 100, dry: false }
}

impl Bench {
    fn send(&self, port: u32, bytes: &[u8]) -> Result<(), DropReason> {
        let sender = Sender {
            port: PortId(port),
            settings: if port == 9 { &self.servers } else { &self.vm },
            is_access: true,
            protocol: crate::settings::VlanProtocol::Dot1Q,
            vlan: Vid::DEFAULT,
            bindings: &self.bindings,
            now: self.now,
            dry: self.dry,
        };
        self.snooper.look(&sender, &Fields::of(bytes).unwrap(), bytes)
    }

    fn owner(&self, address: impl Into<IpAddr>) -> Option<(u32, Option<Tick>)> {
        self.bindings.lookup(Vid::DEFAULT, address.into()).map(|held| (held.port.0, held.expires))
    }
}

const REQUEST: &[u8] = &[53, 1, 3, 50, 4, 10, 0, 0, 7];
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn ack(lease: u32) -> Vec<u8> {
    [&[53, 1, 5, 51, 4][..], &lease.to_be_bytes()].concat()
}

#[test]
fn a_lease_makes_a_binding() {
    let mut bench = bench();
    assert_eq!(bench.send(9, &dhcp_server(mac(1), 7, v4(7), &ack(60))), Ok(()));
    assert_eq!(bench.owner(v4(7)), None, "nobody asked");
    bench.dry = true;
    bench.send(1, &dhcp_client(mac(1), 7, NONE, REQUEST)).unwrap();
    bench.dry = false;
    assert_eq!(bench.snooper.len(), 0);
    bench.send(1, &dhcp_client(mac(1), 7, NONE, REQUEST)).unwrap();
    assert_eq!(bench.snooper.len(), 1);
    bench.send(9, &dhcp_server(mac(2), 7, v4(7), &ack(60))).unwrap();
    bench.send(9, &dhcp_server(mac(1), 8, v4(7), &ack(60))).unwrap();
    assert_eq!(bench.owner(v4(7)), None, "another client, another transaction");
    bench.send(9, &dhcp_server(mac(1), 7, v4(7), &ack(60))).unwrap();
    assert_eq!(bench.owner(v4(7)), Some((1, Some(160))));
    assert_eq!(bench.snooper.len(), 0);
    // Renewed: unicast, with the address it has.
    bench.now = 130;
    bench.send(1, &dhcp_client(mac(1), 9, v4(7), &[53, 1, 3])).unwrap();
    bench.send(9, &dhcp_server(mac(1), 9, v4(7), &ack(u32::MAX))).unwrap();
    assert_eq!(bench.owner(v4(7)), Some((1, None)), "for ever");
    assert_eq!(bench.send(2, &dhcp_client(mac(2), 1, v4(7), &[53, 1, 7])), Err(DropReason::DhcpSpoof));
    bench.send(1, &dhcp_client(mac(1), 1, v4(7), &[53, 1, 7])).unwrap();
    assert_eq!(bench.owner(v4(7)), None, "released");
}

#[test]
fn naks_declines_and_informs() {
    let bench = bench();
    let lease = |xid| {
        bench.send(1, &dhcp_client(mac(1), xid, NONE, REQUEST)).unwrap();
        bench.send(9, &dhcp_server(mac(1), xid, v4(7), &ack(60))).unwrap();
        assert_eq!(bench.owner(v4(7)), Some((1, Some(160))));
    };
    lease(1);
    bench.send(1, &dhcp_client(mac(1), 2, NONE, REQUEST)).unwrap();
    bench.send(9, &dhcp_server(mac(1), 2, NONE, &[53, 1, 6])).unwrap();
    assert_eq!(bench.owner(v4(7)), None, "refused");
    lease(3);
    bench.send(1, &dhcp_client(mac(1), 4, NONE, &[53, 1, 4, 50, 4, 10, 0, 0, 7])).unwrap();
    assert_eq!(bench.owner(v4(7)), None, "declined");
    bench.send(1, &dhcp_client(mac(1), 5, v4(8), &[53, 1, 8])).unwrap();
    bench.send(9, &dhcp_server(mac(1), 5, v4(8), &ack(60))).unwrap();
    assert_eq!(bench.owner(v4(8)), None, "an inform gives no address");
}

#[test]
fn clients_speak_for_themselves() {
    let bench = bench();
    let wrong = Err(DropReason::DhcpSpoof);
    let mut other = dhcp_client(mac(1), 1, NONE, REQUEST);
    other[11] = 2;
    assert_eq!(bench.send(1, &other), wrong, "for another hardware address");
    assert_eq!(
        bench.send(1, &dhcp_client(mac(1), 1, NONE, &[53, 1, 1, 82, 2, 1, 0])),
        wrong,
        "a relay's option"
    );
    for (at, value) in [(42, 2), (42 + 3, 1), (42 + 24, 10), (42 + 236, 0), (42 + 242, 5)] {
        let mut bytes = dhcp_client(mac(1), 1, NONE, REQUEST);
        bytes[at] = value;
        assert_eq!(bench.send(1, &bytes), wrong, "byte {at}");
    }
    assert_eq!(bench.send(1, &dhcp_client(mac(1), 1, NONE, REQUEST)[..200]), wrong, "cut off");
    bench.send(1, &dhcp_client(mac(1), 1, NONE, REQUEST)).unwrap();
    assert_eq!(bench.send(2, &dhcp_client(mac(1), 1, NONE, REQUEST)), wrong, "from two ports at once");
}

#[test]
fn transactions_are_limited_and_given_up() {
    let mut bench = bench();
    for xid in 0..MAX_OPEN {
        bench.send(1, &dhcp_client(mac(1), xid, NONE, REQUEST)).unwrap();
        bench.send(1, &dhcp_client(mac(1), xid, NONE, REQUEST)).unwrap();
    }
    assert_eq!(bench.send(1, &dhcp_client(mac(1), 999, NONE, REQUEST)), Err(DropReason::GuardLimit));
    assert_eq!(bench.send(2, &dhcp_client(mac(2), 999, NONE, REQUEST)), Ok(()), "another port's are its own");
    bench.now += PATIENCE - 1;
    bench.send(1, &dhcp_client(mac(1), 5, NONE, REQUEST)).unwrap();
    bench.now += 1;
    bench.snooper.expire(bench.now);
    assert_eq!(bench.snooper.len(), 1, "the one that was repeated");
    // Many transactions that are answered leave nothing behind.
    for xid in 0..10_000 {
        bench.send(1, &dhcp_client(mac(1), xid, NONE, REQUEST)).unwrap();
        bench.send(9, &dhcp_server(mac(1), xid, v4(7), &ack(60))).unwrap();
    }
    assert_eq!(bench.snooper.len(), 0);
    assert!(bench.snooper.open.lock().queue.len() < 200);
    assert!(bench.snooper.open.lock().by_port.is_empty());
}

#[test]
fn leases_are_limited() {
    let bench = bench();
    for n in 1..=3_u8 {
        bench.send(1, &dhcp_client(mac(1), n.into(), NONE, REQUEST)).unwrap();
        let got = bench.send(9, &dhcp_server(mac(1), n.into(), v4(n), &ack(60)));
        assert_eq!(got, if n < 3 { Ok(()) } else { Err(DropReason::GuardLimit) });
    }
    let fixed = Binding {
        vlan: Vid::DEFAULT,
        address: v4(50).into(),
        port: PortId(2),
        mac: mac(2),
        origin: BindingOrigin::Static,
        expires: None,
    };
    bench.bindings.configure([fixed]);
    bench.send(1, &dhcp_client(mac(1), 9, NONE, REQUEST)).unwrap();
    let got = bench.send(9, &dhcp_server(mac(1), 9, v4(50), &ack(60)));
    assert_eq!(got, Err(DropReason::DhcpSpoof), "configured for another");
}

/// A DHCPv6 message from or to a client at fe80::1.
fn message6(kind: u8, xid: u8, from_client: bool, options: &[u8]) -> Vec<u8> {
    let client = (v6("fe80::1"), 546);
    let payload = [&[kind, 0, 0, xid][..], options].concat();
    match from_client {
        true => udp6(mac(1), client, (v6("ff02::1:2"), 547), &payload),
        false => udp6(mac(99), (v6("fe80::99"), 547), client, &payload),
    }
}

fn ia_na(n: u8, valid: u32, status: Option<u8>) -> Vec<u8> {
    let mut address =
        [&[0, 5, 0, 24][..], &v6("2001:db8::").octets(), &[0, 0, 0, 9], &valid.to_be_bytes()].concat();
    address[19] = n;
    if let Some(status) = status {
        address[3] += 6;
        address.extend([0, 13, 0, 2, 0, status]);
    }
    let len = u8::try_from(12 + address.len()).unwrap();
    [&[0, 3, 0, len, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &address].concat()
}

#[test]
fn dhcp6_makes_bindings_too() {
    let bench = bench();
    bench.send(9, &message6(7, 1, false, &ia_na(7, 60, None))).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), None, "nobody asked");
    bench.send(1, &message6(3, 1, true, &ia_na(7, 0, None))).unwrap();
    bench.send(9, &message6(2, 1, false, &ia_na(7, 60, None))).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), None, "an advertisement gives nothing");
    bench.send(9, &message6(7, 1, false, &[ia_na(7, 60, None), ia_na(8, 60, Some(2))].concat())).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), Some((1, Some(160))));
    assert_eq!(bench.owner(v6("2001:db8::8")), None, "refused");
    // Taken back by the server.
    bench.send(1, &message6(5, 2, true, &ia_na(7, 0, None))).unwrap();
    bench.send(9, &message6(7, 2, false, &ia_na(7, 0, None))).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), None);
    // Given back by the client; by another port's it is not.
    bench.send(1, &message6(3, 3, true, &ia_na(7, 0, None))).unwrap();
    bench.send(9, &message6(7, 3, false, &ia_na(7, u32::MAX, None))).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), Some((1, None)));
    assert_eq!(bench.send(2, &message6(8, 4, true, &ia_na(7, 0, None))), Err(DropReason::DhcpSpoof));
    bench.send(1, &message6(8, 4, true, &ia_na(7, 0, None))).unwrap();
    assert_eq!(bench.owner(v6("2001:db8::7")), None);
    for kind in [2, 7, 10, 12, 13] {
        assert_eq!(bench.send(1, &message6(kind, 9, true, &[])), Err(DropReason::DhcpSpoof), "type {kind}");
    }
    assert_eq!(bench.send(1, &message6(11, 9, true, &[])), Ok(()));
}
