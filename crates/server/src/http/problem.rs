//! What goes wrong, as `application/problem+json` (RFC 9457): a status and one clear sentence.

use std::borrow::Cow;

use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::auth::{GrantError, TokenError};
use super::wire::ProblemBody;
use super::wire::nodes::Refusal;
use super::wire::park::RowProblem;
use crate::app::LeaseError;

const CONTENT: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    code: Option<Cow<'static, str>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    problems: Vec<RowProblem>,
}

impl Problem {
    /// `detail` is one sentence for the person at the other end; it must hold no secret.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            code: None,
            headers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Its status.
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// Its sentence.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with a note behind its sentence.
    pub(super) fn with_note(mut self, note: &str) -> Self {
        self.detail = format!("{}; {note}", self.detail);
        self
    }

    /// The same with a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with each thing that is wrong by itself, for programs.
    pub(super) fn with_problems(self, problems: Vec<RowProblem>) -> Self {
        Self { problems, ..self }
    }

    /// The same with a word by which programs tell it from others of its status.
    pub(super) fn with_code(self, code: Option<&'static str>) -> Self {
        Self { code: code.map(Cow::Borrowed), ..self }
    }

    /// 503, while the store of reservations does not answer. It is asked again every second.
    pub(super) fn store_lost(error: impl ToString) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        problem.with_code(Some("STORE_LOST")).with_header(RETRY_AFTER, HeaderValue::from(2))
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 400.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 503, while the server ends.
    pub(super) fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
    }
}

impl From<Refusal> for Problem {
    /// Another node's.
    fn from(Refusal { status, detail, code }: Refusal) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self { code: code.map(Cow::Owned), ..Self::new(status, detail) }
    }
}

impl From<Problem> for Refusal {
    /// For another node, whose caller it is told to.
    fn from(Problem { status, detail, code, .. }: Problem) -> Self {
        Self { status: status.as_u16(), detail, code: code.map(Cow::into_owned) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            problems: &self.problems,
            code: self.code.as_deref(),
        };
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, CONTENT);
        response
    }
}

impl From<LeaseError> for Problem {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Over(over) => Self::not_found(over.to_string()).with_code(over.code()),
            LeaseError::StoreLost => Self::store_lost(error),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        // RFC 6750 §3: without a token there is no error code.
        let challenge = match error {
            TokenError::Missing => HeaderValue::from_static("Bearer"),
            TokenError::NotBearer
            | TokenError::Malformed
            | TokenError::Algorithm
            | TokenError::UnknownKey
            | TokenError::Signature
            | TokenError::Expired { .. }
            | TokenError::NotYet { .. }
            | TokenError::Revoked
            | TokenError::Attributes(_) => {
                HeaderValue::from_static("Bearer error=\"invalid_token\"")
            }
        };
        Self::new(StatusCode::UNAUTHORIZED, error.to_string())
            .with_header(WWW_AUTHENTICATE, challenge)
    }
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        Self::new(StatusCode::FORBIDDEN, error.to_string())
    }
}

/// Gives a body to errors that the router and its layers answer without one of ours.
pub(super) fn complete(response: Response, method: &Method, uri: &Uri) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let has_json = response.headers().get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == CONTENT.as_bytes() || value.starts_with(b"application/json")
    });
    if !is_error || has_json {
        return response;
    }
    let path = super::whip::without_key(uri.path());
    let detail = default_detail(status, method.as_str(), &path);
    let mut problem = Problem::new(status, detail).into_response();
    let (parts, _) = response.into_parts();
    for (name, value) in parts.headers.iter().filter(|(name, _)| !describes_body(name)) {
        problem.headers_mut().append(name, value.clone());
    }
    *problem.extensions_mut() = parts.extensions;
    if method == Method::HEAD {
        *problem.body_mut() = Body::empty();
    }
    problem
}

fn describes_body(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") && name != "content-security-policy" || name == "transfer-encoding"
}

fn default_detail(status: StatusCode, method: &str, path: &str) -> String {
    match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{method} is not possible at {path}; the Allow header names what is")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            format!("the body is larger than {} KiB", super::BODY_LENGTH_MAX / 1024)
        }
        StatusCode::BAD_REQUEST => "the request cannot be read".to_owned(),
        other => other.canonical_reason().unwrap_or("an error happened").to_owned(),
    }
}
