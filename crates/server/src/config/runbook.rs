//! `config.json` of the voice server that Manifold takes the place of, as settings of ours.
//!
//! It is told by its tables `server` and `webrtc`. Its keys mean what they meant; what has no meaning here is
//! a warning and not an error, since people bring files that worked. Keys of ours may stand beside them,
//! and are read as strictly as ever.

use std::time::Duration;

use super::tree::{Node, Origin, Problem, Value};

/// Where the old server listened unless it was told otherwise.
const HOST: &str = "0.0.0.0";
const PORT: i64 = 8080;

/// Tables of the old server. Only those that have it in them make a file one of its.
const OWN_TABLES: [&str; 2] = ["server", "webrtc"];

/// Whether a file was written for the old server.
pub(super) fn is_meant(root: &Node) -> bool {
    OWN_TABLES.iter().any(|table| root.entry(table).is_some())
}

/// The same settings under our names. What is not known is appended to `warnings`, what cannot be
/// right to `problems`.
pub(super) fn translate(
    mut root: Node,
    warnings: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) -> Node {
    let mut translation = Translation { warnings, problems, out: Vec::new() };
    let tables: Vec<(&'static str, Node)> = ["server", "webrtc", "audio"]
        .into_iter()
        .filter_map(|table| Some((table, root.take(table)?)))
        .collect();
    let has_cameras = root.entry("cameras").is_some();
    let has_auth = root.entry("auth").is_some();
    for (name, table) in tables {
        translation.table(name, table);
    }
    let out = translation.out;
    let listens = out.iter().find(|(keys, _)| *keys == ["listen"]).map(|(_, node)| node.clone());
    for (keys, node) in out {
        root.put_if_absent(keys, node);
    }
    if let Some(listen) = listens {
        open_to_network(&mut root, &listen, has_cameras || has_auth);
    }
    root
}

/// The old server had no keys: who wrote its host for the network meant everybody there. Where there are
/// cameras, it has to be said in our words.
fn open_to_network(root: &mut Node, listen: &Node, is_guarded: bool) {
    let Value::List(items) = &listen.value else { return };
    let Some(Value::Text(address)) = items.first().map(|item| &item.value) else { return };
    let Ok(address) = address.parse::<std::net::SocketAddr>() else { return };
    if address.ip().is_loopback() {
        return;
    }
    let media = std::net::SocketAddr::new(address.ip(), super::shipped::MEDIA_UDP.port());
    root.put_if_absent(&["media", "udp"], listen.with(Value::Text(media.to_string())));
    if !is_guarded {
        let open = listen.with(Value::Bool(true));
        root.put_if_absent(&["auth", "allow_open_on_network"], open);
    }
}

struct Translation<'p> {
    warnings: &'p mut Vec<Problem>,
    problems: &'p mut Vec<Problem>,
    /// Our keys with their values.
    out: Vec<(&'static [&'static str], Node)>,
}

