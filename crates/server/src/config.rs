//! The settings: read from `manifold.toml` (or JSON), environment and flags, in this order of
//! precedence, into types that cannot be wrong.
//!
//! Nothing is opened, bound or resolved here; that a port is free is found out by whoever binds it.

mod cameras;
mod cluster;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod https;
mod json;
mod layers;
mod park;
mod reader;
mod rtsp;
mod runbook;
mod shipped;
mod store;
mod stored;
mod tree;
mod voice;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use control::{CameraId, SourceId, Unit};
use secrecy::{ExposeSecret, SecretString};

use crate::app::{AppConfig, CameraConfig, CameraOrigin};
use crate::audit::Audit;
use crate::ingest::{PublishPoint, Reach, RtspTransport, SourceUrl};
use crate::net::{MediaTcp, Priority};
use reader::{Section, Setting, text};
use tree::Node;

pub(crate) use cameras::{Problems, Row, SHARED_KEY, rows_of_csv, rows_of_json};
pub(crate) use cluster::Cluster;
pub(crate) use https::{Door, Https};
pub(crate) use layers::{Environment, Flags, LoadError, Loaded, load};
pub(crate) use park::Park;
pub(crate) use rtsp::{Rtsp, RtspUser};
pub(crate) use store::Store;
pub(crate) use stored::{
    Carried, CarriedCamera, CarriedRecords, StoredCamera, StoredLayout, StoredStamp, StoredTile,
    StoredUrl, StoredVersion,
};
#[cfg(test)]
pub(crate) use tests::right as from_toml;
pub(crate) use tree::{Origin, Problem};
pub(crate) use voice::Voice;

/// HMAC-SHA-256 wants a key of at least its output's length (RFC 7518 §3.2).
const SECRET_LENGTH_MIN: usize = 32;

/// Lifetime of viewers' tokens: short, since each heartbeat brings a fresh one.
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// A token must outlive the time from reserve to WHEP POST on a slow network, and that from one heartbeat
/// of our page to the next, 10 s.
const TOKEN_TTL_MIN: Duration = Duration::from_secs(15);

/// Lifetime of the passwords for a TURN server. It asks for one when a way is allocated and every 10
/// minutes from then on (RFC 8656 §7), so that a wall can be watched for a day.
const TURN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A password must outlive the way from the answer to the TURN server.
const TURN_TTL_MIN: Duration = Duration::from_secs(60);

/// Longer is no time limit.
const TURN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long rows of the audit trail are kept: long enough for what is asked about a quarter of a year.
const AUDIT_KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A trail that is shorter says nothing; old rows are looked for once an hour.
const AUDIT_KEEP_MIN: Duration = Duration::from_secs(60 * 60);

/// How long a camera is kept after its last viewer.
const CLOSE_AFTER: Duration = Duration::from_secs(5);

/// Longest name or location, in bytes: it goes into every list of cameras.
const NAME_LENGTH_MAX: usize = 200;

/// All settings. `Debug` prints no secret: secrets are [`SecretString`], camera addresses print
/// without credentials.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where HTTP is served; every listener serves every route. Never empty.
    pub(crate) listen: Vec<SocketAddr>,
    /// The same once more, where voice clients and speakers expect it.
    pub(crate) audio_listen: Door,
    pub(crate) http: Http,
    pub(crate) https: Https,
    pub(crate) media: Media,
    pub(crate) rtsp: Rtsp,
    pub(crate) voice: Voice,
    pub(crate) auth: Auth,
    pub(crate) quota: Quota,
    /// Never empty, ids unique.
    pub(crate) sources: Vec<Source>,
    /// Ids unique; each source exists.
    pub(crate) cameras: Vec<Camera>,
    pub(crate) park: Park,
    pub(crate) store: Store,
    pub(crate) audit: AuditTrail,
    /// Where this server is one of several.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) log: Log,
}

