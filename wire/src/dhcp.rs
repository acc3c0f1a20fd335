//! DHCP for IPv4 (RFC 2131, options of RFC 2132, 3442, 4039): messages and what the switch says to them.
//!
//! ```text
//!   | op .. chaddr | sname 64 | file 128 | 63 82 53 63 | 53 1 TYPE | 54 4 SERVER | ... | 255
//!   0              44         108        236           240
//! ```
//!
//! # Invariants
//! - Options are walked once each through at most three areas (RFC 2132 section 9.3 lets `file` and `sname` hold some)
//!   and at most [`MAX_OPTIONS`] of them; an option that is cut off ends its area.
//! - Of an option that comes twice the first counts. (RFC 3396 would join them; none that is read here is that long.)

use std::net::Ipv4Addr;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

use crate::{MacAddr, build::Writer};

/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// The most options that are looked at.
pub const MAX_OPTIONS: usize = 96;
/// A BOOTP message has at least so many bytes (RFC 1542 section 2.1).
const MIN_LEN: usize = 300;
const COOKIE: u32 = 0x6382_5363;

/// The fixed part of a message, cookie included.
#[derive(Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DhcpHeader {
    /// 1 from a client, 2 from a server.
    pub op: u8,
    /// 1: Ethernet.
    pub hardware_type: u8,
    /// 6.
    pub hardware_len: u8,
    /// Relays on the way.
    pub hops: u8,
    /// Transaction, chosen by the client.
    pub xid: U32,
    /// Seconds since the client began.
    pub secs: U16,
    /// Bit 15: answer by broadcast.
    pub flags: U16,
    /// The address that the client has and uses.
    pub ciaddr: [u8; 4],
    /// The address that the server gives.
    pub yiaddr: [u8; 4],
    /// The next server.
    pub siaddr: [u8; 4],
    /// The relay.
    pub giaddr: [u8; 4],
    /// The client's hardware address.
    pub chaddr: MacAddr,
    /// What of `chaddr` an Ethernet address does not need.
    pub chaddr_rest: [u8; 10],
    /// The server's name, or options.
    pub sname: [u8; 64],
    /// Boot file, or options.
    pub file: [u8; 128],
    /// 63 82 53 63.
    pub cookie: U32,
}

impl DhcpHeader {
    /// Bytes.
    pub const LEN: usize = 240;
    /// `op` of a client's message.
    pub const REQUEST: u8 = 1;
    /// `op` of a server's message.
    pub const REPLY: u8 = 2;
    /// Flag: answer by broadcast.
    pub const BROADCAST: u16 = 0x8000;
}

/// Type of a message (option 53). An open set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct DhcpType(pub u8);

impl DhcpType {
    /// Who has an address for me?
    pub const DISCOVER: DhcpType = DhcpType(1);
    /// A server has.
    pub const OFFER: DhcpType = DhcpType(2);
    /// The client wants it, or to keep it.
    pub const REQUEST: DhcpType = DhcpType(3);
    /// The client found that the address is taken.
    pub const DECLINE: DhcpType = DhcpType(4);
    /// The client may use the address.
    pub const ACK: DhcpType = DhcpType(5);
    /// The client may not.
    pub const NAK: DhcpType = DhcpType(6);
    /// The client gives the address back.
    pub const RELEASE: DhcpType = DhcpType(7);
    /// The client has an address and wants the rest of the configuration.
    pub const INFORM: DhcpType = DhcpType(8);
}

/// Codes of the options that are read or written here (RFC 2132 unless said otherwise).
pub mod option {
    /// Subnet mask.
    pub const MASK: u8 = 1;
    /// Routers.
    pub const ROUTERS: u8 = 3;
    /// Name servers.
    pub const DNS: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// Domain.
    pub const DOMAIN: u8 = 15;
    /// MTU of the interface.
    pub const MTU: u8 = 26;
    /// The address that the client asks for.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Lease time in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// `file` (1), `sname` (2) or both (3) hold options.
    pub const OVERLOAD: u8 = 52;
    /// Type of the message.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server's address.
    pub const SERVER: u8 = 54;
    /// Seconds after which the client renews.
    pub const RENEWAL_TIME: u8 = 58;
    /// Seconds after which the client asks any server.
    pub const REBINDING_TIME: u8 = 59;
    /// The client's identifier; a server gives it back (RFC 6842).
    pub const CLIENT_ID: u8 = 61;
    /// Two messages will do (RFC 4039).
    pub const RAPID_COMMIT: u8 = 80;
    /// Routes with prefix lengths; a client that reads them ignores `ROUTERS` (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
}

/// A message.
#[derive(Copy, Clone, Debug)]
pub struct DhcpMessage<'a> {
    /// The fixed part.
    pub header: &'a DhcpHeader,
    options: &'a [u8],
}

impl<'a> DhcpMessage<'a> {
    /// Reads the payload of a UDP datagram: nothing if it is shorter than the fixed part, has no cookie (BOOTP) or is
    /// not about Ethernet.
    pub fn parse(payload: &'a [u8]) -> Option<DhcpMessage<'a>> {
        let (header, options) = DhcpHeader::ref_from_prefix(payload).ok()?;
        let of_ethernet = (header.hardware_type, header.hardware_len) == (1, 6);
        (of_ethernet && header.cookie.get() == COOKIE).then_some(DhcpMessage { header, options })
    }

    /// All options, those in `file` and `sname` included; neither padding nor end.
    pub fn options(&self) -> DhcpOptions<'a> {
        let own = DhcpOptions { areas: [self.options, &[], &[]], left: MAX_OPTIONS };
        let overload = own.clone().find(|(code, _)| *code == option::OVERLOAD);
        let overload = overload.and_then(|(_, value)| value.first().copied()).unwrap_or(0);
        let file = if overload & 1 != 0 { &self.header.file[..] } else { &[] };
        let sname = if overload & 2 != 0 { &self.header.sname[..] } else { &[] };
        DhcpOptions { areas: [self.options, file, sname], left: MAX_OPTIONS }
    }

