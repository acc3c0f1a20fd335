//! TCP between two guests: smoltcp's stack on either driver, with checksums left to the devices, over a wire that loses
//! frames.

use std::collections::VecDeque;

use fabnic_port::{Burst, Faulty, Mishaps};
use fabnic_testkit::e1000::{Ask, Layout, reg};
use fabnic_wire::checksum::pseudo_header;
use fabnic_wire::{IpProtocol, Layers};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::guest::{Guest, forward, mac};

/// A guest's network stack on its driver.
struct Nic {
    guest: Guest,
    waiting: VecDeque<Vec<u8>>,
    checked: u64,
}

impl Nic {
    /// What an interrupt handler does, and the work behind it.
    fn poll(&mut self) {
        if self.guest.line.is_high() {
            self.guest.driver.interrupt();
        }
        self.guest.driver.reap().unwrap();
        for frame in self.guest.driver.receive().unwrap() {
            self.checked += u64::from(frame.is_checked());
            self.waiting.push_back(frame.bytes);
        }
    }

    /// Sends a frame whose TCP and IP checksums the stack has left out.
    fn send(&mut self, mut frame: Vec<u8>) {
        let mut ask = Ask::default();
        if let Some(Layers { l3, ip: Some(ip), .. }) = Layers::of(&frame)
            && ip.protocol == IpProtocol::TCP
        {
            let len = (frame.len() - usize::from(ip.l4)) as u16;
            let seed = pseudo_header(&frame, l3, &ip, len).unwrap().word();
            let field = usize::from(ip.l4) + 16;
            frame[field..field + 2].copy_from_slice(&seed.to_be_bytes());
            let (l3, l4) = (l3 as u8, ip.l4 as u8);
            ask = Ask::checksums(Some((l3, l3 + 10, u16::from(l4) - 1)), Some(((l4, l4 + 16, 0), true)));
        }
        // A full ring loses it, as a queue of a real stack does.
        if self.guest.driver.send(&frame, &[54], &ask) {
            self.guest.driver.kick();
        }
    }
}

struct Receipt(Vec<u8>);

impl smoltcp::phy::RxToken for Receipt {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Way<'a>(&'a mut Nic);

impl smoltcp::phy::TxToken for Way<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Receipt;
    type TxToken<'a> = Way<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Receipt, Way<'_>)> {
        let frame = self.waiting.pop_front()?;
        Some((Receipt(frame), Way(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Way<'_>> {
        Some(Way(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // Checked when they arrive, so that a wrong one is found; left out when they go.
        capabilities.checksum.ipv4 = Checksum::Rx;
        capabilities.checksum.tcp = Checksum::Rx;
        capabilities
    }
}

struct Host {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: smoltcp::iface::SocketHandle,
}

impl Host {
    fn new(id: u8) -> Host {
        let layout = Layout { transmit: 64, receive: 64, rctl: reg::RCTL_BAM, ..Layout::default() };
        let guest = Guest::new(id, layout);
        // What is delivered to it is lost now and then.
        let egress = &guest.port.egress()[0];
        let inner = egress.remove().unwrap();
        let mishaps = Mishaps { lose: 2000, reorder: 2000, ..Mishaps::default() };
        egress.install(Box::new(Faulty::new(Boxed(inner), mishaps, id.into())));
        let mut nic = Nic { guest, waiting: VecDeque::new(), checked: 0 };
        let address = HardwareAddress::Ethernet(EthernetAddress(mac(id)));
        let mut interface = Interface::new(Config::new(address), &mut nic, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, id), 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 32 << 10]);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Host { nic, interface, sockets, socket }
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self, now: Instant) {
        self.nic.poll();
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }
}

/// A boxed queue as a queue.
struct Boxed(Box<dyn fabnic_port::Egress>);

impl fabnic_port::Egress for Boxed {
    fn deliver(
        &mut self,
        burst: &mut Burst,
        picks: &[u8],
        tally: &mut fabnic_port::Tally,
    ) -> Result<(), fabnic_port::Fault> {
        self.0.deliver(burst, picks, tally)
    }
}

#[test]
fn a_stream_passes_a_wire_that_loses_frames() {
    const BYTES: usize = 400_000;
    let byte = |at: usize| (at * 31 + at / 1000) as u8;
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    b.tcp().listen(80).unwrap();
    let Host { interface, sockets, socket, .. } = &mut a;
    let remote = (IpAddress::v4(10, 0, 0, 2), 80);
    sockets.get_mut::<tcp::Socket<'_>>(*socket).connect(interface.context(), remote, 4000).unwrap();

    let (mut sent, mut echoed, mut back) = (0, 0, 0);
    let mut now = 0;
    while back < BYTES {
        now += 1;
        assert!(now < 600_000, "after ten minutes {sent} bytes went, {echoed} arrived, {back} came back");
        a.poll(Instant::from_millis(now));
        forward(&a.nic.guest.port, &b.nic.guest.port);
        b.poll(Instant::from_millis(now));
        forward(&b.nic.guest.port, &a.nic.guest.port);
        while sent < BYTES && a.tcp().can_send() {
            let chunk: Vec<u8> = (sent..BYTES.min(sent + 1000)).map(byte).collect();
            sent += a.tcp().send_slice(&chunk).unwrap();
        }
        // The other end checks and gives back what came.
        while b.tcp().can_recv() && b.tcp().can_send() {
            let room = b.tcp().send_capacity() - b.tcp().send_queue();
            let chunk = b.tcp().recv(|bytes| {
                let n = bytes.len().min(room);
                (n, bytes[..n].to_vec())
            });
            let chunk = chunk.unwrap();
            assert!(chunk.iter().enumerate().all(|(at, got)| *got == byte(echoed + at)), "at {echoed}");
            echoed += chunk.len();
            assert_eq!(b.tcp().send_slice(&chunk).unwrap(), chunk.len());
        }
        while a.tcp().can_recv() {
            let chunk = a.tcp().recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            assert!(chunk.iter().enumerate().all(|(at, got)| *got == byte(back + at)), "at {back}");
            back += chunk.len();
        }
    }
    assert!(a.nic.checked > 100 && b.nic.checked > 100, "the devices vouch for what they finished");
}