/// What is kept of who watched what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditTrail {
    pub(crate) enabled: bool,
    /// Rows are removed after so long; `None`: never.
    pub(crate) keep: Option<Duration>,
}

/// What browsers and players are told and allowed over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    /// Origins of other sites whose pages may use the API, as in `https://control.example`.
    pub(crate) allowed_origins: Vec<WebOrigin>,
    /// Given to clients as `livekit_url`; derived from the request where not set.
    pub(crate) livekit_url: Option<String>,
}

/// Where media goes.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    pub(crate) udp: SocketAddr,
    /// Where viewers without UDP connect (ICE-TCP).
    pub(crate) tcp: MediaTcp,
    /// Announced to viewers instead of the bound address, for servers behind NAT.
    pub(crate) advertise: Vec<IpAddr>,
    /// One a core where not set.
    pub(crate) workers: Option<u32>,
    /// How the threads of the packet path are scheduled.
    pub(crate) priority: Priority,
    /// Told to viewers in `Link` headers (RFC 9725 §4.6).
    pub(crate) ice_servers: Vec<IceServer>,
    /// Told to viewers with passwords made for each.
    pub(crate) turn: Vec<TurnServer>,
}

/// A STUN or TURN server that viewers may use.
#[derive(Debug, Clone)]
pub(crate) struct IceServer {
    /// `stun:` or `turn:` addresses (RFC 7064, RFC 7065).
    pub(crate) urls: Vec<String>,
    pub(crate) username: Option<String>,
    /// Told to viewers who hold a token, and to nobody else.
    pub(crate) credential: Option<SecretString>,
}

/// A TURN server that shares a secret with us, from which passwords for clients are made.
#[derive(Debug, Clone)]
pub(crate) struct TurnServer {
    /// `turn:` or `turns:` addresses (RFC 7065). Never empty.
    pub(crate) urls: Vec<String>,
    /// coturn's `static-auth-secret`.
    pub(crate) secret: SecretString,
    /// How long a password is good.
    pub(crate) ttl: Duration,
}

/// Who may call the API.
#[derive(Debug, Clone)]
pub(crate) struct Auth {
    pub(crate) mode: AuthMode,
    /// Tokens are signed with the first, and accepted from all. Empty: a random key is made.
    pub(crate) keys: Vec<ApiKey>,
    /// Lifetime of viewers' tokens.
    pub(crate) token_ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// No key is asked.
    Open,
    /// API calls carry a token signed with a configured key.
    Keys,
}

/// A LiveKit-style API key.
#[derive(Debug, Clone)]
pub(crate) struct ApiKey {
    /// The `iss` of the tokens it signs.
    pub(crate) id: String,
    /// At least 32 bytes.
    pub(crate) secret: SecretString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) unit: Unit,
    /// Reservations at once over all sources.
    pub(crate) total: u32,
    /// The same of one user; as many as he likes where it is left out.
    pub(crate) per_user: Option<u32>,
}

/// An agency with a quota.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) limit: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Camera {
    pub(crate) id: CameraId,
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) location: String,
    pub(crate) source: SourceId,
    pub(crate) url: SourceUrl,
    pub(crate) sub_url: Option<SourceUrl>,
    pub(crate) transport: RtspTransport,
    /// False keeps the camera warm without viewers.
    pub(crate) on_demand: bool,
    pub(crate) close_after: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The origin of a web page (RFC 6454): scheme, host and port, as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebOrigin(String);

impl WebOrigin {
    /// As in an `Origin` header.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Config {
    /// What of it the application runs.
    pub(crate) fn application(&self) -> AppConfig {
        let source = |source: &Source| control::Source {
            id: source.id.clone(),
            name: source.name.clone(),
            name_ar: source.name_ar.clone(),
            limit: source.limit,
        };
        let sources: Vec<control::Source> = self.sources.iter().map(source).collect();
        let quota = control::Quota::new(self.quota.unit, self.quota.total, &sources)
            .per_user(self.quota.per_user);
        let cameras = self.cameras.iter().map(Camera::application).collect();
        let cluster = self.cluster.as_ref().and_then(|cluster| cluster.application(&self.store));
        let (ledger, audit) = (self.store.ledger(), Audit::off());
        AppConfig { sources, cameras, quota, ledger, cluster, audit }
    }

