//! DHCP for IPv6 (RFC 8415): messages between client and server, their options, and writing them.
//!
//! ```text
//!   | type | transaction 3 | code 2 | len 2 | value ... | code | len | ...
//!                            3 IA_NA: iaid 4, T1 4, T2 4, options: 5 IAADDR: address 16, preferred 4, valid 4, options
//! ```
//!
//! Messages of relays (types 12 and 13) hold another message; they are none of a client's link and are not read.
//!
//! # Invariants
//! - An option that is cut off ends its list, and a list is looked at up to [`MAX_OPTIONS`]. Nesting is followed two
//!   levels deep, by functions and not by recursion.

use std::net::Ipv6Addr;

use crate::{
    MacAddr,
    build::Writer,
    bytes::{array, be16},
};

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;
/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays of a link: ff02::1:2.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// The most options that are looked at in one list.
pub const MAX_OPTIONS: usize = 64;

/// Type of a message. An open set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dhcp6Type(pub u8);

impl Dhcp6Type {
    /// Which servers are there?
    pub const SOLICIT: Dhcp6Type = Dhcp6Type(1);
    /// A server is.
    pub const ADVERTISE: Dhcp6Type = Dhcp6Type(2);
    /// The client wants addresses.
    pub const REQUEST: Dhcp6Type = Dhcp6Type(3);
    /// Does the client's address fit the link?
    pub const CONFIRM: Dhcp6Type = Dhcp6Type(4);
    /// The client wants to keep its addresses, from its server.
    pub const RENEW: Dhcp6Type = Dhcp6Type(5);
    /// The same from any server.
    pub const REBIND: Dhcp6Type = Dhcp6Type(6);
    /// The server's answer.
    pub const REPLY: Dhcp6Type = Dhcp6Type(7);
    /// The client gives addresses back.
    pub const RELEASE: Dhcp6Type = Dhcp6Type(8);
    /// The client found that addresses are taken.
    pub const DECLINE: Dhcp6Type = Dhcp6Type(9);
    /// A server asks a client to renew.
    pub const RECONFIGURE: Dhcp6Type = Dhcp6Type(10);
    /// The client wants configuration only.
    pub const INFORMATION_REQUEST: Dhcp6Type = Dhcp6Type(11);
    /// A relay's envelope towards the server.
    pub const RELAY_FORW: Dhcp6Type = Dhcp6Type(12);
    /// A server's envelope towards a relay.
    pub const RELAY_REPL: Dhcp6Type = Dhcp6Type(13);

    /// Only servers send such messages.
    pub const fn is_from_server(self) -> bool {
        matches!(
            self,
            Dhcp6Type::ADVERTISE | Dhcp6Type::REPLY | Dhcp6Type::RECONFIGURE | Dhcp6Type::RELAY_REPL
        )
    }
}

/// Codes of the options that are read or written here (RFC 8415 section 21 unless said otherwise).
pub mod option {
    /// The client's DUID.
    pub const CLIENT_ID: u16 = 1;
    /// The server's DUID.
    pub const SERVER_ID: u16 = 2;
    /// Addresses that stay.
    pub const IA_NA: u16 = 3;
    /// Temporary addresses.
    pub const IA_TA: u16 = 4;
    /// An address in an IA.
    pub const IA_ADDRESS: u16 = 5;
    /// Preference of a server, 255 the highest.
    pub const PREFERENCE: u16 = 7;
    /// What became of what was asked.
    pub const STATUS: u16 = 13;
    /// Two messages will do.
    pub const RAPID_COMMIT: u16 = 14;
    /// Name servers (RFC 3646).
    pub const DNS: u16 = 23;
}

/// Codes of [`option::STATUS`].
pub mod status {
    /// Done.
    pub const SUCCESS: u16 = 0;
    /// There is no address to be had.
    pub const NO_ADDRESSES: u16 = 2;
    /// The server knows nothing of that.
    pub const NO_BINDING: u16 = 3;
    /// The address does not fit the link.
    pub const NOT_ON_LINK: u16 = 4;
}

/// A message between client and server.
#[derive(Copy, Clone, Debug)]
pub struct Dhcp6Message<'a> {
    /// Its type.
    pub kind: Dhcp6Type,
    /// Transaction, 24 bits, chosen by the client.
    pub transaction: u32,
    options: &'a [u8],
}

