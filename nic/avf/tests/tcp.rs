//! TCP of smoltcp through two functions, checksums left to them, under loss: every byte arrives, in order.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::VecDeque;

use common::{Guest, MAC_A, MAC_B};
use fabnic_avf_driver::{IpHeader, Options, TransportHeader, Work};
use fabnic_port::{Burst, Port, Tally};
use fabnic_wire::Layers;
use fabnic_wire::checksum::pseudo_header;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

/// A stack on its driver.
struct Host {
    guest: Guest,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

/// What goes between the stack and the driver.
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
        // The function computes and verifies them.
        caps.checksum.tcp = Checksum::None;
        caps.checksum.ipv4 = Checksum::None;
        caps
    }
}

impl Host {
    fn new(guest: Guest, mac: [u8; 6], last: u8, v6: bool) -> Host {
        let mut wire = Wire::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address(v6, last), 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut sockets = SocketSet::new(vec![]);
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Host { guest, wire, interface, sockets, tcp }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }

    /// The stack's turn: what came goes in, what it sends goes to the ring.
    fn turn(&mut self, now: Instant) {
        for (found, bytes) in self.guest.received(0) {
            assert!(!found.bad_ip && !found.bad_l4);
            self.wire.received.push_back(bytes);
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let (transmit, bus) = self.guest.driver.transmit(0).unwrap();
        transmit.clean();
        while let Some(frame) = self.wire.sent.front_mut() {
            let work = unfinished(frame);
            if !transmit.push(frame, &work, &[54, 300]) {
                break;
            }
            self.wire.sent.pop_front();
        }
        transmit.ring(bus);
    }
}

fn address(v6: bool, last: u8) -> IpAddress {
    if v6 { IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, last.into()) } else { IpAddress::v4(10, 0, 0, last) }
}

/// Seeds a frame's checksums, and says what the function has to do.
fn unfinished(frame: &mut [u8]) -> Work {
    let layers = Layers::of(frame).unwrap();
    let Some(ip) = layers.ip else { return Work::default() };
    let (l3, l4) = (usize::from(layers.l3), usize::from(ip.l4));
    let v6 = l4 - l3 == 40;
    let mut work = Work {
        ip: if v6 { IpHeader::V6 } else { IpHeader::V4Checksum },
        lens: [l3 as u16, (l4 - l3) as u16, 0],
        ..Work::default()
    };
    if ip.protocol == fabnic_wire::IpProtocol::TCP {
        let seed = pseudo_header(frame, layers.l3, &ip, (frame.len() - l4) as u16).unwrap();
        frame[l4 + 16..l4 + 18].copy_from_slice(&seed.word().to_be_bytes());
        work.transport = TransportHeader::Tcp;
        work.lens[2] = u16::from(frame[l4 + 12] >> 4) * 4;
    }
    work
}

/// Moves what waits, and loses one frame of so many.
fn forward(from: &Port, to: &Port, burst: &mut Burst, state: &mut u32, loss: u32) -> u64 {
    let mut guard = from.ingress()[0].lock();
    let ingress = guard.as_mut().unwrap();
    ingress.receive(burst).unwrap();
    let picks: Vec<u8> = (0..burst.len() as u8)
        .filter(|index| {
            assert_eq!(burst.frames()[usize::from(*index)].marked(), None);
            *state ^= *state << 13;
            *state ^= *state >> 17;
            *state ^= *state << 5;
            loss == 0 || !(*state).is_multiple_of(loss)
        })
        .collect();
    let mut tally = Tally::default();
    to.egress()[0].lock().as_mut().unwrap().deliver(burst, &picks, &mut tally).unwrap();
    ingress.complete(burst);
    burst.len() as u64 - picks.len() as u64
}

#[test]
fn every_byte_arrives() {
    for (v6, loss, len) in [(false, 0, 3_000_000), (false, 40, 400_000), (true, 40, 400_000)] {
        let options = Options { buffer_len: 512, ring_len: 512, ..Options::default() };
        let settings = |mac| fabnic_avf::Settings { mac, trust: true, ..fabnic_avf::Settings::default() };
        let guest = |mac| {
            let mut guest = Guest::start(settings(mac), options);
            guest.driver.set_promiscuous(false, true).unwrap();
            guest
        };
        let mut a = Host::new(guest(MAC_A), MAC_A, 1, v6);
        let mut b = Host::new(guest(MAC_B), MAC_B, 2, v6);
        let byte = |n: usize| (n * 7 + n / 255) as u8;
        b.socket().listen(80).unwrap();
        {
            let Host { interface, sockets, tcp, .. } = &mut a;
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*tcp);
            socket.connect(interface.context(), (address(v6, 2), 80), 50_000).unwrap();
        }
        let (mut sent, mut got, mut lost) = (0, 0, 0);
        let (mut state, mut burst) = (0x1234_5678, Burst::new());
        for millis in 0..1_000_000_i64 {
            if got == len {
                break;
            }
            let now = Instant::from_millis(millis);
            let socket = a.socket();
            while sent < len && socket.can_send() {
                let room = (len - sent).min(8192);
                let bytes: Vec<u8> = (sent..sent + room).map(byte).collect();
                sent += socket.send_slice(&bytes).unwrap();
            }
            a.turn(now);
            lost += forward(&a.guest.port, &b.guest.port, &mut burst, &mut state, loss);
            b.turn(now);
            lost += forward(&b.guest.port, &a.guest.port, &mut burst, &mut state, loss);
            let socket = b.socket();
            while socket.can_recv() {
                got += socket
                    .recv(|bytes| {
                        bytes.iter().enumerate().for_each(|(at, found)| assert_eq!(*found, byte(got + at)));
                        (bytes.len(), bytes.len())
                    })
                    .unwrap();
            }
        }
        assert_eq!(got, len, "v6 {v6}, {lost} frames lost");
        assert!(lost > 0 || loss == 0);
    }
}