    /// Takes the whole tree of settings apart. Whatever is wrong is appended to `problems`.
    fn read(root: Node, problems: &mut Vec<Problem>) -> Self {
        let mut section = Section::new(String::new(), root, problems);
        let listen_origin = section.origin_of("listen");
        let listen: Vec<SocketAddr> = section.value("listen", shipped::listen());
        let audio_origin = section.origin_of("audio_listen");
        let audio_listen = https::read_audio(&mut section, &listen);
        let (auth, open_on_network) = read_auth(section.section("auth"));
        let quota = read_quota(section.section("quota"));
        let (http, https, https_origin) = read_http(section.section("http"), &listen);
        let media = read_media(section.section("media"));
        let (rtsp, rtsp_origin) = rtsp::read(section.section("rtsp"));
        let voice = voice::read(section.section("voice"));
        let store = store::read(section.section("store"));
        let audit = read_audit(section.section("audit"));
        let cluster = cluster::read(section.section("cluster"), &store);
        let log = read_log(section.section("log"));
        let park = park::read(section.section("park"), auth.mode);
        let sources = read_sources(&mut section);
        let cameras = cameras::read_all(&mut section, &sources);
        check_listen(&mut section, listen_origin, &listen, auth.mode, open_on_network);
        for (written, door) in [
            ((audio_origin, "audio_listen"), audio_listen),
            ((https_origin, "http.https"), https.listen),
        ] {
            https::check(&mut section, written, door, auth.mode, open_on_network);
        }
        rtsp::check(&mut section, rtsp_origin, &rtsp, auth.mode, open_on_network);
        section.finish();
        Self {
            listen,
            audio_listen,
            http,
            https,
            media,
            rtsp,
            voice,
            auth,
            quota,
            sources,
            cameras,
            park,
            store,
            audit,
            cluster,
            log,
        }
    }
}

impl Camera {
    fn points(&self) -> impl Iterator<Item = &PublishPoint> {
        let urls = std::iter::once(&self.url).chain(&self.sub_url);
        urls.filter_map(|url| match url {
            SourceUrl::Whip(point) => Some(&**point),
            SourceUrl::Rtsp { .. }
            | SourceUrl::Whep { .. }
            | SourceUrl::Test { .. }
            | SourceUrl::Sealed { .. } => None,
        })
    }

    /// Whether one stream key would open both.
    fn shares_key_with(&self, other: &Self) -> bool {
        self.points().any(|point| other.points().any(|other| point.shares_key_with(other)))
    }

    /// Whether its two streams have one stream key.
    fn shares_own_key(&self) -> bool {
        let mut points = self.points();
        points.next().zip(points.next()).is_some_and(|(main, sub)| main.shares_key_with(sub))
    }

    /// The camera as the application runs it.
    pub(crate) fn application(&self) -> CameraConfig {
        let definition = control::Camera {
            id: self.id.clone(),
            name: self.name.clone(),
            name_ar: self.name_ar.clone(),
            location: self.location.clone(),
            source: self.source.clone(),
            has_sub: self.sub_url.is_some(),
        };
        CameraConfig {
            definition,
            main: self.url.clone(),
            sub: self.sub_url.clone(),
            reach: Reach::Anywhere,
            origin: CameraOrigin::Config,
            transport: self.transport,
            on_demand: self.on_demand,
            close_after: self.close_after,
            revision: 0,
        }
    }
}

