//! VLAN identifiers, sets of them, and what a port does with tags.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeSeq};

/// A VLAN identifier, 1 to 4094 (IEEE 802.1Q-2022, table 9-2: 0 is "no VLAN", 4095 is reserved).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Vid(u16);

/// A number or text that is no VLAN identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VLAN, expected {1}")]
pub struct VlanError(pub String, pub &'static str);

const EXPECTED_ID: &str = "a number from 1 to 4094";
const EXPECTED_ITEM: &str = "a number from 1 to 4094 or a range such as \"10-20\"";

impl Vid {
    /// The VLAN of ports that say nothing: 1, as a bridge's default pvid.
    pub const DEFAULT: Self = Self(1);
    /// The lowest identifier.
    pub const MIN: Self = Self(1);
    /// The highest identifier.
    pub const MAX: Self = Self(4094);

    /// # Errors
    /// When `id` is not within 1 to 4094.
    pub fn new(id: u16) -> Result<Self, VlanError> {
        if (1..=4094).contains(&id) { Ok(Self(id)) } else { Err(VlanError(id.to_string(), EXPECTED_ID)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vid {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<Self, VlanError> {
        let wrong = || VlanError(format!("`{}`", text.chars().take(64).collect::<String>()), EXPECTED_ID);
        text.trim().parse().map_err(|_| wrong()).and_then(|id| Self::new(id).map_err(|_| wrong()))
    }
}

impl<'de> Deserialize<'de> for Vid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = i64::deserialize(deserializer)?;
        u16::try_from(id)
            .ok()
            .and_then(|id| Self::new(id).ok())
            .ok_or_else(|| D::Error::custom(VlanError(id.to_string(), EXPECTED_ID)))
    }
}

/// A set of VLANs, kept as sorted ranges that neither touch nor overlap; written `[10, "20-30"]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct VlanSet(Vec<(Vid, Vid)>);

impl VlanSet {
    /// The set of these inclusive ranges. A range that is upside down is taken the right way round.
    #[must_use]
    pub fn from_ranges(ranges: impl IntoIterator<Item = (Vid, Vid)>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(Vid, Vid)> = Vec::new();
        for (low, high) in sorted {
            match merged.last_mut() {
                Some(last) if low.get() <= last.1.get() + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    /// The inclusive ranges, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = (Vid, Vid)> + '_ {
        self.0.iter().copied()
    }

    /// The VLANs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        self.0.iter().flat_map(|&(low, high)| (low.0..=high.0).map(Vid))
    }

    /// Whether `vid` is in the set.
    #[must_use]
    pub fn contains(&self, vid: Vid) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&vid))
    }

    /// How many VLANs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(low, high)| usize::from(high.0 - low.0) + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Vid> for VlanSet {
    fn from_iter<I: IntoIterator<Item = Vid>>(ids: I) -> Self {
        Self::from_ranges(ids.into_iter().map(|id| (id, id)))
    }
}

impl fmt::Display for VlanSet {
    /// `10,20-30`, as `bridge vlan` and switches write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (low, high)) in self.ranges().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if low == high { write!(f, "{comma}{low}")? } else { write!(f, "{comma}{low}-{high}")? }
        }
        Ok(())
    }
}

fn parse_range(text: &str) -> Result<(Vid, Vid), VlanError> {
    let wrong = || VlanError(format!("`{}`", text.chars().take(64).collect::<String>()), EXPECTED_ITEM);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let low: Vid = low.parse().map_err(|_| wrong())?;
    let high: Vid = high.parse().map_err(|_| wrong())?;
    if low > high { Err(wrong()) } else { Ok((low, high)) }
}

impl FromStr for VlanSet {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<Self, VlanError> {
        text.split(',').map(parse_range).collect::<Result<Vec<_>, _>>().map(Self::from_ranges)
    }
}

impl Serialize for VlanSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (low, high) in self.ranges() {
            if low == high {
                list.serialize_element(&low)?;
            } else {
                list.serialize_element(&format!("{low}-{high}"))?;
            }
        }
        list.end()
    }
}

/// One element of the list as it is written.
struct Item(Vid, Vid);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED_ITEM)
            }

            fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Item, E> {
                let vid = u16::try_from(id).ok().and_then(|id| Vid::new(id).ok());
                vid.map(|v| Item(v, v)).ok_or_else(|| E::custom(VlanError(id.to_string(), EXPECTED_ITEM)))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Item, E> {
                self.visit_i64(i64::try_from(id).unwrap_or(i64::MAX))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Item, E> {
                parse_range(text).map(|(low, high)| Item(low, high)).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for VlanSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<Item>::deserialize(deserializer)?;
        Ok(Self::from_ranges(items.into_iter().map(|Item(low, high)| (low, high))))
    }
}

/// What a port does with VLAN tags.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum Vlan {
    /// Untagged frames belong to this VLAN; the port never sees a tag.
    Access(Vid),
    /// Tagged frames of these VLANs pass with their tag.
    Trunk {
        /// VLANs that pass tagged.
        allowed: VlanSet,
        /// VLAN of frames without a tag, both ways. Without it, untagged frames are dropped.
        native: Option<Vid>,
    },
}

impl Default for Vlan {
    fn default() -> Self {
        Self::Access(Vid::DEFAULT)
    }
}

