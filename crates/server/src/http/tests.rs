//! The router as a client meets it.

use axum::body::Body;
use axum::http::{Request, Response};
use control::Scope;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::extract::Scheme;
use super::*;
use crate::app::{
    CameraOrigin, CameraSnapshot, RenditionSnapshot, Reservation, ReservationSnapshot, Snapshot,
    SourceSnapshot,
};
use crate::config::{self, ApiKey};
use crate::data_dir::tests::Temporary;
use crate::ingest::RtspTransport;
use crate::tls::{self, Certificates};

const SECRET: &str = "a-secret-of-at-least-32-characters!!";

/// A server of its own, on loopback.
struct Server {
    router: Router,
    http: Http,
}

impl Server {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config::from_toml("");
        change(&mut config);
        Self::of(&config, None)
    }

    fn with_https(secure: Secure) -> Self {
        Self::of(&config::from_toml(""), Some(secure))
    }

    fn of(config: &Config, secure: Option<Secure>) -> Self {
        let keyring = Arc::new(Keyring::new(&config.auth).unwrap());
        let plain = vec!["127.0.0.1:8080".parse().unwrap(), "127.0.0.1:7880".parse().unwrap()];
        let doors = Doors { plain, secure };
        let http = Http::new(
            App::ended(),
            keyring,
            config,
            doors,
            Arc::default(),
            None,
            Kept::nowhere(config, App::ended()),
        );
        Self { router: router(http.clone()), http }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        Answer::read(response).await
    }
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The sentence of a well-formed problem with this status.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
        body["detail"].as_str().unwrap().to_owned()
    }
}

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1:8080")
}

fn plain(method: &str, path: &str) -> Request<Body> {
    request(method, path).body(Body::empty()).unwrap()
}

