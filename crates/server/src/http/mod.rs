//! The HTTP surface: one router, the same on every listener.
//!
//! | module | what |
//! |---|---|
//! | `api` | reserve, release, heartbeat, stats, cameras |
//! | `cameras` | changes of the park |
//! | `layouts` | saved walls |
//! | `whep` | the viewers' door (RFC 9725 turned around) |
//! | `frame` | still pictures |
//! | `whip` | the publishers' door (RFC 9725), and their keys |
//! | `trace` | the lives of reservations |
//! | `audit` | who watched what, who changed what |
//! | `rooms` | rooms and pullers, as LiveKit shows them |
//! | `participants` | viewers are sent away |
//! | `mp3` | voices for speakers |
//! | `openapi` | the description of `/api`, and its page |
//! | `status` | health and metrics |
//! | `why`, `reset`, `bundle` | what operators ask, end and report |
//! | `secure` | what a page must know to get to HTTPS |
//! | `voice` | the voice relay's WebSocket and status |
//! | `sources` | sources and their limits, and 429 |
//! | `live` | dashboards are told what changes |
//! | `page` | the embedded web page |
//! | `auth` | tokens |
//! | `caller` | who calls, and what is his |
//! | `node`, `asking` | what other nodes pull, and ask |
//! | `renewal` | fresh tokens for old ones |
//! | `guard` | keys, origins, deadlines |
//! | `listen` | sockets and connections |
//!
//! Handlers translate between JSON and [`App`]; no rule of who may watch what lives here.

mod api;
mod asking;
mod audit;
mod auth;
mod bundle;
mod caller;
mod cameras;
mod differences;
mod extract;
mod frame;
mod guard;
mod ice_servers;
mod layouts;
mod listen;
mod live;
mod mp3;
mod node;
mod openapi;
mod page;
mod participants;
mod problem;
mod renewal;
mod reset;
mod rooms;
mod secure;
mod sources;
mod spreading;
mod status;
mod trace;
mod voice;
mod whep;
mod whip;
mod whole;
mod why;
pub(crate) mod wire;

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, patch, post, put};
use futures::{FutureExt, TryFutureExt};
use tower_http::cors::{AllowOrigin, Any as Anyone, CorsLayer};

use crate::app::App;
use crate::config::{self, AuthMode, Config};
use crate::layouts::Layouts;
use crate::limits::Limits;
use crate::metrics::{Outlets, Requests};
use crate::park::Park;
use crate::stills::Stills;
use crate::voice::Voice;
#[cfg(test)]
use crate::{data_dir::DataDir, database::Database, park};
use guard::SiteRules;
use ice_servers::IceServers;
use problem::Problem;
use voice::Places;
use whole::Whole;
use wire::operations::SettingsView;

pub(crate) use auth::Keyring;
pub(crate) use caller::{Badge, Caller, Role, Sources};
pub(crate) use listen::{Listeners, bind, bind_one};
pub(crate) use mp3::speakers;
pub(crate) use secure::{Doors, Secure};
pub(crate) use spreading::spread;
pub(crate) use whole::follow_nodes;

/// Largest request body. An offer of a browser with every codec has about 8 KiB, a heartbeat 30
/// bytes; 256 KiB is the promise of the API reference.
const BODY_LENGTH_MAX: usize = 256 * 1024;

/// How long browsers may remember the answer to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Scripts and styles from here alone; connections anywhere, as viewers may be sent to other nodes.
macro_rules! content_policy {
    (frame_ancestors: $who:literal) => {
        HeaderValue::from_static(concat!(
            "default-src 'self'; connect-src 'self' ws: wss: http: https:; ",
            "media-src 'self' blob:; img-src 'self' data:; style-src 'self'; script-src 'self'; ",
            "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors ",
            $who
        ))
    };
}

/// Nobody frames the pages.
const CONTENT_POLICY: HeaderValue = content_policy!(frame_ancestors: "'none'");

/// Home Assistant shows the talk page in its sidebar, where the frame and what is around it have the same
/// origin.
const FRAMED_POLICY: HeaderValue = content_policy!(frame_ancestors: "'self'");

/// What every handler needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Http(Arc<Inner>);

struct Inner {
    app: App,
    keyring: Arc<Keyring>,
    auth_mode: AuthMode,
    rules: SiteRules,
    ice_servers: IceServers,
    livekit_url: Option<String>,
    doors: Doors,
    requests: Requests,
    outlets: Arc<Outlets>,
    stills: Stills,
    closing: AtomicBool,
    /// `None`: it is switched off.
    voice: Option<Voice>,
    voice_settings: config::Voice,
    sockets: Places,
    whole: Whole,
    feed: live::Feed,
    live_places: Places,
    players: Places,
    /// What of the settings may be shown.
    settings: SettingsView,
    started: Instant,
    kept: Kept,
}

/// What is kept in the database.
pub(crate) struct Kept {
    pub(crate) park: Park,
    pub(crate) layouts: Layouts,
    pub(crate) limits: Limits,
}

