//! Connections that are tracked: types and paths.
//!
//! ```text
//!   GET    /v1/connections   a page of them: at most `limit`, and where the next one begins
//!   DELETE /v1/connections   those that the filter means are forgotten; their next packets are `new`
//!   GET    /v1/conntrack     the table and its zones
//! ```
//!
//! A tenant sees and flushes the connections of its own ports: those that count in a port's limit.

use std::{net::IpAddr, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use fabnic_model::rule::value::IpProto;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ErrorBody, Forgotten, Passed, Who,
    door::Infrastructure,
    error::ApiError,
    routes::{Answer, Ctx, noted, port_of},
    server::{Params, Shared, blocking},
};

pub(crate) fn paths() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(connections, connections_del)).routes(routes!(conntrack))
}

/// Which connections are meant. All keys together; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConnectionFilter {
    /// Only those that count in this port's limit: that it opened, or that were opened to it from outside its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only in this zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Only with this address at either end, before or after translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Only of this protocol: `tcp`, `udp`, `icmp`, `icmpv6`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub ip_proto: Option<IpProto>,
    /// Most connections in the answer, up to 65536; 1024 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the page begins: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
}

impl ConnectionFilter {
    /// Connections in an answer unless said.
    pub const DEFAULT_LIMIT: usize = 1024;
    /// Most connections in an answer.
    pub const MAX_LIMIT: usize = 1 << 16;

    /// Most connections in the answer, within bounds.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT).min(Self::MAX_LIMIT)
    }
}

/// Some of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionPage {
    /// The connections.
    pub entries: Vec<ConnectionStatus>,
    /// Where the next page begins. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionStatus {
    /// Its zone.
    pub zone: u16,
    /// The port whose limit it counts in.
    pub port: String,
    /// Protocol over IP, as rules write it.
    pub ip_proto: String,
    /// `ct_state` of its first direction, as rules write it.
    pub state: String,
    /// Where TCP is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Whether it was alive both ways.
    pub assured: bool,
    /// Its mark.
    pub mark: u32,
    /// Packets as the first one.
    pub original: ConnectionSide,
    /// The answers as they come; the original turned round unless addresses are translated.
    pub reply: ConnectionSide,
    /// Seconds until it is forgotten if no packet comes.
    pub expires_seconds: u32,
    /// Seconds since its first packet.
    pub age_seconds: u32,
}

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionSide {
    /// Source.
    #[schema(value_type = String)]
    pub src_ip: IpAddr,
    /// Destination.
    #[schema(value_type = String)]
    pub dst_ip: IpAddr,
    /// Source port, where there are ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination port, where there are ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Identifier of ICMP queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// What went this way.
    pub passed: Passed,
}

/// The table of connections, and its zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConntrackStatus {
    /// Connections now, those that are over but not yet forgotten among them.
    pub connections: u64,
    /// The most there have been at once.
    pub peak: u64,
    /// Connections refused because the table was full.
    pub refused: u64,
    /// Connections refused because no address and port were left to translate them to.
    pub exhausted: u64,
    /// The zones that were ever used, in order.
    pub zones: Vec<ZoneStatus>,
}

/// A zone of connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZoneStatus {
    /// Its number.
    pub zone: u16,
    /// Connections now, those that are over but not yet forgotten among them.
    pub connections: u64,
    /// Connections made.
    pub created: u64,
    /// Connections forgotten because no packet came for their time.
    pub expired: u64,
    /// Connections refused because the zone was full.
    pub refused: u64,
    /// Packets that belonged to no connection and opened none, or contradicted theirs.
    pub invalid: u64,
}

/// Connections that are tracked
///
/// Page by page. A tenant sees those of its ports.
#[utoipa::path(
    get, path = "/v1/connections", tag = "switch", params(ConnectionFilter),
    responses((status = 200, body = ConnectionPage), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn connections(
    State(shared): Ctx,
    who: Who,
    Params(filter): Params<ConnectionFilter>,
) -> Answer<ConnectionPage> {
    if let Some(port) = &filter.port {
        port_of(&shared, &who, port.clone()).await?;
    }
    blocking(&shared, move |b| b.connections(&who.domain(), &filter)).await.map(Json)
}

/// Forget connections
///
/// Those that the filter means, all without one; `limit` and `from` mean nothing here. A tenant flushes those of its
/// ports.
#[utoipa::path(
    delete, path = "/v1/connections", tag = "switch", params(ConnectionFilter),
    responses((status = 200, body = Forgotten), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn connections_del(
    State(shared): Ctx,
    who: Who,
    Params(filter): Params<ConnectionFilter>,
) -> Answer<Forgotten> {
    if filter.limit.is_some() || filter.from.is_some() {
        let expected = "port, zone, address and ip_proto";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "query", "a flush has no pages", expected));
    }
    if let Some(port) = &filter.port {
        port_of(&shared, &who, port.clone()).await?;
    }
    let domain = who.domain();
    let forgotten = blocking(&shared, move |b| b.connections_flush(&domain, &filter)).await?;
    noted(&shared, &who, "DELETE /v1/connections", false, Ok(Vec::new()))?;
    Ok(Json(Forgotten { removed: 0, forgotten }))
}

/// The table of connections and its zones
#[utoipa::path(get, path = "/v1/conntrack", tag = "switch", responses((status = 200, body = ConntrackStatus)))]
async fn conntrack(State(shared): Ctx, _: Infrastructure) -> Answer<ConntrackStatus> {
    blocking(&shared, |b| b.conntrack()).await.map(Json)
}
