//! Tells the network where a VM is now, for guests that cannot do so themselves.
//!
//! After a migration the switches on the way must learn the VM's new place. A guest that negotiated
//! `VIRTIO_NET_F_GUEST_ANNOUNCE` sends a gratuitous ARP; for others the front end asks us (vhost-user SEND_RARP), and a
//! RARP request from the VM's address goes into the switch as if the VM had sent it: this switch learns from it as the
//! others do.
//!
//! The frame comes in through an ingress queue of its own, in a cell behind those of the guest's queue pairs
//! ([`SPARE_CELLS`]). It is installed when the first announcement is made, so that ports which never migrate have no
//! descriptor for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_port::{Burst, Fault, Ingress, Port};
use fabnic_virtio_net::OnRarp;
use fabnic_wire::MacAddr;
use parking_lot::Mutex;
use rustix::event::EventfdFlags;

/// Cells of a port behind those of its guest's queue pairs.
pub(crate) const SPARE_CELLS: usize = 1;
/// Announcements that wait; a front end asks for some five after a migration.
const MOST: usize = 16;
/// Length of a frame without its checksum, padded to the shortest that Ethernet has.
const LEN: usize = 60;

/// A RARP request for its own address (RFC 903): what QEMU's own announcements look like (net/announce.c).
fn rarp(from: MacAddr) -> [u8; LEN] {
    let mut frame = [0; LEN];
    let mac = from.octets();
    let parts: [&[u8]; 8] = [
        &[0xff; 6],                // destination: broadcast
        &mac,                      // source
        &[0x80, 0x35],             // EtherType RARP
        &[0, 1, 8, 0, 6, 4, 0, 3], // Ethernet, IPv4, lengths, "request reverse"
        &mac,                      // sender's hardware address
        &[0; 4],                   // sender's protocol address
        &mac,                      // target's hardware address
        &[0; 4],                   // target's protocol address
    ];
    for (to, from) in frame.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    frame
}

#[derive(Debug)]
struct Waiting {
    frames: Mutex<VecDeque<[u8; LEN]>>,
    wake: OwnedFd,
}

/// The queue that announcements come in through.
#[derive(Debug)]
struct Announcements(Arc<Waiting>);

impl Ingress for Announcements {
    fn backlog(&mut self) -> usize {
        self.0.frames.lock().len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.release();
        let mut frames = self.0.frames.lock();
        while burst.room() > 0
            && let Some(frame) = frames.pop_front()
        {
            burst.push_bytes(&frame);
        }
        Ok(())
    }

    fn complete(&mut self, _: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        !self.0.frames.lock().is_empty()
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.wake.as_fd())
    }
}

/// What to do when a front end asks for an announcement on this port, whose guest has so many queue pairs.
pub(crate) fn on_rarp(port: &Arc<Port>, pairs: u16) -> OnRarp {
    // The port holds the queue, and the device that calls this holds the port.
    let port = Arc::downgrade(port);
    let waiting: Mutex<Option<Arc<Waiting>>> = Mutex::new(None);
    Box::new(move |mac| {
        let Some(port) = port.upgrade() else { return };
        if !mac.is_unicast() || mac.is_zero() {
            tracing::warn!(port = %port.name, %mac, "asked to announce an address that no station has");
            return;
        }
        let mut waiting = waiting.lock();
        let queue = match &*waiting {
            Some(queue) => Arc::clone(queue),
            None => match install(&port, pairs) {
                Ok(queue) => Arc::clone(waiting.insert(queue)),
                Err(error) => {
                    tracing::warn!(port = %port.name, %error, "the VM could not be announced");
                    return;
                }
            },
        };
        let mut frames = queue.frames.lock();
        if frames.len() < MOST {
            frames.push_back(rarp(mac));
        }
        drop(frames);
        tracing::info!(port = %port.name, %mac, "announcing the VM");
        // Full only after 2^64 wake-ups that nobody took.
        let _ = rustix::io::write(&queue.wake, &1_u64.to_ne_bytes());
    })
}

fn install(port: &Port, pairs: u16) -> Result<Arc<Waiting>, std::io::Error> {
    // A guest that takes all queue pairs a port can have leaves no cell.
    let no_cell = || std::io::Error::other("the guest's queue pairs leave no place for it");
    let cell = port.ingress().get(usize::from(pairs)).ok_or_else(no_cell)?;
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let waiting = Arc::new(Waiting { frames: Mutex::default(), wake });
    drop(cell.install(Box::new(Announcements(Arc::clone(&waiting)))));
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use fabnic_port::{PortId, PortKind};

    use super::*;

    #[test]
    fn the_frame_is_a_rarp_request() {
        let mac = MacAddr::new([0x52, 0x54, 0, 0, 0, 1]);
        let frame = rarp(mac);
        assert_eq!(&frame[..14], b"\xff\xff\xff\xff\xff\xff\x52\x54\0\0\0\x01\x80\x35");
        assert_eq!(&frame[14..22], b"\0\x01\x08\0\x06\x04\0\x03");
        assert_eq!((&frame[22..28], &frame[32..38]), (&mac.octets()[..], &mac.octets()[..]));
        assert!(frame[42..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn announcements_come_in_behind_the_guest_queues() {
        let port = Arc::new(Port::new(PortId(1), "vm1", PortKind::VirtioNet, 2 + SPARE_CELLS));
        let announce = on_rarp(&port, 2);
        assert!(port.ingress().iter().all(|cell| !cell.is_installed()), "nothing before it is needed");
        announce(MacAddr::BROADCAST);
        assert!(!port.ingress()[2].is_installed(), "no address of a station");
        for _ in 0..2 * MOST {
            announce(MacAddr::new([0x52, 0x54, 0, 0, 0, 1]));
        }
        let mut burst = Burst::new();
        let mut guard = port.ingress()[2].lock();
        let queue = guard.as_mut().unwrap();
        assert!(queue.arm(), "something is there");
        queue.receive(&mut burst).unwrap();
        assert_eq!(burst.len(), MOST);
        assert_eq!(burst.frames()[0].head()[6..12], [0x52, 0x54, 0, 0, 0, 1]);
        assert!(!queue.arm());
    }
}