#[cfg(test)]
impl Kept {
    /// Of a server that keeps nothing.
    fn nowhere(config: &Config, app: App) -> Self {
        let nowhere = DataDir::of_process(Some(std::path::Path::new("/dev/null/nowhere")));
        let database = Database::new(nowhere);
        let parked = park::Loaded::read(config, &database);
        let parked = parked.unwrap_or_else(|error| panic!("there is nothing to read: {error}"));
        let limits = Limits::new(&crate::ledger::LedgerPlace::Memory, database.clone());
        let layouts = Layouts::new(database, "");
        let layouts = layouts.unwrap_or_else(|error| panic!("there is nothing to read: {error}"));
        Self { park: Park::new(parked, app), layouts, limits }
    }
}

impl Http {
    /// `doors` are those that are really bound.
    pub(crate) fn new(
        app: App,
        keyring: Arc<Keyring>,
        config: &Config,
        doors: Doors,
        outlets: Arc<Outlets>,
        voice: Option<Voice>,
        kept: Kept,
    ) -> Self {
        let places = usize::try_from(config.voice.max_connections).unwrap_or_default();
        let stills = Stills::new(app.clone(), Arc::clone(&outlets));
        let whole = Whole::new(app.clone());
        Self(Arc::new(Inner {
            feed: live::Feed::new(whole.clone()),
            whole,
            live_places: Places::new(live::SOCKETS_MAX, live::SOCKETS_OF_ADDRESS_MAX),
            app,
            keyring,
            auth_mode: config.auth.mode,
            rules: SiteRules::new(config, &doors.plain, doors.secure_address()),
            ice_servers: IceServers::new(&config.media),
            livekit_url: config.http.livekit_url.clone(),
            doors,
            requests: Requests::default(),
            outlets,
            stills,
            closing: AtomicBool::new(false),
            voice,
            voice_settings: config.voice.clone(),
            sockets: Places::of_sockets(places),
            players: Places::new(mp3::PLAYERS_MAX, mp3::PLAYERS_OF_ADDRESS_MAX),
            settings: SettingsView::of(config),
            started: Instant::now(),
            kept,
        }))
    }

    /// `/health` says from here on that the server ends.
    pub(crate) fn set_closing(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }

    fn app(&self) -> &App {
        &self.0.app
    }

    fn park(&self) -> &Park {
        &self.0.kept.park
    }

    fn layouts(&self) -> &Layouts {
        &self.0.kept.layouts
    }

    fn limits(&self) -> &Limits {
        &self.0.kept.limits
    }

    fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    fn auth_mode(&self) -> AuthMode {
        self.0.auth_mode
    }

    fn rules(&self) -> &SiteRules {
        &self.0.rules
    }

    fn outlets(&self) -> &Arc<Outlets> {
        &self.0.outlets
    }

    fn stills(&self) -> &Stills {
        &self.0.stills
    }

    /// The voice relay, unless it is switched off.
    fn voice(&self) -> Option<&Voice> {
        self.0.voice.as_ref()
    }

    fn voice_settings(&self) -> &config::Voice {
        &self.0.voice_settings
    }

    /// Room for players of MP3.
    fn players(&self) -> &Places {
        &self.0.players
    }

    /// Room for WebSockets.
    fn sockets(&self) -> &Places {
        &self.0.sockets
    }

    /// What all nodes know together.
    fn whole(&self) -> &Whole {
        &self.0.whole
    }

    /// What dashboards are told of.
    fn feed(&self) -> &live::Feed {
        &self.0.feed
    }

    /// Room for dashboards.
    fn live_places(&self) -> &Places {
        &self.0.live_places
    }

    fn requests(&self) -> &Requests {
        &self.0.requests
    }
}

/// All routes, with everything that stands before them.
pub(crate) fn router(http: Http) -> Router {
    let guarded = api_routes()
        .route_layer(from_fn_with_state(http.clone(), guard::require_caller))
        .layer(api_cors(http.clone()));
    Router::new()
        .merge(guarded)
        .merge(
            whep_routes()
                .layer(whep_cors())
                .layer(from_fn_with_state(http.clone(), whep::tell_ice_servers)),
        )
        .merge(
            whip_routes()
                .layer(whep_cors())
                .layer(from_fn_with_state(http.clone(), whip::announce)),
        )
        .merge(node_routes())
        .merge(mp3::routes())
        .merge(openapi::routes())
        .merge(voice_routes())
        .route("/ws/stream/stats", any(live::connect))
        .route("/health", get(status::health))
        .route("/ca.crt", get(secure::authority))
        .fallback(voice::connect_or_page)
        .layer((from_fn_with_state(http.clone(), surround), DefaultBodyLimit::max(BODY_LENGTH_MAX)))
        .with_state(http)
}