fn reserve(body: impl Into<Body>) -> Request<Body> {
    request("POST", "/api/v1/stream/reserve")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn requests_that_are_wrong_are_told_what_is_wrong() {
    let server = Server::start(|_| {}).await;
    let sentence = server.ask(plain("GET", "/api/v1/nothing")).await.problem(404);
    assert_eq!(sentence, "there is nothing at /api/v1/nothing");

    let answer = server.ask(plain("PUT", "/api/v1/cameras")).await;
    let sentence = answer.problem(405);
    assert!(answer.header("allow").contains("GET"), "{:?}", answer.headers);
    assert!(sentence.starts_with("PUT is not possible at /api/v1/cameras; "), "{sentence}");
    for (method, path) in [("GET", "/whep/cam-1"), ("POST", "/"), ("POST", "/health")] {
        let answer = server.ask(plain(method, path)).await;
        answer.problem(405);
        assert!(!answer.header("allow").is_empty(), "{method} {path}");
    }

    let bare = request("POST", "/api/v1/stream/reserve").body(Body::from("{}")).unwrap();
    let sentence = server.ask(bare).await.problem(415);
    assert_eq!(sentence, "the body must be sent with Content-Type: application/json");

    let sentence = server.ask(reserve("{\"camera_id\": 1")).await.problem(400);
    assert!(sentence.starts_with("the body is not the JSON that is needed: "), "{sentence}");
    let sentence = server.ask(reserve("{\"camera_id\": \"a\"}")).await.problem(400);
    assert!(sentence.contains("missing field `user_id`"), "{sentence}");
    let quality = json!({"camera_id": "a", "user_id": "u", "quality": "8k"}).to_string();
    let sentence = server.ask(reserve(quality)).await.problem(400);
    assert_eq!(sentence, "quality must be low, medium, high or auto");
    let nobody = json!({"camera_id": "a", "user_id": ""}).to_string();
    assert!(server.ask(reserve(nobody)).await.problem(400).starts_with("user_id must be"));

    let huge = vec![b' '; BODY_LENGTH_MAX + 1];
    let sentence = server.ask(reserve(huge)).await.problem(413);
    assert_eq!(sentence, "the body is larger than 256 KiB");

    let sentence = server.ask(plain("GET", "/api/v1/cameras?limit=many")).await.problem(400);
    assert!(sentence.starts_with("the query cannot be read: "), "{sentence}");
    server.ask(plain("GET", "/api/v1/cameras?status=SLEEPY")).await.problem(400);
    server.ask(plain("GET", "/metrics?format=xml")).await.problem(400);
}

#[tokio::test]
async fn ids_that_would_leave_their_place_name_no_camera() {
    let server = Server::start(|_| {}).await;
    for id in ["../etc/passwd", "..", "a/b", "<script>alert(1)</script>", "", "a\u{0}"] {
        let body = json!({"camera_id": id, "user_id": "u"}).to_string();
        let sentence = server.ask(reserve(body)).await.problem(404);
        assert!(sentence.starts_with("there is no such camera: "), "{id}: {sentence}");
    }
    for path in ["/api/v1/cameras/..%2f..%2fetc", "/api/v1/cameras/%00", "/api/v1/cameras/%3Cb%3E"]
    {
        server.ask(plain("GET", path)).await.problem(404);
    }
    server.ask(plain("GET", "/api/v1/cameras/%ff")).await.problem(400);
    server.ask(plain("GET", "/../../etc/passwd")).await.problem(404);
    server.ask(plain("GET", "/..%2f..%2fetc%2fpasswd")).await.problem(404);
}

#[tokio::test]
async fn the_page_comes_with_a_strict_policy_and_its_age() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask(plain("GET", "/")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe") && !policy.contains('*'));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cache-control"), "no-cache");

    let known = request("GET", "/").header("if-none-match", answer.header("etag"));
    let again = server.ask(known.body(Body::empty()).unwrap()).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    let head = server.ask(plain("HEAD", "/index.html")).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn the_talk_page_may_be_framed_by_its_own_origin_alone() {
    let server = Server::start(|_| {}).await;
    let page = server.ask(plain("GET", "/")).await;
    let talk = server.ask(plain("GET", "/talk")).await;
    assert_eq!((talk.status, talk.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = talk.header("content-security-policy");
    let strict = page.header("content-security-policy");
    assert_eq!(policy.replace("frame-ancestors 'self'", "frame-ancestors 'none'"), strict);
    assert_ne!(policy, strict);
    assert_eq!(server.ask(plain("POST", "/talk")).await.status, 405);
}

#[tokio::test]
async fn the_cards_may_be_imported_by_every_site_and_nothing_else_may() {
    let server = Server::start(|_| {}).await;
    let cards = server.ask(plain("GET", "/cards/manifold-cards.js")).await;
    let described = (cards.status, cards.header("content-type"), cards.header("cache-control"));
    assert_eq!(described, (200, "text/javascript; charset=utf-8", "no-cache"));
    assert_eq!(cards.header("access-control-allow-origin"), "*");
    assert_eq!(server.ask(plain("GET", "/talk")).await.header("access-control-allow-origin"), "");
    for asked in ["/voice/config", "/tls"] {
        let answer = request("GET", asked).header("origin", "http://homeassistant.local:8123");
        let answer = server.ask(answer.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{asked} is for the cards");
    }
}

#[tokio::test]
async fn errors_carry_the_policy_too() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask(plain("GET", "/nothing")).await;
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("content-security-policy").contains("default-src 'self'"));
}

fn from_origin(method: &str, path: &str, host: &str, origin: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("origin", origin)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let allowed = "https://control.example";
    let server = Server::start(|config| {
        let text = format!("[http]\nallowed_origins = [\"{allowed}\"]");
        config.http = config::from_toml(&text).http;
    })
    .await;
    let path = "/api/v1/stream/reserve";
    let own = "127.0.0.1:8080";
    for origin in [
        "https://evil.example",
        "http://evil.example:8080",
        "http://127.0.0.1:9999",
        "https://127.0.0.1:8080",
        "http://127.0.0.1.evil.example:8080",
        "null",
        "file://",
    ] {
        let sentence = server.ask(from_origin("POST", path, own, origin)).await.problem(403);
        assert!(sentence.contains("http.allowed_origins"), "{sentence}");
    }
    // What is let through meets the next check: there is no JSON.
    for origin in
        [allowed, "http://127.0.0.1:8080", "http://127.0.0.1:7880", "http://localhost:8080"]
    {
        server.ask(from_origin("POST", path, own, origin)).await.problem(415);
    }
    let cross = request("POST", path).header("sec-fetch-site", "cross-site");
    server.ask(cross.body(Body::empty()).unwrap()).await.problem(403);
    server.ask(plain("POST", path)).await.problem(415);
}

#[tokio::test]
async fn a_name_that_was_pointed_at_loopback_is_refused() {
    let server = Server::start(|_| {}).await;
    for host in ["evil.example", "evil.example:8080", "192.168.1.9:8080"] {
        let request = Request::get("/").header("host", host).body(Body::empty()).unwrap();
        server.ask(request).await.problem(421);
    }
    for host in ["localhost:8080", "127.0.0.1:1234", "[::1]:8080", "a.localhost"] {
        let request = Request::get("/").header("host", host).body(Body::empty()).unwrap();
        assert_eq!(server.ask(request).await.status, 200, "{host}");
    }
}

#[test]
fn on_a_network_names_are_forgeable_unless_keys_are_asked() {
    let rules = |mode| {
        let mut config = config::from_toml("[auth]\nallow_open_on_network = true");
        config.auth.mode = mode;
        SiteRules::new(&config, &["0.0.0.0:8080".parse().unwrap()], None)
    };
    let admits = |mode, origin: &'static str, host: &str| {
        let host = host.parse().unwrap();
        rules(mode).admits_origin(&HeaderValue::from_static(origin), Some(&host), Scheme::Http)
    };
    assert!(admits(AuthMode::Open, "http://192.168.1.5:8080", "192.168.1.5:8080"));
    assert!(admits(AuthMode::Open, "http://192.168.1.5:18080", "192.168.1.5:18080"));
    assert!(!admits(AuthMode::Open, "http://192.168.1.6:8080", "192.168.1.5:8080"));
    assert!(!admits(AuthMode::Open, "http://nvr.example:8080", "nvr.example:8080"));
    assert!(admits(AuthMode::Keys, "http://nvr.example:8080", "nvr.example:8080"));
    assert!(!admits(AuthMode::Keys, "http://evil.example:8080", "nvr.example:8080"));
}

