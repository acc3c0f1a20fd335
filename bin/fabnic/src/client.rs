//! HTTP/1.1 on a Unix socket, one connection a request.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use fabnic_api::ErrorBody;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody answers on the socket.
    Unreachable(PathBuf, io::Error),
    /// The daemon said no.
    Refused(ErrorBody),
    /// The daemon said no to what is in this file.
    RefusedFile(String, Box<ErrorBody>),
    /// The words on the command line make no sense.
    Usage(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::RefusedFile(..) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(..) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(socket, error) => {
                let (what, advice) = match error.kind() {
                    io::ErrorKind::NotFound => {
                        ("there is no such socket", "is fabnicd running? Otherwise say where with --api")
                    }
                    io::ErrorKind::ConnectionRefused => ("nobody listens on it", "start fabnicd"),
                    io::ErrorKind::PermissionDenied => {
                        ("you may not open it", "use sudo, or become the user that the daemon runs as")
                    }
                    _ => return write!(f, "{}: {error}", socket.display()),
                };
                write!(f, "{}: {what}: {advice}", socket.display())
            }
            Self::Refused(body) => body.fmt(f),
            Self::RefusedFile(file, body) => {
                for (i, body) in std::iter::once(&**body).chain(&body.more).enumerate() {
                    let newline = if i == 0 { "" } else { "\n" };
                    // `file:line:` is what editors jump to.
                    let line = body.line.map(|line| format!("{line}:")).unwrap_or_default();
                    let body = ErrorBody { line: None, more: Vec::new(), ..body.clone() };
                    write!(f, "{newline}{file}:{line} {body}")?;
                }
                Ok(())
            }
            Self::Usage(text) => f.write_str(text),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The daemon behind a socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    token: Option<String>,
}

/// The body of a request.
pub(crate) enum Content {
    /// None.
    Nothing,
    /// A JSON value.
    Json(serde_json::Value),
    /// A configuration as text.
    Toml(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Client {
    pub(crate) fn new(socket: &Path, token: Option<String>) -> Self {
        Self { socket: socket.to_owned(), token }
    }

    /// Sends a request and returns the answer's head, with the body still to come, when it is a success.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content: Content,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| Failure::Unreachable(self.socket.clone(), e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; its errors reach us through the answer.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "fabnic");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match content {
            Content::Nothing => Bytes::new(),
            Content::Json(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                value.to_string().into()
            }
            Content::Toml(text) => {
                request = request.header(header::CONTENT_TYPE, "application/toml");
                text.into()
            }
            Content::Bytes(bytes) => {
                request = request.header(header::CONTENT_TYPE, "application/octet-stream");
                bytes.into()
            }
        };
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn text(&self, method: Method, path: &str, content: Content) -> Result<Bytes, Failure> {
        let response = self.send(method, path, content).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Sends a request and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: Content,
    ) -> Result<T, Failure> {
        decode(&self.text(method, path, content).await?)
    }

    /// Gets JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(Method::GET, path, Content::Nothing).await
    }
}

/// Reads an answer.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        Failure::Other(anyhow::anyhow!("the daemon's answer cannot be read ({e}): is it of another version?"))
    })
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status: StatusCode = response.status();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return e.into(),
    };
    match serde_json::from_slice(&body) {
        Ok(body) => Failure::Refused(body),
        Err(_) => Failure::Other(anyhow::anyhow!("the daemon answered {status} without a reason")),
    }
}

/// A query string of the pairs that have a value, with its question mark.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            text.push_str(&escape(&value));
        }
    }
    text
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let text = query([("port", Some("a b&c/ü".into())), ("vlan", None), ("mac", Some("52:54".into()))]);
        assert_eq!(text, "?port=a%20b%26c%2F%C3%BC&mac=52%3A54");
    }
}
