//! Every route, for every role, for what is the caller's and what is not: nobody sees or ends what is not
//! his. A route that has no row here fails the test.

use std::collections::BTreeMap;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use control::{CameraId, Class, ReservationId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::caller::{Badge, Role, Sources};
use super::*;
use crate::app::{KeyNumber, Permit, Quality};
use crate::config;
use crate::net::{MediaConfig, MediaPlane, MediaTcp, Priority};

const SETTINGS: &str = r#"
[auth]
mode = "keys"
[auth.keys]
one = "the-first-secret-of-32-characters!!!"
[[sources]]
id = "METRO"
limit = 500
[[sources]]
id = "TAXI"
name = "Canary Cabs"
limit = 500
[[cameras]]
id = "metro-1"
source = "METRO"
url = "test://"
[[cameras]]
id = "taxi-1"
name = "Canary Rank"
source = "TAXI"
url = "test://"
"#;

/// What answers to those who may not see TAXI must not have: its names, and who watches there.
const FOREIGN: [&str; 3] = ["TAXI", "Canary", "tariq"];

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Without a token.
    Nobody,
    /// Of the reservation that is asked for, where it is one of mira's on METRO.
    Viewer,
    /// Mira, who may watch METRO.
    Mira,
    /// Of METRO.
    Operator,
    Admin,
}

const EVERYBODY: [Who; 5] = [Who::Nobody, Who::Viewer, Who::Mira, Who::Operator, Who::Admin];

/// Whose thing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Mira's, on METRO.
    Miras,
    /// Somebody else's on METRO.
    Others,
    /// Somebody else's on TAXI.
    Foreign,
}

const EVERYTHING: [Whose; 3] = [Whose::Miras, Whose::Others, Whose::Foreign];

