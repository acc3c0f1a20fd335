//! Who listens to which multicast group: types and paths.
//!
//! What hosts said (IGMP, MLD) and what configuration says (`mdb` of a `[[vlan]]`), for each VLAN in which the switch
//! snoops. Static members come and go by `POST` and `DELETE`; what was learned goes by itself.

use std::{net::IpAddr, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use fabnic_model::{StaticMember, Vid};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Applied, ErrorBody, Who,
    door::Infrastructure,
    error::ApiError,
    routes::{Answer, Ctx, DryRun, edit, port_of},
    server::{Body, Params, Shared, blocking},
};

pub(crate) fn paths() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(mdb, mdb_add, mdb_del)).routes(routes!(multicast))
}

/// Which members are meant. All keys together; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MdbFilter {
    /// Only of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only in this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
    /// Only of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub group: Option<IpAddr>,
    /// Most members in the answer, up to 65536; 1024 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl MdbFilter {
    /// Members in an answer unless said.
    pub const DEFAULT_LIMIT: usize = 1024;
    /// Most members in an answer.
    pub const MAX_LIMIT: usize = 1 << 16;

    /// Most members in the answer, within bounds.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::DEFAULT_LIMIT).min(Self::MAX_LIMIT)
    }
}

/// A VLAN in which the switch snoops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbVlan {
    /// The VLAN.
    pub vlan: u16,
    /// IPv4: what IGMP says of the VLAN.
    pub igmp: MdbSide,
    /// IPv6: what MLD says of the VLAN.
    pub mld: MdbSide,
    /// Members that were meant, also those that are not in this answer.
    pub total: u64,
    /// The members of groups, by group and port.
    pub entries: Vec<MdbEntry>,
    /// Messages that were heard and sent. Absent for tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<MdbCounters>,
}

/// What one of the two protocols says of a VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbSide {
    /// Who asks. Absent: nobody, and groups go to the whole VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub querier: Option<MdbQuerier>,
    /// Whether groups go to their listeners only: a querier is there, and hosts have had their time to answer.
    pub restricts: bool,
    /// Ports with multicast routers behind them. A tenant sees its own.
    pub routers: Vec<MdbRouter>,
}

/// Who asks for listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbQuerier {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Port that it is behind. Absent: it is the switch itself, or behind a port that a tenant does not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Seconds until it counts as gone. Absent: it is the switch itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// A port with a multicast router behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbRouter {
    /// The port.
    pub port: String,
    /// Seconds for which it counts as such. Absent: by configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// A port that gets a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbEntry {
    /// The group.
    #[schema(value_type = String)]
    pub group: IpAddr,
    /// The port.
    pub port: String,
    /// `static`: by configuration (a host may have asked as well). `snooped`: hosts asked.
    pub kind: MdbKind,
    /// `include`: it gets the sources that are listed. `exclude`: all but those that are not wanted.
    pub mode: MdbMode,
    /// Version of IGMP or MLD that the oldest host speaks.
    pub version: u8,
    /// Seconds until only the listed sources are wanted; of the mode `exclude` that hosts asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
    /// Sources that hosts spoke of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<MdbSource>,
}

/// How a member came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MdbKind {
    /// By configuration.
    Static,
    /// Hosts asked.
    Snooped,
}

/// Which sources are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MdbMode {
    /// Those that are wanted.
    Include,
    /// Those that are not.
    Exclude,
}

/// A source of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbSource {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Seconds for which it is wanted still. Absent: it is not wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// Messages of IGMP and MLD in a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MdbCounters {
    /// Queries received.
    pub queries: u64,
    /// Reports received.
    pub reports: u64,
    /// Leaves received.
    pub leaves: u64,
    /// Signs of routers received.
    pub routers: u64,
    /// Messages of unknown types received.
    pub other: u64,
    /// Queries sent.
    pub queries_sent: u64,
    /// Reports and records refused, because they would have gone over a limit.
    pub refused: u64,
    /// Messages that were not believed.
    pub malformed: u64,
}