#[test]
fn pages_of_our_own_https_are_let_in_and_those_of_other_ports_are_not() {
    let mut config = config::from_toml("[auth]\nallow_open_on_network = true");
    let plain = ["0.0.0.0:8080".parse().unwrap()];
    let admits = |config: &Config, origin: &'static str, host: &str, scheme| {
        let rules = SiteRules::new(config, &plain, Some("0.0.0.0:8443".parse().unwrap()));
        let host = host.parse().unwrap();
        rules.admits_origin(&HeaderValue::from_static(origin), Some(&host), scheme)
    };
    let rows = [
        ("https://192.168.1.5:8443", "192.168.1.5:8443", Scheme::Https, true),
        // From a page by HTTPS to a listener by HTTP, and back: both are ours.
        ("https://192.168.1.5:8443", "192.168.1.5:8080", Scheme::Http, true),
        ("http://192.168.1.5:8080", "192.168.1.5:8443", Scheme::Https, true),
        // A port that a router maps to ours.
        ("https://192.168.1.5", "192.168.1.5", Scheme::Https, true),
        ("https://192.168.1.5", "192.168.1.5", Scheme::Http, false),
        ("https://192.168.1.5:8080", "192.168.1.5:8080", Scheme::Http, false),
        ("http://192.168.1.5:8443", "192.168.1.5:8080", Scheme::Http, false),
        ("https://192.168.1.6:8443", "192.168.1.5:8443", Scheme::Https, false),
        ("https://nas.local:8443", "nas.local:8443", Scheme::Https, false),
        ("ftp://192.168.1.5:8443", "192.168.1.5:8443", Scheme::Https, false),
    ];
    for (origin, host, scheme, wanted) in rows {
        assert_eq!(admits(&config, origin, host, scheme), wanted, "{origin} at {host}");
    }
    config.auth.mode = AuthMode::Keys;
    assert!(admits(&config, "https://nas.local:8443", "nas.local:8443", Scheme::Https));
}

#[tokio::test]
async fn a_page_that_came_by_https_is_sent_on_by_https() {
    let server = Server::start(|_| {}).await;
    let host = Some("192.168.1.5:8443".parse().unwrap());
    let reached = (Scheme::Https, host.as_ref());
    let answer = api::reserve_answer(&server.http, reached, &reservation()).ok().unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    let whep = answer["whep_url"].as_str().unwrap();
    assert!(whep.starts_with("https://192.168.1.5:8443/whep/"), "{whep}");
    assert_eq!(answer["livekit_url"], "wss://192.168.1.5:8443");
}

#[tokio::test]
async fn a_page_is_told_where_https_is_and_what_to_install() {
    let off = Server::start(|_| {}).await;
    let answer = off.ask(plain("GET", "/tls")).await;
    assert_eq!(answer.json(), json!({"https_port": null, "ca": null, "mode": "off"}));
    let sentence = off.ask(plain("GET", "/ca.crt")).await.problem(404);
    assert!(sentence.ends_with("HTTPS is off, see http.https"), "{sentence}");

    let data = Temporary::new();
    let (tls, _) = tls::open(&Certificates::Local, data.0.clone(), Vec::new()).unwrap();
    let authority = tls.authority().unwrap();
    let on = Server::with_https(Secure { address: "127.0.0.1:8443".parse().unwrap(), tls });
    let answer = on.ask(plain("GET", "/tls")).await;
    assert_eq!(answer.json(), json!({"https_port": 8443, "ca": "/ca.crt", "mode": "auto"}));
    let pem = on.ask(plain("GET", "/ca.crt")).await;
    assert_eq!((pem.status, pem.header("content-type")), (200, "application/x-x509-ca-cert"));
    assert_eq!(CertificateDer::from_pem_slice(pem.text.as_bytes()).unwrap(), authority);
    assert!(!pem.text.contains("PRIVATE"), "{}", pem.text);
    let der = on.router.clone().oneshot(plain("GET", "/ca.crt?format=der")).await.unwrap();
    let der = axum::body::to_bytes(der.into_body(), 1 << 16).await.unwrap();
    assert_eq!(der, authority.as_ref());
    on.ask(plain("GET", "/ca.crt?format=txt")).await.problem(400);
}

