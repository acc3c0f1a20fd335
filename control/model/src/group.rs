//! Security groups: named sets of addresses that rules speak of, changed in one place.

use serde::{Deserialize, Serialize};

use crate::rule::value::Prefix;

/// A set of addresses. Rules name it as `group:NAME` in `src_ip` and `dst_ip`.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice among groups.
    pub name: String,
    /// Tenant whose group it is. Unless said, it is infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Addresses and prefixes of both kinds: `["10.0.0.1", "10.1.0.0/16", "2001:db8::/32"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
}

/// Most addresses of a group.
pub const MAX_ADDRESSES: usize = 65536;
