//! Rules: what they look at, what they do, and where they stand.
//!
//! ```text
//!   [[rule]]                                       fabnic rule add web
//!   name = "web"
//!   port = "vm1"                                     port vm1
//!   direction = "ingress"                            ingress
//!   priority = 100                                   prio 100
//!   match = { ip_proto = "tcp", dst_port = "80" }    ip_proto tcp dst_port 80
//!   action = [{ meter = "gold" }, "pass"]            action meter gold action pass
//! ```
//!
//! Both are the same grammar: [`Rule::of_words`] reads the right side and `Display` writes it. A rule belongs to a
//! domain, infrastructure or one tenant, whose rules are tried apart from all others'; in a domain, direction and group
//! the rule with the lowest priority number that agrees with the packet decides, and of two with the same number the older
//! one.

pub mod action;
pub(crate) mod check;
pub mod matching;
mod text;
pub mod value;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use action::{Action, Ct, NatRange, Sample, Set, Ttl};
pub use matching::Match;

/// A rule.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice among rules.
    pub name: String,
    /// Tenant whose rule it is. Unless said, it is infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Ports for which it stands: a name, or a list of names. Unless said, all (of the tenant's, if it is a tenant's).
    #[serde(default, skip_serializing_if = "PortNames::is_empty")]
    pub port: PortNames,
    /// `ingress`: packets that come from the port. `egress`: packets that go to it.
    #[serde(default)]
    pub direction: Direction,
    /// Group of rules in which it stands, 0 to 31. Group 0 is tried for every packet, others when a rule says `goto`,
    /// always upwards.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 31))]
    pub group: u32,
    /// Rules with lower numbers are tried first; of two with the same number, the older one.
    #[serde(default = "default_priority")]
    pub priority: u32,
    /// What the packet has to be like.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_empty")]
    pub matching: Match,
    /// What is done with it, in this order: `["count", { meter = "gold" }, "pass"]`.
    pub action: Vec<Action>,
}

/// The priority of rules that do not say.
const fn default_priority() -> u32 {
    1000
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Rule {
    /// A rule that passes everything, for `ingress` of all ports.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tenant: None,
            port: PortNames::default(),
            direction: Direction::default(),
            group: 0,
            priority: default_priority(),
            matching: Match::default(),
            action: vec![Action::Pass],
        }
    }

    /// The names of the groups that it speaks of, as they stand in it: groups of its own domain.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let given = [&self.matching.src_ip, &self.matching.dst_ip].into_iter().flatten();
        given.filter_map(|address| match address {
            value::Address::Group(name) => Some(name.as_str()),
            value::Address::Prefix(_) => None,
        })
    }
}

/// Which way packets go, seen from the switch.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a port into the switch.
    #[default]
    Ingress,
    /// From the switch to a port.
    Egress,
}

impl Direction {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Names of ports: in the file a name or a list of names, on the command line with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortNames(pub Vec<String>);

impl PortNames {
    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PortNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for PortNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            names => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PortNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = PortNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a port or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<PortNames, E> {
                Ok(PortNames(vec![name.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut names: A) -> Result<PortNames, A::Error> {
                let mut list = Vec::new();
                while let Some(name) = names.next_element()? {
                    list.push(name);
                }
                Ok(PortNames(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for PortNames {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortNames".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "array"], "format": "names", "items": { "type": "string" } })
    }
}

impl utoipa::PartialSchema for PortNames {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Type};
        AnyOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(ArrayBuilder::new().items(Object::with_type(Type::String)))
            .description(Some("The name of a port, or a list of names"))
            .into()
    }
}

impl utoipa::ToSchema for PortNames {}
