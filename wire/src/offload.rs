//! What a frame's sender left for somebody else to do.
//!
//! [`Offload`] goes with every frame through the whole house. It has the fields, constants and meaning of
//! `struct virtio_net_hdr` (virtio 1.x, section 5.1.6), because the guests, TAP devices and AF_XDP speak it, so
//! that a frame with a partial checksum or a 64 KiB TSO frame goes from guest to guest untouched: nobody
//! segments it, nobody sums it.
//!
//! ```text
//!   guest --decode--> Offload --validate(frame_len, head)--> Offload we stand behind --encode--> guest
//!                     (as given)                             shift() when a tag comes or goes
//! ```
//!
//! # Invariants after [`Offload::validate`]
//! - With NEEDS_CSUM, the checksum field lies within the head and never where forwarding decisions look: not in
//!   Ethernet, tags, ARP, IP or the ports of TCP and UDP. Finishing the checksum cannot change what was decided on.
//! - With GSO, the headers are what the type says, `csum_start` is the L4 header, `hdr_len` is its true end and
//!   lies within the head, and `gso_size` gives at least 2 and at most [`MAX_SEGMENTS`] segments.
//! - Nothing else is set: bits that the sender had no business to set are gone.

use thiserror::Error;

use crate::{
    EtherType, IpProtocol,
    layers::{Fragment, IpLayer, Layers, Network},
};

/// The checksum from `csum_start` on is partial: its field holds the pseudo header's sum.
pub const NEEDS_CSUM: u8 = 1;
/// The checksum has been verified by whoever hands the frame over.
pub const DATA_VALID: u8 = 2;

/// Not a large frame.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4 (TSO).
pub const GSO_TCPV4: u8 = 1;
/// UDP by IP fragmentation (UFO). Never offered here; frames that carry it are refused.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6 (TSO).
pub const GSO_TCPV6: u8 = 4;
/// UDP, each segment a datagram (USO).
pub const GSO_UDP_L4: u8 = 5;
/// To be OR-ed to a TCP type: the frame has CWR set, which only the first segment may keep.
pub const GSO_ECN: u8 = 0x80;

/// Bytes of the header that goes before a frame in a virtio 1.x ring, `num_buffers` included.
pub const HEADER_LEN: usize = 12;

/// More segments than that from one frame are refused. A 64 KiB frame reaches it below 32 bytes a segment;
/// Linux never sends TCP below 48 (`tcp_min_snd_mss`) nor UDP with more than 128 segments, so only a guest that
/// wants to keep the switch busy gets there.
pub const MAX_SEGMENTS: usize = 2048;

/// What is left to do on a frame, in host byte order. The default is a plain frame.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Offload {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`] .. [`GSO_UDP_L4`], with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers up to the payload; only with GSO, else 0.
    pub hdr_len: u16,
    /// Payload bytes in each segment but the last; only with GSO, else 0.
    pub gso_size: u16,
    /// Offset of the first byte that the checksum covers; only with NEEDS_CSUM, else 0.
    pub csum_start: u16,
    /// Offset of the checksum field from `csum_start`; only with NEEDS_CSUM, else 0.
    pub csum_offset: u16,
}

/// A virtio-net header that contradicts its frame or the specification.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// A gso_type that does not exist or that we never offered (UFO, tunnels).
    #[error(
        "virtio-net header: gso_type {0:#04x} was not offered (expected 0, 1, 4 or 5, ECN 0x80 with 1 and 4)"
    )]
    GsoType(u8),
    /// GSO demands NEEDS_CSUM (virtio 1.x section 5.1.6.2.1).
    #[error("virtio-net header: gso_type {0:#04x} without NEEDS_CSUM")]
    GsoWithoutChecksum(u8),
    /// Segments without payload.
    #[error("virtio-net header: gso_size is 0")]
    GsoSize,
    /// So small a gso_size that one frame makes too many segments.
    #[error("virtio-net header: gso_size {gso_size} makes {segments} segments, at most 2048 are allowed")]
    Segments {
        /// The size asked for.
        gso_size: u16,
        /// The number of segments this makes.
        segments: usize,
    },
    /// The frame is not of the protocols that its gso_type names.
    #[error("virtio-net header: gso_type {gso_type:#04x} on a frame that is not {expected}")]
    GsoHeaders {
        /// The type given.
        gso_type: u8,
        /// What the frame should have been.
        expected: &'static str,
    },
    /// With GSO the checksum must be that of the TCP or UDP header.
    #[error(
        "virtio-net header: checksum {start}+{offset} is not that of the L4 header to segment, expected {l4}+{expected_offset}"
    )]
    GsoChecksum {
        /// csum_start as given.
        start: u16,
        /// csum_offset as given.
        offset: u16,
        /// Where the L4 header is.
        l4: u16,
        /// Where its checksum is.
        expected_offset: u16,
    },
    /// The headers end behind the frame or behind the part of it that we hold.
    #[error("virtio-net header: headers end at {end}, the frame's first {available} bytes are at hand")]
    Headers {
        /// First byte behind the headers.
        end: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// The checksum field ends behind the frame or behind the part of it that we hold.
    #[error(
        "virtio-net header: checksum field {start}+{offset} ends at {end}, behind the {available} bytes at hand"
    )]
    ChecksumBeyond {
        /// csum_start as given.
        start: u16,
        /// csum_offset as given.
        offset: u16,
        /// First byte behind the field.
        end: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// The checksum field would overwrite bytes that forwarding decides on.
    #[error(
        "virtio-net header: checksum {start}+{offset} overwrites a header, expected the field of a checksum"
    )]
    ChecksumPlace {
        /// csum_start as given.
        start: u16,
        /// csum_offset as given.
        offset: u16,
    },
}