fn preflight(path: &str, origin: &str) -> Request<Body> {
    request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn whep_is_open_to_every_page_and_the_api_to_our_own() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask(preflight("/whep/cam-1", "https://anywhere.example")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    let methods = answer.header("access-control-allow-methods");
    assert!(methods.contains("PATCH") && methods.contains("DELETE"), "{methods}");

    let refused =
        server.ask(from_origin("POST", "/whep/cam-1", "127.0.0.1:8080", "https://a.example")).await;
    refused.problem(401);
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    let exposed = refused.header("access-control-expose-headers").to_lowercase();
    for name in ["location", "etag", "link", "accept-patch"] {
        assert!(exposed.contains(name), "{exposed}");
    }

    let path = "/api/v1/stream/reserve";
    let own = server.ask(preflight(path, "http://127.0.0.1:7880")).await;
    assert_eq!(own.header("access-control-allow-origin"), "http://127.0.0.1:7880");
    let foreign = server.ask(preflight(path, "https://anywhere.example")).await;
    assert_eq!(foreign.header("access-control-allow-origin"), "");
}

fn offer(camera: &str, token: &str) -> Request<Body> {
    request("POST", &format!("/whep/{camera}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/sdp")
        .body(Body::from("v=0\r\n"))
        .unwrap()
}

#[tokio::test]
async fn whep_wants_the_token_of_this_very_camera() {
    let server = Server::start(|_| {}).await;
    let bare = server.ask(plain("POST", "/whep/cam-1")).await;
    assert!(bare.problem(401).starts_with("there is no token"));
    assert_eq!(bare.header("www-authenticate"), "Bearer");

    let bad = server.ask(offer("cam-1", "a.b.c")).await;
    assert_eq!(bad.problem(401), "the token is malformed");
    assert_eq!(bad.header("www-authenticate"), "Bearer error=\"invalid_token\"");

    let id = control::ReservationId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    let camera = control::CameraId::parse("cam-2").unwrap();
    let signed = |at| server.http.keyring().viewer_token(&id, &camera, at).unwrap();
    let fresh = signed(SystemTime::now());
    let sentence = server.ask(offer("cam-1", &fresh)).await.problem(403);
    assert_eq!(sentence, "the token is for another room, not camera_cam-1");
    let old = signed(SystemTime::now() - Duration::from_secs(7200));
    assert!(
        server.ask(offer("cam-2", &old)).await.problem(401).starts_with("the token expired at")
    );

    let text = request("POST", "/whep/cam-2")
        .header("authorization", format!("Bearer {fresh}"))
        .header("content-type", "text/plain")
        .body(Body::from("v=0"))
        .unwrap();
    let answer = server.ask(text).await;
    answer.problem(415);
    assert_eq!(answer.header("accept-post"), "application/sdp");

    let patch = server.ask(plain("PATCH", "/whep/cam-2/abc")).await;
    patch.problem(415);
    assert_eq!(patch.header("accept-patch"), "application/trickle-ice-sdpfrag");
}

#[tokio::test]
async fn with_keys_the_api_wants_an_admins_token() {
    let server = Server::start(|config| {
        config.auth.mode = AuthMode::Keys;
        config.auth.keys = vec![ApiKey { id: "dev".to_owned(), secret: SECRET.into() }];
    })
    .await;
    let paths = [
        ("POST", "/api/v1/stream/reserve"),
        ("DELETE", "/api/v1/stream/release/x"),
        ("POST", "/api/v1/stream/heartbeat/x"),
        ("GET", "/api/v1/stream/stats"),
        ("GET", "/api/v1/cameras"),
        ("GET", "/api/v1/cameras/x"),
        ("GET", "/rooms"),
        ("GET", "/rooms/x"),
        ("DELETE", "/ingress/x"),
        ("GET", "/metrics"),
    ];
    let id = control::ReservationId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    let camera = control::CameraId::parse("cam-2").unwrap();
    let viewer = server.http.keyring().viewer_token(&id, &camera, SystemTime::now()).unwrap();
    for (method, path) in paths {
        let answer = server.ask(plain(method, path)).await;
        assert!(answer.problem(401).starts_with("there is no token"), "{method} {path}");
        let viewers = request(method, path).header("authorization", format!("Bearer {viewer}"));
        server.ask(viewers.body(Body::empty()).unwrap()).await.problem(403);
    }
    assert_eq!(server.ask(plain("GET", "/")).await.status, 200, "the page itself is open");
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_server_lives_on() {
    async fn panic() -> StatusCode {
        panic!("canary")
    }
    let panics = Router::new().route("/", get(panic)).layer(CatchPanicLayer::custom(panicked));
    let request = || Request::get("/").body(Body::empty()).unwrap();
    for _ in 0..2 {
        let response = panics.clone().oneshot(request()).await.unwrap();
        let sentence = Answer::read(response).await.problem(500);
        assert!(!sentence.contains("canary"), "{sentence}");
    }
}

fn reservation_on_cam_1(id: &str, connected: bool) -> ReservationSnapshot {
    ReservationSnapshot {
        id: control::ReservationId::parse(id).unwrap(),
        camera: control::CameraId::parse("cam-1").unwrap(),
        user: "u".to_owned(),
        created_at: at(1_800_000_002),
        expires_at: at(1_800_000_032),
        connected,
        stage: None,
        line: None,
    }
}

/// Two reservations on `cam-1`, one of which is connected; `cam-2` is broken and idle.
pub(in crate::http) fn snapshot() -> Snapshot {
    let source = control::SourceId::parse("METRO").unwrap();
    let camera = |id: &str, name: &str, state, status, viewer_count| CameraSnapshot {
        id: control::CameraId::parse(id).unwrap(),
        name: name.to_owned(),
        name_ar: "شارع الشيخ زايد".to_owned(),
        location: "Gate 4".to_owned(),
        source: source.clone(),
        url: "rtsp://192.0.2.8/1".to_owned(),
        sub_url: None,
        has_credentials: true,
        origin: CameraOrigin::Config,
        transport: RtspTransport::Tcp,
        close_after: Duration::from_millis(2_500),
        probed_at: None,
        has_sub: false,
        on_demand: true,
        synthetic: false,
        status,
        state,
        reason: (state == "lost").then(|| "the camera's stream ended: timeout".to_owned()),
        retry_in: (state == "lost").then(|| Duration::from_millis(3900)),
        viewer_count,
        active_since: (viewer_count > 0).then(|| at(1_800_000_001)),
        codec: Some("H264"),
        width: Some(640),
        height: Some(360),
        audio: Some("opus"),
        pullers: viewer_count.min(1),
        pulls_started: 3,
        pulls_failed: 2,
        packets_lost: 5,
        renditions: vec![RenditionSnapshot {
            rendition: "main",
            state,
            reason: None,
            viewer_count,
            codec: Some("H264"),
            width: Some(640),
            height: Some(360),
        }],
        nodes: Vec::new(),
    };
    Snapshot {
        total_current: 2,
        total_limit: 500,
        unit: control::Unit::Viewer,
        per_user: None,
        is_store_lost: false,
        quota_figures: Default::default(),
        sources: vec![SourceSnapshot {
            id: source.clone(),
            name: "Metro".to_owned(),
            name_ar: String::new(),
            configured_limit: 30,
            current: 2,
            limit: 30,
            active_cameras: 1,
        }],
        cameras: vec![
            camera("cam-1", "<script>alert(1)</script>", "live", "ONLINE", 2),
            camera("cam-2", "Union", "lost", "OFFLINE", 0),
        ],
        reservations: vec![reservation_on_cam_1(ONE, true), reservation_on_cam_1(TWO, false)],
        media: crate::net::MediaFigures { packets_sent: 7, ..Default::default() },
        join_buckets: vec![0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 1],
        join_sum_ms: 12_250,
        switches: engine::SwitchFigures::default(),
        revocations: crate::app::RevocationFigures::default(),
        probes: crate::app::ProbeFigures::default(),
        audit: crate::audit::AuditFigures::default(),
        feeds: 0,
        missing_nodes: Vec::new(),
    }
}

const ONE: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const TWO: &str = "67e55044-10b1-426f-9247-bb680e5fe0c9";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn stats_have_the_contracts_shape() {
    let answer = api::stats_answer(&snapshot(), at(1_800_000_010));
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "active_streams": 2,
            "total_viewers": 2,
            "source_counts": {"METRO": 2},
            "source_stats": {"METRO": {
                "source": "METRO", "current": 2, "limit": 30, "usage_percent": 6.7,
                "active_cameras": 1, "available": 28,
            }},
            "camera_stats": [{
                "camera_id": "cam-1", "camera_name": "<script>alert(1)</script>",
                "viewer_count": 2, "source": "METRO", "active_since": "2027-01-15T08:00:01.000Z",
            }],
            "stats": [{
                "source": "METRO", "current": 2, "limit": 30, "percentage": 6.7, "available": 28,
            }],
            "total": {"current": 2, "limit": 500, "percentage": 0.4, "available": 498},
            "timestamp": "2027-01-15T08:00:10.000Z",
        })
    );
}

