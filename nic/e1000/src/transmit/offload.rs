//! What a driver asks for in descriptors, turned into what the switch understands (SDM 3.3.5 to 3.3.7, 3.5, 3.6).
//!
//! Where the descriptors ask for what [`Offload`] can say, and that is what drivers do, nothing is computed here: the frame
//! goes on with a partial checksum, or as one large frame. The rest (sums over other places, over a part of the frame) is
//! computed here, over the private head and the sender's memory.
//!
//! # Large frames
//!
//! A driver of this part leaves lengths to the hardware: that of IP is zero, and the pseudo header's sum is without one.
//! [`Offload`] wants both to be those of the large frame, so they are put in.

use fabnic_memory::{Map, Slice};
use fabnic_port::{DropReason, Frame};
use fabnic_wire::Offload;
use fabnic_wire::checksum::Sum;
use fabnic_wire::offload::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};
use fabnic_wire::transport::TcpFlags;

use crate::spec::descriptor::{Buffer, ChecksumPlace, Command, Context, IXSM, Kind, TXSM};

/// Does what the first descriptor of a packet, and the context that counts for it, ask for.
///
/// # Errors
/// It cannot be done: the frame is to be dropped.
pub(crate) fn apply(
    first: &Buffer,
    context: &Context,
    frame: &mut Frame,
    slices: &[Slice],
    source: &Map,
) -> Result<(), DropReason> {
    let asked = first.command.contains(Command::IC_TSE);
    match first.kind {
        Kind::Legacy(place) if asked => checksum(frame, slices, source, place, false),
        Kind::Legacy(_) => Ok(()),
        Kind::Data(_) if asked => segment(frame, slices, source, context),
        Kind::Data(options) => {
            if options & IXSM != 0 {
                finish_now(frame, slices, source, context.ip, false)?;
            }
            if options & TXSM != 0 {
                checksum(frame, slices, source, context.l4, !context.tcp)?;
            }
            Ok(())
        }
    }
}

/// Leaves a checksum to be finished later, or finishes it.
fn checksum(
    frame: &mut Frame,
    slices: &[Slice],
    source: &Map,
    place: ChecksumPlace,
    is_udp: bool,
) -> Result<(), DropReason> {
    let to_end = place.end == 0 || u32::from(place.end) + 1 >= frame.len();
    if to_end && let Some(offset) = place.field.checked_sub(place.start) {
        let len = frame.len() as usize;
        let head = frame.pull(usize::from(place.field) + 2, source, slices);
        let partial = Offload {
            flags: NEEDS_CSUM,
            csum_start: place.start.into(),
            csum_offset: offset.into(),
            ..Offload::PLAIN
        };
        if let Ok(offload) = partial.validate(len, head) {
            frame.set_offload(offload);
            return Ok(());
        }
    }
    finish_now(frame, slices, source, place, is_udp)
}

/// Sums up and inserts.
fn finish_now(
    frame: &mut Frame,
    slices: &[Slice],
    source: &Map,
    place: ChecksumPlace,
    is_udp: bool,
) -> Result<(), DropReason> {
    let (start, field) = (usize::from(place.start), usize::from(place.field));
    let len = frame.len() as usize;
    let end = match usize::from(place.end) {
        0 => len,
        last => len.min(last + 1),
    };
    // Hardware inserts nothing where the place is not in the packet.
    if field + 2 > len || start >= end {
        return Ok(());
    }
    frame.pull(field + 2, source, slices);
    let sum = sum_of(frame, slices, source, start, end);
    let value = if is_udp { sum.udp_checksum() } else { sum.checksum() };
    put(frame, field, value)
}

/// The sum of the bytes from `start` to `end` of the frame.
fn sum_of(frame: &Frame, slices: &[Slice], source: &Map, start: usize, end: usize) -> Sum {
    let head = frame.head();
    let mut sum = Sum::of(head.get(start.min(head.len())..end.min(head.len())).unwrap_or(&[]));
    let mut at = start.max(head.len());
    let mut rest = frame.rest(slices);
    rest.skip(u32::try_from(at - head.len()).unwrap_or(u32::MAX));
    let mut bytes = [0_u8; 1024];
    while at < end {
        let want = (end - at).min(bytes.len());
        let Some(part) = bytes.get_mut(..want) else { break };
        let n = rest.read(source, part);
        sum += Sum::of(part.get(..n).unwrap_or(&[])).at(at - start);
        at += n;
        if n < want {
            break;
        }
    }
    sum
}

fn put(frame: &mut Frame, at: usize, value: u16) -> Result<(), DropReason> {
    // Behind what can be private there is no header that any driver asks for.
    let room = frame.head_mut().get_mut(at..at + 2).ok_or(DropReason::BadOffload)?;
    room.copy_from_slice(&value.to_be_bytes());
    Ok(())
}

fn word(frame: &Frame, at: usize) -> Result<u16, DropReason> {
    let bytes = frame.head().get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(DropReason::BadOffload)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// Makes it a large frame.
fn segment(frame: &mut Frame, slices: &[Slice], source: &Map, context: &Context) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::BadOffload;
    let (l3, l4) = (usize::from(context.ip.start), usize::from(context.l4.start));
    let field = usize::from(context.l4.field);
    let len = frame.len() as usize;
    frame.pull(usize::from(context.hdr_len), source, slices);
    let length_from =
        |start: usize| len.checked_sub(start).and_then(|len| u16::try_from(len).ok()).ok_or(BAD);
    let l4_len = length_from(l4)?;

    if context.v4 {
        put(frame, l3 + 2, length_from(l3)?)?;
        let words = frame.head().get(l3).ok_or(BAD)? & 0xf;
        put(frame, l3 + 10, 0)?;
        let header = frame.head().get(l3..l3 + 4 * usize::from(words)).ok_or(BAD)?;
        put(frame, l3 + 10, Sum::of(header).checksum())?;
    } else {
        put(frame, l3 + 4, length_from(l3 + 40)?)?;
    }
    let seed = Sum::from_word(word(frame, field)?) + Sum::from_word(l4_len);
    put(frame, field, seed.word())?;
    let gso_type = match (context.tcp, context.v4) {
        (false, _) => {
            put(frame, l4 + 4, l4_len)?;
            GSO_UDP_L4
        }
        (true, v4) => {
            let [_, flags] = word(frame, l4 + 12)?.to_be_bytes();
            let ecn = if TcpFlags(flags).has(TcpFlags::CWR) { GSO_ECN } else { 0 };
            (if v4 { GSO_TCPV4 } else { GSO_TCPV6 }) | ecn
        }
    };
    let asked = Offload {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: context.hdr_len.into(),
        gso_size: context.mss,
        csum_start: context.l4.start.into(),
        csum_offset: context.l4.field.checked_sub(context.l4.start).ok_or(BAD)?.into(),
    };
    let offload = asked.validate(len, frame.head()).map_err(|_| BAD)?;
    frame.set_offload(offload);
    Ok(())
}