impl Offload {
    /// Nothing is left to do, and nothing is vouched for.
    pub const PLAIN: Offload =
        Offload { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// No checksum to finish and nothing to segment.
    #[inline]
    pub const fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }

    /// The checksum is partial.
    #[inline]
    pub const fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// A large frame, to be segmented for a receiver that cannot take it.
    #[inline]
    pub const fn is_gso(&self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// The type without its ECN bit.
    #[inline]
    pub const fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Offset of the checksum field from the start of the frame, with NEEDS_CSUM.
    #[inline]
    pub fn csum_field(&self) -> Option<usize> {
        self.needs_csum().then(|| usize::from(self.csum_start) + usize::from(self.csum_offset))
    }

    /// The 12 bytes that go before a frame in a receive buffer. `num_buffers` is 1 unless buffers are merged.
    #[inline]
    pub const fn encode(&self, num_buffers: u16) -> [u8; HEADER_LEN] {
        let hdr_len = self.hdr_len.to_le_bytes();
        let gso_size = self.gso_size.to_le_bytes();
        let start = self.csum_start.to_le_bytes();
        let offset = self.csum_offset.to_le_bytes();
        let buffers = num_buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            hdr_len[0],
            hdr_len[1],
            gso_size[0],
            gso_size[1],
            start[0],
            start[1],
            offset[0],
            offset[1],
            buffers[0],
            buffers[1],
        ]
    }

