//! The web page, compiled into the binary.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::FRAMED_POLICY;
use super::problem::Problem;

/// The file of `/talk`.
const TALK_PAGE: &str = "talk.html";

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
struct Page;

/// Everything that no route takes: a file of the page, or nothing.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = match path {
        "" => "index.html",
        "talk" => TALK_PAGE,
        file => file,
    };
    // The lookup is by exact name in a table of this binary: `..` and `%2f` name nothing.
    match Page::get(path) {
        Some(file) if method == Method::GET || method == Method::HEAD => {
            file_answer(path, &file, &method, &headers)
        }
        Some(_) => {
            let allow = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
            (StatusCode::METHOD_NOT_ALLOWED, allow).into_response()
        }
        None => Problem::not_found(format!("there is nothing at {}", uri.path())).into_response(),
    }
}

fn file_answer(path: &str, file: &EmbeddedFile, method: &Method, headers: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let Ok(tag) = HeaderValue::try_from(format!("\"{tag}\"")) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let open = is_for_other_sites(path)
        .then_some([(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))]);
    let framed = (path == TALK_PAGE).then_some([(CONTENT_SECURITY_POLICY, FRAMED_POLICY)]);
    let cache = [(ETAG, tag.clone()), (CACHE_CONTROL, cache_control(path))];
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| {
        known.to_str().is_ok_and(|known| {
            known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
        })
    });
    if is_known {
        return (StatusCode::NOT_MODIFIED, open, framed, cache).into_response();
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(file.data.clone().into_owned())
    };
    (open, framed, cache, [(CONTENT_TYPE, content_type(path))], body).into_response()
}

/// Home Assistant's pages import the cards as a module, which browsers allow only where CORS does. What
/// is in the file is public, and nothing is read with it that needs a key.
fn is_for_other_sites(path: &str) -> bool {
    path.starts_with("cards/")
}

/// Names under `assets/` carry a hash of their content and never change their meaning.
fn cache_control(path: &str) -> HeaderValue {
    HeaderValue::from_static(if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    })
}

/// What a page of this kind is made of. Anything else is offered for saving, not for running.
fn content_type(path: &str) -> HeaderValue {
    let extension = path.rsplit('.').next().unwrap_or_default();
    HeaderValue::from_static(match extension {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