impl Vlan {
    /// VLAN of frames that come without a tag.
    #[must_use]
    pub const fn pvid(&self) -> Option<Vid> {
        match self {
            Self::Access(vid) => Some(*vid),
            Self::Trunk { native, .. } => *native,
        }
    }

    /// Whether the port belongs to `vid`, tagged or not.
    #[must_use]
    pub fn is_member(&self, vid: Vid) -> bool {
        match self {
            Self::Access(own) => *own == vid,
            Self::Trunk { allowed, native } => *native == Some(vid) || allowed.contains(vid),
        }
    }

    /// VLANs whose frames leave with a tag. The native VLAN's frames leave without, also when the list has it.
    #[must_use]
    pub fn tagged(&self) -> VlanSet {
        match self {
            Self::Access(_) => VlanSet::default(),
            Self::Trunk { allowed, native } => allowed.iter().filter(|&v| Some(v) != *native).collect(),
        }
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(vid) => write!(f, "access {vid}"),
            Self::Trunk { allowed, native: None } => write!(f, "trunk {allowed}"),
            Self::Trunk { allowed, native: Some(vid) } if allowed.is_empty() => write!(f, "native {vid}"),
            Self::Trunk { allowed, native: Some(vid) } => write!(f, "trunk {allowed} native {vid}"),
        }
    }
}

/// The two shapes of `vlan` in one, as text has them.
#[derive(Clone, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "{ access = 10 } or { trunk = [10, 20], native = 1 }")]
pub(crate) struct Raw {
    /// Access port: untagged frames belong to this VLAN, 1 to 4094, and no tag ever leaves. Alone, without the
    /// other two keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    access: Option<Vid>,
    /// Trunk port: VLANs that pass with their tag; numbers and ranges, `[10, 20, "100-199"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    trunk: Option<VlanSet>,
    /// Trunk port: VLAN of frames without a tag, in both directions. Without it they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    native: Option<Vid>,
}

impl TryFrom<Raw> for Vlan {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        match raw {
            Raw { access: Some(vid), trunk: None, native: None } => Ok(Self::Access(vid)),
            Raw { access: Some(_), .. } => Err(BOTH),
            Raw { access: None, trunk: None, native: None } => Err(NEITHER),
            Raw { access: None, trunk, native } => {
                let allowed = trunk.unwrap_or_default();
                if allowed.is_empty() && native.is_none() {
                    Err(NEITHER)
                } else {
                    Ok(Self::Trunk { allowed, native })
                }
            }
        }
    }
}

const BOTH: &str =
    "a port is an access port or a trunk port, expected { access = 10 } or { trunk = [10, 20], native = 1 }";
const NEITHER: &str = "no VLAN is given, expected { access = 10 } or { trunk = [10, 20], native = 1 }";

impl From<Vlan> for Raw {
    fn from(vlan: Vlan) -> Self {
        match vlan {
            Vlan::Access(vid) => Self { access: Some(vid), trunk: None, native: None },
            Vlan::Trunk { allowed, native } => {
                Self { access: None, trunk: (!allowed.is_empty()).then_some(allowed), native }
            }
        }
    }
}

impl schemars::JsonSchema for Vid {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Vid".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 4094 })
    }
}

impl utoipa::PartialSchema for Vid {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::Integer)
            .description(Some("A VLAN identifier"))
            .minimum(Some(1))
            .maximum(Some(4094))
            .into()
    }
}

impl utoipa::ToSchema for Vid {}

impl schemars::JsonSchema for VlanSet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VlanSet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "array", "items": { "type": ["integer", "string"] } })
    }
}

impl utoipa::PartialSchema for VlanSet {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ArrayBuilder::new()
            .items(utoipa::openapi::Object::with_type(utoipa::openapi::schema::SchemaType::AnyValue))
            .description(Some("VLANs: numbers and ranges, such as [10, \"20-30\"]"))
            .into()
    }
}

impl utoipa::ToSchema for VlanSet {}

impl schemars::JsonSchema for Vlan {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Vlan".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Raw::json_schema(generator)
    }
}

impl utoipa::PartialSchema for Vlan {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        <Raw as utoipa::PartialSchema>::schema()
    }
}

impl utoipa::ToSchema for Vlan {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn set_is_the_union_of_its_ranges(ranges in prop::collection::vec((1u16..=4094, 1u16..=4094), 0..12)) {
            let set = VlanSet::from_ranges(ranges.iter().map(|&(a, b)| (Vid(a), Vid(b))));
            for id in 1..=4094 {
                let inside = ranges.iter().any(|&(a, b)| (a.min(b)..=a.max(b)).contains(&id));
                prop_assert_eq!(set.contains(Vid(id)), inside);
            }
            prop_assert_eq!(set.iter().count(), set.len());
            if !set.is_empty() {
                prop_assert_eq!(set.to_string().parse::<VlanSet>().unwrap(), set);
            }
        }
    }

    #[test]
    fn native_leaves_untagged_even_when_listed() {
        let vlan = Vlan::Trunk { allowed: "1-3".parse().unwrap(), native: Some(Vid(2)) };
        assert_eq!(vlan.tagged().to_string(), "1,3");
        assert!(vlan.is_member(Vid(2)));
    }

    #[test]
    fn refuses_ids_out_of_range() {
        for text in ["0", "4095", "70000", "-1", "20-10", "a", ""] {
            assert!(text.parse::<VlanSet>().is_err(), "{text}");
        }
    }
}