    /// What a header says, as given: not yet to be trusted. `num_buffers` (bytes 10 and 11) is ignored.
    #[inline]
    pub const fn decode(header: &[u8; HEADER_LEN]) -> Offload {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, _, _] = *header;
        Offload {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// Moves the offsets by `delta` bytes, when as many bytes were put in (a tag pushed: 4) or taken out (popped:
    /// -4) before the checksum start. A plain frame stays plain.
    #[inline]
    pub const fn shift(&mut self, delta: i16) {
        if self.needs_csum() {
            self.csum_start = self.csum_start.saturating_add_signed(delta);
        }
        if self.is_gso() {
            self.hdr_len = self.hdr_len.saturating_add_signed(delta);
        }
    }

    /// Checks a header that a guest gave against its frame, and returns what we stand behind.
    ///
    /// `frame_len` is the length of the frame in bytes without this header, `head` its first bytes (privately
    /// held: they must be the bytes that will be delivered). `hdr_len` is computed, not believed. A large frame
    /// that fits one segment becomes a frame with a partial checksum. DATA_VALID and unknown flags are dropped, as
    /// section 5.1.6.2.2 of virtio 1.x asks: one guest cannot vouch for a checksum to another.
    ///
    /// # Errors
    /// See [`OffloadError`]; the frame is to be dropped, the device needs no reset. If `head` is not the whole frame,
    /// the reason may be that headers with many options go on behind it: hold more of it and ask once more.
    #[inline]
    pub fn validate(&self, frame_len: usize, head: &[u8]) -> Result<Offload, OffloadError> {
        if self.is_plain() { Ok(Offload::PLAIN) } else { self.validate_work(frame_len, head) }
    }

    fn validate_work(&self, frame_len: usize, head: &[u8]) -> Result<Offload, OffloadError> {
        let head = head.get(..frame_len).unwrap_or(head);
        if !self.needs_csum() {
            return Err(match self.gso_kind() {
                GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 => OffloadError::GsoWithoutChecksum(self.gso_type),
                _ => OffloadError::GsoType(self.gso_type),
            });
        }
        let (start, offset) = (self.csum_start, self.csum_offset);
        let end = usize::from(start) + usize::from(offset) + 2;
        if end > head.len() {
            return Err(OffloadError::ChecksumBeyond { start, offset, end, available: head.len() });
        }
        let partial = Offload { flags: NEEDS_CSUM, csum_start: start, csum_offset: offset, ..Offload::PLAIN };
        let layers = Layers::of(head);
        if self.is_gso() {
            return self.validate_gso(partial, frame_len, head, layers.and_then(|l| l.ip));
        }
        match layers {
            Some(layers) if checksum_place_is_free(&layers, start, offset) => Ok(partial),
            _ => Err(OffloadError::ChecksumPlace { start, offset }),
        }
    }

    fn validate_gso(
        &self,
        partial: Offload,
        frame_len: usize,
        head: &[u8],
        ip: Option<IpLayer>,
    ) -> Result<Offload, OffloadError> {
        let gso_type = self.gso_type;
        let (network, protocol, expected) = match gso_type {
            GSO_TCPV4 | 0x81 => (Some(Network::V4), IpProtocol::TCP, "unfragmented TCP over IPv4"),
            GSO_TCPV6 | 0x84 => (Some(Network::V6), IpProtocol::TCP, "unfragmented TCP over IPv6"),
            GSO_UDP_L4 => (None, IpProtocol::UDP, "unfragmented UDP over IPv4 or IPv6"),
            _ => return Err(OffloadError::GsoType(gso_type)),
        };
        let ip = ip
            .filter(|ip| {
                ip.fragment == Fragment::No
                    && ip.protocol == protocol
                    && network.is_none_or(|network| network == ip.network)
            })
            .ok_or(OffloadError::GsoHeaders { gso_type, expected })?;
        let expected_offset = protocol.checksum_offset().unwrap_or(0);
        if (partial.csum_start, partial.csum_offset) != (ip.l4, expected_offset) {
            return Err(OffloadError::GsoChecksum {
                start: partial.csum_start,
                offset: partial.csum_offset,
                l4: ip.l4,
                expected_offset,
            });
        }
        let l4 = usize::from(ip.l4);
        let l4_len = match protocol {
            // Data offset, in words. validate_work has seen that the checksum, behind it, is at hand.
            IpProtocol::TCP => match usize::from(head.get(l4 + 12).copied().unwrap_or(0) >> 4) * 4 {
                len @ 20.. => len,
                _ => return Err(OffloadError::GsoHeaders { gso_type, expected }),
            },
            _ => 8,
        };
        let hdr_len = l4 + l4_len;
        if hdr_len > head.len() {
            return Err(OffloadError::Headers { end: hdr_len, available: head.len() });
        }
        if self.gso_size == 0 {
            return Err(OffloadError::GsoSize);
        }
        let payload = frame_len.saturating_sub(hdr_len);
        let segments = payload.div_ceil(usize::from(self.gso_size));
        if segments > MAX_SEGMENTS {
            return Err(OffloadError::Segments { gso_size: self.gso_size, segments });
        }
        if segments <= 1 {
            return Ok(partial);
        }
        let hdr_len = u16::try_from(hdr_len)
            .map_err(|_| OffloadError::Headers { end: hdr_len, available: usize::from(u16::MAX) })?;
        Ok(Offload { gso_type, hdr_len, gso_size: self.gso_size, ..partial })
    }
}

/// Whether the field may be written after the switch has decided on the frame's headers.
///
/// The proper field of the L4 header, or anything behind the L4 header (a tunnel that the guest built itself, with
/// the inner checksum left partial), or anything behind Ethernet in protocols that we do not know.
fn checksum_place_is_free(layers: &Layers, start: u16, offset: u16) -> bool {
    let field = usize::from(start) + usize::from(offset);
    let Some(ip) = layers.ip else {
        return start >= layers.l3
            && !matches!(
                layers.ethertype,
                EtherType::IPV4 | EtherType::IPV6 | EtherType::ARP | EtherType::RARP
            );
    };
    if start < ip.l4 {
        return false;
    }
    if ip.fragment == Fragment::Later {
        return true;
    }
    let own_field = match ip.protocol {
        IpProtocol::ICMP => Some(2),
        protocol => protocol.checksum_offset(),
    };
    let proper = start == ip.l4 && own_field == Some(offset);
    proper || field >= usize::from(ip.l4) + ip.protocol.min_header_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4/TCP frame head with `tags` tags and 60 bytes of payload in the head.
    fn tcp4(tags: usize) -> Vec<u8> {
        let mut head = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
        for _ in 0..tags {
            head.extend([0x81, 0, 0, 10]);
        }
        head.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        head.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        head.extend([7; 60]);
        head
    }

    const TSO4: Offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 9999,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };

    #[test]
    fn twelve_bytes_little_endian() {
        let offload = Offload {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
        };
        let bytes = offload.encode(0x090a);
        assert_eq!(bytes, [1, 0x81, 2, 1, 4, 3, 6, 5, 8, 7, 0x0a, 9]);
        assert_eq!(Offload::decode(&bytes), offload);
    }