impl<'a> Dhcp6Message<'a> {
    /// Reads the payload of a UDP datagram: nothing if it is shorter than the fixed part, or a relay's.
    pub fn parse(payload: &'a [u8]) -> Option<Dhcp6Message<'a>> {
        let ([kind, a, b, c], options) = payload.split_first_chunk()?;
        let kind = Dhcp6Type(*kind);
        let is_relayed = matches!(kind, Dhcp6Type::RELAY_FORW | Dhcp6Type::RELAY_REPL);
        (!is_relayed).then_some(Dhcp6Message {
            kind,
            transaction: u32::from_be_bytes([0, *a, *b, *c]),
            options,
        })
    }

    /// All options.
    pub fn options(&self) -> Dhcp6Options<'a> {
        Dhcp6Options { rest: self.options, left: MAX_OPTIONS }
    }

    /// The value of an option, if there is one.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options().value(code)
    }

    /// All identity associations for addresses, temporary ones included.
    pub fn associations(&self) -> impl Iterator<Item = Association<'a>> + use<'a> {
        self.options().filter_map(|(code, value)| Association::parse(code, value))
    }
}

/// Options, one after the other.
#[derive(Clone, Debug)]
pub struct Dhcp6Options<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Dhcp6Options<'a> {
    /// The first value of this code.
    pub fn value(mut self, code: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == code).map(|(_, value)| value)
    }

    /// The status code among the options; none means success.
    pub fn status(self) -> u16 {
        self.value(option::STATUS).and_then(|value| be16(value, 0)).unwrap_or(status::SUCCESS)
    }
}

impl<'a> Iterator for Dhcp6Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        let ([a, b, c, d], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*c, *d]).into())?;
        self.rest = rest;
        Some((u16::from_be_bytes([*a, *b]), value))
    }
}

/// An identity association: the addresses of one interface of a client.
#[derive(Clone, Debug)]
pub struct Association<'a> {
    /// [`option::IA_NA`] or [`option::IA_TA`].
    pub code: u16,
    /// Chosen by the client.
    pub id: u32,
    /// Addresses and a status.
    pub options: Dhcp6Options<'a>,
}

impl<'a> Association<'a> {
    fn parse(code: u16, value: &'a [u8]) -> Option<Association<'a>> {
        let fixed = match code {
            option::IA_NA => 12,
            option::IA_TA => 4,
            _ => return None,
        };
        let (fixed, rest) = value.split_at_checked(fixed)?;
        let id = u32::from_be_bytes(*fixed.first_chunk()?);
        Some(Association { code, id, options: Dhcp6Options { rest, left: MAX_OPTIONS } })
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = AssociatedAddress> + use<'a> {
        self.options.clone().filter_map(|(code, value)| {
            (code == option::IA_ADDRESS).then(|| AssociatedAddress::parse(value)).flatten()
        })
    }
}

/// An address in an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssociatedAddress {
    /// The address.
    pub address: Ipv6Addr,
    /// Seconds for which it may begin connections.
    pub preferred: u32,
    /// Seconds for which it may be used; 0: not any more, `u32::MAX`: for ever.
    pub valid: u32,
    /// What became of it.
    pub status: u16,
}

impl AssociatedAddress {
    fn parse(value: &[u8]) -> Option<AssociatedAddress> {
        let rest = value.get(24..)?;
        Some(AssociatedAddress {
            address: Ipv6Addr::from_octets(*array(value, 0)?),
            preferred: u32::from_be_bytes(*array(value, 16)?),
            valid: u32::from_be_bytes(*array(value, 20)?),
            status: Dhcp6Options { rest, left: MAX_OPTIONS }.status(),
        })
    }
}

/// Writes the fixed part of a message.
pub fn begin(to: &mut Writer<'_>, kind: Dhcp6Type, transaction: u32) {
    let [_, a, b, c] = transaction.to_be_bytes();
    to.put(&[kind.0, a, b, c]);
}

/// Writes an option whose value is what `value` writes.
pub fn put(to: &mut Writer<'_>, code: u16, value: impl FnOnce(&mut Writer<'_>)) {
    to.put16(code);
    let at = to.len();
    to.put16(0);
    value(to);
    // A writer holds at most a frame; what is longer than the field did not fit into it.
    let len = to.len().saturating_sub(at + 2);
    to.patch16(at, u16::try_from(len).unwrap_or(u16::MAX));
}

/// Writes a status.
pub fn put_status(to: &mut Writer<'_>, code: u16) {
    put(to, option::STATUS, |to| to.put16(code));
}

