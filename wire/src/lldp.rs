//! LLDP (IEEE 802.1AB-2016): who is at the other end of a link.
//!
//! ```text
//!   | 7 bits type, 9 bits length | value | ... | type 0, length 0
//!     1 chassis, 2 port, 3 TTL: first and in this order (section 9.2); then any others; 127 is somebody's own
//! ```
//!
//! # Invariants
//! - A data unit is read only if it begins with the three that must be there, once each; what is cut off behind them
//!   makes it none (section 9.2.7.7.1).
//! - At most [`MAX_TLVS`].

use crate::{
    EtherType, MacAddr, Vid,
    build::{Link, Writer},
};

/// Where LLDP is sent to: the nearest bridge, which no bridge forwards.
pub const NEAREST_BRIDGE: MacAddr = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// The most TLVs of a data unit that are looked at.
pub const MAX_TLVS: usize = 128;
/// Capability: a bridge.
pub const CAPABILITY_BRIDGE: u16 = 1 << 2;
/// Capability: a router.
pub const CAPABILITY_ROUTER: u16 = 1 << 4;
/// Capability: a station only.
pub const CAPABILITY_STATION: u16 = 1 << 7;

/// An identifier: its subtype (tables 8-2 and 8-3) and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identifier<'a> {
    /// What it is; of a chassis 4 is a MAC address and 7 locally assigned, of a port 3 a MAC address, 5 an interface's
    /// name and 7 locally assigned.
    pub subtype: u8,
    /// 1 to 255 bytes.
    pub value: &'a [u8],
}

impl<'a> Identifier<'a> {
    fn parse(value: &'a [u8]) -> Option<Identifier<'a>> {
        let (subtype, value) = value.split_first()?;
        (1..=255).contains(&value.len()).then_some(Identifier { subtype: *subtype, value })
    }

    fn write(&self, to: &mut Writer<'_>, kind: u8) {
        let value = self.value.get(..255).unwrap_or(self.value);
        begin(to, kind, value.len() + 1);
        to.put8(self.subtype);
        to.put(value);
    }
}

/// What a data unit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LldpUnit<'a> {
    /// The sender's chassis.
    pub chassis: Identifier<'a>,
    /// The port that it was sent from.
    pub port: Identifier<'a>,
    /// Seconds for which it is good; 0: the sender goes.
    pub ttl: u16,
    /// Description of the port.
    pub port_description: Option<&'a [u8]>,
    /// Name of the system.
    pub system_name: Option<&'a [u8]>,
    /// Description of the system.
    pub system_description: Option<&'a [u8]>,
    /// What it can be, and what of that it is.
    pub capabilities: Option<(u16, u16)>,
    /// VLAN of untagged frames (IEEE 802.1Q annex D.2.1); 0: none.
    pub pvid: Option<u16>,
    /// The longest frame (IEEE 802.3 clause 79.3.4).
    pub max_frame: Option<u16>,
}

