//! The voice relay's doors: the WebSocket, and what is asked of it by plain HTTP.
//!
//! Cards run on the origin of Home Assistant, so that pages of this network's own hosts may connect (`origins`),
//! and others that `voice.allowed_origins` names. Keys of the API play no part; a `voice.token` does, where
//! it is set.

mod messages;
mod origins;
mod places;
mod socket;
mod upgrade;

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;

use super::Http;
use super::extract::{Params, Scheme, authority};
use super::listen::ClientAddress;
use super::problem::Problem;
use super::wire::{AudioConstraints, StreamStatus, VoiceQuery, VoiceSettings};
use crate::voice::Voice;

pub(super) use places::{Place, Places};
pub(super) use upgrade::{accept as accept_upgrade, is_upgrade};

/// Longest message that is read: the promise of the API reference. An offer of a browser with every
/// codec has about 8 KiB.
const MESSAGE_LENGTH_MAX: usize = 256 * 1024;

/// What Home Assistant's ingress adds to what it passes on.
const INGRESS_PATH: &str = "x-ingress-path";

/// `/ws`, and `/` where it is an upgrade.
pub(super) async fn connect(
    State(http): State<Http>,
    request: Request,
) -> Result<Response, Problem> {
    let voice = voice(&http)?.clone();
    let (mut parts, _) = request.into_parts();
    let Params(query) = Params::<VoiceQuery>::from_request_parts(&mut parts, &()).await?;
    admit(&http, &parts, &query)?;
    let address = client_address(&parts);
    let Some(place) = http.sockets().take(address) else {
        let sentence = "too many WebSockets are open or closing; try again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
    };
    let (response, upgrade) = upgrade::accept(parts)?;
    tokio::spawn(async move {
        // It fails where the connection breaks before the answer is written.
        if let Ok(stream) = upgrade.await {
            socket::converse(TokioIo::new(stream), &voice, address).await;
        }
        drop(place);
    });
    Ok(response)
}

/// Where a request comes from.
pub(super) fn client_address(parts: &Parts) -> IpAddr {
    let address = parts.extensions.get::<ClientAddress>();
    let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0.ip());
    address.to_canonical()
}

/// `GET /stream/status`
pub(super) async fn status(State(http): State<Http>) -> Json<StreamStatus> {
    let active_streams = http.voice().map(|voice| voice.status().voices).unwrap_or_default();
    Json(StreamStatus { active_streams })
}

/// `GET /voice/config`
pub(super) async fn settings(State(http): State<Http>) -> Json<VoiceSettings> {
    let settings = http.voice_settings();
    let audio = settings.audio;
    Json(VoiceSettings {
        enabled: http.voice().is_some(),
        ice_servers: http.0.ice_servers.open(),
        audio: AudioConstraints {
            sample_rate: audio.sample_rate,
            channel_count: audio.channels,
            echo_cancellation: audio.echo_cancellation,
            noise_suppression: audio.noise_suppression,
            auto_gain_control: audio.auto_gain_control,
            latency: audio.latency.as_secs_f64(),
        },
        token_required: settings.token.is_some(),
        max_connections: settings.max_connections,
        connection_timeout_seconds: settings.connection_timeout.as_secs(),
        message_bytes_max: MESSAGE_LENGTH_MAX,
    })
}

/// The relay, if it is not switched off.
pub(super) fn voice(http: &Http) -> Result<&Voice, Problem> {
    http.voice().ok_or_else(|| {
        Problem::not_found("the voice relay is switched off; set voice.enabled = true")
    })
}

/// Pages of foreign origins, and who lacks the token, are turned away.
pub(super) fn admit(http: &Http, parts: &Parts, query: &VoiceQuery) -> Result<(), Problem> {
    let headers = &parts.headers;
    let settings = http.voice_settings();
    // Who is no browser names no origin, and could name any. Home Assistant's ingress has asked who it is,
    // and no page can set that header on a WebSocket or without our consent.
    let origin = headers.get(ORIGIN).filter(|_| !headers.contains_key(INGRESS_PATH));
    if let Some(origin) = origin {
        let named = &settings.allowed_origins;
        let is_admitted = if named.is_empty() {
            origins::is_of_this_network(origin, client_address(parts))
        } else {
            named.iter().any(|allowed| allowed.as_str().as_bytes() == origin.as_bytes())
        };
        let host = authority(headers, &parts.uri);
        let scheme = Scheme::of(&parts.extensions);
        if !is_admitted && !http.rules().admits_origin(origin, host.as_ref(), scheme) {
            let sentence = "pages of this origin may not use the voice relay; add the origin to \
                            voice.allowed_origins if it is yours";
            tracing::info!(?origin, "a page of a foreign origin is refused by the voice relay");
            return Err(Problem::new(StatusCode::FORBIDDEN, sentence));
        }
    }
    let Some(wanted) = &settings.token else { return Ok(()) };
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let given = query.token.as_deref().or(bearer).unwrap_or_default().trim();
    verify_slices_are_equal(given.as_bytes(), wanted.expose_secret().as_bytes()).map_err(|_| {
        let sentence =
            "the voice relay asks for its token; give it as ?token= or as a bearer token";
        Problem::new(StatusCode::UNAUTHORIZED, sentence)
    })
}

/// `/`: a WebSocket or the page.
pub(super) async fn connect_or_page(State(http): State<Http>, request: Request) -> Response {
    if request.uri().path() == "/" && is_upgrade(request.headers()) {
        return connect(State(http), request).await.into_response();
    }
    let (parts, _) = request.into_parts();
    super::page::serve(parts.method, parts.uri, parts.headers).await
}
