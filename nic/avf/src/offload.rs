//! What a transmit descriptor asks for, as the house says it ([`fabnic_wire::Offload`]).
//!
//! The positions come from the descriptors, as hardware takes them, and must be those of the frame: what is finished
//! later is finished where the switch has looked. All of it works on the private head.
//!
//! * A checksum of TCP or UDP stays partial: the driver's seed is what `NEEDS_CSUM` means.
//! * A large frame stays large. Drivers leave its IP length and IPv4 checksum zero and its seed without a length, because
//!   hardware writes them for each segment; whoever takes the frame whole must find them as of one packet.
//! * An IPv4 header checksum and an SCTP checksum are nobody's to finish later: they are computed here.

use fabnic_avf_spec::transmit::{Context, Data, cmd, context_cmd};
use fabnic_memory::{Map, Slice};
use fabnic_port::{DropReason, Frame};
use fabnic_wire::checksum::{Sum, pseudo_header};
use fabnic_wire::layers::{IpLayer, Network};
use fabnic_wire::offload::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};
use fabnic_wire::{Layers, Offload};

use crate::crc::Crc;

/// Bytes that a TCP header may add to the positions.
const MOST_L4: usize = 60;
/// TCP's congestion window reduced flag, and where flags are.
const CWR: u8 = 0x80;
const TCP_FLAGS: usize = 13;

/// Whether the descriptors ask for anything.
#[inline(always)]
pub(crate) fn is_plain(data: &Data, context: Option<&Context>) -> bool {
    context.is_none() && data.cmd & cmd::L4_MASK == 0 && data.cmd & cmd::IP_MASK != cmd::IPV4_CSUM
}

/// Does what must be done now and notes in the frame what is left.
///
/// # Errors
/// The descriptors contradict the frame or ask for what was not granted.
pub(crate) fn prepare(
    frame: &mut Frame,
    slices: &[Slice],
    source: &Map,
    data: &Data,
    context: Option<&Context>,
) -> Result<(), DropReason> {
    prepare_inner(frame, slices, source, data, context).ok_or(DropReason::BadOffload)
}

fn prepare_inner(
    frame: &mut Frame,
    slices: &[Slice],
    source: &Map,
    data: &Data,
    context: Option<&Context>,
) -> Option<()> {
    let l3 = usize::from(data.mac_len);
    let l4 = l3 + usize::from(data.ip_len);
    let len = frame.len();
    if frame.head().len() < l4 + MOST_L4 {
        frame.pull(l4 + MOST_L4, source, slices);
    }
    let large = context.filter(|context| context.cmd & context_cmd::TSO != 0);
    if context.is_some_and(|context| context.tunnel != 0 || context.cmd & context_cmd::IL2TAG2 != 0) {
        return None;
    }
    if large.is_some() {
        write_lengths(frame.head_mut(), l3, l4, len, data)?;
    }
    if data.cmd & cmd::IP_MASK == cmd::IPV4_CSUM {
        write_ip_checksum(frame.head_mut(), l3, l4)?;
    }
    match data.cmd & cmd::L4_MASK {
        0 => return large.is_none().then_some(()),
        cmd::SCTP => return large.is_none().then(|| write_sctp(frame, slices, source, l4))?,
        _ => {}
    }
    let udp = data.cmd & cmd::L4_MASK == cmd::UDP;
    let mut offload = Offload {
        flags: NEEDS_CSUM,
        csum_start: u16::try_from(l4).ok()?,
        csum_offset: if udp { 6 } else { 16 },
        ..Offload::PLAIN
    };
    if let Some(context) = large {
        let ecn = !udp && frame.head().get(l4 + TCP_FLAGS)? & CWR != 0;
        offload.gso_size = context.mss;
        offload.gso_type = match (udp, data.cmd & cmd::IP_MASK == cmd::IPV6) {
            (true, _) => GSO_UDP_L4,
            (false, false) => GSO_TCPV4,
            (false, true) => GSO_TCPV6,
        } | if ecn { GSO_ECN } else { GSO_NONE };
    }
    let offload = offload.validate(len as usize, frame.head()).ok()?;
    frame.set_offload(offload);
    Some(())
}

/// The lengths of a large frame as of one packet, and its seed with that length.
fn write_lengths(head: &mut [u8], l3: usize, l4: usize, len: u32, data: &Data) -> Option<()> {
    let layers = Layers::of(head)?;
    let ip: IpLayer = layers.ip?;
    let len = usize::try_from(len).ok()?;
    if usize::from(layers.l3) != l3 || usize::from(ip.l4) != l4 {
        return None;
    }
    let v6 = data.cmd & cmd::IP_MASK == cmd::IPV6;
    if v6 != (ip.network == Network::V6) {
        return None;
    }
    let l4_len = u16::try_from(len.checked_sub(l4)?).ok()?;
    if v6 {
        put(head, l3 + 4, u16::try_from(len.checked_sub(l3 + 40)?).ok()?)?;
    } else {
        put(head, l3 + 2, u16::try_from(len.checked_sub(l3)?).ok()?)?;
        write_ip_checksum(head, l3, l4)?;
    }
    let seed = pseudo_header(head, layers.l3, &ip, l4_len)?;
    if data.cmd & cmd::L4_MASK == cmd::UDP {
        put(head, l4 + 4, l4_len)?;
        put(head, l4 + 6, seed.word())
    } else {
        put(head, l4 + 16, seed.word())
    }
}

fn put(head: &mut [u8], at: usize, word: u16) -> Option<()> {
    head.get_mut(at..at + 2)?.copy_from_slice(&word.to_be_bytes());
    Some(())
}

/// Only where there is an IPv4 header as long as was said: it is what the switch has looked at.
fn write_ip_checksum(head: &mut [u8], l3: usize, l4: usize) -> Option<()> {
    let layers = Layers::of(head)?;
    let ip = layers.ip?;
    if usize::from(layers.l3) != l3 || usize::from(ip.l4) != l4 || ip.network != Network::V4 {
        return None;
    }
    put(head, l3 + 10, 0)?;
    let sum = Sum::of(head.get(l3..l4)?);
    put(head, l3 + 10, sum.checksum())
}

/// SCTP's checksum covers every byte, and nobody behind us would finish it.
fn write_sctp(frame: &mut Frame, slices: &[Slice], source: &Map, l4: usize) -> Option<()> {
    let layers = Layers::of(frame.head())?;
    let ip = layers.ip?;
    if usize::from(ip.l4) != l4 || ip.protocol != fabnic_wire::IpProtocol::SCTP {
        return None;
    }
    frame.head_mut().get_mut(l4 + 8..l4 + 12)?.fill(0);
    let mut crc = Crc::castagnoli();
    crc.add(frame.head().get(l4..)?);
    let mut rest = frame.rest(slices);
    let mut left = frame.rest_len() as usize;
    let mut bounce = [0; 1024];
    while left > 0 {
        let part = bounce.get_mut(..left.min(1024))?;
        if rest.read(source, part) != part.len() {
            return None;
        }
        crc.add(part);
        left -= part.len();
    }
    frame.head_mut().get_mut(l4 + 8..l4 + 12)?.copy_from_slice(&crc.finish());
    Some(())
}
