//! `GET /stream/latest.mp3` and `/stream/{id}.mp3`: voices for speakers, and the page that a browser
//! gets while there is none.

mod icy;

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, RANGE, RETRY_AFTER, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, routing};
use futures::stream;
use tower_http::cors::{Any as Anyone, CorsLayer};

use super::extract::Params;
use super::problem::Problem;
use super::voice::Place;
use super::wire::VoiceQuery;
use super::{Http, PREFLIGHT_AGE, voice};
use crate::voice::mp3::{EncoderError, ListenError, Listener, Mp3};
use icy::Metadata;

/// The name that stands for whichever voice is the newest.
const LATEST: &str = "latest";

/// What is live is nobody's to keep; and a browser and its own player ask for the same address.
const LIVE: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (VARY, HeaderValue::from_static("accept")),
];

/// Most players at once, over all voices.
pub(super) const PLAYERS_MAX: usize = 1_000;

/// Of these, what one address may have: half, so that the other half is for everybody else.
pub(super) const PLAYERS_OF_ADDRESS_MAX: usize = PLAYERS_MAX / 2;

/// When to ask again where there is no room.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// Asked for by players that know Shoutcast's metadata.
const ICY_METADATA: HeaderName = HeaderName::from_static("icy-metadata");

/// The routes, open to every page: what they play is for everybody on the network.
pub(super) fn routes() -> Router<Http> {
    let cors = CorsLayer::new()
        .allow_origin(Anyone)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([RANGE, ICY_METADATA])
        .expose_headers([icy::INTERVAL, icy::NAME])
        .max_age(PREFLIGHT_AGE);
    Router::new()
        .route("/stream/waiting.js", page_part("text/javascript", include_str!("mp3/waiting.js")))
        .route("/stream/waiting.css", page_part("text/css", include_str!("mp3/waiting.css")))
        .route("/stream/{file}", get(play))
        .layer(cors)
}

fn page_part(content_type: &'static str, text: &'static str) -> routing::MethodRouter<Http> {
    let no_cache = (CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let kind = (CONTENT_TYPE, HeaderValue::from_static(content_type));
    get(async move || ([kind, no_cache], text))
}

/// Voices and nothing else, for benchmarks.
pub(crate) fn speakers(mp3: Mp3) -> Router {
    let play = async move |Path(file): Path<String>, method: Method, headers: HeaderMap| {
        serve(&mp3, &file, &method, &headers, || Ok(None))
    };
    Router::new().route("/stream/{file}", get(play))
}

async fn play(
    State(http): State<Http>,
    Path(file): Path<String>,
    Params(query): Params<VoiceQuery>,
    parts: Parts,
) -> Result<Response, Problem> {
    let voice = voice::voice(&http)?;
    voice::admit(&http, &parts, &query)?;
    let seat = || {
        let place = http.players().take(voice::client_address(&parts));
        place.map(Some).ok_or_else(no_place)
    };
    serve(voice.mp3(), &file, &parts.method, &parts.headers, seat)
}

/// Ranges are not known here: who asks for one gets 200 and all that comes.
///
/// `seat` takes the player's place, which it has until its connection ends.
fn serve(
    mp3: &Mp3,
    file: &str,
    method: &Method,
    headers: &HeaderMap,
    seat: impl FnOnce() -> Result<Option<Place>, Problem>,
) -> Result<Response, Problem> {
    let Some(id) = file.strip_suffix(".mp3") else {
        return Err(Problem::not_found(format!("there is nothing at /stream/{file}")));
    };
    mp3.check().map_err(|error| refused(error.into()))?;
    if id == LATEST && mp3.newest().is_none() && is_navigation(headers) {
        return Ok(waiting());
    }
    if method == Method::HEAD {
        if id != LATEST && mp3.voice(id).is_none() {
            return Err(refused(ListenError::NotFound));
        }
        // No length is told of a body that never ends, even where none is sent.
        return Ok(answer(
            headers,
            Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()),
        ));
    }
    let place = seat()?;
    let listener = listen(mp3, id).map_err(refused)?;
    let metadata = wants_metadata(headers).then(Metadata::new);
    Ok(answer(headers, body(listener, metadata, place)))
}

fn listen(mp3: &Mp3, id: &str) -> Result<Listener, ListenError> {
    if id == LATEST { mp3.listen_to_newest() } else { mp3.listen(id) }
}

/// A browser that opens the address itself, and does not play it in a page.
fn is_navigation(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

fn wants_metadata(headers: &HeaderMap) -> bool {
    headers.get(ICY_METADATA).is_some_and(|value| value == "1")
}

fn answer(asked: &HeaderMap, body: Body) -> Response {
    let kind = [
        (CONTENT_TYPE, HeaderValue::from_static("audio/mpeg")),
        (ACCEPT_RANGES, HeaderValue::from_static("none")),
    ];
    let mut response = (LIVE, kind, body).into_response();
    if wants_metadata(asked) {
        response.headers_mut().extend(icy::headers());
    }
    response
}

fn waiting() -> Response {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (LIVE, kind, include_str!("mp3/waiting.html")).into_response()
}

fn body(listener: Listener, metadata: Option<Metadata>, place: Option<Place>) -> Body {
    let state = (listener, metadata, place);
    let pieces = stream::unfold(state, async |(mut listener, mut metadata, place)| {
        let piece = listener.next().await?;
        let bytes = match &mut metadata {
            Some(metadata) => metadata.weave(&piece.bytes, piece.voice.as_deref()),
            None => piece.bytes,
        };
        Some((Ok::<Bytes, Infallible>(bytes), (listener, metadata, place)))
    });
    Body::from_stream(pieces)
}

fn no_place() -> Problem {
    let sentence =
        "1,000 players listen already, or 500 of this address, which is the most; try again later";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence).with_header(RETRY_AFTER, RETRY_SECONDS)
}

fn refused(error: ListenError) -> Problem {
    let status = match error {
        ListenError::NotFound => StatusCode::NOT_FOUND,
        ListenError::Encoder(EncoderError::NotBuilt) => StatusCode::NOT_IMPLEMENTED,
        ListenError::TooManyListeners
        | ListenError::TooManyEncoders
        | ListenError::Encoder(EncoderError::Setup | EncoderError::Failed) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let problem = Problem::new(status, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem.with_header(RETRY_AFTER, RETRY_SECONDS)
    } else {
        problem
    }
}
