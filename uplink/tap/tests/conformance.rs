//! The port's conformance suite, for TAP devices. Behind the device is the kernel's bridge, and behind that a second
//! device that is read and written without any of our code.
#![allow(unsafe_code)] // To open the second device and to enter a network namespace.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

mod namespace;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use fabnic_port::conformance::{ETHERTYPE, Endpoint, Outside, check};
use fabnic_tap::{Tap, TapConfig};
use namespace::ip;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The highest MTU that the kernel allows on a TAP device.
const MTU: u16 = 65_521;

/// A TAP device without virtio-net header.
fn plain_tap(name: &str) -> File {
    let file =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
    // SAFETY: plain data for which all zeros is valid.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is borrowed for the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    file
}

struct BehindTheBridge {
    far: File,
    buffer: Vec<u8>,
    /// Keeps the device.
    _near: Tap,
}

impl Outside for BehindTheBridge {
    fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.far.write(frame).unwrap(), frame.len());
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.far.read(&mut self.buffer) {
                Ok(n) => {
                    let frame = &self.buffer[..n];
                    // Tagged or not: everything else is chatter of the kernel.
                    if frame[12..14] == ETHERTYPE || frame.get(16..18) == Some(&ETHERTYPE) {
                        return Some(frame.to_vec());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // A write goes through the bridge before it returns; this is for a kernel that defers it.
                    let mut fds = [PollFd::new(&self.far, PollFlags::IN)];
                    let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                    if poll(&mut fds, Some(&patience)).unwrap() == 0 {
                        return None;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn endpoint(offloads: bool) -> Endpoint {
    // Fresh devices: those of the endpoint before are gone with it.
    ip("link add br0 type bridge mcast_snooping 0");
    let config = TapConfig { offloads, mtu: Some(MTU), ..TapConfig::new("tap0") };
    let near = Tap::open(&config).unwrap();
    let far = plain_tap("tap1");
    ip(&format!("link set tap1 mtu {MTU} up"));
    ip("link set tap0 master br0");
    ip("link set tap1 master br0");
    ip(&format!("link set br0 mtu {MTU} up"));
    let (ingress, egress) = near.pair(0).unwrap();
    Endpoint {
        ingress: Some(Box::new(ingress)),
        egress: Some(Box::new(egress)),
        outside: Box::new(BehindTheBridge { far, buffer: vec![0; 1 << 17], _near: near }),
        lengths: 14..=usize::from(MTU) + 14,
        // The kernel queues 1000 frames before it drops any.
        depth: 500,
        wakes: true,
    }
}

#[test]
fn a_tap_device_conforms() {
    for offloads in [true, false] {
        namespace::run(move || {
            let mut first = true;
            check(|| {
                if !std::mem::take(&mut first) {
                    ip("link del br0");
                }
                endpoint(offloads)
            });
        });
    }
}
