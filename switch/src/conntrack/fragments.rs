//! Later fragments of datagrams whose first fragment was tracked (RFC 791, RFC 8200 section 4.5).
//!
//! Only the first fragment has ports. While it is tracked, its identification is noted, and later fragments with the same
//! addresses, protocol and identification belong to its connection. Fragments that come before the first, and those that
//! were pushed out of the list, are `inv`. Nothing is reassembled: whether the pieces make a datagram is for their receiver
//! to find out, and the first fragment alone says what it is.
//!
//! # Invariants
//! - The list is bounded, whatever comes; the oldest make room.

use std::collections::{HashMap, VecDeque};

use fabnic_wire::{FlowFields, IpProtocol, layers::Network};
use foldhash::quality::RandomState;
use parking_lot::Mutex;

/// Datagrams remembered.
const MOST: usize = 4096;
/// Seconds for which one is; RFC 791 and RFC 8200 let a receiver wait for 15 to 60.
const SECONDS: u32 = 30;

/// What all fragments of a datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Datagram {
    src: [u8; 16],
    dst: [u8; 16],
    id: u32,
    zone: u16,
    protocol: IpProtocol,
}

impl Datagram {
    /// Of a fragment. IPv6: only where the fragment header is the first behind IPv6's own.
    pub(crate) fn of(flow: &FlowFields, head: &[u8], l3: usize, zone: u16) -> Option<Datagram> {
        let id = match flow.network()? {
            Network::V4 => u32::from(u16::from_be_bytes(*head.get(l3 + 4..)?.first_chunk()?)),
            Network::V6 if IpProtocol(*head.get(l3 + 6)?) == IpProtocol::FRAGMENT => {
                u32::from_be_bytes(*head.get(l3 + 44..)?.first_chunk()?)
            }
            Network::V6 => return None,
        };
        Some(Datagram { src: flow.src, dst: flow.dst, id, zone, protocol: flow.protocol() })
    }
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Fragments(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    known: HashMap<Datagram, Noted, RandomState>,
    /// In the order in which they came; each that is known is here once.
    order: VecDeque<Datagram>,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    /// Of the connection; see [`super::Handle`].
    handle: u32,
    until: u32,
}

impl Fragments {
    /// A first fragment of this datagram belongs to this connection.
    pub(crate) fn note(&self, datagram: Datagram, handle: u32, now: u32) {
        let mut list = self.0.lock();
        let noted = Noted { handle, until: now.saturating_add(SECONDS) };
        if list.known.insert(datagram, noted).is_some() {
            return;
        }
        list.order.push_back(datagram);
        if list.order.len() > MOST
            && let Some(oldest) = list.order.pop_front()
        {
            list.known.remove(&oldest);
        }
    }

    /// The connection of this datagram's first fragment.
    pub(crate) fn find(&self, datagram: &Datagram, now: u32) -> Option<u32> {
        self.0.lock().known.get(datagram).filter(|noted| noted.until > now).map(|noted| noted.handle)
    }
}
