//! Rewrites addresses and ports in a head, checksums by their difference (RFC 1624).
//!
//! ```text
//!   | IPv4: sum src dst | TCP: ports .. sum |      finished sum:  complement of (pseudo header + header + payload)
//!     ^sum   '---'         '---'     ^sum          partial sum:   the pseudo header only, not complemented
//! ```
//!
//! What goes into a finished checksum is the difference of addresses and ports; into a partial one, which whoever finishes
//! it will add the ports to, that of the addresses only. So no byte of the payload is read, and frames to be segmented
//! stay as they are. An ICMP error is rewritten outside and inside.
//!
//! # Invariants
//! - A frame whose checksum was right has a right one afterwards, and one whose checksum was wrong a wrong one.
//! - `false`, and the frame must not be sent, where a field that must change lies behind the head.

use fabnic_wire::{IpProtocol, Offload, checksum::Sum};

use super::related::Carried;
use super::segment::l4_of;
use super::tuple::Tuple;

/// A header in a head: which bytes are addresses, ports and checksums.
#[derive(Clone, Copy)]
struct Place {
    l3: usize,
    /// Nothing where ports are not to be touched: in later fragments.
    l4: Option<usize>,
    v6: bool,
    protocol: IpProtocol,
}

/// Makes a packet one with this tuple.
pub(crate) fn translate(head: &mut [u8], l3: usize, later: bool, offload: &Offload, to: &Tuple) -> bool {
    let l4 = if later { None } else { l4_of(head, l3) };
    if l4.is_none() && !later {
        return false;
    }
    let place = Place { l3, l4, v6: to.v6, protocol: to.protocol };
    rewrite(head, place, to, offload.csum_field(), false).is_some()
}

/// Makes an ICMP error one about a packet that was sent as `inner`, from and to `outer`'s addresses. `keep_source`: the
/// error comes from somebody on the way, who is not translated.
pub(crate) fn translate_error(
    head: &mut [u8],
    l3: usize,
    carried: &Carried,
    inner: &Tuple,
    outer: &Tuple,
    keep_source: bool,
    offload: &Offload,
) -> bool {
    let Some(l4) = l4_of(head, l3) else { return false };
    let protocol = if outer.v6 { IpProtocol::ICMPV6 } else { IpProtocol::ICMP };
    let partial = offload.csum_field() == Some(l4 + 2);
    let before = Sum::of(head.get(l4..).unwrap_or(&[]));
    let place = Place { l3: carried.l3, l4: Some(carried.l4), v6: inner.v6, protocol: inner.protocol };
    if rewrite(head, place, inner, None, true).is_none() {
        return false;
    }
    let change = Sum::of(head.get(l4..).unwrap_or(&[])) - before;
    if !partial && add_to_checksum(head, l4 + 2, change, false).is_none() {
        return false;
    }
    let mut target = Tuple { protocol, ..*outer };
    if keep_source {
        let at = if outer.v6 { (l3 + 8, 16) } else { (l3 + 12, 4) };
        let Some(source) = head.get(at.0..at.0 + at.1) else { return false };
        target.src = [0; 16];
        if let Some(place) = target.src.get_mut(..at.1) {
            place.copy_from_slice(source);
        }
    }
    rewrite_addresses(head, l3, &target).is_some_and(|change| {
        !target.v6
            || if partial {
                add_to_partial(head, l4 + 2, change).is_some()
            } else {
                add_to_checksum(head, l4 + 2, change, false).is_some()
            }
    })
}

/// Rewrites one header. `partial`: where a checksum is that is not finished. `carried`: it is what an error carries, of
/// which there may be no more than the ports.
fn rewrite(head: &mut [u8], place: Place, to: &Tuple, partial: Option<usize>, carried: bool) -> Option<()> {
    let addresses = rewrite_addresses(head, place.l3, to)?;
    let Some(l4) = place.l4 else { return Some(()) };
    let mut ports = Sum::ZERO;
    match place.protocol {
        IpProtocol::TCP | IpProtocol::UDP => {
            ports += put16(head, l4, to.src_port)?;
            ports += put16(head, l4 + 2, to.dst_port)?;
        }
        protocol if protocol.is_icmp() => ports += put16(head, l4 + 4, to.src_port)?,
        _ => {}
    }
    let (offset, pseudo) = match place.protocol {
        IpProtocol::TCP => (16, true),
        IpProtocol::UDP => (6, true),
        IpProtocol::ICMPV6 => (2, true),
        IpProtocol::ICMP => (2, false),
        // UDP-Lite and DCCP.
        IpProtocol(136 | 33) => (6, true),
        _ => return Some(()),
    };
    let at = l4 + offset;
    if carried && head.get(at..at + 2).is_none() {
        return Some(());
    }
    let is_udp = place.protocol == IpProtocol::UDP;
    if is_udp && !place.v6 && partial != Some(at) && head.get(at..at + 2)? == [0, 0] {
        // There is none.
        return Some(());
    }
    let of_addresses = if pseudo { addresses } else { Sum::ZERO };
    if partial == Some(at) {
        add_to_partial(head, at, of_addresses)
    } else {
        add_to_checksum(head, at, of_addresses + ports, is_udp)
    }
}

/// Rewrites the addresses, and IPv4's checksum; gives by how much the sum of them changed.
fn rewrite_addresses(head: &mut [u8], l3: usize, to: &Tuple) -> Option<Sum> {
    let (at, len) = if to.v6 { (l3 + 8, 16) } else { (l3 + 12, 4) };
    let place = head.get_mut(at..at + 2 * len)?;
    let before = Sum::of(place);
    let (src, dst) = place.split_at_mut(len);
    src.copy_from_slice(to.src.get(..len)?);
    dst.copy_from_slice(to.dst.get(..len)?);
    let change = Sum::of(place) - before;
    if !to.v6 {
        add_to_checksum(head, l3 + 10, change, false)?;
    }
    Some(change)
}

/// Writes a word; gives by how much it changed.
fn put16(head: &mut [u8], at: usize, value: u16) -> Option<Sum> {
    let place: &mut [u8; 2] = head.get_mut(at..)?.first_chunk_mut()?;
    let before = u16::from_be_bytes(*place);
    *place = value.to_be_bytes();
    Some(Sum::from_word(value) - Sum::from_word(before))
}

/// A finished checksum, after what it covers changed by so much.
fn add_to_checksum(head: &mut [u8], at: usize, change: Sum, is_udp: bool) -> Option<()> {
    let place: &mut [u8; 2] = head.get_mut(at..)?.first_chunk_mut()?;
    let sum = Sum::from_word(!u16::from_be_bytes(*place)) + change;
    let checksum = if is_udp { sum.udp_checksum() } else { sum.checksum() };
    *place = checksum.to_be_bytes();
    Some(())
}

/// The sum of a pseudo header, after it changed by so much.
fn add_to_partial(head: &mut [u8], at: usize, change: Sum) -> Option<()> {
    let place: &mut [u8; 2] = head.get_mut(at..)?.first_chunk_mut()?;
    *place = (Sum::from_word(u16::from_be_bytes(*place)) + change).word().to_be_bytes();
    Some(())
}
