//! Paths of rules, groups, mirrors and tenants; of traces, flows, events and the audit log.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fabnic_model::{Edit, Group, Kind, Mirror, Rule};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Applied, AuditEntry, BindingFilter, BindingStatus, ErrorBody, Event, FlowFilter, FlowStatus, Forgotten,
    GroupStatus, LldpStatus, Members, MirrorStatus, RecentDrop, RuleEdit, RuleStatus, TenantStatus,
    TraceReport, TraceRequest, TraceStep, Who, WhyFilter,
    door::Infrastructure,
    error::ApiError,
    routes::{Answer, Ctx, DryRun, ended, noted, port_of},
    server::{Body, Name, Params, Shared, blocking},
};

/// Those whose bodies are about one thing.
pub(crate) fn small() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(rules, rule_add))
        .routes(routes!(rule, rule_set, rule_del))
        .routes(routes!(mirrors, mirror_add))
        .routes(routes!(mirror_set, mirror_del))
        .routes(routes!(tenants))
        .routes(routes!(bindings, bindings_del))
        .routes(routes!(lldp))
        .routes(routes!(flows))
        .routes(routes!(why))
        .routes(routes!(events))
        .routes(routes!(audit))
        .merge(crate::conn::paths())
        .merge(crate::meters::paths())
        .merge(crate::mdb::paths())
}

/// Those whose bodies may be large.
pub(crate) fn large() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(rules_edit))
        .routes(routes!(trace))
        .routes(routes!(groups, group_add))
        .routes(routes!(group_set, group_del))
        .routes(routes!(group_members))
}

/// Makes edits as one.
async fn change(
    shared: &Arc<Shared>,
    who: &Who,
    request: String,
    dry_run: bool,
    edits: Vec<Edit>,
) -> Result<Applied, ApiError> {
    let domain = who.domain();
    let _alone = shared.edit.lock().await;
    let result = blocking(shared, move |backend| backend.edit(&domain, &edits, dry_run)).await?;
    noted(shared, who, &request, dry_run, result.map_err(ApiError::from))
}

pub(crate) async fn add(
    shared: &Arc<Shared>,
    who: &Who,
    kind: Kind,
    dry_run: bool,
    body: &Body,
) -> Answer2<Applied> {
    let value: Value = body.json()?;
    let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
    let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
    let request = format!("POST /v1/{}s {name}", kind.as_str());
    let applied = change(shared, who, request, dry_run, vec![Edit::Add { kind, value }]).await?;
    let status = if dry_run { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(applied)))
}

pub(crate) type Answer2<T> = Result<(StatusCode, Json<T>), ApiError>;

pub(crate) async fn set(
    shared: &Arc<Shared>,
    who: &Who,
    kind: Kind,
    name: String,
    dry_run: bool,
    body: &Body,
) -> Answer<Applied> {
    let patch = body.json()?;
    let request = format!("PATCH /v1/{}s/{name}", kind.as_str());
    change(shared, who, request, dry_run, vec![Edit::Set { kind, name, patch }]).await.map(Json)
}

pub(crate) async fn del(
    shared: &Arc<Shared>,
    who: &Who,
    kind: Kind,
    name: String,
    dry_run: bool,
) -> Answer<Applied> {
    let request = format!("DELETE /v1/{}s/{name}", kind.as_str());
    change(shared, who, request, dry_run, vec![Edit::Del { kind, name }]).await.map(Json)
}

/// All rules
///
/// A tenant sees its own.
#[utoipa::path(get, path = "/v1/rules", tag = "policy", responses((status = 200, body = Vec<RuleStatus>)))]
async fn rules(State(shared): Ctx, who: Who) -> Answer<Vec<RuleStatus>> {
    blocking(&shared, move |b| b.rules(&who.domain())).await.map(Json)
}