/// Writes an IA_NA; T1 and T2 are half and four fifths of the preferred lifetime (RFC 8415 section 21.4), or left to the
/// client.
pub fn put_ia_na(to: &mut Writer<'_>, id: u32, preferred: u32, options: impl FnOnce(&mut Writer<'_>)) {
    let (t1, t2) = match preferred {
        u32::MAX => (u32::MAX, u32::MAX),
        finite => (finite / 2, finite / 5 * 4),
    };
    put(to, option::IA_NA, |to| {
        to.put32(id);
        to.put32(t1);
        to.put32(t2);
        options(to);
    });
}

/// Writes an address of an association; lifetimes in seconds.
pub fn put_address(to: &mut Writer<'_>, address: Ipv6Addr, preferred: u32, valid: u32) {
    put(to, option::IA_ADDRESS, |to| {
        to.put(&address.octets());
        to.put32(preferred);
        to.put32(valid);
    });
}

/// The DUID of whoever has this address (RFC 8415 section 11.4, DUID-LL of Ethernet).
pub const fn duid(mac: MacAddr) -> [u8; 10] {
    let [a, b, c, d, e, f] = mac.octets();
    [0, 3, 0, 1, a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Reply as another implementation's capture has it: rapid commit, two addresses, one refused.
    const REPLY: &[u8] = &[
        7, 0xab, 0xcd, 0xef, // REPLY
        0, 1, 0, 4, 0, 3, 0, 1, // client DUID
        0, 14, 0, 0, // rapid commit
        0, 3, 0, 74, 0, 0, 0, 9, 0, 0, 0, 50, 0, 0, 0, 80, // IA_NA 9
        0, 5, 0, 24, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 100, 0, 0, 0,
        200, //
        0, 5, 0, 30, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, //
        0, 13, 0, 2, 0, 2, // NoAddrsAvail
    ];

    #[test]
    fn a_reply_is_read() {
        let message = Dhcp6Message::parse(REPLY).unwrap();
        assert_eq!((message.kind, message.transaction), (Dhcp6Type::REPLY, 0xab_cdef));
        assert_eq!(message.option(option::RAPID_COMMIT), Some(&[][..]));
        let [association] = &message.associations().collect::<Vec<_>>()[..] else { panic!("one IA") };
        assert_eq!(association.id, 9);
        let addresses: Vec<_> = association.addresses().collect();
        assert_eq!(addresses[0].address, "2001:db8::7".parse::<Ipv6Addr>().unwrap());
        assert_eq!((addresses[0].preferred, addresses[0].valid, addresses[0].status), (100, 200, 0));
        assert_eq!((addresses[1].valid, addresses[1].status), (0, status::NO_ADDRESSES));
        // Cut anywhere: never more than there was.
        for len in 0..REPLY.len() {
            if let Some(message) = Dhcp6Message::parse(&REPLY[..len]) {
                assert!(message.associations().count() == 0);
            }
        }
        assert!(Dhcp6Message::parse(&[12, 0, 0, 0, 0]).is_none(), "a relay's");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0; 200];
        let mut to = Writer::new(&mut bytes);
        begin(&mut to, Dhcp6Type::REPLY, 0xab_cdef);
        put(&mut to, option::CLIENT_ID, |to| to.put(&[0, 3, 0, 1]));
        put(&mut to, option::RAPID_COMMIT, |_| ());
        put_ia_na(&mut to, 9, 100, |to| {
            put_address(to, "2001:db8::7".parse().unwrap(), 100, 200);
            // The second address has a status inside: written by hand.
            put(to, option::IA_ADDRESS, |to| {
                to.put(&"2001:db8::8".parse::<Ipv6Addr>().unwrap().octets());
                to.put(&[0; 8]);
                put_status(to, status::NO_ADDRESSES);
            });
        });
        let len = to.finish().unwrap();
        assert_eq!(&bytes[..len], REPLY);
        assert_eq!(duid(MacAddr([2, 0, 0, 0, 0, 9])), [0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..300)) {
            if let Some(message) = Dhcp6Message::parse(&bytes) {
                let options: Vec<_> = message.options().collect();
                prop_assert!(options.len() <= MAX_OPTIONS);
                // Options lie one behind the other from byte 4 on.
                let mut at = 4;
                for (code, value) in &options {
                    prop_assert_eq!(*code, u16::from_be_bytes([bytes[at], bytes[at + 1]]));
                    prop_assert_eq!(*value, &bytes[at + 4..at + 4 + value.len()]);
                    at += 4 + value.len();
                }
                for association in message.associations() {
                    prop_assert!(association.addresses().count() <= MAX_OPTIONS);
                }
            }
        }
    }
}
