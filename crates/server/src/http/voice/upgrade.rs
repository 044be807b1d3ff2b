//! From HTTP to WebSocket (RFC 6455 §4.2).

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;

use super::super::problem::Problem;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const VERSION: HeaderValue = HeaderValue::from_static("13");

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Whether a request wants to become a WebSocket.
pub(in crate::http) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Answers a request for a WebSocket. The connection is there once the answer is written.
pub(in crate::http) fn accept(mut parts: Parts) -> Result<(Response, OnUpgrade), Problem> {
    if parts.method != Method::GET || !is_upgrade(&parts.headers) {
        return Err(upgrade_required("this is a WebSocket; connect to it with ws:// or wss://"));
    }
    if !has_token(&parts.headers, &CONNECTION, "upgrade") {
        return Err(Problem::bad_request("a WebSocket is asked for with Connection: Upgrade"));
    }
    if parts.headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(upgrade_required("only version 13 of the WebSocket protocol is spoken here"));
    }
    let key = parts.headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let Some(key) = key else {
        return Err(Problem::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"));
    };
    let accept = HeaderValue::try_from(accept_key(key));
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let (Ok(accept), Some(upgrade)) = (accept, upgrade) else {
        return Err(upgrade_required("this connection cannot become a WebSocket; use HTTP/1.1"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, upgrade))
}

fn accept_key(key: &[u8]) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(GUID);
    STANDARD.encode(sha1.finish())
}

fn upgrade_required(sentence: &str) -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, sentence)
        .with_header(UPGRADE, WEBSOCKET)
        .with_header(SEC_WEBSOCKET_VERSION, VERSION)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_accepted_as_the_rfc_does() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