fn check_listen(
    section: &mut Section<'_>,
    origin: Origin,
    listen: &[SocketAddr],
    mode: AuthMode,
    open_on_network: bool,
) {
    if listen.is_empty() {
        section.problem(origin, "listen", "give at least one address, like \"127.0.0.1:8080\"");
        return;
    }
    let outside = listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), AuthMode::Open, false) = (outside, mode, open_on_network) {
        let sentence = format!(
            "{address} can be reached from the network while auth.mode is \"open\" asks nobody \
             for a key; set auth.mode = \"keys\", or say it twice with \
             auth.allow_open_on_network = true"
        );
        section.problem(origin, "listen", &sentence);
    }
}

fn read_auth(mut section: Section<'_>) -> (Auth, bool) {
    let mode_origin = section.origin_of("mode");
    let mode = section.value("mode", AuthMode::Open);
    let open_on_network = section.value("allow_open_on_network", false);
    let token_ttl_origin = section.origin_of("token_ttl");
    let token_ttl = section.value("token_ttl", TOKEN_TTL);
    if token_ttl < TOKEN_TTL_MIN {
        section.problem(token_ttl_origin, "token_ttl", "this must be at least \"15s\"");
    }
    let keys = read_keys(section.section("keys"));
    if mode == AuthMode::Keys && keys.is_empty() {
        let sentence = "\"keys\" needs at least one key under [auth.keys]";
        section.problem(mode_origin, "mode", sentence);
    }
    section.finish();
    (Auth { mode, keys, token_ttl }, open_on_network)
}

fn read_keys(mut section: Section<'_>) -> Vec<ApiKey> {
    let mut keys = Vec::new();
    for (id, node) in section.rest() {
        match SecretString::read(&node) {
            Ok(secret) if secret.expose_secret().len() >= SECRET_LENGTH_MIN => {
                keys.push(ApiKey { id, secret });
            }
            Ok(_) => {
                let sentence = format!(
                    "the secret is too short; use at least {SECRET_LENGTH_MIN} characters, as \
                     from: openssl rand -base64 32"
                );
                section.problem(node.origin, &id, &sentence);
            }
            Err(sentence) => section.problem(node.origin, &id, &sentence),
        }
    }
    keys
}

fn read_quota(mut section: Section<'_>) -> Quota {
    let unit = section.value("unit", Unit::Viewer);
    let total = section.value("total", shipped::TOTAL_LIMIT);
    let per_user = section.optional("per_user");
    section.finish();
    Quota { unit, total, per_user }
}

/// Where `https` is written comes with it, for [`https::check`].
fn read_http(mut section: Section<'_>, listen: &[SocketAddr]) -> (Http, Https, Origin) {
    let https_origin = section.origin_of("https");
    let https = https::read(&mut section, listen);
    let allowed_origins = section.value("allowed_origins", Vec::new());
    let livekit_origin = section.origin_of("livekit_url");
    let livekit_url: Option<String> = section.optional("livekit_url");
    let livekit_url = livekit_url.filter(|url| !url.is_empty());
    if let Some(url) = &livekit_url {
        let scheme = url::Url::parse(url).ok().map(|url| url.scheme().to_owned());
        if !matches!(scheme.as_deref(), Some("ws" | "wss")) {
            let sentence = "this must be a URL with ws:// or wss://, or empty";
            section.problem(livekit_origin, "livekit_url", sentence);
        }
    }
    section.finish();
    (Http { allowed_origins, livekit_url }, https, https_origin)
}

