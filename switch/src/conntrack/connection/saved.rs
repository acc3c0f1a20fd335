//! A connection, as a record and back.

use core::sync::atomic::Ordering;

use fabnic_saved as records;
use fabnic_wire::IpProtocol;

use super::{ASSURED, DNAT, Inner, REPLIED, SNAT};
use crate::conntrack::tcp::Tcp;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::wheel::Timed;

fn tuple(of: &Tuple) -> records::Tuple {
    let Tuple { src, dst, src_port, dst_port, .. } = *of;
    records::Tuple { src, dst, src_port, dst_port }
}

impl Inner {
    /// What it is at this moment, if it lives.
    pub(crate) fn save(&self, timed: &Timed, now: u32) -> Option<records::Connection> {
        let live = self.live.as_ref()?;
        let deadline = timed.deadline.load(Ordering::Relaxed);
        (deadline > now).then(|| records::Connection {
            zone: live.zone.id,
            port: live.owner.port.0,
            protocol: live.original.protocol.0,
            v6: live.original.v6,
            original: tuple(&live.original),
            reply: tuple(&live.reply),
            bits: self.bits,
            mark: live.mark,
            age_s: now.saturating_sub(live.created),
            left_s: deadline - now,
            packets: live.packets,
            bytes: live.bytes,
            tcp: live.tcp.map(|tcp| tcp.save()),
        })
    }
}

/// What a record says, once it was found to make sense.
pub(crate) struct Sensible {
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) bits: u8,
}

impl Sensible {
    /// Nothing, if the record contradicts itself.
    pub(crate) fn of(saved: &records::Connection) -> Option<Sensible> {
        let protocol = IpProtocol(saved.protocol);
        let tuple = |of: &records::Tuple| {
            let is_short = |address: &[u8; 16]| address.iter().skip(4).all(|byte| *byte == 0);
            let fits = saved.v6 || (is_short(&of.src) && is_short(&of.dst));
            let records::Tuple { src, dst, src_port, dst_port } = *of;
            fits.then_some(Tuple { src, dst, src_port, dst_port, zone: saved.zone, protocol, v6: saved.v6 })
        };
        let (original, reply) = (tuple(&saved.original)?, tuple(&saved.reply)?);
        let tcp = match &saved.tcp {
            Some(tcp) => Some(Tcp::restored(tcp)?),
            None => None,
        };
        let is_translated = saved.bits & (SNAT | DNAT) != 0;
        let is_plain = reply == original.reversed();
        let fits = saved.bits & !(REPLIED | ASSURED | SNAT | DNAT) == 0
            && tcp.is_some() == (protocol == IpProtocol::TCP)
            && is_translated != is_plain
            && original.may_open();
        fits.then_some(Sensible { original, reply, tcp, bits: saved.bits })
    }
}