impl<'a> LldpUnit<'a> {
    /// Reads what follows the EtherType 88cc. Bytes behind the end are padding.
    pub fn parse(payload: &'a [u8]) -> Option<LldpUnit<'a>> {
        let mut rest = payload;
        let mut next = || -> Option<(u8, &'a [u8])> {
            let ([a, b], behind) = rest.split_first_chunk()?;
            let len = usize::from(u16::from_be_bytes([*a & 1, *b]));
            let (value, behind) = behind.split_at_checked(len)?;
            rest = behind;
            Some((*a >> 1, value))
        };
        let (1, chassis) = next()? else { return None };
        let (2, port) = next()? else { return None };
        let (3, ttl) = next()? else { return None };
        let mut unit = LldpUnit {
            chassis: Identifier::parse(chassis)?,
            port: Identifier::parse(port)?,
            ttl: u16::from_be_bytes(*ttl.first_chunk()?),
            port_description: None,
            system_name: None,
            system_description: None,
            capabilities: None,
            pvid: None,
            max_frame: None,
        };
        for _ in 3..MAX_TLVS {
            let (kind, value) = next()?;
            match (kind, value) {
                (0, []) => return Some(unit),
                (0..=3, _) => return None,
                (4, text) => unit.port_description = Some(text),
                (5, text) => unit.system_name = Some(text),
                (6, text) => unit.system_description = Some(text),
                (7, [a, b, c, d, ..]) => {
                    unit.capabilities = Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
                }
                (127, [0x00, 0x80, 0xc2, 1, a, b, ..]) => unit.pvid = Some(u16::from_be_bytes([*a, *b])),
                (127, [0x00, 0x12, 0x0f, 4, a, b, ..]) => unit.max_frame = Some(u16::from_be_bytes([*a, *b])),
                _ => {}
            }
        }
        None
    }

    /// Writes a whole frame from `src`. Texts longer than 255 bytes are cut there.
    pub fn write(&self, to: &mut Writer<'_>, src: MacAddr) {
        Link { dst: NEAREST_BRIDGE, src, tag: None }.write(to, EtherType::LLDP);
        self.chassis.write(to, 1);
        self.port.write(to, 2);
        begin(to, 3, 2);
        to.put16(self.ttl);
        let texts = [(4, self.port_description), (5, self.system_name), (6, self.system_description)];
        for (kind, text) in texts {
            let Some(text) = text else { continue };
            let text = text.get(..255).unwrap_or(text);
            begin(to, kind, text.len());
            to.put(text);
        }
        if let Some((can, is)) = self.capabilities {
            begin(to, 7, 4);
            to.put16(can);
            to.put16(is);
        }
        if let Some(pvid) = self.pvid {
            begin(to, 127, 6);
            to.put(&[0x00, 0x80, 0xc2, 1]);
            to.put16(pvid);
        }
        if let Some(max_frame) = self.max_frame {
            begin(to, 127, 6);
            to.put(&[0x00, 0x12, 0x0f, 4]);
            to.put16(max_frame);
        }
        to.put16(0);
    }

    /// The VLAN of untagged frames, if it is one.
    pub fn native_vlan(&self) -> Option<Vid> {
        self.pvid.and_then(|pvid| Vid::new(pvid).ok())
    }
}

/// Type and length of a TLV whose value has at most 256 bytes.
fn begin(to: &mut Writer<'_>, kind: u8, len: usize) {
    let len = u16::try_from(len).unwrap_or(0) & 0x1ff;
    to.put16(u16::from(kind) << 9 | len);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of lldpd's own tests in structure: a MAC chassis, an interface name, a name, capabilities.
    const UNIT: &[u8] = &[
        0x02, 7, 4, 2, 0, 0, 0, 0, 9, // chassis
        0x04, 5, 5, b'e', b't', b'h', b'0', // port
        0x06, 2, 0, 120, // TTL
        0x0a, 2, b's', b'w', // name
        0x0e, 4, 0, 0x14, 0, 4, // capabilities
        0xfe, 6, 0, 0x80, 0xc2, 1, 0, 10, // PVID 10
        0xfe, 5, 0, 0x26, 0xe1, 9, 9, // somebody's own
        0, 0,
    ];

    #[test]
    fn a_unit_is_read() {
        assert!(LldpUnit::parse(&[UNIT, &[0; 20]].concat()).is_some(), "padding is no harm");
        let unit = LldpUnit::parse(UNIT).unwrap();
        assert_eq!(unit.chassis, Identifier { subtype: 4, value: &[2, 0, 0, 0, 0, 9] });
        assert_eq!((unit.port.value, unit.ttl, unit.system_name), (&b"eth0"[..], 120, Some(&b"sw"[..])));
        assert_eq!(unit.capabilities, Some((CAPABILITY_BRIDGE | CAPABILITY_ROUTER, CAPABILITY_BRIDGE)));
        assert_eq!(unit.native_vlan().map(Vid::get), Some(10));
        for len in 0..UNIT.len() {
            assert!(LldpUnit::parse(&UNIT[..len]).is_none(), "cut off at {len}");
        }
        // Another order, and one that comes twice.
        let [chassis, port, ttl] = [&UNIT[..9], &UNIT[9..16], &UNIT[16..20]];
        assert!(LldpUnit::parse(&[port, chassis, ttl, &[0, 0]].concat()).is_none());
        assert!(LldpUnit::parse(&[chassis, port, ttl, ttl, &[0, 0]].concat()).is_none());
        assert!(LldpUnit::parse(&[chassis, port, ttl, &[0, 0]].concat()).is_some());
    }

    #[test]
    fn what_is_written_is_read() {
        let mut unit = LldpUnit::parse(UNIT).unwrap();
        unit.max_frame = Some(1522);
        let long = [b'x'; 300];
        unit.port_description = Some(&long);
        let mut bytes = [0; 600];
        let mut to = Writer::new(&mut bytes);
        unit.write(&mut to, MacAddr([2, 0, 0, 0, 0, 9]));
        let len = to.finish().unwrap();
        assert_eq!(bytes[..6], NEAREST_BRIDGE.0);
        assert_eq!(bytes[12..14], [0x88, 0xcc]);
        unit.port_description = Some(&long[..255]);
        assert_eq!(LldpUnit::parse(&bytes[14..len]), Some(unit));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LldpUnit::parse(&bytes);
            let behind = [&UNIT[..20], &bytes[..]].concat();
            if let Some(unit) = LldpUnit::parse(&behind) {
                prop_assert_eq!(unit.ttl, 120);
            }
        }
    }
}
