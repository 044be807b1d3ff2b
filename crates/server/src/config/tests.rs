//! Settings as people write them: every layer, every refusal with its place, no secret in any text.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tree::{Node, Problem, Value};
use super::*;
use crate::tls::Certificates;

const CANARY: &str = "canary-7f3a-do-not-print-0123456789abcdef";

fn read_toml(text: &str) -> (Config, Vec<String>) {
    let path: Arc<str> = "manifold.toml".into();
    let mut problems = Vec::new();
    let root = match Node::from_toml(text, &path) {
        Ok(root) => root,
        Err(problem) => {
            problems.push(problem);
            Node::empty(Origin::Default)
        }
    };
    let config = Config::read(root, &mut problems);
    (config, problems.iter().map(Problem::to_string).collect())
}

/// The settings of a right TOML document, for tests of whatever uses them.
pub(crate) fn right(text: &str) -> Config {
    let (config, problems) = read_toml(text);
    assert!(problems.is_empty(), "{problems:?}");
    config
}

/// The only problem of `text`.
fn wrong(text: &str) -> String {
    let (_, problems) = read_toml(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

fn written(name: &str, text: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("manifold-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn load_text(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Config, String> {
    let path = written("manifold.toml", text);
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = Flags { config: Some(path.clone()), ..flags };
    let loaded = load(&flags, &environment);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
}

#[test]
fn nothing_configured_is_four_synthetic_cameras_on_loopback() {
    let config = right("");
    let ports: Vec<u16> = config.listen.iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [8080, 8086, 7880]);
    assert_eq!(config.audio_listen, Door::IfFree("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(config.https.listen, Door::Closed);
    assert!(config.listen.iter().all(|address| address.ip().is_loopback()));
    assert_eq!(config.media.udp.to_string(), "127.0.0.1:8555");
    assert_eq!(config.rtsp.listen.map(|rtsp| rtsp.to_string()).as_deref(), Some("127.0.0.1:8554"));
    let limits: Vec<_> = config.sources.iter().map(|s| (s.id.as_str(), s.limit)).collect();
    assert_eq!(limits, [("DUBAI_POLICE", 50), ("METRO", 30), ("PARKING", 20), ("TAXI", 25)]);
    assert_eq!(config.quota, Quota { unit: Unit::Viewer, total: 500, per_user: None });
    assert_eq!(config.cameras.len(), 4);
    assert!(config.cameras.iter().all(|camera| camera.url.is_synthetic() && camera.on_demand));
}

const WHOLE: &str = r#"
listen = ["127.0.0.1:8080", "[::1]:8081"]
[http]
allowed_origins = ["https://control.example"]
livekit_url = "wss://live.example"
[media]
udp = "0.0.0.0:8555"
advertise = ["192.0.2.7"]
workers = 2
realtime = false
[[media.ice_servers]]
urls = ["turn:turn.example:3478"]
username = "u"
credential = "c"
[auth]
mode = "keys"
token_ttl = "10m"
[auth.keys]
zeta = "a-secret-of-at-least-32-characters!!"
alpha = "b-secret-of-at-least-32-characters!!"
[quota]
unit = "camera"
total = 7
[[sources]]
id = "METRO"
name = "Metro"
name_ar = "المترو"
limit = 3
[[cameras]]
id = "cam-1"
name = "<script>alert(1)</script>"
name_ar = "شارع"
location = "Gate 4"
source = "METRO"
url = "rtsp://admin:secret@192.0.2.8:554/stream1"
sub_url = ""
transport = "udp"
on_demand = false
close_after = "1m 30s"
[store]
url = "memory"
data_dir = "/var/lib/manifold"
[log]
format = "json"
level = "debug"
"#;

#[test]
fn every_setting_is_read() {
    let config = right(WHOLE);
    assert_eq!(config.listen[1].to_string(), "[::1]:8081");
    assert_eq!(config.http.allowed_origins[0].as_str(), "https://control.example");
    assert_eq!(config.http.livekit_url.as_deref(), Some("wss://live.example"));
    assert_eq!(config.media.advertise[0].to_string(), "192.0.2.7");
    assert_eq!(config.media.workers, Some(2));
    assert_eq!(config.media.priority, Priority::Ordinary);
    assert_eq!(config.media.ice_servers[0].urls, ["turn:turn.example:3478"]);
    assert_eq!(config.auth.mode, AuthMode::Keys);
    assert_eq!(config.auth.token_ttl, Duration::from_secs(600));
    let keys: Vec<&str> = config.auth.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(keys, ["zeta", "alpha"], "the first written signs");
    assert_eq!(config.quota, Quota { unit: Unit::Camera, total: 7, per_user: None });
    assert_eq!(config.store.data_dir.as_deref(), Some(std::path::Path::new("/var/lib/manifold")));
    let camera = &config.cameras[0];
    assert_eq!(camera.name, "<script>alert(1)</script>");
    assert_eq!(camera.location, "Gate 4");
    assert_eq!(camera.transport, RtspTransport::Udp);
    assert!(!camera.on_demand && camera.sub_url.is_none());
    assert_eq!(camera.close_after, Duration::from_secs(90));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Debug));
}

#[test]
fn json_is_read_as_toml_is_with_the_line_of_each_value() {
    let text = "{\n \"listen\": [\"127.0.0.1:1\"],\n \"quota\": {\n  \"total\": 9,\n  \"uint\": \"q\\\"\"\n },\n \"media\": {\"udp\": 5}\n}";
    let path: Arc<str> = "manifold.json".into();
    let mut problems = Vec::new();
    let config = Config::read(Node::from_json(text, &path).unwrap(), &mut problems);
    assert_eq!(config.quota.total, 9);
    let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("manifold.json:5: quota.uint: "), "{problems:?}");
    assert!(problems[1].starts_with("manifold.json:7: media.udp: "), "{problems:?}");
}

#[test]
fn json_that_is_none_names_the_line() {
    let path: Arc<str> = "manifold.json".into();
    let text = format!("{{\n \"a\": \"{CANARY}\"\n \"b\": 1\n}}");
    let problem = Node::from_json(&text, &path).err().unwrap().to_string();
    assert!(problem.starts_with("manifold.json:3: this is not valid JSON"), "{problem}");
    assert!(!problem.contains(CANARY));
}

#[test]
fn toml_that_is_none_names_the_line_and_shows_no_text() {
    let (_, problems) =
        read_toml(&format!("[auth.keys]\nfirst = \"{CANARY}\nother = \"{CANARY}\"\n"));
    assert!(problems[0].starts_with("manifold.toml:2: this is not valid TOML"), "{problems:?}");
    assert!(!problems[0].contains(CANARY) && !problems[0].contains('\n'), "{problems:?}");
}

#[test]
fn the_media_port_has_its_number_by_tcp_as_well_unless_it_is_told_otherwise() {
    use crate::net::MediaTcp;

    assert_eq!(right("").media.tcp, MediaTcp::LikeUdp);
    assert_eq!(right("[media]\ntcp = \"off\"").media.tcp, MediaTcp::Off);
    let elsewhere = MediaTcp::At("[::]:443".parse().unwrap());
    assert_eq!(right("[media]\ntcp = \"[::]:443\"").media.tcp, elsewhere);
    let settings = "[[media.turn]]\nurls = [\"turns:t.example:443\"]\nsecret = \"canary\"";
    let turn = right(settings).media.turn;
    assert_eq!(turn[0].ttl, Duration::from_secs(86_400));
    assert!(!format!("{turn:?}").contains("canary"));
}

#[test]
fn unknown_keys_are_refused_on_every_level() {
    let text = "\n[media]\nupd = \"127.0.0.1:1\"\n";
    assert_eq!(
        wrong(text),
        "manifold.toml:3: media.upd: there is no such setting; known here: udp, tcp, advertise, \
         workers, realtime, ice_servers, turn"
    );
    assert!(wrong("colour = 1").starts_with("manifold.toml:1: colour: "));
    let camera = "[[cameras]]\nid=\"a\"\nsource=\"METRO\"\nurl=\"test://\"\npassword=\"x\"";
    assert!(wrong(camera).starts_with("manifold.toml:5: cameras[0].password: "));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "listen = [\"localhost\"]\n[quota]\ntotal = -1\nunit = \"seat\"\n[log]\nlevel = 3\n";
    let (_, problems) = read_toml(text);
    let places: Vec<&str> = problems.iter().filter_map(|p| p.split(": ").next()).collect();
    let lines = ["manifold.toml:1", "manifold.toml:4", "manifold.toml:3", "manifold.toml:6"];
    assert_eq!(places, lines);
    assert!(problems[0].contains("listen: item 1: this must be an address with a port"));
    assert!(problems[1].contains("\"viewer\" or \"camera\", not \"seat\""));
}

#[test]
fn wrong_settings_say_what_would_be_right() {
    let metro = |line: &str| {
        format!("[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = \"test://\"\n{line}\n")
    };
    let turn = |line: &str| format!("[[media.turn]]\nurls=[\"turn:t.example\"]\n{line}\n");
    let advertise = |address: &str| format!("[media]\nadvertise=[\"{address}\"]\n");
    let cases = [
        (metro("transport = \"quic\""), "cameras[0].transport: this must be \"tcp\" or \"udp\""),
        (metro("close_after = \"soon\""), "cameras[0].close_after: this must be a time like"),
        (metro("name = \"a\\u0007\""), "cameras[0].name: this must not contain control"),
        (metro("sub_url = \"exec:sh\""), "cameras[0].sub_url: a camera address cannot begin"),
        ("listen = []".to_owned(), "listen: give at least one address"),
        ("[auth]\nmode = \"keys\"".to_owned(), "auth.mode: \"keys\" needs at least one key"),
        ("[auth]\ntoken_ttl = \"5s\"".to_owned(), "auth.token_ttl: this must be at least"),
        (
            "[store]\nurl = \"http://a\"".to_owned(),
            "store.url: this must be \"memory\", or an address",
        ),
        ("[store]\non_store_loss = \"hope\"".to_owned(), "this must be \"keep\" or \"refuse\""),
        (
            "[store]\nurl = \"redis://a\"\nca = \"ca.pem\"".to_owned(),
            "store.ca: certificates are those of TLS: write rediss://",
        ),
        (
            "[store]\nurl = \"redis://a\"\nsentinel_password = \"s\"".to_owned(),
            "store.sentinel_password: only redis+sentinel:// has Sentinels",
        ),
        (
            "[store]\nurl = \"redis+cluster://a\"\nprefix = \"m:\"".to_owned(),
            "store.prefix: in a cluster this must have a hash tag",
        ),
        ("[http]\nallowed_origins = [\"a.example\"]".to_owned(), "item 1: this must be a web"),
        ("[http]\nallowed_origins = [\"https://a/b\"]".to_owned(), "item 1: this must be a web"),
        ("[http]\nlivekit_url = \"http://a\"".to_owned(), "http.livekit_url: this must be a URL"),
        ("[media]\nworkers = 0".to_owned(), "media.workers: give 1 or more"),
        ("[[media.ice_servers]]\nurls=[\"x\"]".to_owned(), "media.ice_servers[0].urls: each must"),
        (turn("secret=\"s\"\nttl=\"5s\""), "media.turn[0].ttl: this must be from"),
        (turn("secret=\"\""), "media.turn[0].secret: give the static-auth-secret"),
        ("[media]\ntcp=\"yes\"".to_owned(), "media.tcp: this must be an address with a port"),
        (advertise("nat.example"), "media.advertise: item 1: this must be an IP address"),
        (advertise("203.0.113.7:8555"), "media.advertise: item 1: this must be an IP address"),
        (advertise("0.0.0.0"), "media.advertise: item 1: 0.0.0.0 is no address"),
        ("media = 4".to_owned(), "media: this must be a table, not a number"),
        ("cameras = 4".to_owned(), "cameras: this must be a list of tables, not a number"),
        ("[[sources]]\nid = \"a b\"\nlimit=1".to_owned(), "sources[0].id: the source id has"),
    ];
    for (text, sentence) in cases {
        let (_, problems) = read_toml(&text);
        assert!(problems.iter().any(|problem| problem.contains(sentence)), "{text}: {problems:?}");
    }
}

#[test]
fn a_broken_source_is_not_held_against_its_cameras() {
    let text = "[[sources]]\nid = \"NAVY\"\n[[cameras]]\nid = \"a\"\nsource = \"NAVY\"\nurl = \"test://\"\n";
    let (_, problems) = read_toml(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("sources[0].limit: this setting is missing"), "{problems:?}");
}

#[test]
fn cameras_must_be_told_apart_and_belong_somewhere() {
    let camera = |id: &str, source: &str| {
        format!("[[cameras]]\nid = \"{id}\"\nsource = \"{source}\"\nurl = \"test://\"\n")
    };
    let twice = wrong(&(camera("a", "METRO") + &camera("a", "METRO")));
    assert_eq!(twice, "manifold.toml:6: cameras[1].id: there is another camera a");
    let strange = wrong(&camera("a", "NAVY"));
    assert!(strange.starts_with("manifold.toml:3: cameras[0].source: there is no source NAVY;"));
    for id in ["../x", ".x", "", "a/b", "a b", &"x".repeat(129)] {
        assert!(wrong(&camera(id, "METRO")).starts_with("manifold.toml:2: cameras[0].id: "));
    }
    let missing = wrong("[[cameras]]\nid = \"a\"\nsource = \"METRO\"");
    assert_eq!(missing, "manifold.toml:1: cameras[0].url: this setting is missing");
}

#[test]
fn a_stream_key_opens_one_stream() {
    let camera = |id: &str, url: &str, sub: &str| {
        format!(
            "[[cameras]]\nid = \"{id}\"\nsource = \"METRO\"\nurl = \"{url}\"\nsub_url = \"{sub}\"\n"
        )
    };
    let (one, other) = ("whip://canary-key-000001", "whip://canary-key-000002");
    let refused = "cameras[1].url: another camera or sub_url has the same stream key";
    for second in [camera("b", one, ""), camera("b", other, one), camera("b", other, other)] {
        let problem = wrong(&(camera("a", one, "") + &second));
        assert!(problem.starts_with("manifold.toml:9: ") && problem.contains(refused), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
    }
    let fine = camera("a", one, other) + &camera("b", "whip://", "") + &camera("c", "whip://", "");
    let (_, problems) = read_toml(&fine);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn camera_addresses_that_run_or_open_something_are_refused() {
    for url in ["file:///etc/passwd", "exec:rm -rf /", "http://a/b", "ffmpeg:x", "nonsense"] {
        let text = format!("[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = \"{url}\"\n");
        let problem = wrong(&text);
        assert!(problem.starts_with("manifold.toml:4: cameras[0].url: "), "{problem}");
    }
}

#[test]
fn an_open_server_stays_on_loopback_unless_said_twice() {
    let text = "\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:8080\"]\n";
    let problem = wrong(text);
    assert!(problem.starts_with("manifold.toml:2: listen: 0.0.0.0:8080 can be reached"));
    assert!(problem.contains("auth.allow_open_on_network = true"));
    right(&format!("{text}[auth]\nallow_open_on_network = true"));
    right(&format!("{text}[auth]\nmode = \"keys\"\nkeys.a = \"{CANARY}\""));
    right("listen = [\"127.9.9.9:1\", \"[::1]:2\"]");
}

#[test]
fn short_secrets_are_refused_and_no_secret_is_printed() {
    let short = wrong("[auth.keys]\ndev = \"Short-Canary\"\n");
    assert!(short.starts_with("manifold.toml:2: auth.keys.dev: the secret is too short"));
    assert!(!short.contains("Short-Canary"));

    let config = right(&format!(
        "[auth.keys]\ndev = \"{CANARY}\"\n[[media.ice_servers]]\nurls = [\"turn:t\"]\n\
         credential = \"{CANARY}\"\n[[cameras]]\nid = \"a\"\nsource = \"METRO\"\n\
         url = \"rtsp://u:{CANARY}@h/1\"\nsub_url = \"rtsp://u:{CANARY}@h/2\"\n"
    ));
    assert!(!format!("{config:?} {config:#?}").contains(CANARY));
    assert_eq!(config.auth.keys[0].secret.expose_secret(), CANARY);

    let broken = [
        format!("[auth]\nkeys = \"{CANARY}\""),
        format!("[auth.keys]\nk = [\"{CANARY}\"]"),
        format!("[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = \"rtsp://u:{CANARY}@:x/1\""),
        format!("[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = [\"rtsp://u:{CANARY}@h/1\"]"),
        format!("[[cameras]]\nid = \"a\"\nsource = \"METRO\"\nurl = \"ftp://u:{CANARY}@h/1\""),
    ];
    for text in broken {
        let (_, problems) = read_toml(&text);
        assert!(!problems.is_empty(), "{text}");
        assert!(!problems.join(" ").contains(CANARY), "{problems:?}");
    }
}

#[test]
fn a_variable_wins_over_the_file_and_a_flag_over_both() {
    let text = "listen = [\"127.0.0.1:1\"]\n[media]\nudp = \"127.0.0.1:1\"\n[quota]\ntotal = 1\n";
    let variables = [
        ("MANIFOLD__MEDIA__UDP", "127.0.0.1:2"),
        ("MANIFOLD__LISTEN", "127.0.0.1:2, 127.0.0.1:3"),
        ("MANIFOLD__QUOTA__TOTAL", "2"),
        ("MANIFOLD__AUTH__ALLOW_OPEN_ON_NETWORK", "true"),
        ("MANIFOLD__AUTH__KEYS__devKey", CANARY),
        ("MANIFOLD__RTSP__USERS__Recorder", CANARY),
        ("MANIFOLD__CAMERAS__0__ID", "from-env"),
        ("MANIFOLD__CAMERAS__0__SOURCE", "METRO"),
        ("MANIFOLD__CAMERAS__0__URL", "test://"),
        ("LIMIT_METRO", "77"),
        ("PATH", "/bin"),
    ];
    let flags = Flags {
        udp: Some("127.0.0.1:3".to_owned()),
        rtsp: Some(String::new()),
        log_level: Some("trace".to_owned()),
        ..Flags::default()
    };
    let config = load_text(text, &variables, flags).unwrap();
    assert_eq!(config.media.udp.port(), 3);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.quota.total, 2);
    assert_eq!(config.auth.keys[0].id, "devKey");
    assert_eq!((config.rtsp.listen, config.rtsp.users[0].name.as_str()), (None, "Recorder"));
    assert_eq!(config.cameras[0].id.as_str(), "from-env");
    assert_eq!(config.sources[1].limit, 77);
    assert_eq!(config.log.level, LogLevel::Trace);

    let flags = Flags { listen: vec!["127.0.0.1:9".to_owned()], ..Flags::default() };
    let config = load_text(text, &[("LIMIT_TOTAL", "5")], flags).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(config.quota.total, 5);
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    let flags = Flags { listen: vec!["here".to_owned()], ..Flags::default() };
    let variables = [
        ("MANIFOLD__MEDIA__UPD", "x"),
        ("MANIFOLD__QUOTA__TOTAL", "many"),
        ("MANIFOLD__CAMERAS", "x"),
        ("LIMIT_NAVY", "3"),
        ("LIMIT_TAXI", "-3"),
    ];
    let error = load_text("", &variables, flags).unwrap_err();
    for line in [
        "flag --listen: listen: this must be an address",
        "environment variable MANIFOLD__MEDIA__UPD: media.upd: there is no such setting",
        "environment variable MANIFOLD__QUOTA__TOTAL: quota.total: this must be a whole number",
        "environment variable MANIFOLD__CAMERAS: cameras: this must be a list of tables",
        "environment variable LIMIT_NAVY: there is no source \"NAVY\"",
        "environment variable LIMIT_TAXI: this must be a whole number",
    ] {
        assert!(error.contains(line), "{line}\n--\n{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let flags = Flags { config: Some("/nonexistent/m.toml".into()), ..Flags::default() };
    let error = load(&flags, &Environment::default()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the config file /nonexistent/m.toml: "), "{error}");
}

proptest::proptest! {
    /// The walk over JSON gives what serde_json does, whatever valid JSON it meets.
    #[test]
    fn the_json_walk_agrees_with_serde_json(value in json_value()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let node = Node::from_json(&text, &"f".into()).ok().unwrap();
        proptest::prop_assert_eq!(back(&node), value);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,80}") {
        let path: Arc<str> = "f".into();
        for root in [Node::from_toml(&text, &path), Node::from_json(&text, &path)] {
            let _ = root.map(|root| Config::read(root, &mut Vec::new()));
        }
    }
}

fn json_value() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "\\PC{0,8}[\\\\\"]{0,3}\n?".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("\\PC{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn back(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Text(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Fraction(number) => (*number).into(),
        Value::Bool(value) => (*value).into(),
        Value::List(items) => items.iter().map(back).collect::<Vec<_>>().into(),
        Value::Table(entries) => serde_json::Value::Object(
            entries.iter().map(|(key, node)| (key.clone(), back(node))).collect(),
        ),
        Value::Other(kind) => panic!("{kind}"),
    }
}

#[test]
fn the_reference_shows_settings_that_are_right_and_all_of_them() {
    let reference = include_str!("../../../../docs/ref/config.md");
    let file = reference.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    right(file);
    let whole: String =
        file.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
    let described = |key: &str| whole.lines().any(|line| line.starts_with(&format!("{key} = ")));
    for key in WHOLE.lines().filter_map(|line| line.split_once(" = ").map(|(key, _)| key)) {
        assert!(described(key) || ["zeta", "alpha"].contains(&key), "{key}");
    }
}

#[test]
fn the_settings_that_the_guides_show_are_right() {
    let guides = [
        include_str!("../../../../docs/guide/README.md"),
        include_str!("../../../../docs/guide/publish.md"),
        include_str!("../../../../docs/guide/troubleshooting.md"),
    ];
    let blocks = guides.iter().flat_map(|guide| guide.split("```toml").skip(1));
    let shown: Vec<_> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(!shown.is_empty());
    for settings in shown {
        let (_, problems) = read_toml(settings);
        assert!(problems.is_empty(), "{problems:?} in {settings}");
    }
}

#[test]
fn cameras_for_everybody_in_the_network_by_rtsp_are_said_twice() {
    let text = "[rtsp]\nlisten = \"0.0.0.0:8554\"\n";
    let problem = wrong(text);
    assert!(problem.contains("rtsp.listen") && problem.contains("[rtsp.users]"), "{problem}");
    right(&format!("{text}[rtsp.users]\nrecorder = \"long-enough\""));
    right(&format!("{text}[auth]\nallow_open_on_network = true"));
    right("[rtsp]\nlisten = \"\"");
    let problem = wrong("[rtsp.users]\nrecorder = \"short-1\"");
    assert!(problem.contains("too short") && !problem.contains("short-1"), "{problem}");
    assert!(wrong("[rtsp.users]\n\"a:b\" = \"long-enough\"").contains("no colon"));
}

fn at(address: &str) -> Door {
    Door::At(address.parse().unwrap())
}

fn if_free(address: &str) -> Door {
    Door::IfFree(address.parse().unwrap())
}

const OPEN: &str = "[auth]\nallow_open_on_network = true\n";

#[test]
fn https_is_where_other_machines_come_unless_it_is_told_otherwise() {
    let rows = [
        ("listen = [\"127.0.0.1:8080\"]", "", Door::Closed),
        ("listen = [\"0.0.0.0:8080\"]", "", if_free("0.0.0.0:8443")),
        ("listen = [\"127.0.0.1:80\", \"192.0.2.1:80\"]", "", if_free("192.0.2.1:8443")),
        ("listen = [\"0.0.0.0:0\"]", "", Door::Closed),
        ("listen = [\"0.0.0.0:8080\"]", "tls = \"off\"", Door::Closed),
        ("listen = [\"0.0.0.0:8080\"]", "https = \"off\"", Door::Closed),
        ("listen = [\"0.0.0.0:8080\"]", "https = \"\"", Door::Closed),
        ("listen = [\"0.0.0.0:8080\"]", "https = \"443\"", at("0.0.0.0:443")),
        ("listen = [\"0.0.0.0:8080\"]", "https = 443", at("0.0.0.0:443")),
        ("listen = [\"127.0.0.1:0\"]", "https = \"[::]:0\"", at("[::]:0")),
    ];
    for (listen, http, wanted) in rows {
        let text = format!("{listen}\n{OPEN}[http]\n{http}");
        let https = right(&text).https;
        assert_eq!((https.listen, https.certificates), (wanted, Certificates::Local), "{text}");
    }
    let files = right("[http]\ncertificate = \"c.pem\"\nkey = \"k.pem\"").https;
    assert_eq!(files.listen, if_free("127.0.0.1:8443"));
    let wanted = Certificates::Files { certificate: "c.pem".into(), key: "k.pem".into() };
    assert_eq!(files.certificates, wanted);
}

#[test]
fn what_is_wrong_with_https_is_told() {
    let line = |text: &str| wrong(text).split_once(": ").unwrap().1.to_owned();
    let sentence = "http.certificate: a certificate needs its key: set http.key too";
    assert_eq!(line("[http]\ncertificate = \"c.pem\""), sentence);
    let sentence = "http.key: a key needs its certificate: set http.certificate too";
    assert_eq!(line("[http]\nkey = \"k.pem\""), sentence);
    let wanted = "http.https: this must be an address with a port, like \"0.0.0.0:8443\", a port, or \"off\"";
    assert!(line("[http]\nhttps = \"on\"").starts_with(wanted));
    assert!(line("[http]\nhttps = 70000").starts_with(wanted));
    assert!(line("[http]\ntls = \"on\"").starts_with("http.tls: this must be \"auto\" or \"off\""));
    let exposed = line("[http]\nhttps = \"0.0.0.0:8443\"");
    assert!(exposed.starts_with("http.https: 0.0.0.0:8443 can be reached from the network"));
    let exposed = line("audio_listen = \"0.0.0.0:8081\"");
    assert!(exposed.starts_with("audio_listen: 0.0.0.0:8081 can be reached from the network"));
}

#[test]
fn the_audio_port_is_on_the_same_host_and_never_opened_twice() {
    let audio = |text: &str| right(text).audio_listen;
    assert_eq!(audio(&format!("listen = [\"0.0.0.0:80\"]\n{OPEN}")), if_free("0.0.0.0:8081"));
    assert_eq!(audio("audio_listen = 9001"), at("127.0.0.1:9001"));
    assert_eq!(audio("audio_listen = \"[::1]:9001\""), at("[::1]:9001"));
    for closed in [
        "audio_listen = \"off\"",
        "listen = [\"127.0.0.1:0\"]",
        "listen = [\"127.0.0.1:8080\", \"127.0.0.1:8081\"]",
        "listen = [\"127.0.0.1:8080\"]\naudio_listen = 8080",
    ] {
        assert_eq!(audio(closed), Door::Closed, "{closed}");
    }
}

#[test]
fn the_variables_of_the_old_voice_server_are_settings() {
    let load = |variables: &[(&str, &str)], flags: &[&str]| {
        let listen = flags.iter().map(|text| (*text).to_owned()).collect();
        load_text(
            "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
            variables,
            Flags { listen, ..Flags::default() },
        )
    };
    let listen = |config: &Config| {
        config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };

    let config = load(&[("PORT", "9000"), ("AUDIO_PORT", "9001")], &[]).unwrap();
    assert_eq!(listen(&config), "127.0.0.1:9000 127.0.0.1:2");
    assert_eq!(config.audio_listen, at("127.0.0.1:9001"));
    let config = load(&[("PORT", "9000")], &["127.0.0.1:5"]).unwrap();
    assert_eq!(listen(&config), "127.0.0.1:5", "a flag wins");
    let config = load(&[("PORT", ""), ("AUDIO_PORT", " ")], &[]).unwrap();
    assert_eq!(listen(&config), "127.0.0.1:1 127.0.0.1:2");
    let wrong = load(&[("PORT", "tcp://10.0.0.1:80")], &[]).unwrap_err();
    assert!(wrong.starts_with("environment variable PORT: listen: this must be a port"), "{wrong}");

    let both = [("SSL_CERT_FILE", "/c.pem"), ("SSL_KEY_FILE", "/k.pem")];
    let wanted = Certificates::Files { certificate: "/c.pem".into(), key: "/k.pem".into() };
    assert_eq!(load(&both, &[]).unwrap().https.certificates, wanted);
    // What OpenSSL trusts is no certificate of ours.
    let trust = load(&both[..1], &[]).unwrap();
    assert_eq!(trust.https.certificates, Certificates::Local);
    let key = load(&both[1..], &[]).unwrap_err();
    assert!(key.starts_with("environment variable SSL_KEY_FILE: http.key: "), "{key}");
}