fn read_media(mut section: Section<'_>) -> Media {
    let udp = section.value("udp", shipped::MEDIA_UDP);
    let tcp = section.value("tcp", MediaTcp::LikeUdp);
    let advertise: Vec<PublicAddress> = section.value("advertise", Vec::new());
    let advertise = advertise.into_iter().map(|address| address.0).collect();
    let workers_origin = section.origin_of("workers");
    let workers = section.optional("workers");
    if workers == Some(0) {
        let sentence = "give 1 or more, or leave it out for one a core";
        section.problem(workers_origin, "workers", sentence);
    }
    let is_realtime = section.value("realtime", true);
    let priority = if is_realtime { Priority::RealTime } else { Priority::Ordinary };
    let servers = section.list("ice_servers").unwrap_or_default();
    let ice_servers =
        servers.into_iter().map(|(path, node)| read_ice_server(&mut section, path, node)).collect();
    let servers = section.list("turn").unwrap_or_default();
    let turn = servers
        .into_iter()
        .filter_map(|(path, node)| read_turn_server(&mut section, path, node))
        .collect();
    section.finish();
    Media { udp, tcp, advertise, workers, priority, ice_servers, turn }
}

fn read_ice_server(parent: &mut Section<'_>, path: String, node: Node) -> IceServer {
    let mut section = Section::new(path, node, parent.problems);
    let urls = read_ice_urls(&mut section, &["stun:", "stuns:", "turn:", "turns:"]);
    let username = section.optional("username");
    let credential = section.optional("credential");
    section.finish();
    IceServer { urls, username, credential }
}

fn read_turn_server(parent: &mut Section<'_>, path: String, node: Node) -> Option<TurnServer> {
    let mut section = Section::new(path, node, parent.problems);
    let origin = section.origin_of("urls");
    let urls = read_ice_urls(&mut section, &["turn:", "turns:"]);
    if urls.is_empty() {
        section.problem(
            origin,
            "urls",
            "give at least one address, like \"turn:turn.example:3478\"",
        );
    }
    let secret_origin = section.origin_of("secret");
    let secret: Option<SecretString> = section.required("secret");
    if secret.as_ref().is_some_and(|secret| secret.expose_secret().is_empty()) {
        let sentence = "give the static-auth-secret of the TURN server";
        section.problem(secret_origin, "secret", sentence);
    }
    let ttl_origin = section.origin_of("ttl");
    let ttl = section.value("ttl", TURN_TTL);
    if !(TURN_TTL_MIN..=TURN_TTL_MAX).contains(&ttl) {
        section.problem(ttl_origin, "ttl", "this must be from \"1m\" to \"30days\"");
    }
    section.finish();
    Some(TurnServer { urls, secret: secret?, ttl })
}

/// Addresses of one of these schemes. Quotes and angle brackets would break out of the Link header.
fn read_ice_urls(section: &mut Section<'_>, schemes: &[&str]) -> Vec<String> {
    let origin = section.origin_of("urls");
    let urls: Vec<String> = section.required("urls").unwrap_or_default();
    let is_ice = |url: &String| {
        schemes.iter().any(|scheme| url.starts_with(scheme))
            && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\",;".contains(&byte))
    };
    if !urls.iter().all(is_ice) {
        let sentence = format!("each must begin with one of {}", schemes.join(" "));
        section.problem(origin, "urls", &sentence);
    }
    urls
}

fn read_audit(mut section: Section<'_>) -> AuditTrail {
    let enabled = section.value("enabled", true);
    let origin = section.origin_of("keep");
    let keep: Duration = section.value("keep", AUDIT_KEEP);
    if !keep.is_zero() && keep < AUDIT_KEEP_MIN {
        section.problem(origin, "keep", "it must be at least 1 h, or \"0s\" for ever");
    }
    section.finish();
    AuditTrail { enabled, keep: (!keep.is_zero()).then_some(keep) }
}

fn read_log(mut section: Section<'_>) -> Log {
    let format = section.value("format", LogFormat::Text);
    let level = section.value("level", LogLevel::Info);
    section.finish();
    Log { format, level }
}

