//! How the packets of a port are tracked.

use serde::{Deserialize, Serialize};

/// Connections of a port. With it, rules may ask for `ct_state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conntrack {
    /// Zone that the port's packets are tracked in, one for each tenant as a rule: ports of one zone share its connections.
    pub zone: u16,
    /// Most connections of the port.
    pub limit: u32,
    /// `any`: every packet may come to the port. `answers`: only packets of connections that the port opened.
    pub incoming: Incoming,
    /// Whether packets that the port sends and that fit no connection are dropped.
    pub drop_invalid: bool,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self { zone: 0, limit: 65536, incoming: Incoming::Any, drop_invalid: true }
    }
}

/// Which packets a port takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Incoming {
    /// All of them.
    #[default]
    Any,
    /// Only those of connections that it opened.
    Answers,
}
