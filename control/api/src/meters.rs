//! Meters: types and paths.
//!
//! `GET /v1/meters` shows all that run, those that rules name and those of ports and tenants, with the tokens that they
//! hold at this moment. A `[[meter]]` comes, changes and goes as rules do.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use fabnic_model::{Kind, Meter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Applied, ErrorBody, Passed, Who,
    error::ApiError,
    policy_routes::{add, del, set},
    routes::{Answer, Ctx, DryRun, port_of},
    server::{Body, Name, Params, Shared, blocking},
};

pub(crate) fn paths() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(meters, meter_add)).routes(routes!(meter_set, meter_del))
}

/// Where a meter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MeterPlace {
    /// A `[[meter]]`: in the rules that name it.
    Rule,
    /// `police` of a rule: in that rule alone.
    RulePolice,
    /// `police` of a tenant: over what its ports send together.
    Tenant,
    /// `police` of a port: over what it sends.
    Police,
    /// `police_egress` of a port: over what is sent to it.
    PoliceEgress,
    /// `storm.broadcast` of a port.
    StormBroadcast,
    /// `storm.multicast` of a port.
    StormMulticast,
    /// `storm.unknown_unicast` of a port.
    StormUnknownUnicast,
}

impl MeterPlace {
    /// The word in the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::RulePolice => "rule_police",
            Self::Tenant => "tenant",
            Self::Police => "police",
            Self::PoliceEgress => "police_egress",
            Self::StormBroadcast => "storm_broadcast",
            Self::StormMulticast => "storm_multicast",
            Self::StormUnknownUnicast => "storm_unknown_unicast",
        }
    }
}

/// A meter that runs, with what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeterStatus {
    /// Of a `[[meter]]` and of a rule, its name among all domains: `TENANT/NAME` of a tenant's. Else the name of its port or
    /// tenant.
    pub id: String,
    /// Where it stands.
    pub place: MeterPlace,
    /// Whether it counts packets; else rates are in bits a second and tokens in bytes.
    pub packets: bool,
    /// The committed rate (RFC 2697, 2698, 4115), and its tokens.
    pub committed: TokenBucket,
    /// The peak bucket of two rates (RFC 2698).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<TokenBucket>,
    /// The excess bucket: with a rate of its own (RFC 4115), or filled by what the committed one has no room for (RFC 2697).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<TokenBucket>,
    /// What it called green.
    pub green: Passed,
    /// What it called yellow.
    pub yellow: Passed,
    /// What it called red.
    pub red: Passed,
    /// What it would have let pass, but another meter of the same chain refused: nothing was taken.
    pub refused_by_other: Passed,
}

/// A bucket of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenBucket {
    /// Bits or packets a second that come. Absent: it gets what another has no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// The most bytes or packets that it holds.
    pub burst: u64,
    /// Bytes or packets that it holds now; less than none is the debt that a long frame left.
    pub tokens: i64,
}

/// Which meters are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MeterFilter {
    /// Only those of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// All meters, with their tokens
///
/// Those that rules name, and those of ports and tenants. A tenant sees its own, those of its ports, and that over them.
#[utoipa::path(
    get, path = "/v1/meters", tag = "policy", params(MeterFilter),
    responses((status = 200, body = Vec<MeterStatus>), (status = 404, body = ErrorBody))
)]
async fn meters(
    State(shared): Ctx,
    who: Who,
    Params(filter): Params<MeterFilter>,
) -> Answer<Vec<MeterStatus>> {
    if let Some(port) = &filter.port {
        port_of(&shared, &who, port.clone()).await?;
    }
    blocking(&shared, move |b| b.meters(&who.domain(), &filter)).await.map(Json)
}

/// Add a meter
#[utoipa::path(
    post, path = "/v1/meters", tag = "policy", params(DryRun), request_body = Meter,
    responses((status = 201, body = Applied), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn meter_add(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Result<(StatusCode, Json<Applied>), ApiError> {
    add(&shared, &who, Kind::Meter, query.dry_run, &body).await
}

/// Change keys of a meter
///
/// Counters go on, and tokens as far as they fit.
#[utoipa::path(
    patch, path = "/v1/meters/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the meter"), DryRun),
    request_body(content = serde_json::Value, description = "Keys of Meter"),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn meter_set(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    set(&shared, &who, Kind::Meter, name, query.dry_run, &body).await
}

/// Remove a meter
#[utoipa::path(
    delete, path = "/v1/meters/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the meter"), DryRun),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "Rules speak of it")
    )
)]
async fn meter_del(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
) -> Answer<Applied> {
    del(&shared, &who, Kind::Meter, name, query.dry_run).await
}