#[test]
fn rooms_count_the_publisher_and_exist_while_someone_is_there() {
    let snapshot = snapshot();
    let rooms = serde_json::to_value(rooms::rooms_answer(&snapshot)).unwrap();
    let room = json!({
        "name": "camera_cam-1", "num_participants": 3, "num_publishers": 1,
        "creation_time": 1_800_000_001, "ingress_id": "whip-pusher-cam-1",
    });
    assert_eq!(rooms, json!({"rooms": [room]}));

    let one = rooms::room_answer(&snapshot, "camera_cam-1").ok().unwrap();
    let one = serde_json::to_value(one).unwrap();
    let participants = one["rooms"][0]["participants"].as_array().unwrap();
    let told: Vec<_> = participants
        .iter()
        .map(|p| (p["identity"].as_str().unwrap(), p["state"].as_str().unwrap()))
        .collect();
    let (first, second) = (format!("viewer_{ONE}"), format!("viewer_{TWO}"));
    let wanted =
        [("camera_cam-1_publisher", "ACTIVE"), (first.as_str(), "ACTIVE"), (&second, "JOINED")];
    assert_eq!(told, wanted);

    let idle = rooms::room_answer(&snapshot, "camera_cam-2").ok().unwrap();
    assert!(idle.rooms.is_empty());
    assert!(rooms::room_answer(&snapshot, "cam-1").is_err());
}

