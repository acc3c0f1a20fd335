//! Paths, and the document that describes them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fabnic_model::{Config, EditError, Port, Refused, StaticFdb};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Applied, CaptureRequest, CaptureStream, ErrorBody, FdbFilter, FdbKind, FdbPage, FdbStatus, Forgotten,
    Health, PortStatus, Stats, VlanMembership, Who, WorkerStatus,
    door::Infrastructure,
    error::ApiError,
    metrics, policy_routes, saved,
    server::{Body, MAX_BODY, MAX_SMALL_BODY, Name, Params, Shared, blocking},
};

pub(crate) type Ctx = State<Arc<Shared>>;
pub(crate) type Answer<T> = Result<Json<T>, ApiError>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fabnic",
        description = "The API of fabnicd, on a Unix socket. Every answer that is no success has an ErrorBody.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "daemon", description = "The daemon and its configuration"),
        (name = "ports", description = "Ports"),
        (name = "switch", description = "What the switch knows and counts"),
        (name = "policy", description = "Rules, groups, mirrors and tenants"),
    )
)]
struct Document;

fn described() -> OpenApiRouter<Arc<Shared>> {
    let small = OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ports, port_add))
        .routes(routes!(port, port_set, port_del))
        .routes(routes!(fdb, fdb_add, fdb_del))
        .routes(routes!(fdb_stats))
        .routes(routes!(vlans))
        .routes(routes!(stats))
        .routes(routes!(workers))
        .routes(routes!(capture))
        .routes(routes!(prometheus))
        .merge(policy_routes::small())
        .layer(DefaultBodyLimit::max(MAX_SMALL_BODY));
    let large = OpenApiRouter::new()
        .routes(routes!(config, config_apply))
        .merge(policy_routes::large())
        .layer(DefaultBodyLimit::max(MAX_BODY));
    OpenApiRouter::with_openapi(Document::openapi()).merge(small).merge(large).merge(saved::paths())
}

/// The OpenAPI document, as it is kept in `docs/openapi.json`.
#[must_use]
pub fn openapi() -> String {
    let mut text = described().into_openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .route("/v1/openapi.json", axum::routing::get(document))
        .fallback(async || {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "path",
                "there is nothing here",
                "a path of /v1/openapi.json",
            )
        })
        .method_not_allowed_fallback(async || {
            let expected = "a method of /v1/openapi.json";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this cannot be done here", expected)
        })
        .with_state(shared)
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

/// Whether the daemon works
///
/// 200 also when it is not healthy: then `reason` says why.
#[utoipa::path(get, path = "/v1/health", tag = "daemon", responses((status = 200, body = Health)))]
async fn health(State(shared): Ctx, _: Who) -> Answer<Health> {
    blocking(&shared, |b| b.health()).await.map(Json)
}

/// All ports
#[utoipa::path(get, path = "/v1/ports", tag = "ports", responses((status = 200, body = Vec<PortStatus>)))]
async fn ports(State(shared): Ctx, who: Who) -> Answer<Vec<PortStatus>> {
    let domain = who.domain();
    let mut ports = blocking(&shared, |b| b.ports()).await?;
    ports.retain(|port| domain.sees(port.tenant.as_deref()));
    Ok(Json(ports))
}

/// One port
#[utoipa::path(
    get, path = "/v1/ports/{name}", tag = "ports",
    params(("name" = String, Path, description = "Name of the port")),
    responses((status = 200, body = PortStatus), (status = 404, body = ErrorBody))
)]
async fn port(State(shared): Ctx, who: Who, Name(name): Name) -> Answer<PortStatus> {
    port_of(&shared, &who, name).await.map(Json)
}

/// The port, if the domain may see it.
pub(crate) async fn port_of(shared: &Arc<Shared>, who: &Who, name: String) -> Result<PortStatus, ApiError> {
    let domain = who.domain();
    let found = blocking(shared, {
        let name = name.clone();
        move |b| b.port(&name)
    })
    .await?;
    found.filter(|port| domain.sees(port.tenant.as_deref())).ok_or_else(|| ApiError::no_port(&name))
}

/// Changes the running configuration as a whole or not at all.
pub(crate) async fn edit(
    shared: &Arc<Shared>,
    who: &Who,
    request: &str,
    dry_run: bool,
    change: impl FnOnce(&mut Config) -> Result<(), EditError> + Send + 'static,
) -> Result<Applied, ApiError> {
    let domain = who.domain();
    let _alone = shared.edit.lock().await;
    let result = blocking(shared, move |backend| -> Result<_, ApiError> {
        let mut desired = backend.config();
        change(&mut desired)?;
        desired.check()?;
        Ok(backend.apply(&domain, desired, dry_run)?)
    })
    .await?;
    noted(shared, who, request, dry_run, result)
}

