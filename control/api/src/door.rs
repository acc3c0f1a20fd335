//! Who asks: by which socket he came, what the kernel says of him, and which token he has.
//!
//! ```text
//!   infrastructure's socket    no token              infrastructure (its file mode says who may open it)
//!                              a tenant's token      that tenant
//!   a tenant's socket          a user of `uids`      the tenant
//!                              the tenant's token    the tenant
//!   anything else                                    401, and an entry in the audit log
//! ```
//!
//! Tokens are compared by their SHA-256 in constant time, all tenants' in turn: how long it takes says nothing.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::{StatusCode, header, request::Parts},
    serve::IncomingStream,
};
use fabnic_model::{Tenant, tenant::TokenHash};
use sha2::{Digest as _, Sha256};

use crate::{EventKind, Who, error::ApiError, server::Shared};

/// A tenant's own socket comes or goes.
#[derive(Debug)]
pub enum TenantDoor {
    /// It is bound and waits to be served; non-blocking.
    Open {
        /// The tenant.
        tenant: String,
        /// Its socket.
        listener: UnixListener,
    },
    /// It is not the tenant's any more.
    Closed {
        /// The tenant.
        tenant: String,
    },
}

/// By which socket a request came.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Infrastructure,
    Tenant(Arc<str>),
}

/// What the kernel says of who is on the other side of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, tokio::net::UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tokio::net::UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(cred) => Self { uid: Some(cred.uid()), pid: cred.pid() },
            // Nobody, then: infrastructure's socket is guarded by its mode, a tenant's lets nobody in.
            Err(_) => Self::default(),
        }
    }
}

/// SHA-256 of a token.
#[must_use]
pub fn hash_of_token(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
fn is_same(a: &TokenHash, b: &TokenHash) -> bool {
    let differing = a.0.iter().zip(&b.0).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    differing == 0
}

/// The tenant whose token it is.
fn tenant_of_token<'a>(tenants: &'a [Tenant], token: &str) -> Option<&'a Tenant> {
    let hash = hash_of_token(token);
    tenants.iter().fold(None, |found, tenant| {
        let is_its = tenant.token.as_ref().is_some_and(|own| is_same(own, &hash));
        if is_its { Some(tenant) } else { found }
    })
}

fn who(door: &Door, peer: Peer, token: Option<&str>, tenants: &[Tenant]) -> Result<Who, String> {
    let mut who = Who { tenant: None, uid: peer.uid, pid: peer.pid, by_token: token.is_some() };
    match (door, token) {
        (Door::Infrastructure, None) => Ok(who),
        (Door::Infrastructure, Some(token)) => {
            let tenant = tenant_of_token(tenants, token).ok_or("the token is nobody's")?;
            who.tenant = Some(tenant.name.clone());
            Ok(who)
        }
        (Door::Tenant(name), token) => {
            let own = tenants.iter().find(|t| *t.name == **name).ok_or("the tenant is not there any more")?;
            who.tenant = Some(own.name.clone());
            match token {
                Some(token) => {
                    let is_its = tenant_of_token(tenants, token).is_some_and(|t| t.name == own.name);
                    if is_its { Ok(who) } else { Err("the token is not the tenant's".into()) }
                }
                None if peer.uid.is_some_and(|uid| own.uids.contains(&uid)) => Ok(who),
                None => Err(match peer.uid {
                    Some(uid) => format!("user {uid} is not among the tenant's"),
                    None => "the kernel does not say which user it is".into(),
                }),
            }
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn token(parts: &Parts) -> Result<Option<&str>, ApiError> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = || {
        let expected = "Authorization: Bearer TOKEN";
        ApiError::new(StatusCode::UNAUTHORIZED, "authorization", "the header cannot be read", expected)
    };
    let value = value.to_str().map_err(|_| wrong())?;
    let (scheme, token) = value.split_once(' ').ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(wrong()) }
}

impl FromRequestParts<Arc<Shared>> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let door = parts.extensions.get::<Door>().cloned().unwrap_or(Door::Tenant("".into()));
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0).unwrap_or_default();
        let token = token(parts)?;
        if matches!((&door, token), (Door::Infrastructure, None)) {
            return Ok(Self { tenant: None, uid: peer.uid, pid: peer.pid, by_token: false });
        }
        who(&door, peer, token, &shared.backend.tenants()).map_err(|reason| {
            let request = format!("{} {}", parts.method, parts.uri.path());
            let tenant = match &door {
                Door::Infrastructure => None,
                Door::Tenant(tenant) => Some(tenant.to_string()),
            };
            let nobody = Self { tenant: tenant.clone(), uid: peer.uid, pid: peer.pid, by_token: token.is_some() };
            shared.audit.note(&nobody, &request, Err(&reason));
            shared.backend.events().send(EventKind::Refused { request, reason: reason.clone() });
            ApiError::new(
                StatusCode::UNAUTHORIZED,
                "authorization",
                reason,
                "a user of the tenant's `uids` on its own socket, or `Authorization: Bearer TOKEN` with its token",
            )
        })
    }
}

