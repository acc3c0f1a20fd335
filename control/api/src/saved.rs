//! Saved state: types and paths.
//!
//! ```text
//!   GET  /v1/state                what was saved last, what came back at the start
//!   POST /v1/state/save           save it now
//!   GET  /v1/ports/{name}/state   one port's, as bytes
//!   PUT  /v1/ports/{name}/state   takes them in, in this switch or another
//! ```
//!
//! All of it is infrastructure's: it is about every tenant, and who may put connections into the table may let packets in.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ErrorBody,
    door::Infrastructure,
    error::ApiError,
    routes::{Answer, Ctx, noted, port_of},
    server::{Body, Name, Shared, blocking},
};

/// The most bytes of a port's state, which are hundreds of thousands of connections.
pub const MAX_PORT_STATE: usize = 64 << 20;

pub(crate) fn paths() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(state))
        .routes(routes!(state_save))
        .routes(routes!(port_state, port_state_import))
        .layer(DefaultBodyLimit::max(MAX_PORT_STATE))
}

/// What is known of saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateStatus {
    /// The file. Absent: nothing is saved, state ends with the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Seconds between two savings; 0: only when the daemon ends.
    pub interval_seconds: u32,
    /// Times it was saved.
    pub saves: u64,
    /// Times it could not be saved.
    pub failures: u64,
    /// Why it could not be the last time, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was saved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<StateSaved>,
    /// What came back at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<StateRestored>,
}

/// What was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateSaved {
    /// When: seconds since 1970.
    pub at: u64,
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds that it took.
    pub milliseconds: u64,
    /// Records, by kind.
    pub records: BTreeMap<String, u64>,
}

/// What became of state that was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateRestored {
    /// Who saved it.
    pub written_by: String,
    /// When: seconds since 1970.
    pub saved_at: u64,
    /// Seconds that went by meanwhile, of which all lifetimes know.
    pub passed_seconds: u64,
    /// Records that are in force again, by kind.
    pub restored: BTreeMap<String, u64>,
    /// Records that are not, by kind and reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// Kinds of records that this version does not know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown: Vec<String>,
    /// Why nothing came back, if so; where the file was put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What was saved last, and what came back at the start
#[utoipa::path(get, path = "/v1/state", tag = "daemon", responses((status = 200, body = StateStatus)))]
async fn state(State(shared): Ctx, _: Infrastructure) -> Answer<StateStatus> {
    blocking(&shared, |b| b.state()).await.map(Json)
}

/// Save state now
#[utoipa::path(
    post, path = "/v1/state/save", tag = "daemon",
    responses((status = 200, body = StateSaved), (status = 409, body = ErrorBody, description = "It cannot be saved"))
)]
async fn state_save(State(shared): Ctx, _: Infrastructure) -> Answer<StateSaved> {
    Ok(Json(blocking(&shared, |b| b.state_save()).await??))
}

/// The state of one port
///
/// Learned addresses, bindings, memberships, connections and tokens of meters, in the format of docs/saved-state.md, to be
/// taken in by another switch.
#[utoipa::path(
    get, path = "/v1/ports/{name}/state", tag = "ports",
    params(("name" = String, Path, description = "Name of the port")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "It is too much")
    )
)]
async fn port_state(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Name(name): Name,
) -> Result<Response, ApiError> {
    let name = port_of(&shared, &who, name).await?.name;
    let bytes = blocking(&shared, move |b| b.state_export(&name)).await??;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// Take in the state of a port
///
/// What another switch has learned and tracked of a port, as it gave it. What is there already stays, and so does what is
/// configured.
#[utoipa::path(
    put, path = "/v1/ports/{name}/state", tag = "ports",
    params(("name" = String, Path, description = "Name of the port here")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = StateRestored),
        (status = 404, body = ErrorBody),
        (status = 413, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "These bytes are no state of one port")
    )
)]
async fn port_state_import(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Name(name): Name,
    body: Body,
) -> Answer<StateRestored> {
    let name = port_of(&shared, &who, name).await?.name;
    let request = format!("PUT /v1/ports/{name}/state");
    let result = blocking(&shared, move |b| b.state_import(&name, &body.0)).await?;
    let (restored, changed) = match result {
        Ok(restored) => (Some(restored), Ok(Vec::new())),
        Err(error) => (None, Err(ApiError::from(error))),
    };
    noted(&shared, &who, &request, false, changed)?;
    Ok(Json(restored.unwrap_or_default()))
}
