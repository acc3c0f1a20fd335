//! How much a port may flood.

use serde::{Deserialize, Serialize};

use crate::Police;

/// How much of what goes to many a port may send; what is beyond is dropped.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Storm {
    /// Broadcast: a rate with its burst, `1kpps` or `10mbit burst 64k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Police>,
    /// Multicast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Police>,
    /// Unicast to addresses that the switch does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_unicast: Option<Police>,
}