/// What a route answers to each of [`EVERYBODY`] for each of [`EVERYTHING`].
enum Rule {
    Asks([[u16; 3]; 5]),
    /// It asks nobody who he is, for the reason that stands here.
    Open(&'static str),
}

use Rule::{Asks, Open};

const READ_LIST: Rule = Asks([[401; 3], [403; 3], [200; 3], [200; 3], [200; 3]]);
/// Nobody has saved one.
const NO_LAYOUT: Rule = Asks([[401; 3], [403; 3], [404; 3], [404; 3], [404; 3]]);
const NODES: Rule =
    Open("asks for what this node told the store; on a server that is no node, nothing is there");
const OWN_TOKEN: Rule = Open("the token or key of the session itself is its guard");
const DOCUMENT: Rule = Open("what the API is stands in the documentation, too");
const VOICE: Rule = Open("the relay has a token and rules of its own");

const RULES: [(&str, &str, Rule); 58] = [
    (
        "POST",
        "/api/v1/stream/reserve",
        Asks([[401; 3], [403; 3], [200, 403, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "DELETE",
        "/api/v1/stream/release/{id}",
        Asks([[401; 3], [200, 403, 403], [200, 404, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "POST",
        "/api/v1/stream/heartbeat/{id}",
        Asks([[401; 3], [200, 403, 403], [200, 404, 404], [200, 200, 404], [200; 3]]),
    ),
    ("GET", "/api/v1/stream/stats", READ_LIST),
    ("GET", "/api/v1/cameras", READ_LIST),
    (
        "GET",
        "/api/v1/cameras/{id}",
        Asks([[401; 3], [403; 3], [200, 200, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "GET",
        "/api/v1/cameras/{id}/frame.jpeg",
        Asks([[401; 3], [200, 200, 403], [200, 200, 404], [200, 200, 404], [200; 3]]),
    ),
    // 503: whoever may is told that nothing can be kept here.
    ("POST", "/api/v1/cameras", Asks([[401; 3], [403; 3], [403; 3], [503, 503, 400], [503; 3]])),
    (
        "POST",
        "/api/v1/cameras/import",
        Asks([[401; 3], [403; 3], [403; 3], [503, 503, 400], [503; 3]]),
    ),
    (
        "PUT",
        "/api/v1/cameras/{id}",
        Asks([[401; 3], [403; 3], [403, 403, 404], [503, 503, 404], [503; 3]]),
    ),
    (
        "DELETE",
        "/api/v1/cameras/{id}",
        Asks([[401; 3], [403; 3], [403, 403, 404], [503, 503, 404], [503; 3]]),
    ),
    ("GET", "/api/v1/layouts", READ_LIST),
    ("POST", "/api/v1/layouts", Asks([[401; 3], [403; 3], [503; 3], [503; 3], [503; 3]])),
    ("GET", "/api/v1/layouts/{id}", NO_LAYOUT),
    ("PUT", "/api/v1/layouts/{id}", NO_LAYOUT),
    ("DELETE", "/api/v1/layouts/{id}", NO_LAYOUT),
    // 409: the cameras are not published to.
    (
        "POST",
        "/api/v1/cameras/{id}/stream-key",
        Asks([[401; 3], [403; 3], [403, 403, 404], [409, 409, 404], [409; 3]]),
    ),
    ("GET", "/rooms", READ_LIST),
    (
        "GET",
        "/rooms/{name}",
        Asks([[401; 3], [403; 3], [200, 200, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "DELETE",
        "/rooms/{name}/participants/{identity}",
        Asks([[401; 3], [403; 3], [403, 403, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "POST",
        "/twirp/livekit.RoomService/RemoveParticipant",
        Asks([[401; 3], [403; 3], [403, 403, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "DELETE",
        "/ingress/{id}",
        Asks([[401; 3], [403; 3], [403, 403, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "GET",
        "/api/v1/why/{id}",
        Asks([[401; 3], [200, 404, 404], [200, 404, 404], [200, 200, 404], [200; 3]]),
    ),
    (
        "POST",
        "/api/v1/reset",
        Asks([[401; 3], [403; 3], [403, 403, 404], [200, 200, 404], [200; 3]]),
    ),
    ("GET", "/api/v1/bundle", Asks([[401; 3], [403; 3], [403; 3], [403; 3], [200; 3]])),
    (
        "GET",
        "/api/v1/trace/{id}",
        Asks([[401; 3], [403; 3], [200, 404, 404], [200, 200, 404], [200; 3]]),
    ),
    ("GET", "/api/v1/audit", Asks([[401; 3], [403; 3], [403; 3], [200; 3], [200; 3]])),
    // 404: there is no trail here.
    ("GET", "/api/v1/audit/verify", Asks([[401; 3], [403; 3], [403; 3], [403; 3], [404; 3]])),
    ("GET", "/api/v1/sources", READ_LIST),
    (
        "PUT",
        "/api/v1/sources/{id}/limit",
        Asks([[401; 3], [403; 3], [403, 403, 404], [403, 403, 404], [200; 3]]),
    ),
    // 426: this is no upgrade. What is told over it is what `stats` and `cameras` answer.
    ("ANY", "/ws/stream/stats", Asks([[401; 3], [426; 3], [426; 3], [426; 3], [426; 3]])),
    ("GET", "/api/openapi.json", DOCUMENT),
    ("?", "/api/docs", DOCUMENT),
    ("?", "/api/docs.js", DOCUMENT),
    ("?", "/api/docs.css", DOCUMENT),
    ("GET", "/metrics", Asks([[401; 3], [403; 3], [403; 3], [403; 3], [200; 3]])),
    ("POST", "/whep/{camera}", OWN_TOKEN),
    ("PATCH", "/whep/{camera}/{resource}", OWN_TOKEN),
    ("DELETE", "/whep/{camera}/{resource}", OWN_TOKEN),
    ("GET", "/node/store", NODES),
    ("POST", "/node/ask", NODES),
    ("POST", "/node/{camera}/{rendition}", NODES),
    ("DELETE", "/node/{camera}/{rendition}/{resource}", NODES),
    ("POST", "/whip/{name}", OWN_TOKEN),
    ("PATCH", "/whip/{name}/{resource}", OWN_TOKEN),
    ("DELETE", "/whip/{name}/{resource}", OWN_TOKEN),
    ("POST", "/w/{name}", OWN_TOKEN),
    ("PATCH", "/w/{name}/{resource}", OWN_TOKEN),
    ("DELETE", "/w/{name}/{resource}", OWN_TOKEN),
    ("ANY", "/ws", VOICE),
    ("GET", "/stream/status", VOICE),
    ("GET", "/voice/config", VOICE),
    ("GET", "/tls", Open("pages ask it before they can have a key")),
    ("GET", "/ca.crt", Open("a certificate is public")),
    ("GET", "/health", Open("load balancers have no key")),
    ("?", "/stream/waiting.js", Open("a script of ours")),
    ("?", "/stream/waiting.css", Open("a style of ours")),
    ("GET", "/stream/{file}", VOICE),
];

/// A server with an application behind it.
struct World {
    router: Router,
    http: Http,
}

/// A reservation and its viewer's token.
struct Place {
    id: ReservationId,
    camera: CameraId,
    token: String,
}

impl World {
    fn start() -> Self {
        let config = config::from_toml(SETTINGS);
        let media = MediaConfig {
            udp: "127.0.0.1:0".parse().unwrap(),
            tcp: MediaTcp::Off,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let (events_in, events) = mpsc::unbounded_channel();
        let media = MediaPlane::start(&media, events_in).unwrap();
        let app = App::start(config.application(), media, events);
        let keyring = Arc::new(Keyring::new(&config.auth).unwrap());
        let doors = Doors { plain: vec!["127.0.0.1:8080".parse().unwrap()], secure: None };
        let kept = Kept::nowhere(&config, app.clone());
        let http = Http::new(app, keyring, &config, doors, Arc::default(), None, kept);
        Self { router: router(http.clone()), http }
    }

    async fn place(&self, whose: Whose) -> Place {
        let (camera, user) = match whose {
            Whose::Miras => ("metro-1", "mira"),
            Whose::Others => ("metro-1", "omar"),
            Whose::Foreign => ("taxi-1", "tariq"),
        };
        let made =
            self.http.app().reserve(camera, user, (Quality::Auto, Class::LOWEST)).await.unwrap();
        let signed = self.http.keyring().viewer_token(&made.id, &made.camera, SystemTime::now());
        Place { id: made.id, camera: made.camera, token: signed.unwrap() }
    }

    fn person(&self, name: &str, role: Role, sources: &str) -> String {
        let sources = Sources::parse(sources).unwrap();
        let badge = Badge::new(name.to_owned(), role, sources, None).unwrap();
        let claims = badge.claims(SystemTime::now(), Duration::from_secs(60));
        self.http.keyring().sign(claims).unwrap().token
    }

    fn token(&self, who: Who, miras: &Place) -> Option<String> {
        match who {
            Who::Nobody => None,
            Who::Viewer => Some(miras.token.clone()),
            Who::Mira => Some(self.person("mira", Role::Viewer, "METRO")),
            Who::Operator => Some(self.person("otto", Role::Operator, "METRO")),
            Who::Admin => Some(self.person("ada", Role::Admin, "*")),
        }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, String) {
        let mut request =
            Request::builder().method(method).uri(path).header("host", "127.0.0.1:8080");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn lives(&self, place: &Place) -> bool {
        self.http.app().holder_of(place.id.clone()).await.is_some()
    }

    async fn heartbeat(&self, place: &Place, token: &str) -> (u16, String) {
        let path = format!("/api/v1/stream/heartbeat/{}", place.id);
        self.ask("POST", &path, Some(token), None).await
    }
}

/// The route's path and body for one thing.
fn request_for(route: &str, whose: Whose, place: &Place) -> (String, Option<Value>) {
    let (camera, identity) = (&place.camera, place.id.viewer_identity());
    let id = match route {
        "/ingress/{id}" => camera.pusher_name(),
        _ if route.contains("cameras") => camera.to_string(),
        _ if route.contains("sources") && whose == Whose::Foreign => "TAXI".to_owned(),
        _ if route.contains("sources") => "METRO".to_owned(),
        _ => place.id.to_string(),
    };
    let path = route.replace("{id}", &id).replace("{name}", &camera.room_name());
    let path = path.replace("{identity}", &identity);
    let user = if whose == Whose::Others { "omar" } else { "mira" };
    let body = match route {
        "/api/v1/cameras" => Some(new_camera(whose)),
        "/api/v1/cameras/import" => Some(json!([new_camera(whose)])),
        "/api/v1/cameras/{id}" | "/api/v1/layouts" | "/api/v1/layouts/{id}" => {
            Some(json!({"name": "New"}))
        }
        "/api/v1/stream/reserve" => Some(json!({"camera_id": camera.as_str(), "user_id": user})),
        "/api/v1/sources/{id}/limit" => Some(json!({"limit": 500})),
        "/api/v1/reset" => Some(json!({"camera_id": camera.as_str()})),
        _ if route.starts_with("/twirp/") => {
            Some(json!({"room": camera.room_name(), "identity": identity}))
        }
        _ => None,
    };
    (path, body)
}

fn new_camera(whose: Whose) -> Value {
    let source = if whose == Whose::Foreign { "TAXI" } else { "METRO" };
    json!({"id": "new", "source": source, "url": "test://"})
}

#[tokio::test]
async fn nobody_sees_or_ends_what_is_not_his() {
    let world = World::start();
    let mut wrong = Vec::new();
    for (method, route, rule) in &RULES {
        let Asks(answers) = rule else { continue };
        for (who, answers) in EVERYBODY.into_iter().zip(answers) {
            for (whose, wanted) in EVERYTHING.into_iter().zip(answers) {
                let place = world.place(whose).await;
                let miras = match whose {
                    Whose::Miras => None,
                    Whose::Others | Whose::Foreign => Some(world.place(Whose::Miras).await),
                };
                let token = world.token(who, miras.as_ref().unwrap_or(&place));
                let (path, body) = request_for(route, whose, &place);
                let method = if *method == "ANY" { "GET" } else { method };
                let (status, text) = world.ask(method, &path, token.as_deref(), body).await;
                let what = format!("{who:?} {method} {route}, {whose:?}: {status} {text}");
                if status != *wanted {
                    wrong.push(format!("{what}\n   wanted {wanted}"));
                }
                if who != Who::Admin && FOREIGN.iter().any(|name| text.contains(name)) {
                    wrong.push(format!("{what}\n   shows what is TAXI's"));
                }
                if status >= 400 && !world.lives(&place).await {
                    wrong.push(format!("{what}\n   and ended it all the same"));
                }
                for place in miras.iter().chain([&place]) {
                    // It may have ended.
                    let _ = world.http.app().release(place.id.as_str()).await;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_route_has_a_row() {
    let mut routes = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    collect_routes(&folder, &mut routes);
    let rules: Vec<(String, &str)> =
        RULES.iter().map(|(method, route, _)| ((*method).to_owned(), *route)).collect();
    let found: Vec<(String, &str)> = routes
        .iter()
        .flat_map(|(route, methods)| methods.iter().map(|m| (m.clone(), route.as_str())))
        .collect();
    for row in &found {
        assert!(rules.contains(row), "{row:?} has no row in the matrix of roles");
    }
    for row in &rules {
        assert!(found.contains(row), "{row:?} is a row without a route");
    }
    let reasons = RULES.iter().filter_map(|(_, _, rule)| match rule {
        Open(reason) => Some(*reason),
        Asks(_) => None,
    });
    assert!(reasons.into_iter().all(|reason| !reason.is_empty()));
}

/// Routes and their methods, as they stand in the source text: the router does not tell them.
fn collect_routes(folder: &Path, routes: &mut BTreeMap<String, Vec<String>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_routes(&path, routes);
        } else if path.extension().is_some_and(|end| end == "rs")
            && path.file_name().is_none_or(|name| name != "matrix.rs" && name != "tests.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for part in text.split(".route(").skip(1) {
                let route =
                    part.trim_start().strip_prefix('"').and_then(|part| part.split_once('"'));
                let (route, rest) =
                    route.unwrap_or_else(|| panic!("a route in {path:?} is not written as a text"));
                let methods = methods_of(arguments(rest));
                routes.entry(route.to_owned()).or_default().extend(methods);
            }
        }
    }
}

/// The text up to the parenthesis that ends the call in which it stands.
fn arguments(text: &str) -> &str {
    let mut open = 1_u32;
    let end = text.find(|c| {
        match c {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        open == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// `?` where a function of ours says which.
fn methods_of(handlers: &str) -> Vec<String> {
    let known = ["get", "post", "put", "patch", "delete", "any"];
    let is_called = |method: &&str| {
        let call = format!("{method}(");
        let mut places = handlers.match_indices(&call);
        places.any(|(at, _)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let methods: Vec<String> =
        known.into_iter().filter(is_called).map(str::to_ascii_uppercase).collect();
    if methods.is_empty() { vec!["?".to_owned()] } else { methods }
}

#[tokio::test]
async fn a_viewer_who_was_sent_away_stays_away() {
    let world = World::start();
    let place = world.place(Whose::Miras).await;
    let operator = world.person("otto", Role::Operator, "METRO");
    let (status, text) = world.heartbeat(&place, &place.token).await;
    assert_eq!(status, 200, "{text}");
    let renewed: Value = serde_json::from_str(&text).unwrap();
    let renewed = renewed["token"].as_str().unwrap();

    let path = format!("/rooms/{}/participants/{}", "camera_metro-1", place.id.viewer_identity());
    let (status, text) = world.ask("DELETE", &path, Some(&operator), None).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["removed"], &answer["new_count"]), (&json!(true), &json!(0)));
    assert_eq!(world.ask("DELETE", &path, Some(&operator), None).await.0, 404, "once is enough");

    for token in [place.token.as_str(), renewed] {
        let (status, text) = world.ask("POST", "/whep/metro-1", Some(token), None).await;
        assert_eq!(status, 401, "{text}");
        assert!(text.contains("the token was revoked: its viewer was sent away"), "{text}");
        assert_eq!(world.heartbeat(&place, token).await.0, 401);
    }
    let (status, text) = world.heartbeat(&place, &operator).await;
    assert_eq!(status, 404);
    assert!(!text.contains("removed the viewer"), "another's end is not told: {text}");
    let admin = world.person("ada", Role::Admin, "*");
    let (_, text) = world.heartbeat(&place, &admin).await;
    assert!(text.contains("the reservation has ended: an operator removed the viewer"), "{text}");
}

#[tokio::test]
async fn a_viewers_time_is_over_with_its_token_unless_it_is_renewed() {
    let world = World::start();
    let app = world.http.app();
    let key = KeyNumber(0);
    let (late, early) = (world.place(Whose::Miras).await, world.place(Whose::Miras).await);
    let over = Permit { until: SystemTime::now() - Duration::from_secs(1), key };
    // The renewal is there before the permit is over.
    let (status, _) = world.heartbeat(&late, &late.token).await;
    assert_eq!(status, 200);
    app.permit(late.id.clone(), over).await;
    app.permit(early.id.clone(), over).await;
    assert!(world.lives(&late).await);
    assert!(!world.lives(&early).await);
    let (status, text) = world.heartbeat(&early, &early.token).await;
    assert_eq!(status, 404);
    assert!(text.contains("its token expired and was not renewed; reserve again"), "{text}");
    let figures: Vec<u64> = app.snapshot().await.revocations.counts().map(|(_, n)| n).collect();
    assert_eq!(figures, [1, 0, 0]);
}

#[tokio::test]
async fn a_token_is_renewed_while_its_reservation_lives() {
    let world = World::start();
    let place = world.place(Whose::Miras).await;
    let fresh = renewal::renew(&world.http, &place.token).await.unwrap();
    assert_eq!(world.heartbeat(&place, &fresh.token).await.0, 200);
    let of_person = world.person("mira", Role::Viewer, "METRO");
    let refused = renewal::renew(&world.http, &of_person).await.err().unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    world.http.app().release(place.id.as_str()).await.unwrap();
    let refused = renewal::renew(&world.http, &place.token).await.err().unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn with_its_key_a_token_and_its_viewer_are_gone() {
    let world = World::start();
    let (stays, goes) = (world.place(Whose::Miras).await, world.place(Whose::Miras).await);
    for place in [&stays, &goes] {
        assert_eq!(world.heartbeat(place, &place.token).await.0, 200);
    }
    let keys = |names: [&str; 2]| -> Vec<config::ApiKey> {
        let key = |id: &str| config::ApiKey {
            id: id.to_owned(),
            secret: if id == "one" {
                "the-first-secret-of-32-characters!!!".into()
            } else {
                format!("a-secret-of-32-characters-for-{id}").into()
            },
        };
        names.into_iter().map(key).collect()
    };
    let keyring = world.http.keyring();
    // A new key signs, the old one still holds.
    let kept = keyring.replace(&keys(["two", "one"])).unwrap();
    world.http.app().keep_keys(kept).await;
    assert_eq!(world.heartbeat(&stays, &stays.token).await.0, 200, "under the new key from here");
    assert!(world.lives(&goes).await);
    let kept = keyring.replace(&keys(["two", "three"])).unwrap();
    world.http.app().keep_keys(kept).await;
    assert!(world.lives(&stays).await);
    assert!(!world.lives(&goes).await);
    let (status, text) = world.heartbeat(&goes, &goes.token).await;
    assert_eq!(status, 401);
    assert!(text.contains("signed with a key that this server does not have"), "{text}");
    let admin = world.person("ada", Role::Admin, "*");
    let (_, text) = world.heartbeat(&goes, &admin).await;
    assert!(text.contains("the reservation has ended: the key of its token was removed"), "{text}");
}
