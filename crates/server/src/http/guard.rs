//! Who may talk to this server: keys, origins, host names, time.
//!
//! Three attacks are refused here. A page of another site that sends requests with its visitor's
//! browser (CSRF) is told by its `Origin`. A name of another site that was pointed at our address
//! (DNS rebinding) is told by the `Host`. A client that sends its request drop by drop is told by
//! the clock. Tokens of viewers are checked where they are used, in `whep`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Http;
use super::extract::{Scheme, authority};
use super::problem::Problem;
use crate::config::{AuthMode, Config, WebOrigin};

/// From the last header to the end of the answer. A reserve through a slow store, or 256 KiB over a
/// bad mobile link, takes seconds.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// Which sites' pages, and which names of ourselves, are let in.
#[derive(Debug)]
pub(super) struct SiteRules {
    allowed: Vec<WebOrigin>,
    plain_ports: Vec<u16>,
    secure_port: Option<u16>,
    mode: AuthMode,
    /// Nobody but this machine can reach the listeners.
    loopback_only: bool,
}

impl SiteRules {
    /// `plain` and `secure` are the addresses that are really bound, for HTTP and for HTTPS.
    pub(super) fn new(config: &Config, plain: &[SocketAddr], secure: Option<SocketAddr>) -> Self {
        Self {
            allowed: config.http.allowed_origins.clone(),
            plain_ports: plain.iter().map(SocketAddr::port).collect(),
            secure_port: secure.map(|address| address.port()),
            mode: config.auth.mode,
            loopback_only: plain.iter().chain(&secure).all(|address| address.ip().is_loopback()),
        }
    }

    /// Whether a page of `origin` may use what is at `host`, which was reached by `scheme`.
    pub(super) fn admits_origin(
        &self,
        origin: &HeaderValue,
        host: Option<&Authority>,
        scheme: Scheme,
    ) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        if self.allowed.iter().any(|allowed| allowed.as_str() == origin) {
            return true;
        }
        let (Ok(origin), Some(host)) = (url::Url::parse(origin), host) else { return false };
        let (Some(name), Some(of_origin)) = (origin.host_str(), Scheme::parse(origin.scheme()))
        else {
            return false;
        };
        let same_name = name.eq_ignore_ascii_case(host.host());
        let both_local = is_local_name(name) && is_local_name(host.host());
        let port = origin.port_or_known_default().unwrap_or_default();
        // Ports that are mapped to ours we do not know, but by having been reached through them.
        let same_place = of_origin == scheme
            && same_name
            && port == host.port_u16().unwrap_or(scheme.default_port());
        let is_own = same_place || ((same_name || both_local) && self.has_port(of_origin, port));
        is_own && (self.mode == AuthMode::Keys || is_unforgeable(name))
    }

    fn has_port(&self, scheme: Scheme, port: u16) -> bool {
        match scheme {
            Scheme::Http => self.plain_ports.contains(&port),
            Scheme::Https => self.secure_port == Some(port),
        }
    }

    /// Whether the name that the client has for us can be ours. Only a server that nobody else can
    /// reach may be sure.
    fn admits_host(&self, host: Option<&Authority>) -> bool {
        let Some(host) = host else { return true };
        !self.loopback_only || is_local_name(host.host()) || self.is_allowed_host(host.host())
    }

    fn is_allowed_host(&self, name: &str) -> bool {
        self.allowed.iter().any(|origin| host_of(origin.as_str()).is_some_and(|h| h == name))
    }

    /// How clients that name `host` and have come by `scheme` reach us: by `https` too where the name is
    /// that of a configured origin with `https` (a proxy in front).
    pub(super) fn scheme_of(&self, host: &Authority, scheme: Scheme) -> Scheme {
        let origin = format!("https://{host}");
        let is_behind_proxy = self.allowed.iter().any(|allowed| allowed.as_str() == origin);
        if is_behind_proxy { Scheme::Https } else { scheme }
    }
}

fn host_of(origin: &str) -> Option<String> {
    url::Url::parse(origin).ok()?.host_str().map(ToOwned::to_owned)
}

/// Names that always mean this machine (RFC 6761 §6.3).
fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address(&name).is_some_and(|ip| ip.is_loopback())
}

/// Names that nobody can point elsewhere.
fn is_unforgeable(name: &str) -> bool {
    address(name).is_some() || is_local_name(name)
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Refuses names that are not ours, and changes that another site's page asks for.
pub(super) fn check_site(http: &Http, request: &Request) -> Result<(), Problem> {
    let host = authority(request.headers(), request.uri());
    if !http.rules().admits_host(host.as_ref()) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this server listens on loopback and is not known by this host name; if a proxy passes \
             the name on, add its origin to http.allowed_origins",
        ));
    }
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // WHEP and WHIP are open to every site: what opens them is a token or a stream key, which no browser
    // adds by itself.
    let path = request.uri().path();
    let is_open = ["/whep/", "/whip/", "/w/"].iter().any(|root| path.starts_with(root));
    if is_change && !is_open && is_foreign(http, request) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "pages of this origin may not change anything here; add the origin to \
             http.allowed_origins if it is yours",
        ));
    }
    Ok(())
}

fn is_foreign(http: &Http, request: &Request) -> bool {
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN) else {
        return headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    };
    let host = authority(headers, request.uri());
    !http.rules().admits_origin(origin, host.as_ref(), Scheme::of(request.extensions()))
}

/// Asks who calls, where `auth.mode` is "keys": nothing behind this is reached without a token. What of
/// it is the caller's, each handler asks its [`Caller`](super::caller::Caller).
pub(super) async fn require_caller(
    State(http): State<Http>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = http.caller(request.headers().get(AUTHORIZATION))?;
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    caller.require_route(route)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// An answer, or that it takes too long.
pub(super) async fn in_time(answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, answer).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request took longer than {} s", REQUEST_TIME_MAX.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}