/// Notes what became of a request to change something.
pub(crate) fn noted(
    shared: &Shared,
    who: &Who,
    request: &str,
    dry_run: bool,
    result: Result<Vec<fabnic_model::Change>, ApiError>,
) -> Result<Applied, ApiError> {
    match &result {
        // Nothing was asked to change.
        _ if dry_run => {}
        Ok(changes) => shared.audit.note(who, request, Ok(changes)),
        Err(error) => {
            let reason = error.reason();
            shared.audit.note(who, request, Err(&reason));
            let kind = crate::EventKind::Refused { request: request.to_owned(), reason };
            shared.backend.events().send_of(who.tenant.as_deref(), kind);
        }
    }
    result.map(|changes| Applied { dry_run, changes })
}

/// Whether something is to be done or only looked at.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DryRun {
    /// Say what would change and change nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Add a port
#[utoipa::path(
    post, path = "/v1/ports", tag = "ports", params(DryRun), request_body = Port,
    responses(
        (status = 201, body = Applied),
        (status = 409, body = ErrorBody, description = "The name is taken, or the host did not let it happen"),
        (status = 422, body = ErrorBody)
    )
)]
async fn port_add(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Result<(StatusCode, Json<Applied>), ApiError> {
    let value = body.json()?;
    let port = fabnic_model::port_from_json(value)?;
    let request = format!("POST /v1/ports {}", port.name);
    let applied = edit(&shared, &who, &request, query.dry_run, |config| config.add_port(port)).await?;
    let status = if query.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(applied)))
}

/// Change keys of a port
///
/// A JSON merge patch (RFC 7396) of the port's configuration: the keys given replace the port's, `null` takes a key
/// back to its default.
#[utoipa::path(
    patch, path = "/v1/ports/{name}", tag = "ports",
    params(("name" = String, Path, description = "Name of the port"), DryRun),
    request_body(content = serde_json::Value, description = "Keys of Port"),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "The host did not let it happen"),
        (status = 422, body = ErrorBody)
    )
)]
async fn port_set(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    let patch = body.json()?;
    let name = port_of(&shared, &who, name).await?.name;
    let request = format!("PATCH /v1/ports/{name}");
    let change = move |config: &mut Config| config.set_port(&name, patch);
    edit(&shared, &who, &request, query.dry_run, change).await.map(Json)
}

/// Remove a port
///
/// The static FDB entries and static members of groups that speak of it go with it.
#[utoipa::path(
    delete, path = "/v1/ports/{name}", tag = "ports",
    params(("name" = String, Path, description = "Name of the port"), DryRun),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody))
)]
async fn port_del(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
) -> Answer<Applied> {
    let name = port_of(&shared, &who, name).await?.name;
    let request = format!("DELETE /v1/ports/{name}");
    edit(&shared, &who, &request, query.dry_run, move |config| config.del_port(&name)).await.map(Json)
}

/// The forwarding database
#[utoipa::path(
    get, path = "/v1/fdb", tag = "switch", params(FdbFilter),
    responses((status = 200, body = FdbPage), (status = 400, body = ErrorBody))
)]
async fn fdb(State(shared): Ctx, who: Who, Params(filter): Params<FdbFilter>) -> Answer<FdbPage> {
    if who.tenant.is_some() {
        // What is behind a port of its own, a tenant may know.
        let Some(port) = filter.port.clone() else {
            let expected = "port=NAME, one of the tenant's ports";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "port", "no port is named", expected));
        };
        port_of(&shared, &who, port).await?;
    }
    blocking(&shared, move |b| {
        let mut page = b.fdb(&filter);
        page.entries.truncate(filter.limit());
        page
    })
    .await
    .map(Json)
}

/// What the forwarding database did, and what it would not learn
///
/// A tenant sees its own ports.
#[utoipa::path(get, path = "/v1/fdb/stats", tag = "switch", responses((status = 200, body = FdbStatus)))]
async fn fdb_stats(State(shared): Ctx, who: Who) -> Answer<FdbStatus> {
    blocking(&shared, move |b| b.fdb_status(&who.domain())).await.map(Json)
}

/// Add a static FDB entry
#[utoipa::path(
    post, path = "/v1/fdb", tag = "switch", params(DryRun), request_body = StaticFdb,
    responses(
        (status = 201, body = Applied),
        (status = 409, body = ErrorBody, description = "The address has a static entry in this VLAN"),
        (status = 422, body = ErrorBody)
    )
)]
async fn fdb_add(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(query): Params<DryRun>,
    body: Body,
) -> Result<(StatusCode, Json<Applied>), ApiError> {
    let entry: StaticFdb = body.json()?;
    let request = "POST /v1/fdb";
    let applied = edit(&shared, &who, request, query.dry_run, |config| config.add_fdb(entry)).await?;
    let status = if query.dry_run { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(applied)))
}