impl Translation<'_> {
    fn table(&mut self, name: &str, table: Node) {
        let origin = table.origin.clone();
        let Value::Table(entries) = table.value else {
            let sentence = format!("this must be a table, not {}", table.value.kind());
            return self.problem(origin, name, &sentence);
        };
        let (mut host, mut port) = (None, None);
        for (key, node) in entries {
            let path = format!("{name}.{key}");
            match (name, key.as_str()) {
                ("server", "host") => host = Some(node),
                ("server", "port") => port = Some(node),
                ("server", "max_connections") => self.put(&["voice", "max_connections"], node),
                ("server" | "webrtc" | "audio", "queue_size") => {
                    self.put(&["voice", "queue_size"], node);
                }
                ("webrtc", "connection_timeout") => {
                    self.seconds(&["voice", "connection_timeout"], &path, node);
                }
                ("webrtc", "ice_servers") => self.ice_servers(&path, node),
                ("webrtc", "audio_constraints") => self.constraints(&path, node),
                _ => self.unknown(&path, node.origin),
            }
        }
        if host.is_some() || port.is_some() {
            self.listen(&origin, host, port);
        }
    }

    fn listen(&mut self, origin: &Origin, host: Option<Node>, port: Option<Node>) {
        let default = |value| Node { origin: origin.clone(), value };
        let host = host.unwrap_or_else(|| default(Value::Text(HOST.to_owned())));
        let port = port.unwrap_or_else(|| default(Value::Integer(PORT)));
        let name = match &host.value {
            Value::Text(text) if text == "localhost" => Some("127.0.0.1"),
            Value::Text(text) => Some(text.as_str()),
            Value::Integer(_)
            | Value::Fraction(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::Other(_) => None,
        };
        let Some(ip) = name.and_then(|name| name.parse::<std::net::IpAddr>().ok()) else {
            let sentence = "this must be an address of this machine, like \"0.0.0.0\"";
            return self.problem(host.origin, "server.host", sentence);
        };
        let number = match port.value {
            Value::Integer(number) => u16::try_from(number).ok(),
            Value::Text(ref text) => text.trim().parse().ok(),
            Value::Fraction(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::Other(_) => None,
        };
        let Some(number) = number else {
            let sentence = "this must be a port from 0 to 65535";
            return self.problem(port.origin, "server.port", sentence);
        };
        let address = std::net::SocketAddr::new(ip, number).to_string();
        let address = Node { origin: port.origin.clone(), value: Value::Text(address) };
        self.put(&["listen"], Node { origin: port.origin, value: Value::List(vec![address]) });
    }

    fn constraints(&mut self, path: &str, node: Node) {
        let Value::Table(entries) = node.value else {
            let sentence = format!("this must be a table, not {}", node.value.kind());
            return self.problem(node.origin, path, &sentence);
        };
        for (key, node) in entries {
            let path = format!("{path}.{key}");
            // As Python wrote them, and as browsers do.
            match key.as_str() {
                "sample_rate" | "sampleRate" => self.put(&["voice", "audio", "sample_rate"], node),
                "channels" | "channel_count" | "channelCount" => {
                    self.put(&["voice", "audio", "channels"], node);
                }
                "echo_cancellation" | "echoCancellation" => {
                    self.put(&["voice", "audio", "echo_cancellation"], node);
                }
                "noise_suppression" | "noiseSuppression" => {
                    self.put(&["voice", "audio", "noise_suppression"], node);
                }
                "auto_gain_control" | "autoGainControl" => {
                    self.put(&["voice", "audio", "auto_gain_control"], node);
                }
                "latency" => self.seconds(&["voice", "audio", "latency"], &path, node),
                _ => self.unknown(&path, node.origin),
            }
        }
    }

    /// `urls` may be one text, as in browsers, and a server a text alone.
    fn ice_servers(&mut self, path: &str, node: Node) {
        let Value::List(items) = node.value else {
            let sentence = format!("this must be a list, not {}", node.value.kind());
            return self.problem(node.origin, path, &sentence);
        };
        let servers = items.into_iter().map(ice_server).collect();
        let servers = Node { origin: node.origin, value: Value::List(servers) };
        self.put(&["media", "ice_servers"], servers);
    }

    /// A number of seconds, which here is a time.
    fn seconds(&mut self, keys: &'static [&'static str], path: &str, node: Node) {
        let seconds = match node.value {
            Value::Integer(number) => u64::try_from(number).ok().map(Duration::from_secs),
            Value::Fraction(number) => Duration::try_from_secs_f64(number).ok(),
            // A time in our words, or something that the reader refuses.
            Value::Text(_) => return self.put(keys, node),
            Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => None,
        };
        match seconds {
            Some(seconds) => {
                let text = humantime::format_duration(seconds).to_string();
                self.put(keys, node.with(Value::Text(text)));
            }
            None => self.problem(node.origin, path, "this must be a number of seconds"),
        }
    }

    fn put(&mut self, keys: &'static [&'static str], node: Node) {
        self.out.push((keys, node));
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        let sentence = "this setting has no meaning here and is passed over".to_owned();
        self.warnings.push(Problem { origin, key: path.to_owned(), sentence });
    }

    fn problem(&mut self, origin: Origin, key: &str, sentence: &str) {
        let (key, sentence) = (key.to_owned(), sentence.to_owned());
        self.problems.push(Problem { origin, key, sentence });
    }
}