    #[test]
    fn header_length_is_computed() {
        let valid = TSO4.validate(9000, &tcp4(0));
        assert_eq!(valid, Ok(Offload { hdr_len: 54, ..TSO4 }));
        for tags in [1u16, 2] {
            let start = 34 + 4 * tags;
            let given = Offload { csum_start: start, ..TSO4 };
            let valid = given.validate(9000, &tcp4(tags.into()));
            assert_eq!(valid, Ok(Offload { hdr_len: start + 20, ..given }));
        }
    }

    #[test]
    fn shift_follows_a_tag() {
        let mut offload = TSO4.validate(9000, &tcp4(0)).unwrap();
        offload.shift(4);
        assert_eq!(offload.validate(9004, &tcp4(1)), Ok(offload));
        offload.shift(-4);
        assert_eq!(offload.validate(9000, &tcp4(0)), Ok(offload));
        let mut plain = Offload::PLAIN;
        plain.shift(4);
        assert_eq!(plain, Offload::PLAIN);
    }

    #[test]
    fn one_segment_is_no_large_frame() {
        let partial = Offload { gso_type: 0, gso_size: 0, hdr_len: 0, ..TSO4 };
        assert_eq!(TSO4.validate(54 + 1448, &tcp4(0)), Ok(partial));
        assert_eq!(TSO4.validate(54 + 1449, &tcp4(0)), Ok(Offload { hdr_len: 54, ..TSO4 }));
    }

    #[test]
    fn nobody_vouches_for_a_guest() {
        let valid = Offload { flags: DATA_VALID, ..Offload::PLAIN };
        assert_eq!(valid.validate(100, &tcp4(0)), Ok(Offload::PLAIN));
        let both = Offload { flags: 0xff, ..TSO4 };
        assert_eq!(both.validate(9000, &tcp4(0)).map(|o| o.flags), Ok(NEEDS_CSUM));
    }

    #[test]
    fn lies_are_refused() {
        let head = tcp4(0);
        let refused = |offload: Offload| offload.validate(9000, &head).unwrap_err();
        assert_eq!(refused(Offload { gso_size: 0, ..TSO4 }), OffloadError::GsoSize);
        assert_eq!(refused(Offload { flags: 0, ..TSO4 }), OffloadError::GsoWithoutChecksum(1));
        for gso_type in [GSO_UDP, 2, 0x20, 0x80, 0x85, 0x40] {
            assert_eq!(refused(Offload { gso_type, ..TSO4 }), OffloadError::GsoType(gso_type));
            assert!(refused(Offload { gso_type, flags: 0, ..TSO4 }).to_string().contains("gso_type"));
        }
        assert!(matches!(refused(Offload { gso_type: GSO_TCPV6, ..TSO4 }), OffloadError::GsoHeaders { .. }));
        assert!(matches!(refused(Offload { gso_type: GSO_UDP_L4, ..TSO4 }), OffloadError::GsoHeaders { .. }));
        assert!(matches!(refused(Offload { gso_size: 4, ..TSO4 }), OffloadError::Segments { .. }));
        assert!(matches!(refused(Offload { csum_offset: 17, ..TSO4 }), OffloadError::GsoChecksum { .. }));
        assert!(matches!(
            refused(Offload { csum_start: 65535, ..TSO4 }),
            OffloadError::ChecksumBeyond { .. }
        ));
        assert!(matches!(TSO4.validate(51, &head), Err(OffloadError::ChecksumBeyond { .. })));
    }

    #[test]
    fn a_checksum_cannot_rewrite_what_was_decided_on() {
        let head = tcp4(0);
        let at = |csum_start, csum_offset| {
            Offload { flags: NEEDS_CSUM, csum_start, csum_offset, ..Offload::PLAIN }
                .validate(head.len(), &head)
        };
        assert!(at(34, 16).is_ok());
        // Behind the TCP header: a tunnel's inner checksum.
        assert!(at(60, 16).is_ok());
        // Destination MAC, source address, ports, sequence number.
        for (start, offset) in [(0, 0), (0, 26), (26, 0), (34, 0), (34, 2), (30, 20), (36, 0), (20, 60)] {
            assert!(matches!(at(start, offset), Err(OffloadError::ChecksumPlace { .. })), "{start}+{offset}");
        }
        // SCTP has ports, too, and no checksum of this kind.
        let mut sctp = head.clone();
        sctp[23] = 132;
        let partial = Offload { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 2, ..Offload::PLAIN };
        assert!(matches!(partial.validate(sctp.len(), &sctp), Err(OffloadError::ChecksumPlace { .. })));
    }
}
