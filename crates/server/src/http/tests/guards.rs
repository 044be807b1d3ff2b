//! What pages of other sites may do, and what browsers are told of ours.

use super::*;

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
