//! Requests taken apart, with a sentence for everything that is not as it must be.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// How the client reached the listener. A proxy in front may have been reached otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As the listener has put it among the request's extensions.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self::Http)
    }

    /// Of a URL; `None` where it is no page of the web.
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.as_str() == text)
    }

    /// As URLs have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// What is left out of a URL (RFC 9110 §4.2).
    pub(super) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Scheme {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// A JSON body of type `T`. An empty one is refused.
pub(super) struct JsonBody<T>(pub(super) T);

/// A JSON body of type `T`, or none at all.
pub(super) struct OptionalJsonBody<T>(pub(super) T);

/// The query string as `T`.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_content_type(request.headers(), "application/json")?;
        let bytes = body(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = require_content_type(request.headers(), "application/json");
        let bytes = body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        is_json?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| {
            Problem::bad_request(format!("the query cannot be read: {}", error.body_text()))
        })
    }
}

/// Refuses any other media type than `wanted`; parameters such as a charset do not matter.
pub(super) fn require_content_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let detail = format!("the body must be sent with Content-Type: {wanted}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// The whole body, at most `BODY_LENGTH_MAX` of it.
pub(super) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(body_problem)
}

fn body_problem(rejection: BytesRejection) -> Problem {
    let status = rejection.into_response().status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let limit = super::BODY_LENGTH_MAX / 1024;
        Problem::new(status, format!("the body is larger than {limit} KiB"))
    } else {
        Problem::bad_request("the body ended before it was complete")
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::bad_request(format!("the body is not the JSON that is needed: {error}"))
    })
}

/// The authority that the request was sent to: `host` or `host:port` (RFC 9110 §7.2). `None` where
/// the client named none, or something that is no authority.
pub(super) fn authority(parts_headers: &HeaderMap, uri: &axum::http::Uri) -> Option<Authority> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => Authority::try_from(parts_headers.get(HOST)?.as_bytes()).ok()?,
    };
    // User information has no place in a Host header, and would be passed on in URLs.
    (!authority.as_str().contains('@')).then_some(authority)
}