/// One rule
#[utoipa::path(
    get, path = "/v1/rules/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the rule, `TENANT/NAME` (escaped) of a tenant's")),
    responses((status = 200, body = RuleStatus), (status = 404, body = ErrorBody))
)]
async fn rule(State(shared): Ctx, who: Who, Name(name): Name) -> Answer<RuleStatus> {
    let found = blocking(&shared, move |b| b.rule(&who.domain(), &name)).await?;
    found.map(Json).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "path", "there is no such rule", "the name of a rule")
    })
}

/// Add a rule
#[utoipa::path(
    post, path = "/v1/rules", tag = "policy", params(DryRun), request_body = Rule,
    responses(
        (status = 201, body = Applied),
        (status = 409, body = ErrorBody, description = "The name is taken"),
        (status = 422, body = ErrorBody)
    )
)]
async fn rule_add(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer2<Applied> {
    add(&shared, &who, Kind::Rule, query.dry_run, &body).await
}

/// Change several rules as one
///
/// All of the edits are made, or none.
#[utoipa::path(
    post, path = "/v1/rules/batch", tag = "policy", params(DryRun), request_body = Vec<RuleEdit>,
    responses(
        (status = 200, body = Applied),
        (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)
    )
)]
async fn rules_edit(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    let edits: Vec<RuleEdit> = body.json()?;
    let request = format!("POST /v1/rules/batch of {}", edits.len());
    let kind = Kind::Rule;
    let edits = edits.into_iter().map(|edit| match edit {
        RuleEdit::Add { rule } => Edit::Add { kind, value: rule },
        RuleEdit::Set { name, patch } => Edit::Set { kind, name, patch },
        RuleEdit::Del { name } => Edit::Del { kind, name },
    });
    change(&shared, &who, request, query.dry_run, edits.collect()).await.map(Json)
}

/// Change keys of a rule
///
/// A JSON merge patch (RFC 7396); `match` and `action` are replaced as a whole.
#[utoipa::path(
    patch, path = "/v1/rules/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the rule"), DryRun),
    request_body(content = serde_json::Value, description = "Keys of Rule"),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn rule_set(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    set(&shared, &who, Kind::Rule, name, query.dry_run, &body).await
}

/// Remove a rule
#[utoipa::path(
    delete, path = "/v1/rules/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the rule"), DryRun),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody))
)]
async fn rule_del(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
) -> Answer<Applied> {
    del(&shared, &who, Kind::Rule, name, query.dry_run).await
}

/// All security groups
#[utoipa::path(get, path = "/v1/groups", tag = "policy", responses((status = 200, body = Vec<GroupStatus>)))]
async fn groups(State(shared): Ctx, who: Who) -> Answer<Vec<GroupStatus>> {
    blocking(&shared, move |b| b.groups(&who.domain())).await.map(Json)
}

/// Add a security group
#[utoipa::path(
    post, path = "/v1/groups", tag = "policy", params(DryRun), request_body = Group,
    responses((status = 201, body = Applied), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn group_add(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer2<Applied> {
    add(&shared, &who, Kind::Group, query.dry_run, &body).await
}

/// Change keys of a security group
#[utoipa::path(
    patch, path = "/v1/groups/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the group"), DryRun),
    request_body(content = serde_json::Value, description = "Keys of Group"),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn group_set(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    set(&shared, &who, Kind::Group, name, query.dry_run, &body).await
}

/// Add and remove addresses of a security group
#[utoipa::path(
    post, path = "/v1/groups/{name}/members", tag = "policy",
    params(("name" = String, Path, description = "Name of the group"), DryRun),
    request_body = Members,
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn group_members(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    let Members { add, del } = body.json()?;
    let request = format!("POST /v1/groups/{name}/members");
    change(&shared, &who, request, query.dry_run, vec![Edit::Members { name, add, del }]).await.map(Json)
}

/// Remove a security group
#[utoipa::path(
    delete, path = "/v1/groups/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the group"), DryRun),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "Rules speak of it")
    )
)]
async fn group_del(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
) -> Answer<Applied> {
    del(&shared, &who, Kind::Group, name, query.dry_run).await
}