#[test]
fn cameras_are_filtered_searched_and_paged() {
    let snapshot = snapshot();
    let ids = |query: &str| -> (Vec<String>, usize) {
        let uri = format!("/?{query}").parse().unwrap();
        let query = axum::extract::Query::<wire::CamerasQuery>::try_from_uri(&uri).unwrap().0;
        let answer = api::CameraFilter::read(&query).ok().unwrap().answer(&snapshot);
        (answer.cameras.into_iter().map(|camera| camera.id).collect(), answer.total)
    };
    let both = || vec!["cam-1".to_owned(), "cam-2".to_owned()];
    assert_eq!(ids(""), (both(), 2));
    assert_eq!(ids("source=METRO&search=GATE"), (both(), 2));
    assert_eq!(ids("source=NAVY"), (vec![], 0));
    assert_eq!(ids("status=offline"), (vec!["cam-2".to_owned()], 1));
    assert_eq!(ids("search=union"), (vec!["cam-2".to_owned()], 1));
    assert_eq!(ids("search=%D8%B2%D8%A7%D9%8A%D8%AF"), (both(), 2), "Arabic names are searched");
    assert_eq!(ids("limit=1"), (vec!["cam-1".to_owned()], 2));
    assert_eq!(ids("limit=1&offset=1"), (vec!["cam-2".to_owned()], 2));
    assert_eq!(ids("offset=9"), (vec![], 2));
}

#[test]
fn a_broken_camera_says_why_and_when_it_is_tried_again() {
    let uri = "/?search=cam-2".parse().unwrap();
    let query = axum::extract::Query::<wire::CamerasQuery>::try_from_uri(&uri).unwrap().0;
    let answer = api::CameraFilter::read(&query).ok().unwrap().answer(&snapshot());
    assert_eq!(
        serde_json::to_value(&answer.cameras[0]).unwrap(),
        json!({
            "id": "cam-2", "name": "Union", "name_ar": "شارع الشيخ زايد", "location": "Gate 4",
            "source": "METRO", "origin": "config", "url": "rtsp://192.0.2.8/1", "sub_url": null,
            "has_credentials": true, "has_sub": false, "transport": "tcp", "close_after": "2s 500ms",
            "on_demand": true, "synthetic": false, "status": "OFFLINE", "state": "lost",
            "reason": "the camera's stream ended: timeout", "retry_in_s": 3, "probed_at": null, "viewer_count": 0,
            "active_since": null, "codec": "H264", "width": 640, "height": 360, "audio": "opus", "pullers": 0,
            "pulls_started": 3,
            "renditions": [{
                "rendition": "main", "state": "lost", "reason": null, "viewer_count": 0,
                "codec": "H264", "width": 640, "height": 360,
            }],
        })
    );
}

#[test]
fn health_has_the_contracts_shape_and_turns_while_the_server_ends() {
    let uptime = Duration::from_millis(90_900);
    let (code, answer) = status::health_answer(&voice_status(), store(None), None, uptime);
    assert_eq!(code, StatusCode::OK);
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "status": "healthy", "webrtc_available": true, "audio_server_running": true,
            "active_streams": 1, "connected_clients": 3, "uptime_seconds": 90,
            "store": { "url": "redis://store:6379", "available": true },
        })
    );
    let (code, answer) = status::health_answer(
        &voice_status(),
        store(None),
        Some("the server is shutting down"),
        uptime,
    );
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason, Some("the server is shutting down"));
}

#[test]
fn a_server_whose_store_is_away_goes_on_and_says_so() {
    let away = Some(("it does not answer".to_owned(), Duration::from_secs(7)));
    let (code, answer) = status::health_answer(&voice_status(), store(away), None, Duration::ZERO);
    assert_eq!(code, StatusCode::OK);
    assert_eq!(
        serde_json::to_value(answer).unwrap()["store"],
        json!({
            "url": "redis://store:6379", "available": false, "reason": "it does not answer",
            "away_seconds": 7,
        })
    );
}

fn store(away: Option<(String, Duration)>) -> crate::ledger::StoreHealth {
    let place = "redis://store:6379".to_owned();
    crate::ledger::StoreHealth { place, away, losses: 0, repairs: Default::default() }
}

#[test]
fn plain_metrics_have_the_contracts_shape() {
    let answer = status::plain(&voice_status(), Duration::from_secs(90));
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "uptime_seconds": 90, "active_connections": 3, "active_streams": 1,
            "total_audio_bytes": 1_048_576, "webrtc_available": true,
        })
    );
}

/// One sender, two receivers.
fn voice_status() -> crate::voice::Status {
    let mut status = crate::voice::Status { audio_bytes: 1_048_576, ..Default::default() };
    status.residue.connections = 3;
    status.residue.voices = 1;
    status
}

