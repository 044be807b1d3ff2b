//! The description of everything under `/api` (OpenAPI 3.1), made of the handlers themselves, and a page
//! that shows it.
//!
//! `docs/ref/openapi.json` is the same for people and generators without a server; a test compares both,
//! and another one that no route is left out.

use axum::Json;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::routing::{MethodRouter, get};
use utoipa::openapi::path::PathItem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::wire::ProblemBody;
use super::{Http, api, audit, bundle, cameras, frame, layouts, reset, sources, trace, whip, why};

/// What is told of the API as a whole. Paths are those of `mod.rs`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Manifold",
        description = "Cameras for any number of browsers, and the exact account of who may watch what. \
                       Errors are problem details (RFC 9457). With `auth.mode = \"open\"` no token is asked.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        api::reserve,
        api::release,
        api::heartbeat,
        api::stats,
        api::cameras,
        api::camera,
        cameras::add,
        cameras::change,
        cameras::remove,
        cameras::import,
        layouts::list,
        layouts::add,
        layouts::one,
        layouts::change,
        layouts::remove,
        frame::jpeg,
        sources::sources,
        sources::set_limit,
        whip::new_key,
        why::why,
        trace::trace,
        audit::rows,
        audit::verify,
        reset::reset,
        bundle::bundle,
    ),
    tags(
        (name = "stream", description = "Reservations, and what they add up to"),
        (name = "cameras", description = "The park"),
        (name = "layouts", description = "Saved walls"),
        (name = "operations", description = "For those who run the server"),
    ),
    security(("token" = [])),
    components(schemas(ProblemBody<'static>)),
    modifiers(&Token, &Problems),
)]
struct Document;

/// How a client shows who it is.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "An access token in LiveKit's format, signed with a key of `auth.keys`",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// What each call may answer besides what its handler says, and what errors look like.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let items = document.paths.paths.values_mut();
        let operations = items.flat_map(|item| {
            let PathItem { get, post, put, patch, delete, .. } = item;
            [get, post, put, patch, delete].into_iter().flatten()
        });
        for operation in operations {
            let responses = &mut operation.responses.responses;
            for (status, sentence) in [
                ("401", "No token, or none that holds (`auth.mode = \"keys\"`)"),
                ("403", "The token may not do this"),
            ] {
                let response = ResponseBuilder::new().description(sentence).build();
                responses.entry(status.to_owned()).or_insert_with(|| response.into());
            }
            for (status, response) in responses {
                let RefOr::T(response) = response else { continue };
                let is_error = status.starts_with('4') || status.starts_with('5');
                if is_error && response.content.is_empty() {
                    let schema = Ref::from_schema_name("ProblemBody");
                    let content = ContentBuilder::new().schema(Some(schema)).build();
                    response.content.insert("application/problem+json".to_owned(), content.into());
                }
            }
        }
    }
}

/// The document and its page; what they tell is no secret.
pub(super) fn routes() -> Router<Http> {
    Router::new()
        .route("/api/openapi.json", get(async || Json(Document::openapi())))
        .route("/api/docs", part("text/html; charset=utf-8", include_str!("openapi/page.html")))
        .route("/api/docs.js", part("text/javascript", include_str!("openapi/page.js")))
        .route("/api/docs.css", part("text/css", include_str!("openapi/page.css")))
}

fn part(content_type: &'static str, text: &'static str) -> MethodRouter<Http> {
    let headers: [(HeaderName, HeaderValue); 2] = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    get(async move || (headers, text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Beside the other references.
    const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ref/openapi.json");

    #[test]
    fn the_kept_document_is_that_of_the_code() {
        let document = Document::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(KEPT, &document).unwrap();
        }
        let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
        assert!(
            kept == document,
            "docs/ref/openapi.json is not what the code says; write it anew with \
             UPDATE_OPENAPI=1 cargo test -p server the_kept_document"
        );
    }

    #[test]
    fn every_route_below_api_is_described() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods
                    .filter(|key| METHODS.contains(&key.as_str()))
                    .map(move |m| format!("{m} {path}"))
            })
            .collect();
        let routed = routes_in(include_str!("mod.rs"));
        assert!(routed.contains("post /api/v1/stream/reserve"), "the source is read: {routed:?}");
        assert_eq!(
            routed, described,
            "left: the routes of mod.rs; right: what is described. Give a new handler its #[utoipa::path], \
             and its name in `paths` above"
        );
    }

    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

    /// What the router's source says of `/api`: `.route("/api/…", get(a).post(b))`.
    fn routes_in(source: &str) -> BTreeSet<String> {
        let calls = source.split(".route(").skip(1).filter_map(|call| {
            let call = call.trim_start().strip_prefix('"')?;
            let (path, handlers) = call.split_once('"')?;
            path.starts_with("/api/v1/").then_some((path, handlers))
        });
        calls
            .flat_map(|(path, handlers)| {
                METHODS.into_iter().filter_map(move |method| {
                    let is_routed = handlers.contains(&format!(" {method}("))
                        || handlers.contains(&format!(".{method}("));
                    is_routed.then(|| format!("{method} {path}"))
                })
            })
            .collect()
    }
}
