//! The listener's life, and how requests are read.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixListener,
    sync::{mpsc::UnboundedReceiver, watch},
};

use crate::{
    Audit, Backend, TenantDoor,
    door::{Door, Peer},
    error::ApiError,
    routes,
};

/// Largest body of a request, in bytes: a whole configuration.
pub const MAX_BODY: usize = fabnic_model::MAX_TEXT;
/// Largest body of a request about one port or entry, in bytes.
pub(crate) const MAX_SMALL_BODY: usize = 64 << 10;
/// How long requests in flight may take after the daemon was told to end.
const GRACE: Duration = Duration::from_secs(2);

/// What every request has at hand.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    /// Held from reading the running configuration to applying the changed one.
    pub(crate) edit: tokio::sync::Mutex<()>,
    /// Who changed what.
    pub(crate) audit: Arc<Audit>,
    /// Becomes true when the daemon ends: captures stop.
    pub(crate) ending: watch::Receiver<bool>,
}

/// What the API is served on besides infrastructure's socket.
#[derive(Debug, Default)]
pub struct Options {
    /// Sockets of tenants, as they come and go.
    pub doors: Option<UnboundedReceiver<TenantDoor>>,
    /// Where changes are noted.
    pub audit: Arc<Audit>,
}

/// Serves the API until `shutdown` is ready.
///
/// # Errors
/// When infrastructure's listener fails for good. Errors of single connections are theirs alone.
pub async fn serve(
    listener: UnixListener,
    backend: Arc<dyn Backend>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (end, ending) = watch::channel(false);
    let shared = Arc::new(Shared {
        backend,
        edit: tokio::sync::Mutex::default(),
        audit: options.audit,
        ending: ending.clone(),
    });
    let mut told = ending.clone();
    if let Some(doors) = options.doors {
        tokio::spawn(serve_doors(doors, Arc::clone(&shared), ending.clone()));
    }
    let app = routes::router(shared).layer(Extension(Door::Infrastructure));
    let server = axum::serve(listener, app.into_make_service_with_connect_info::<Peer>());
    let server = server.with_graceful_shutdown(async move {
        shutdown.await;
        // Only fails when nobody listens, and `told` below does.
        let _ = end.send(true);
    });
    let too_late = async move {
        if told.wait_for(|&ending| ending).await.is_err() {
            // The server dropped its end: it returns by itself.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = async { server.await } => result,
        () = too_late => {
            tracing::warn!(seconds = GRACE.as_secs(), "requests were still in flight at the end and were cut off");
            Ok(())
        }
    }
}

/// Serves tenants' sockets as they come, until they go or the daemon ends.
async fn serve_doors(
    mut doors: UnboundedReceiver<TenantDoor>,
    shared: Arc<Shared>,
    mut ending: watch::Receiver<bool>,
) {
    let mut served: HashMap<String, tokio::task::JoinHandle<()>> = HashMap::new();
    loop {
        let door = tokio::select! {
            door = doors.recv() => door,
            _ = ending.wait_for(|&ending| ending) => None,
        };
        match door {
            Some(TenantDoor::Open { tenant, listener }) => {
                let listener = match UnixListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        tracing::error!(%tenant, %error, "the tenant's socket cannot be served");
                        continue;
                    }
                };
                let door = Door::Tenant(tenant.as_str().into());
                let app = routes::router(Arc::clone(&shared)).layer(Extension(door));
                let serving = tokio::spawn(async move {
                    let served =
                        axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).await;
                    if let Err(error) = served {
                        tracing::error!(%error, "a tenant's socket is not served any more");
                    }
                });
                if let Some(before) = served.insert(tenant, serving) {
                    before.abort();
                }
            }
            Some(TenantDoor::Closed { tenant }) => {
                if let Some(serving) = served.remove(&tenant) {
                    serving.abort();
                }
            }
            None => break,
        }
    }
    for serving in served.into_values() {
        serving.abort();
    }
}

/// Runs a backend call that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    call: impl FnOnce(&dyn Backend) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let backend = Arc::clone(&shared.backend);
    tokio::task::spawn_blocking(move || call(&*backend)).await.map_err(|e| {
        tracing::error!(error = %e, "a request made the daemon panic");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "daemon",
            "the request hit a fault of the daemon",
            "a report with the daemon's log",
        )
    })
}

/// The body, whatever its type.
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection @ BytesRejection::FailedToBufferBody(_)) => {
                let status = rejection.status();
                let expected = if status == StatusCode::PAYLOAD_TOO_LARGE {
                    format!("at most {MAX_SMALL_BODY} bytes, {MAX_BODY} for a configuration")
                } else {
                    "the whole body".to_owned()
                };
                Err(ApiError::new(status, "body", rejection.body_text(), expected))
            }
            Err(other) => Err(ApiError::new(other.status(), "body", other.body_text(), "bytes")),
        }
    }
}

impl Body {
    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let mut reader = serde_json::Deserializer::from_slice(&self.0);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
            let path = e.path().to_string();
            let at = if path == "." { "body".to_owned() } else { path };
            let otherwise = "JSON as /v1/openapi.json says";
            ApiError::of_serde(StatusCode::UNPROCESSABLE_ENTITY, &at, &e.inner().to_string(), otherwise)
        })?;
        reader.end().map_err(|e| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "body", e.to_string(), "one JSON value")
        })?;
        Ok(value)
    }
}

/// The query string as a type.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri).map(|Query(value)| Self(value)).map_err(|e| {
            let text = e.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let (at, text) = match text.split_once(": ") {
                Some((key, rest)) if is_key(key) => (key, rest),
                _ => ("query", text),
            };
            ApiError::of_serde(StatusCode::BAD_REQUEST, at, text, "a query as /v1/openapi.json says")
        })
    }
}

/// The last part of the path.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<String>::from_request_parts(parts, state)
            .await
            .map(|Path(name)| Self(name))
            .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "path", e.body_text(), "a name in UTF-8"))
    }
}
