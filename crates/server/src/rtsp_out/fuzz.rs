//! What the fuzz target `rtsp_request` feeds.

use super::auth::Authorization;
use super::message::{Incoming, MESSAGE_LENGTH_MAX, read};
use super::transport;
use super::uri::Uri;

/// Takes everything in `bytes` apart as a connection does. Each message makes progress inside the
/// buffer, no part of a request makes its reader panic, and no full buffer is waited on.
pub fn rtsp_request(mut bytes: &[u8]) {
    while let Ok(Some((message, length))) = read(bytes) {
        assert!(length > 0 && length <= bytes.len(), "{length} of {}", bytes.len());
        if let Incoming::Request(request) = &message {
            let _ = request.sequence();
            let _ = Uri::parse(request.uri);
            let _ = request.header("Transport").map(transport::choose);
            let _ = request.header("Authorization").map(Authorization::parse);
        }
        bytes = &bytes[length..];
    }
    assert!(bytes.len() < MESSAGE_LENGTH_MAX || read(bytes).is_err(), "it waits for ever");
}