fn api_routes() -> Router<Http> {
    Router::new()
        .route("/api/v1/stream/reserve", post(api::reserve))
        .route("/api/v1/stream/release/{id}", delete(api::release))
        .route("/api/v1/stream/heartbeat/{id}", post(api::heartbeat))
        .route("/api/v1/stream/stats", get(api::stats))
        .route("/api/v1/sources", get(sources::sources))
        .route("/api/v1/sources/{id}/limit", put(sources::set_limit))
        .route("/api/v1/cameras", get(api::cameras).post(cameras::add))
        .route(
            "/api/v1/cameras/import",
            post(cameras::import).layer(DefaultBodyLimit::max(cameras::LIST_LENGTH_MAX)),
        )
        .route(
            "/api/v1/cameras/{id}",
            get(api::camera).put(cameras::change).delete(cameras::remove),
        )
        .route("/api/v1/cameras/{id}/frame.jpeg", get(frame::jpeg))
        .route("/api/v1/cameras/{id}/stream-key", post(whip::new_key))
        .route("/api/v1/layouts", get(layouts::list).post(layouts::add))
        .route(
            "/api/v1/layouts/{id}",
            get(layouts::one).put(layouts::change).delete(layouts::remove),
        )
        .route("/rooms", get(rooms::rooms))
        .route("/rooms/{name}", get(rooms::room))
        .route("/rooms/{name}/participants/{identity}", delete(participants::remove))
        .route("/twirp/livekit.RoomService/RemoveParticipant", post(participants::remove_by_twirp))
        .route("/ingress/{id}", delete(rooms::stop_ingress))
        .route("/metrics", get(status::metrics))
        .route("/api/v1/why/{id}", get(why::why))
        .route("/api/v1/trace/{id}", get(trace::trace))
        .route("/api/v1/audit", get(audit::rows))
        .route("/api/v1/audit/verify", get(audit::verify))
        .route("/api/v1/reset", post(reset::reset))
        .route("/api/v1/bundle", get(bundle::bundle))
}

fn whep_routes() -> Router<Http> {
    Router::new()
        .route("/whep/{camera}", post(whep::offer))
        .route("/whep/{camera}/{resource}", patch(whep::trickle).delete(whep::end))
}

/// Behind checks of their own: nodes have tokens for each other.
fn node_routes() -> Router<Http> {
    Router::new()
        .route("/node/store", get(node::store))
        .route("/node/ask", post(asking::answer))
        .route("/node/{camera}/{rendition}", post(node::offer))
        .route("/node/{camera}/{rendition}/{resource}", delete(node::end))
}

fn whip_routes() -> Router<Http> {
    Router::new()
        .route("/whip/{name}", post(whip::offer))
        .route("/whip/{name}/{resource}", patch(whip::trickle).delete(whip::end))
        .route("/w/{name}", post(whip::offer))
        .route("/w/{name}/{resource}", patch(whip::trickle).delete(whip::end))
}

fn voice_routes() -> Router<Http> {
    let read = Router::new()
        .route("/stream/status", get(voice::status))
        .route("/voice/config", get(voice::settings))
        .route("/tls", get(secure::tls))
        // Cards run on the origin of Home Assistant.
        .layer(CorsLayer::new().allow_origin(Anyone).allow_methods([Method::GET]));
    read.route("/ws", any(voice::connect))
}

/// Pages of our own listeners and of the configured origins.
fn api_cors(http: Http) -> CorsLayer {
    let admits = move |origin: &HeaderValue, parts: &axum::http::request::Parts| {
        let host = extract::authority(&parts.headers, &parts.uri);
        let scheme = extract::Scheme::of(&parts.extensions);
        http.rules().admits_origin(origin, host.as_ref(), scheme)
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(admits))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        .max_age(PREFLIGHT_AGE)
}

/// Every page: the token or the stream key is the guard.
fn whep_cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Anyone)
        .allow_methods([Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH])
        .expose_headers([LOCATION, ETAG, LINK, ACCEPT_PATCH])
        .max_age(PREFLIGHT_AGE)
}

/// What stands before every route: checks and a deadline, and behind it errors with bodies, headers, a count
/// and a line in the log. All in one layer: for each that is made of a function, what is inside of it is
/// copied and boxed anew for every request.
async fn surround(State(http): State<Http>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let answer = async {
        match guard::check_site(&http, &request) {
            Ok(()) => next.run(request).await,
            Err(refused) => refused.into_response(),
        }
    };
    // What a panic leaves behind is the request's own.
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let answer = guard::in_time(answer.unwrap_or_else(|_| panicked())).await;
    let mut response = problem::complete(answer, &method, &uri);
    add_headers(response.headers_mut());
    observe(&http, (&method, &uri), matched.as_ref(), response.status(), begun);
    response
}

fn panicked() -> Response {
    tracing::error!("a request handler panicked; the panic message is on standard error");
    let detail = "an internal error happened; the server's log has the details";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}

/// Those of every answer.
fn add_headers(headers: &mut HeaderMap) {
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(CONTENT_POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Counts and logs a request. Query strings are left out of the log: people put tokens there; and so are
/// stream keys, and most of sessions' names.
fn observe(
    http: &Http,
    (method, uri): (&Method, &Uri),
    matched: Option<&MatchedPath>,
    status: StatusCode,
    begun: Instant,
) {
    let route = matched.map_or("other", MatchedPath::as_str);
    let status = status.as_u16();
    http.requests().count(route, status);
    let elapsed_ms = begun.elapsed().as_millis();
    tracing::debug!(%method, path = whip::for_log(uri.path()), status, elapsed_ms, "request");
}

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