/// How many listen in a VLAN in which the switch snoops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MulticastStatus {
    /// The VLAN.
    pub vlan: u16,
    /// IPv4.
    pub igmp: MulticastCount,
    /// IPv6.
    pub mld: MulticastCount,
    /// Messages that were heard and sent.
    pub counters: MdbCounters,
}

/// How much one of the two protocols knows of a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MulticastCount {
    /// Groups that somebody listens to.
    pub groups: u64,
    /// Ports that listen to them, each once for each group.
    pub members: u64,
    /// Ports with multicast routers behind them.
    pub routers: u64,
    /// Whether groups go to their listeners only.
    pub restricts: bool,
    /// Whether the switch itself asks.
    pub asks: bool,
}

/// A static member of a group that is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MdbAdd {
    /// The VLAN.
    #[schema(value_type = u16, minimum = 1, maximum = 4094)]
    pub vlan: Vid,
    /// The group.
    #[schema(value_type = String)]
    pub group: IpAddr,
    /// Name of the port.
    pub port: String,
}

/// Who listens to which multicast group
///
/// In each VLAN in which the switch snoops. A tenant sees its own ports.
#[utoipa::path(
    get, path = "/v1/mdb", tag = "switch", params(MdbFilter),
    responses((status = 200, body = Vec<MdbVlan>), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn mdb(State(shared): Ctx, who: Who, Params(filter): Params<MdbFilter>) -> Answer<Vec<MdbVlan>> {
    if let Some(port) = &filter.port {
        port_of(&shared, &who, port.clone()).await?;
    }
    blocking(&shared, move |b| b.mdb(&who.domain(), &filter)).await.map(Json)
}

/// How many listen to how many multicast groups
///
/// In each VLAN in which the switch snoops, with what it heard and said there.
#[utoipa::path(get, path = "/v1/multicast", tag = "switch", responses((status = 200, body = Vec<MulticastStatus>)))]
async fn multicast(State(shared): Ctx, _: Infrastructure) -> Answer<Vec<MulticastStatus>> {
    blocking(&shared, |b| b.multicast()).await.map(Json)
}

/// Make a port a static member of a group
#[utoipa::path(
    post, path = "/v1/mdb", tag = "switch", params(DryRun), request_body = MdbAdd,
    responses(
        (status = 201, body = Applied),
        (status = 404, body = ErrorBody, description = "The switch does not snoop in the VLAN"),
        (status = 409, body = ErrorBody, description = "It is one"),
        (status = 422, body = ErrorBody)
    )
)]
async fn mdb_add(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(query): Params<DryRun>,
    body: Body,
) -> Result<(StatusCode, Json<Applied>), ApiError> {
    let MdbAdd { vlan, group, port } = body.json()?;
    let change = move |config: &mut fabnic_model::Config| config.add_mdb(vlan, StaticMember { group, port });
    let applied = edit(&shared, &who, "POST /v1/mdb", query.dry_run, change).await?;
    let status = if query.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(applied)))
}

/// Remove static members of groups
///
/// Those that the filter means. It has to name at least one of `port`, `vlan` and `group`. What hosts asked for stays until
/// they leave.
#[utoipa::path(
    delete, path = "/v1/mdb", tag = "switch", params(MdbFilter),
    responses((status = 200, body = Applied), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn mdb_del(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(filter): Params<MdbFilter>,
) -> Answer<Applied> {
    if filter.port.is_none() && filter.vlan.is_none() && filter.group.is_none() {
        let expected = "at least one of port, vlan, group";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "query", "no member is named", expected));
    }
    let change = move |config: &mut fabnic_model::Config| {
        let mut gone = 0;
        for table in config.vlan.iter_mut().filter(|table| filter.vlan.is_none_or(|vlan| vlan == table.id)) {
            let before = table.mdb.len();
            table.mdb.retain(|member| {
                filter.port.as_ref().is_some_and(|port| *port != member.port)
                    || filter.group.is_some_and(|group| group != member.group)
            });
            gone += before - table.mdb.len();
        }
        if gone == 0 {
            return Err(fabnic_model::EditError::NotFound("such static member".into()));
        }
        Ok(())
    };
    edit(&shared, &who, "DELETE /v1/mdb", false, change).await.map(Json)
}