/// All mirrors
#[utoipa::path(get, path = "/v1/mirrors", tag = "policy", responses((status = 200, body = Vec<MirrorStatus>)))]
async fn mirrors(State(shared): Ctx, who: Who) -> Answer<Vec<MirrorStatus>> {
    blocking(&shared, move |b| b.mirrors(&who.domain())).await.map(Json)
}

/// Add a mirror
#[utoipa::path(
    post, path = "/v1/mirrors", tag = "policy", params(DryRun), request_body = Mirror,
    responses((status = 201, body = Applied), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn mirror_add(
    State(shared): Ctx,
    who: Who,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer2<Applied> {
    add(&shared, &who, Kind::Mirror, query.dry_run, &body).await
}

/// Change keys of a mirror
#[utoipa::path(
    patch, path = "/v1/mirrors/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the mirror"), DryRun),
    request_body(content = serde_json::Value, description = "Keys of Mirror"),
    responses((status = 200, body = Applied), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
async fn mirror_set(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
    body: Body,
) -> Answer<Applied> {
    set(&shared, &who, Kind::Mirror, name, query.dry_run, &body).await
}

/// Remove a mirror
#[utoipa::path(
    delete, path = "/v1/mirrors/{name}", tag = "policy",
    params(("name" = String, Path, description = "Name of the mirror"), DryRun),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "Rules speak of it")
    )
)]
async fn mirror_del(
    State(shared): Ctx,
    who: Who,
    Name(name): Name,
    Params(query): Params<DryRun>,
) -> Answer<Applied> {
    del(&shared, &who, Kind::Mirror, name, query.dry_run).await
}

/// Tenants, with what they have of their quotas
///
/// A tenant sees itself.
#[utoipa::path(get, path = "/v1/tenants", tag = "policy", responses((status = 200, body = Vec<TenantStatus>)))]
async fn tenants(State(shared): Ctx, who: Who) -> Answer<Vec<TenantStatus>> {
    blocking(&shared, move |b| b.tenant_status(&who.domain())).await.map(Json)
}

/// Addresses that are bound to ports
///
/// By configuration, or learned from DHCP and neighbour discovery. A tenant sees those of its ports.
#[utoipa::path(
    get, path = "/v1/bindings", tag = "switch", params(BindingFilter),
    responses((status = 200, body = Vec<BindingStatus>), (status = 400, body = ErrorBody))
)]
async fn bindings(
    State(shared): Ctx,
    who: Who,
    Params(filter): Params<BindingFilter>,
) -> Answer<Vec<BindingStatus>> {
    blocking(&shared, move |b| b.bindings(&who.domain(), &filter)).await.map(Json)
}

/// Forget learned bindings
///
/// The filter has to name at least one of `port`, `vlan` and `address`.
#[utoipa::path(
    delete, path = "/v1/bindings", tag = "switch", params(BindingFilter),
    responses((status = 200, body = Forgotten), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn bindings_del(
    State(shared): Ctx,
    Infrastructure(who): Infrastructure,
    Params(filter): Params<BindingFilter>,
) -> Answer<Forgotten> {
    if filter == BindingFilter::default() {
        let expected = "at least one of port, vlan, address";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "query", "no binding is named", expected));
    }
    let forgotten = blocking(&shared, move |b| b.bindings_forget(&filter)).await?;
    noted(&shared, &who, "DELETE /v1/bindings", false, Ok(Vec::new()))?;
    if forgotten == 0 {
        let expected = "a learned binding; configured ones go with their configuration";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "query", "there is no such binding", expected));
    }
    Ok(Json(Forgotten { removed: 0, forgotten }))
}

/// Neighbours that announced themselves by LLDP
#[utoipa::path(get, path = "/v1/lldp", tag = "switch", responses((status = 200, body = Vec<LldpStatus>)))]
async fn lldp(State(shared): Ctx, _: Infrastructure) -> Answer<Vec<LldpStatus>> {
    blocking(&shared, |b| b.lldp()).await.map(Json)
}

