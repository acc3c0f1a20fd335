//! Errors as clients see them: always JSON, always with the place and what was expected.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fabnic_model::{EditError, Refusal, Refused};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ApplyError;

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: String,
    /// Where: a key such as `port[vm1].mtu`, or a part of the request such as `query` or `body`.
    #[serde(rename = "where")]
    pub at: String,
    /// Line of the configuration, when it came as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What was expected, or what to do.
    pub expected: String,
    /// Further things that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub more: Vec<ErrorBody>,
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        write!(f, "{}", self.error)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        for more in &self.more {
            write!(f, "\n{more}")?;
        }
        Ok(())
    }
}

/// An [`ErrorBody`] with its status.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        at: impl Into<String>,
        error: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let body = ErrorBody {
            error: error.into(),
            at: at.into(),
            line: None,
            expected: expected.into(),
            more: Vec::new(),
        };
        Self { status, body }
    }

    /// What serde said about a part of the request.
    pub(crate) fn of_serde(status: StatusCode, at: &str, message: &str, otherwise: &str) -> Self {
        let mut body = ErrorBody::from(Refusal::of_serde(at, message));
        if body.expected.is_empty() {
            body.expected = otherwise.to_owned();
        }
        Self { status, body }
    }

    pub(crate) fn no_port(name: &str) -> Self {
        let name: String = name.chars().take(64).collect();
        Self::new(StatusCode::NOT_FOUND, "port", format!("there is no port `{name}`"), "the name of a port")
    }
}

impl ApiError {
    /// What the audit log and events say of it.
    pub(crate) fn reason(&self) -> String {
        self.body.to_string().lines().next().unwrap_or_default().to_owned()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        let error = match &refusal.hint {
            Some(hint) => format!("{} (did you mean `{hint}`?)", refusal.problem),
            None => refusal.problem,
        };
        Self { error, at: refusal.key, line: refusal.line, expected: refusal.expected, more: Vec::new() }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        /// More than this helps nobody, and 10,000 ports can be wrong in the same way.
        const MOST: usize = 100;
        let mut refusals = refused.0.into_iter().take(MOST).map(ErrorBody::from);
        let Some(mut body) = refusals.next() else {
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, "", "the configuration is refused", "");
        };
        body.more = refusals.collect();
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, body }
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::NotFound(_) => {
                Self::new(StatusCode::NOT_FOUND, "path", error.to_string(), "one that is there")
            }
            EditError::Exists(_) => Self::new(
                StatusCode::CONFLICT,
                "body",
                error.to_string(),
                "another, or a change of the one that is there",
            ),
            EditError::Refused(refused) => refused.into(),
            EditError::Forbidden(refusal) => {
                Self { status: StatusCode::FORBIDDEN, body: ErrorBody::from(*refusal) }
            }
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(refused) => refused.into(),
            ApplyError::Edit(error) => error.into(),
            ApplyError::Failed { key, problem, expected } => {
                Self::new(StatusCode::CONFLICT, key, problem, expected)
            }
        }
    }
}