/// Remove FDB entries
///
/// The static and the learned entries that the filter means. It has to name at least one of `port`, `vlan`, `mac` and
/// `kind`.
#[utoipa::path(
    delete, path = "/v1/fdb", tag = "switch", params(FdbFilter),
    responses(
        (status = 200, body = Forgotten),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "No such entry")
    )
)]
async fn fdb_del(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(filter): Params<FdbFilter>,
) -> Answer<Forgotten> {
    if filter.port.is_none() && filter.vlan.is_none() && filter.mac.is_none() && filter.kind.is_none() {
        let error = "no entry is named";
        let expected = "at least one of port, vlan, mac, kind";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "query", error, expected));
    }
    let _alone = shared.edit.lock().await;
    let (gone, changes) = blocking(&shared, move |backend| -> Result<_, ApiError> {
        let (mut removed, mut changes) = (0, Vec::new());
        if filter.kind != Some(FdbKind::Learned) {
            let mut desired = backend.config();
            let before = desired.fdb.len();
            desired.fdb.retain(|e| {
                filter.port.as_ref().is_some_and(|p| *p != e.port)
                    || filter.vlan.is_some_and(|v| v != e.vlan)
                    || filter.mac.is_some_and(|m| m != e.mac)
            });
            removed = (before - desired.fdb.len()) as u64;
            if removed > 0 {
                changes = backend.apply(&fabnic_model::Domain::Infrastructure, desired, false)?;
            }
        }
        let forgotten = if filter.kind == Some(FdbKind::Static) { 0 } else { backend.fdb_forget(&filter) };
        Ok((Forgotten { removed, forgotten }, changes))
    })
    .await??;
    noted(&shared, &who, "DELETE /v1/fdb", false, Ok(changes))?;
    if gone.is_nothing() {
        let expected = "an entry of the forwarding database";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "query", "there is no such entry", expected));
    }
    Ok(Json(gone))
}

/// Which VLANs are meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VlanFilter {
    /// Only ports of this VLAN.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    vlan: Option<fabnic_model::Vid>,
    /// Only this port.
    #[serde(default)]
    port: Option<String>,
}

/// VLANs of the ports
#[utoipa::path(
    get, path = "/v1/vlans", tag = "switch", params(VlanFilter),
    responses((status = 200, body = Vec<VlanMembership>), (status = 400, body = ErrorBody))
)]
async fn vlans(
    State(shared): Ctx,
    who: Who,
    Params(filter): Params<VlanFilter>,
) -> Answer<Vec<VlanMembership>> {
    let domain = who.domain();
    let config = blocking(&shared, |b| b.config()).await?;
    let memberships = config
        .port
        .into_iter()
        .filter(|p| domain.sees(p.tenant.as_deref()))
        .filter(|p| filter.vlan.is_none_or(|v| p.vlan.is_member(v)))
        .filter(|p| filter.port.as_ref().is_none_or(|n| *n == p.name))
        .map(|p| VlanMembership { pvid: p.vlan.pvid(), tagged: p.vlan.tagged(), port: p.name })
        .collect();
    Ok(Json(memberships))
}

/// Which counters are meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatsFilter {
    /// Only this port.
    #[serde(default)]
    port: Option<String>,
    /// With each queue's counters.
    #[serde(default)]
    queues: bool,
}