/// The largest flows
///
/// They are told apart up to their ports and counted while `[daemon] flow_counters` is set.
#[utoipa::path(
    get, path = "/v1/flows", tag = "switch", params(FlowFilter),
    responses((status = 200, body = Vec<FlowStatus>), (status = 400, body = ErrorBody))
)]
async fn flows(State(shared): Ctx, who: Who, Params(filter): Params<FlowFilter>) -> Answer<Vec<FlowStatus>> {
    blocking(&shared, move |b| b.flows(&who.domain(), &filter)).await.map(Json)
}

/// Say what would become of a frame
///
/// Nothing is sent, learned or counted.
#[utoipa::path(
    post, path = "/v1/trace", tag = "switch", request_body = TraceRequest,
    responses(
        (status = 200, body = TraceReport),
        (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody)
    )
)]
async fn trace(State(shared): Ctx, who: Who, body: Body) -> Answer<TraceReport> {
    let request: TraceRequest = body.json()?;
    port_of(&shared, &who, request.port.clone()).await?;
    let is_tenant = who.tenant.is_some();
    let mut report = blocking(&shared, move |b| b.trace(&request)).await??;
    if is_tenant {
        report.hide_from_tenant();
        // Where others' ports are, and that there are any, is not the tenant's affair.
        let own = blocking(&shared, |b| b.ports()).await?;
        let domain = who.domain();
        report.to.retain(|target| {
            own.iter().any(|port| port.name == target.port && domain.sees(port.tenant.as_deref()))
        });
    }
    Ok(Json(report))
}

/// Frames that were dropped lately at a port, and why
#[utoipa::path(
    get, path = "/v1/why", tag = "switch", params(WhyFilter),
    responses((status = 200, body = Vec<RecentDrop>), (status = 404, body = ErrorBody))
)]
async fn why(State(shared): Ctx, who: Who, Params(filter): Params<WhyFilter>) -> Answer<Vec<RecentDrop>> {
    let name = port_of(&shared, &who, filter.port).await?.name;
    let mut found = blocking(&shared, {
        let name = name.clone();
        move |b| b.recent_drops(&name)
    })
    .await?;
    if who.tenant.is_some() {
        let steps = found.iter_mut().flatten().filter_map(|drop| drop.stage.as_mut());
        steps.for_each(TraceStep::hide_from_tenant);
    }
    found.map(Json).ok_or_else(|| ApiError::no_port(&name))
}

/// What happens, as it happens
///
/// A line of JSON for each event, until the client goes. A tenant hears its own.
#[utoipa::path(
    get, path = "/v1/events", tag = "daemon",
    responses((status = 200, body = Event, content_type = "application/x-ndjson"))
)]
async fn events(State(shared): Ctx, who: Who) -> Response {
    let mut listener = shared.backend.events().listen(who.domain());
    let (lines, body) = mpsc::channel(64);
    let ending = shared.ending.clone();
    tokio::spawn(async move {
        let mut ending = Box::pin(ended(ending));
        loop {
            let line = tokio::select! {
                line = listener.next() => line,
                () = &mut ending => None,
                () = lines.closed() => None,
            };
            let Some(line) = line else { return };
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    let body = axum::body::Body::new(Lines(body));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Lines as the body of an answer.
struct Lines(mpsc::Receiver<Vec<u8>>);

impl axum::body::HttpBody for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(Bytes::from(line)))))
    }
}

/// Which entries of the audit log are meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditFilter {
    /// Most entries in the answer; 100 unless said.
    #[serde(default)]
    limit: Option<usize>,
}

/// Who changed what
///
/// The last entries, the newest last. A tenant sees its own.
#[utoipa::path(
    get, path = "/v1/audit", tag = "daemon", params(AuditFilter),
    responses((status = 200, body = Vec<AuditEntry>), (status = 400, body = ErrorBody))
)]
async fn audit(State(shared): Ctx, who: Who, Params(filter): Params<AuditFilter>) -> Answer<Vec<AuditEntry>> {
    Ok(Json(shared.audit.last(&who.domain(), filter.limit.unwrap_or(100))))
}