fn read_sources(parent: &mut Section<'_>) -> Vec<Source> {
    let Some(items) = parent.list("sources") else { return shipped::sources() };
    let mut seen = HashSet::new();
    let mut sources = Vec::new();
    for (path, node) in items {
        let mut section = Section::new(path, node, parent.problems);
        let origin = section.origin_of("id");
        let id: Option<SourceId> = section.required("id");
        let name: Option<Name> = section.optional("name");
        let name_ar: Option<Name> = section.optional("name_ar");
        // Without it the settings are refused; the id is known all the same, so that the source's
        // cameras are not blamed as well.
        let limit = section.required("limit").unwrap_or_default();
        if let Some(id) = id {
            if !seen.insert(id.clone()) {
                section.problem(origin, "id", &format!("there is another source {id}"));
            }
            let name = name.map_or_else(|| id.to_string(), |name| name.0);
            let name_ar = name_ar.map_or_else(|| name.clone(), |name| name.0);
            sources.push(Source { id, name, name_ar, limit });
        }
        section.finish();
    }
    sources
}

/// A name that people read. Any script; no control characters, which logs and terminals obey.
struct Name(String);

impl Setting for Name {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "a text")?;
        if text.len() > NAME_LENGTH_MAX {
            return Err(format!("this must be at most {NAME_LENGTH_MAX} bytes long"));
        }
        if text.chars().any(char::is_control) {
            return Err("this must not contain control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Setting for SourceId {
    fn read(node: &Node) -> Result<Self, String> {
        Self::parse(text(node, "a source id")?).map_err(|error| error.to_string())
    }
}

impl Setting for CameraId {
    fn read(node: &Node) -> Result<Self, String> {
        Self::parse(text(node, "a camera id")?).map_err(|error| error.to_string())
    }
}

impl Setting for WebOrigin {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "a web origin like \"https://control.example\", without a path";
        let text = text(node, wanted)?;
        let url = url::Url::parse(text).map_err(|_| format!("this must be {wanted}"))?;
        let origin = url.origin().ascii_serialization();
        let bare = matches!(url.scheme(), "http" | "https") && text.trim_end_matches('/') == origin;
        if bare { Ok(Self(origin)) } else { Err(format!("this must be {wanted}")) }
    }
}

impl Setting for MediaTcp {
    /// An address, or "off".
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "an address with a port, like \"0.0.0.0:8555\", or \"off\"";
        let text = text(node, wanted)?.trim();
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::At);
        address.map_err(|_| format!("this must be {wanted}, not {text:?}"))
    }
}

/// An address that viewers can be sent to. Names are not resolved: an answer would be wrong as soon
/// as the name means something else, and browsers resolve none in candidates.
struct PublicAddress(IpAddr);

impl Setting for PublicAddress {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "an IP address, like \"203.0.113.7\" or \"2001:db8::7\"";
        let text = text(node, wanted)?.trim();
        let address: IpAddr = text.parse().map_err(|_| {
            format!("this must be {wanted}, without a port; {text:?} is none, and names are not resolved")
        })?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{text} is no address that a viewer can send to"));
        }
        Ok(Self(address))
    }
}

/// One of a few words.
fn choice<T: Copy>(node: &Node, choices: &[(&str, T)]) -> Result<T, String> {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    let wanted = words.join(" or ");
    let text = text(node, &wanted)?;
    let found = choices.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| format!("this must be {wanted}, not {text:?}"))
}

impl Setting for AuthMode {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("open", Self::Open), ("keys", Self::Keys)])
    }
}

impl Setting for Unit {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("viewer", Self::Viewer), ("camera", Self::Camera)])
    }
}

impl Setting for RtspTransport {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("tcp", Self::Tcp), ("udp", Self::Udp)])
    }
}

impl Setting for LogFormat {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("text", Self::Text), ("json", Self::Json)])
    }
}

impl Setting for LogLevel {
    fn read(node: &Node) -> Result<Self, String> {
        let choices = [
            ("error", Self::Error),
            ("warn", Self::Warn),
            ("info", Self::Info),
            ("debug", Self::Debug),
            ("trace", Self::Trace),
        ];
        choice(node, &choices)
    }
}