fn reservation() -> Reservation {
    Reservation {
        id: control::ReservationId::parse(ONE).unwrap(),
        camera: control::CameraId::parse("cam-1").unwrap(),
        camera_name: "Union".to_owned(),
        source: control::SourceId::parse("METRO").unwrap(),
        quality: crate::app::Quality::Low,
        rendition: crate::app::Rendition::Sub,
        switches: 2,
        expires_at: at(1_800_000_030),
        current_usage: 1,
        limit: 30,
    }
}

#[tokio::test]
async fn reserve_answers_the_addresses_by_which_the_client_came() {
    let server = Server::start(|_| {}).await;
    let urls = |host: Option<&str>| {
        let host = host.map(|host| host.parse().unwrap());
        let answer =
            api::reserve_answer(&server.http, (Scheme::Http, host.as_ref()), &reservation());
        let answer = serde_json::to_value(answer.ok().unwrap()).unwrap();
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("whep_url"), text("livekit_url"), answer)
    };
    let (whep, livekit, answer) = urls(Some("cams.local:8086"));
    assert_eq!(whep, "http://cams.local:8086/whep/cam-1");
    assert_eq!(livekit, "ws://cams.local:7880");
    let token = answer["token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let grant = server.http.keyring().verify(Some(bearer.as_bytes()), SystemTime::now()).unwrap();
    assert_eq!(grant.viewer_of("camera_cam-1").unwrap().as_str(), ONE);
    let mut rest = answer.clone();
    for key in ["token", "whep_url", "livekit_url"] {
        rest.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(
        rest,
        json!({
            "reservation_id": ONE, "camera_id": "cam-1", "camera_name": "Union",
            "room_name": "camera_cam-1", "expires_at": "2027-01-15T08:00:30.000Z",
            "quality": "low", "rendition": "sub", "source": "METRO", "current_usage": 1, "limit": 30,
        })
    );
    let (whep, livekit, _) = urls(Some("[::1]:8080"));
    assert_eq!(
        (whep.as_str(), livekit.as_str()),
        ("http://[::1]:8080/whep/cam-1", "ws://[::1]:7880")
    );
    assert_eq!(urls(None).0, "http://127.0.0.1:8080/whep/cam-1");
}

#[tokio::test]
async fn reserve_answers_the_ice_servers_that_the_session_does() {
    let server = Server::start(|config| {
        let text = "[[media.ice_servers]]\nurls = [\"stun:s.example\"]\n\
                    [[media.turn]]\nurls = [\"turn:t.example\"]\nsecret = \"north\"\n";
        config.media = config::from_toml(text).media;
    })
    .await;
    let answer =
        api::reserve_answer(&server.http, (Scheme::Http, None), &reservation()).ok().unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    let [stun, turn] = answer["ice_servers"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(stun, &json!({"urls": ["stun:s.example"]}));
    assert_eq!(turn["urls"], json!(["turn:t.example"]));
    assert!(turn["username"].as_str().unwrap().ends_with(&format!(":{ONE}")));
    assert_ne!(turn["credential"], "north");
    assert_eq!(turn["credential"].as_str().unwrap().len(), 28, "a SHA-1 in base64");
}

/// What 429 says of a limit.
async fn full(scope: Scope, limit: u32, wait: Option<Duration>) -> (Answer, Value) {
    let names = ["Metro".to_owned(), "المترو".to_owned()];
    let full = sources::Full { scope, names, current: limit, limit, retry_after: wait };
    let answer = Answer::read(sources::quota_answer(full)).await;
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
    assert_eq!((&error["current"], &error["limit"]), (&json!(limit), &json!(limit)));
    (answer, error)
}

#[tokio::test]
async fn a_full_quota_answers_what_the_original_does() {
    let metro = Scope::Source("METRO".parse().unwrap());
    let wait = Duration::from_millis(4001);
    let (answer, error) = full(metro.clone(), 30, Some(wait)).await;
    assert_eq!(answer.header("retry-after"), "5", "never too early");
    assert_eq!((&error["source"], &error["retry_after"]), (&json!("METRO"), &json!(5)));
    assert!(error["message_en"].as_str().unwrap().starts_with("Metro watches 30 of 30 streams"));
    assert!(error["message_ar"].as_str().unwrap().contains("المترو"));

    let (_, error) = full(Scope::Total, 30, Some(Duration::ZERO)).await;
    assert_eq!((&error["source"], &error["retry_after"]), (&json!("TOTAL"), &json!(1)));

    let (_, error) = full(Scope::User("amal".to_owned()), 2, Some(wait)).await;
    assert_eq!(error["source"], "USER");
    assert!(error["message_en"].as_str().unwrap().starts_with("you watch 2 of your 2 streams"));
    assert!(error["message_ar"].as_str().unwrap().contains("(2 من 2)"));
    assert!(!error.to_string().contains("amal"), "the user knows his own name");

    let (_, error) = full(metro, 0, None).await;
    assert!(error["message_en"].as_str().unwrap().contains("its limit is 0"), "{error}");
}

#[tokio::test]
async fn limits_and_priorities_that_cannot_be_are_refused() {
    let server = Server::start(|_| {}).await;
    let put = |id: &str, body: &str| {
        let request = request("PUT", &format!("/api/v1/sources/{id}/limit"));
        let body = Body::from(body.to_owned());
        request.header("content-type", "application/json").body(body).unwrap()
    };
    let sentence = server.ask(put("METRO", "{}")).await.problem(400);
    assert!(sentence.contains("missing field `limit`"), "{sentence}");
    server.ask(put("METRO", "{\"limit\": -1}")).await.problem(400);
    let sentence = server.ask(put("METRO", "{\"limit\": 100001}")).await.problem(400);
    assert_eq!(sentence, "limit must be 0 to 100000, or null for the configured one");
    let sentence = server.ask(put("metro", "{\"limit\": 1}")).await.problem(404);
    assert!(sentence.starts_with("there is no such source"), "{sentence}");

    let wish = json!({"camera_id": "a", "user_id": "u", "priority": 10}).to_string();
    assert_eq!(server.ask(reserve(wish)).await.problem(400), "priority must be 0 to 9");
}

#[test]
fn figures_come_in_prometheus_text() {
    let requests = Requests::default();
    requests.count("/rooms/{name}", 200);
    requests.count("/rooms/{name}", 200);
    let text = crate::metrics::encode(
        snapshot(),
        &requests,
        &Arc::default(),
        store(None),
        None,
        Some(voice_status()),
        Duration::from_secs(90),
    )
    .unwrap();
    for line in [
        "cctv_streams_active{source=\"METRO\"} 2",
        "cctv_streams_limit{source=\"METRO\"} 30",
        "manifold_viewers{camera_id=\"cam-1\"} 2",
        "manifold_sources{state=\"live\"} 1",
        "manifold_sources{state=\"lost\"} 1",
        "manifold_pullers 1",
        "manifold_pulls_started_total{camera_id=\"cam-2\"} 3",
        "manifold_packets_sent_total 7",
        "manifold_join_duration_seconds_sum 12.25",
        "manifold_join_duration_seconds_count 4",
        "manifold_join_duration_seconds_bucket{le=\"0.05\"} 2",
        "manifold_join_duration_seconds_bucket{le=\"0.2\"} 3",
        "manifold_join_duration_seconds_bucket{le=\"+Inf\"} 4",
        "manifold_http_requests_total{route=\"/rooms/{name}\",status=\"200\"} 2",
        "manifold_uptime_seconds 90.0",
        "manifold_voices 1",
        "manifold_voice_clients 3",
        "manifold_voice_audio_bytes_total 1048576",
        "# TYPE manifold_join_duration_seconds histogram",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n--\n{text}");
    }
}

#[tokio::test]
async fn a_session_is_answered_with_its_address_and_tag() {
    let server = Server::start(|config| {
        let text = "[[media.ice_servers]]\nurls = [\"stun:s.example\"]";
        config.media = config::from_toml(text).media;
    })
    .await;
    let watching = crate::app::Watching {
        resource: "f00d".to_owned(),
        answer_sdp: "v=0\r\n".to_owned(),
        etag: "ufrag".to_owned(),
    };
    let response = whep::created(&server.http, "cam-1", "r-1", watching).ok().unwrap();
    let answer = Answer::read(response).await;
    assert_eq!((answer.status, answer.text.as_str()), (201, "v=0\r\n"));
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("location"), "/whep/cam-1/f00d");
    assert_eq!(answer.header("etag"), "\"ufrag\"");
    assert_eq!(answer.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert_eq!(answer.header("link"), "<stun:s.example>; rel=\"ice-server\"");
}

#[test]
fn the_reference_names_every_figure() {
    let reference = include_str!("../../../../docs/ref/metrics.md");
    let text = crate::metrics::encode(
        snapshot(),
        &Requests::default(),
        &Arc::default(),
        store(None),
        None,
        Some(voice_status()),
        Duration::ZERO,
    )
    .unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(reference.contains(&format!("| `{name}` | {kind} |")), "{name} {kind}");
    }
}

#[tokio::test]
async fn the_page_keeps_its_own_policy() {
    let server = Server::start(|_| {}).await;
    keeps_its_policy(&server, "/").await;
    keeps_its_policy(&server, "/talk").await;
}

async fn keeps_its_policy(server: &Server, page: &str) {
    let html = server.ask(plain("GET", page)).await.text;
    assert!(!html.contains("<style") && !html.contains(" style="), "{html}");
    assert!(html.split("<script").skip(1).all(|script| script.contains("src=")), "{html}");
    let links = html.split(['"', '\'']).filter(|part| part.contains("assets/"));
    for link in links {
        let path = format!("/{}", link.trim_start_matches("./").trim_start_matches('/'));
        let asset = server.ask(plain("GET", &path)).await;
        assert_eq!(asset.status, 200, "{path}");
        assert!(asset.header("cache-control").contains("immutable"), "{path}");
        assert_ne!(asset.header("content-type"), "application/octet-stream", "{path}");
    }
}

#[tokio::test]
async fn health_is_503_once_the_application_has_ended() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask(plain("GET", "/health")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "a part of the server failed; it must be started anew");
}
