//! Two smoltcp stacks with a tracked link between them that loses, repeats and swaps frames: whatever a TCP that keeps to
//! the rules sends is never `inv`, and both ends agree with us on how it ended.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::*;

#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Receive(Vec<u8>);
struct Transmit<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Receive;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Receive, Transmit<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Receive(frame), Transmit(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Transmit<'_>> {
        (self.sent.len() < 100).then_some(Transmit(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = 1514;
        caps
    }
}

struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Host {
    fn new(last: u8, address: IpAddress, room: usize) -> Host {
        let mut wire = Wire::default();
        let mac = EthernetAddress([2, 0, 0, 0, 0, last]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = u64::from(last) * 0x1234_5678_9abc;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address, 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; room]);
        let mut sockets = SocketSet::new(vec![]);
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Host { wire, interface, sockets, tcp }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

fn chance(state: &mut u32, one_in: u32) -> bool {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    one_in > 0 && state.is_multiple_of(one_in)
}

/// Moves what a host has sent through the tracker. Frames are lost behind it, as a link behind a switch loses them.
fn forward(bed: &Bed, from: &mut Wire, to: &mut Wire, nat: Option<&Nat>, dice: &mut u32, loss: u32) {
    let mut frames: Vec<_> = from.sent.drain(..).collect();
    if frames.len() > 1 && chance(dice, loss) {
        frames.swap(0, 1);
    }
    for frame in frames {
        let (state, leaves) = bed.pass_with(&frame, nat);
        assert!(!state.contains(CtState::INVALID), "{}", fabnic_wire::Pretty::new(&frame));
        if chance(dice, loss) {
            continue;
        }
        to.received.push_back(leaves.clone());
        if chance(dice, loss) {
            to.received.push_back(leaves);
        }
    }
}

fn transfer(v6: bool, loss: u32, room: usize, seed: u32, nat: Option<&Nat>) {
    const BYTES: usize = 300_000;
    let address = |last: u8| match v6 {
        true => IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, last.into()),
        false => IpAddress::v4(10, 0, 0, last),
    };
    let mut bed = Bed::new(&ZoneSettings { loose: false, ..ZoneSettings::default() });
    let (mut client, mut server) = (Host::new(1, address(1), room), Host::new(2, address(2), room));
    let mut dice = seed;
    server.socket().listen(80).unwrap();
    let tcp = client.tcp;
    let context = client.interface.context();
    client.sockets.get_mut::<tcp::Socket<'_>>(tcp).connect(context, (address(2), 80), 40_000).unwrap();
    let (mut sent, mut received, mut back, mut millis) = (0, 0, 0, 0_i64);
    let pattern = |at: usize| (at * 31 + at / 256) as u8;
    loop {
        let now = Instant::from_millis(millis);
        bed.now = 1000 + (millis / 1000) as u32;
        let socket = client.socket();
        while sent < BYTES && socket.can_send() {
            let taken = socket.send(|room| {
                let n = room.len().min(BYTES - sent).min(1000);
                room[..n].iter_mut().enumerate().for_each(|(i, byte)| *byte = pattern(sent + i));
                (n, n)
            });
            sent += taken.unwrap();
        }
        if sent == BYTES && socket.state() == tcp::State::Established {
            socket.close();
        }
        while socket.can_recv() {
            back += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        let socket = server.socket();
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    bytes.iter().for_each(|byte| {
                        assert_eq!(*byte, pattern(received));
                        received += 1;
                    });
                    (bytes.len(), ())
                })
                .unwrap();
            if socket.can_send() {
                socket.send_slice(b"some bytes back").unwrap();
            }
        }
        if !socket.may_recv() && received == BYTES {
            socket.close();
        }
        client.interface.poll(now, &mut client.wire, &mut client.sockets);
        forward(&bed, &mut client.wire, &mut server.wire, nat, &mut dice, loss);
        server.interface.poll(now, &mut server.wire, &mut server.sockets);
        forward(&bed, &mut server.wire, &mut client.wire, nat, &mut dice, loss);
        if server.socket().state() == tcp::State::Closed
            && matches!(client.socket().state(), tcp::State::TimeWait | tcp::State::Closed)
        {
            break;
        }
        millis += 5;
        assert!(millis < 3_600_000, "sent {sent}, received {received}: {}", server.socket().state());
    }
    assert_eq!(received, BYTES);
    assert!(back > 0);
    let entry = bed.only();
    assert_eq!((entry.tcp, entry.assured), (Some(TcpState::TimeWait), true), "{entry:?}");
}

#[test]
fn nothing_is_invalid_on_a_good_link() {
    transfer(false, 0, 65_535, 1, None);
    transfer(true, 0, 500_000, 2, None);
}

#[test]
fn nothing_is_invalid_on_a_bad_link() {
    for seed in 1..6 {
        transfer(seed % 2 == 0, 20, [3000, 65_535, 300_000][seed as usize % 3], seed * 77, None);
    }
}

#[test]
fn nothing_is_invalid_when_translated() {
    // Only the port: addresses would have to be resolved.
    let own = |address: [u8; 4]| std::net::IpAddr::from(address);
    let nat = Nat {
        source: Some(NatRange {
            first: own([10, 0, 0, 1]),
            last: own([10, 0, 0, 1]),
            ports: Some(7000..=7100),
        }),
        destination: None,
    };
    transfer(false, 30, 65_535, 99, Some(&nat));
}
