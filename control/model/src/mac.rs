//! MAC addresses as the configuration and the API write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a MAC address has to look like.
const EXPECTED: &str = "six hexadecimal bytes such as 52:54:00:00:00:01";

/// An Ethernet address, written `52:54:00:00:00:01` (`-` is read as well).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address, expected {EXPECTED}")]
pub struct MacError(pub String);

impl Mac {
    /// Whether the group bit is set: multicast or broadcast (IEEE 802-2014, 8.2.2).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a port or a static FDB entry can have this address: not a group, not all zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }

    /// The address of a port that is configured without one: locally administered, the same for the same name on
    /// every start and every host (FNV-1a of the name), so that a guest's lease and `udev` names survive.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let b = (hash ^ (hash >> 40)).to_le_bytes();
        Self([0x02, b[0], b[1], b[2], b[3], b[4]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.chars().take(64).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Mac {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mac".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "mac" })
    }
}

impl utoipa::PartialSchema for Mac {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A MAC address"))
            .examples(["52:54:00:00:00:01"])
            .into()
    }
}

impl utoipa::ToSchema for Mac {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_separators_and_writes_colons() {
        assert_eq!("52-54-00-AB-cd-01".parse::<Mac>().unwrap().to_string(), "52:54:00:ab:cd:01");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in
            ["", "52:54:00:00:00", "52:54:00:00:00:01:02", "5:54:00:00:00:001", "+1:54:00:00:00:01", "zz"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn name_gives_a_stable_local_station_address() {
        let mac = Mac::of_name("vm1");
        assert_eq!(mac, Mac::of_name("vm1"));
        assert_ne!(mac, Mac::of_name("vm2"));
        assert!(mac.is_station());
        assert_eq!(mac.0[0], 2);
    }
}