/// One who acts for infrastructure.
pub(crate) struct Infrastructure(pub(crate) Who);

impl FromRequestParts<Arc<Shared>> for Infrastructure {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let who = Who::from_request_parts(parts, shared).await?;
        if who.tenant.is_none() {
            return Ok(Self(who));
        }
        let request = format!("{} {}", parts.method, parts.uri.path());
        let reason = "this is infrastructure's affair";
        shared.audit.note(&who, &request, Err(reason));
        let kind = EventKind::Refused { request, reason: reason.into() };
        shared.backend.events().send_of(who.tenant.as_deref(), kind);
        let expected = "what concerns the tenant's own ports, rules, groups, meters and mirrors";
        Err(ApiError::new(StatusCode::FORBIDDEN, "path", reason, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, uids: &[u32], token: Option<&str>) -> Tenant {
        Tenant {
            name: name.into(),
            socket: Some(format!("/run/{name}.sock")),
            uids: uids.to_vec(),
            token: token.map(hash_of_token),
            police: None,
            max_tx_rate: None,
            quota: fabnic_model::tenant::Quota::default(),
        }
    }

    #[test]
    fn who_one_is_follows_from_socket_user_and_token() {
        let tenants = [tenant("blue", &[1000], Some("b-token")), tenant("red", &[1001], None)];
        let of = |door: &Door, uid: u32, token: Option<&str>| {
            who(door, Peer { uid: Some(uid), pid: Some(1) }, token, &tenants).map(|who| who.tenant)
        };
        let (infrastructure, blue, red) =
            (Door::Infrastructure, Door::Tenant("blue".into()), Door::Tenant("red".into()));
        assert_eq!(of(&infrastructure, 0, None), Ok(None));
        assert_eq!(of(&infrastructure, 0, Some("b-token")), Ok(Some("blue".into())));
        assert!(of(&infrastructure, 0, Some("c-token")).is_err());
        assert!(of(&infrastructure, 0, Some("")).is_err());
        assert_eq!(of(&blue, 1000, None), Ok(Some("blue".into())));
        assert_eq!(of(&blue, 7, Some("b-token")), Ok(Some("blue".into())));
        assert!(of(&blue, 1001, None).is_err());
        assert!(of(&blue, 0, None).is_err(), "root has infrastructure's socket");
        assert!(of(&blue, 1000, Some("wrong")).is_err(), "a wrong token is not overlooked");
        assert!(of(&red, 1001, Some("b-token")).is_err(), "blue's token says nothing at red's door");
        assert!(who(&blue, Peer::default(), None, &tenants).is_err());
        assert!(of(&Door::Tenant("green".into()), 1000, None).is_err());
    }
}