/// Counters and drop reasons
#[utoipa::path(
    get, path = "/v1/stats", tag = "switch", params(StatsFilter),
    responses((status = 200, body = Stats), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn stats(State(shared): Ctx, who: Who, Params(filter): Params<StatsFilter>) -> Answer<Stats> {
    let (mut stats, owners) = blocking(&shared, {
        let is_tenant = who.tenant.is_some();
        move |b| (b.stats(), if is_tenant { b.ports() } else { Vec::new() })
    })
    .await?;
    if let Some(tenant) = who.tenant.as_deref() {
        let own: std::collections::HashSet<u32> =
            owners.iter().filter(|p| p.tenant.as_deref() == Some(tenant)).map(|p| p.id).collect();
        stats.ports.retain(|port| own.contains(&port.id));
        // The whole switch is infrastructure's.
        stats.totals = crate::SwitchTotals::default();
    }
    if let Some(name) = &filter.port {
        stats.ports.retain(|p| p.name == *name);
        if stats.ports.is_empty() {
            return Err(ApiError::no_port(name));
        }
    }
    if !filter.queues {
        for port in &mut stats.ports {
            port.queues.clear();
        }
    }
    Ok(Json(stats))
}

fn with_cycles_per_packet(mut workers: Vec<WorkerStatus>) -> Vec<WorkerStatus> {
    for worker in &mut workers {
        if worker.cycles_per_packet == 0.0 && worker.packets > 0 {
            worker.cycles_per_packet = worker.busy_cycles as f64 / worker.packets as f64;
        }
    }
    workers
}

/// Workers: cycles, bursts, sleep
#[utoipa::path(get, path = "/v1/workers", tag = "switch", responses((status = 200, body = Vec<WorkerStatus>)))]
async fn workers(State(shared): Ctx, _: Infrastructure) -> Answer<Vec<WorkerStatus>> {
    blocking(&shared, |b| with_cycles_per_packet(b.workers())).await.map(Json)
}

/// The configuration that runs
#[utoipa::path(get, path = "/v1/config", tag = "daemon", responses((status = 200, body = Config)))]
async fn config(State(shared): Ctx, who: Who) -> Answer<Config> {
    let config = blocking(&shared, |b| b.config()).await?;
    Ok(Json(match &who.tenant {
        None => config,
        Some(tenant) => config.of_tenant(tenant),
    }))
}

/// Apply a configuration
///
/// Compares with what runs and changes just what differs, all or nothing. The body is JSON, or TOML with the content
/// type `application/toml`; errors in TOML have line numbers.
#[utoipa::path(
    put, path = "/v1/config", tag = "daemon", params(DryRun),
    request_body(content((Config = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, body = Applied),
        (status = 409, body = ErrorBody, description = "The host did not let it happen; nothing has changed"),
        (status = 413, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "The configuration is wrong")
    )
)]
async fn config_apply(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(query): Params<DryRun>,
    headers: axum::http::HeaderMap,
    body: Body,
) -> Answer<Applied> {
    let is_toml =
        headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/toml"));
    let desired = if is_toml {
        let text = std::str::from_utf8(&body.0).map_err(|e| {
            Refused::one("", format!("the text is not UTF-8 after byte {}", e.valid_up_to()), "UTF-8")
        })?;
        fabnic_model::parse(text)?
    } else {
        fabnic_model::config_from_json(&body.0)?
    };
    let change = move |config: &mut Config| {
        *config = desired;
        Ok(())
    };
    edit(&shared, &who, "PUT /v1/config", query.dry_run, change).await.map(Json)
}

/// Prometheus metrics
#[utoipa::path(
    get, path = "/metrics", tag = "daemon",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
async fn prometheus(State(shared): Ctx, _: Infrastructure) -> Result<Response, ApiError> {
    let text = blocking(&shared, |b| {
        metrics::encode(metrics::Snapshot {
            health: b.health(),
            ports: b.ports(),
            stats: b.stats(),
            workers: b.workers(),
            mirrors: b.mirrors(&fabnic_model::Domain::Infrastructure),
            meters: b.meters(&fabnic_model::Domain::Infrastructure, &crate::MeterFilter::default()),
            conntrack: b.conntrack(),
            fdb: b.fdb_status(&fabnic_model::Domain::Infrastructure),
            multicast: b.multicast(),
            state: b.state(),
            tenants: b.tenant_status(&fabnic_model::Domain::Infrastructure),
        })
    })
    .await?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Capture a port's frames
///
/// Streams a pcapng file, with verdict or drop reason as a comment on each frame, until `count` frames are there or
/// the client goes.
#[utoipa::path(
    get, path = "/v1/capture", tag = "switch", params(CaptureRequest),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-pcapng"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
async fn capture(
    State(shared): Ctx,
    who: Who,
    Params(request): Params<CaptureRequest>,
) -> Result<Response, ApiError> {
    if !(1..=CaptureRequest::MAX_SNAPLEN).contains(&request.snaplen) {
        let expected = format!("1 to {}", CaptureRequest::MAX_SNAPLEN);
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "snaplen",
            "the length is out of range",
            expected,
        ));
    }
    let name = port_of(&shared, &who, request.port.clone()).await?.name;
    let stream = blocking(&shared, move |b| b.capture(&who.domain(), &request)).await?;
    let stream = stream.ok_or_else(|| ApiError::no_port(&name))?;
    let body = CaptureBody { stream, ending: Box::pin(ended(shared.ending.clone())) };
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], axum::body::Body::new(body)).into_response())
}

/// Ready when the daemon ends.
pub(crate) async fn ended(mut ending: watch::Receiver<bool>) {
    // An error means that the server is gone, which is the end too.
    let _ = ending.wait_for(|&e| e).await;
}

/// A capture as the body of an answer.
struct CaptureBody {
    stream: CaptureStream,
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl axum::body::HttpBody for CaptureBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ending.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.stream.0.poll_recv(context).map(|block| block.map(|b| Ok(Frame::data(Bytes::from(b)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == openapi(), "docs/openapi.json differs: run `cargo run -p fabnic -- gen docs`");
    }
}