    /// The value of an option, if there is one.
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        self.options().find(|(found, _)| *found == code).map(|(_, value)| value)
    }

    /// Type of the message; nothing of a BOOTP message.
    pub fn message_type(&self) -> Option<DhcpType> {
        match self.option(option::MESSAGE_TYPE)? {
            [kind] => Some(DhcpType(*kind)),
            _ => None,
        }
    }

    /// An option that holds one IPv4 address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// Lease time in seconds; `u32::MAX` is for ever.
    pub fn lease_time(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(option::LEASE_TIME)?.try_into().ok()?))
    }
}

/// Options, one after the other.
#[derive(Clone, Debug)]
pub struct DhcpOptions<'a> {
    areas: [&'a [u8]; 3],
    left: usize,
}

impl<'a> Iterator for DhcpOptions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        for area in &mut self.areas {
            // Padding is skipped in one step, so that it cannot use up the options that are looked at.
            let start = area.iter().position(|byte| *byte != 0).unwrap_or(area.len());
            let rest = core::mem::take(area).get(start..).unwrap_or(&[]);
            let (Some((&code, rest)), false) = (rest.split_first(), self.left == 0) else { continue };
            if code == 255 {
                continue;
            }
            let value = rest.split_first().and_then(|(len, rest)| rest.split_at_checked((*len).into()));
            let Some((value, rest)) = value else { continue };
            *area = rest;
            self.left -= 1;
            return Some((code, value));
        }
        None
    }
}

/// Writes options behind a reply.
#[derive(Debug)]
pub struct OptionWriter<'w, 'a>(&'w mut Writer<'a>);

impl OptionWriter<'_, '_> {
    /// One option; a value of more than 255 bytes is cut there.
    pub fn put(&mut self, code: u8, value: &[u8]) {
        let value = value.get(..255).unwrap_or(value);
        self.0.put8(code);
        self.0.put8(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.0.put(value);
    }

    /// A number of 32 bits.
    pub fn number(&mut self, code: u8, value: u32) {
        self.put(code, &value.to_be_bytes());
    }

    /// Addresses, at most 63; none: no option.
    pub fn addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        let addresses = addresses.get(..63).unwrap_or(addresses);
        if addresses.is_empty() {
            return;
        }
        self.0.put8(code);
        self.0.put8(u8::try_from(addresses.len() * 4).unwrap_or(0));
        for address in addresses {
            self.0.put(&address.octets());
        }
    }

    /// Classless routes (RFC 3442): destination, prefix length, router. At most [`MAX_ROUTES`].
    pub fn routes(&mut self, routes: &[(Ipv4Addr, u8, Ipv4Addr)]) {
        let mut value = [0; MAX_ROUTES * 9];
        let mut to = Writer::new(&mut value);
        for (network, len, router) in routes.iter().take(MAX_ROUTES) {
            let len = (*len).min(32);
            to.put8(len);
            // Only the bytes that the prefix reaches.
            let octets = network.octets();
            to.put(octets.get(..usize::from(len.div_ceil(8))).unwrap_or(&[]));
            to.put(&router.octets());
        }
        let len = to.len();
        if len > 0 {
            self.put(option::CLASSLESS_ROUTES, value.get(..len).unwrap_or(&[]));
        }
    }
}

/// The most routes of [`OptionWriter::routes`]: what one option of 255 bytes holds.
pub const MAX_ROUTES: usize = 28;

/// The payload of a server's message: the fixed part as the answer to `request`, type, server, the client's identifier,
/// then the options that `more` writes; padded to the shortest BOOTP message.
pub fn reply(
    to: &mut Writer<'_>,
    request: &DhcpMessage<'_>,
    kind: DhcpType,
    address: Ipv4Addr,
    server: Ipv4Addr,
    more: impl FnOnce(&mut OptionWriter<'_, '_>),
) {
    let start = to.len();
    let asked = request.header;
    let ciaddr = if kind == DhcpType::ACK { asked.ciaddr } else { [0; 4] };
    let header = DhcpHeader {
        op: DhcpHeader::REPLY,
        hardware_type: 1,
        hardware_len: 6,
        hops: 0,
        xid: asked.xid,
        secs: U16::new(0),
        flags: asked.flags,
        ciaddr,
        yiaddr: address.octets(),
        siaddr: [0; 4],
        giaddr: asked.giaddr,
        chaddr: asked.chaddr,
        chaddr_rest: [0; 10],
        sname: [0; 64],
        file: [0; 128],
        cookie: U32::new(COOKIE),
    };
    to.put(header.as_bytes());
    let mut options = OptionWriter(to);
    options.put(option::MESSAGE_TYPE, &[kind.0]);
    options.put(option::SERVER, &server.octets());
    if let Some(id) = request.option(option::CLIENT_ID) {
        options.put(option::CLIENT_ID, id);
    }
    more(&mut options);
    to.put8(255);
    to.pad(start, MIN_LEN);
}

#[cfg(test)]
mod tests;