fn ice_server(node: Node) -> Node {
    let origin = node.origin.clone();
    let list = |node: Node| match node.value {
        Value::Text(_) => Node { origin: node.origin.clone(), value: Value::List(vec![node]) },
        Value::Integer(_)
        | Value::Fraction(_)
        | Value::Bool(_)
        | Value::List(_)
        | Value::Table(_)
        | Value::Other(_) => node,
    };
    let entries = match node.value {
        Value::Text(_) => vec![("urls".to_owned(), list(node))],
        Value::Table(entries) => entries
            .into_iter()
            .map(|(key, node)| match key.as_str() {
                "urls" | "url" => ("urls".to_owned(), list(node)),
                _ => (key, node),
            })
            .collect(),
        Value::Integer(_)
        | Value::Fraction(_)
        | Value::Bool(_)
        | Value::List(_)
        | Value::Other(_) => return node,
    };
    Node { origin, value: Value::Table(entries) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{AuthMode, Config};
    use super::*;

    /// As the runbook of the old voice server prints it, piece by piece, with its comments.
    const RUNBOOK: &str = r#"// config.json
{
  "server": {
    "port": 8080,
    "host": "0.0.0.0",
    "max_connections": 10 // Lower from 50
  },
  "webrtc": {
    "ice_servers": [],  // ← MUST be empty
    /* Lower them
       where lines are thin */
    "audio_constraints": {
      "sample_rate": 8000,  // Lower from 16000
      "channels": 2,
      "echo_cancellation": true,
      "noise_suppression": false,
      "auto_gain_control": true,
      "latency": 0.05
    },
    "connection_timeout": 60 // Increase from 30
  }
}
"#;

    fn read(text: &str) -> (Config, Vec<String>, Vec<String>) {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let path: Arc<str> = "config.json".into();
        let root = Node::from_json(text, &path).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(is_meant(&root));
        let root = translate(root, &mut warnings, &mut problems);
        let config = Config::read(root, &mut problems);
        let texts = |all: Vec<Problem>| all.iter().map(ToString::to_string).collect();
        (config, texts(warnings), texts(problems))
    }

    #[test]
    fn the_runbooks_file_is_read_as_it_is() {
        let (config, warnings, problems) = read(RUNBOOK);
        assert_eq!((warnings, problems), (vec![], vec![]));
        assert_eq!(config.listen, ["0.0.0.0:8080".parse().unwrap()]);
        assert_eq!(config.media.udp, "0.0.0.0:8555".parse().unwrap());
        assert!(config.media.ice_servers.is_empty());
        assert_eq!(config.auth.mode, AuthMode::Open);
        let voice = config.voice;
        assert_eq!(voice.max_connections, 10);
        assert_eq!(voice.connection_timeout, Duration::from_secs(60));
        let audio = voice.audio;
        assert_eq!((audio.sample_rate, audio.channels), (8000, 2));
        assert_eq!(
            (audio.echo_cancellation, audio.noise_suppression, audio.auto_gain_control),
            (true, false, true)
        );
        assert_eq!(audio.latency, Duration::from_millis(50));
    }

    #[test]
    fn the_length_of_queues_is_found_wherever_it_stands() {
        for table in ["server", "webrtc", "audio"] {
            let text = format!(r#"{{"webrtc": {{}}, "{table}": {{"queue_size": 77}}}}"#);
            let (config, warnings, problems) = read(&text);
            assert_eq!((config.voice.queue_size, warnings, problems), (77, vec![], vec![]));
        }
    }

    #[test]
    fn servers_for_ice_are_written_as_browsers_take_them() {
        let text = r#"{"webrtc": {"ice_servers": [
            {"urls": "stun:a.example"},
            {"urls": ["turn:b.example"], "username": "u", "credential": "c"},
            "stun:c.example"
        ]}}"#;
        let (config, warnings, problems) = read(text);
        assert_eq!((warnings, problems), (vec![], vec![]));
        let urls: Vec<String> =
            config.media.ice_servers.iter().flat_map(|server| server.urls.clone()).collect();
        assert_eq!(urls, ["stun:a.example", "turn:b.example", "stun:c.example"]);
    }

    #[test]
    fn what_has_no_meaning_is_a_warning_with_its_line() {
        let text = "{\"server\": {\n\"workers\": 4,\n\"host\": \"127.0.0.1\"},\n\"webrtc\": {\"jitter\": 1,\n\"audio_constraints\": {\"gain\": 2}}}";
        let (config, warnings, problems) = read(text);
        let sentence = "this setting has no meaning here and is passed over";
        assert_eq!(
            warnings,
            [
                format!("config.json:2: server.workers: {sentence}"),
                format!("config.json:4: webrtc.jitter: {sentence}"),
                format!("config.json:5: webrtc.audio_constraints.gain: {sentence}"),
            ]
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_right_is_a_problem() {
        for (text, wanted) in [
            (r#"{"server": {"port": 99999}}"#, "server.port: this must be a port"),
            (r#"{"server": {"host": "nas.local"}}"#, "server.host: this must be an address"),
            (r#"{"webrtc": {"connection_timeout": "soon"}}"#, "this must be a time"),
            (r#"{"webrtc": {"connection_timeout": -1}}"#, "this must be a number of seconds"),
            (r#"{"server": {"max_connections": 0}}"#, "this must be from 1 to"),
            (r#"{"webrtc": 5}"#, "webrtc: this must be a table, not a number"),
            (r#"{"webrtc": {}, "colour": 5}"#, "colour: there is no such setting"),
        ] {
            let (_, _, problems) = read(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].contains(wanted), "{problems:?}");
        }
    }

    /// Its host opens the voice relay to the network. Cameras of people are opened by their own words.
    #[test]
    fn cameras_beside_it_are_not_opened_to_the_network() {
        let text = r#"{"server": {"host": "0.0.0.0"},
            "cameras": [{"id": "a", "source": "METRO", "url": "test://"}]}"#;
        let (_, _, problems) = read(text);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("auth.allow_open_on_network"), "{problems:?}");
    }
}
