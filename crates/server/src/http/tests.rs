//! The router as a client meets it.

mod guards;
mod shapes;

pub(in crate::http) use self::shapes::snapshot;

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
    About, CameraOrigin, CameraSnapshot, RenditionSnapshot, Reservation, ReservationSnapshot,
    Snapshot, SourceSnapshot,
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
    headers: HeaderMap,
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
    let http = Server::start(|_| {}).await.http;
    let layer = from_fn_with_state(http, surround);
    let panics: Router = Router::new().route("/", get(panic)).layer(layer);
    let request = || Request::get("/").body(Body::empty()).unwrap();
    for _ in 0..2 {
        let response = panics.clone().oneshot(request()).await.unwrap();
        let sentence = Answer::read(response).await.problem(500);
        assert!(!sentence.contains("canary"), "{sentence}");
    }
}

const ONE: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const TWO: &str = "67e55044-10b1-426f-9247-bb680e5fe0c9";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
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
