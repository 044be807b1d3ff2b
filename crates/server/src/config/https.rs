//! The further ports of HTTP: HTTPS, and the one that voice clients and speakers expect.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::reader::{Section, Setting, text};
use super::tree::{Node, Origin, Value};
use super::{AuthMode, choice};
use crate::tls::Certificates;

/// Where HTTPS is served unless it is told otherwise.
const HTTPS_PORT: u16 = 8443;

/// Where voice clients and speakers look for streams.
const AUDIO_PORT: u16 = 8081;

/// A port beside those of `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// None.
    Closed,
    /// Nobody asked for it: where it is taken by another program, the server does without.
    IfFree(SocketAddr),
    /// It was asked for: without it the server does not start.
    At(SocketAddr),
}

/// HTTPS.
#[derive(Debug, Clone)]
pub(crate) struct Https {
    pub(crate) listen: Door,
    pub(crate) certificates: Certificates,
}

/// A door as it is written: an address, a port on the host of `listen`, or "off".
enum WrittenDoor {
    Off,
    Port(u16),
    At(SocketAddr),
}

impl Setting for WrittenDoor {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "an address with a port, like \"0.0.0.0:8443\", a port, or \"off\"";
        if let Value::Integer(number) = node.value {
            let port = u16::try_from(number);
            return port.map(Self::Port).map_err(|_| format!("this must be {wanted}"));
        }
        let text = text(node, wanted)?.trim();
        if text.is_empty() || text == "off" {
            return Ok(Self::Off);
        }
        let port = text.parse().map(Self::Port);
        port.or_else(|_| text.parse().map(Self::At))
            .map_err(|_| format!("this must be {wanted}, not {text:?}"))
    }
}

impl WrittenDoor {
    fn on(self, host: Option<&SocketAddr>) -> Door {
        match (self, host) {
            (Self::At(address), _) => Door::At(address),
            (Self::Port(port), Some(host)) => Door::At(SocketAddr::new(host.ip(), port)),
            // Without any `listen` the settings are refused.
            (Self::Off, _) | (Self::Port(_), None) => Door::Closed,
        }
    }
}

/// Whether HTTPS is served at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Auto,
    Off,
}

impl Setting for Mode {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("auto", Self::Auto), ("off", Self::Off)])
    }
}

/// A file, or an empty text for none.
struct OptionalPath(Option<PathBuf>);

impl Setting for OptionalPath {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "the name of a file, or empty")?;
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

/// `audio_listen`, on the host of the first of `listen` where only a port is written.
pub(super) fn read_audio(section: &mut Section<'_>, listen: &[SocketAddr]) -> Door {
    let written: Option<WrittenDoor> = section.optional("audio_listen");
    let door = match written {
        Some(written) => written.on(listen.first()),
        None if takes_any_port(listen) || has_port(listen, AUDIO_PORT) => Door::Closed,
        None => default_door(listen.first(), AUDIO_PORT),
    };
    match door {
        // It is served there already.
        Door::At(address) if address.port() != 0 && listen.contains(&address) => Door::Closed,
        Door::At(_) | Door::IfFree(_) | Door::Closed => door,
    }
}

/// The keys of `[http]` that say how HTTPS is served. Left alone, it is where other machines come by HTTP:
/// on this machine browsers trust `localhost` without.
pub(super) fn read(section: &mut Section<'_>, listen: &[SocketAddr]) -> Https {
    let written: Option<WrittenDoor> = section.optional("https");
    let mode = section.value("tls", Mode::Auto);
    let certificates = read_certificates(section);
    let outside = listen.iter().find(|address| !address.ip().is_loopback());
    let listen = match (mode, written, &certificates) {
        (Mode::Off, _, _) => Door::Closed,
        (Mode::Auto, Some(written), _) => written.on(outside.or(listen.first())),
        (Mode::Auto, None, Certificates::Files { .. }) => {
            default_door(outside.or(listen.first()), HTTPS_PORT)
        }
        (Mode::Auto, None, Certificates::Local) if takes_any_port(listen) => Door::Closed,
        (Mode::Auto, None, Certificates::Local) => default_door(outside, HTTPS_PORT),
    };
    Https { listen, certificates }
}

fn read_certificates(section: &mut Section<'_>) -> Certificates {
    let path = |section: &mut Section<'_>, key| {
        let origin = section.origin_of(key);
        (section.value(key, OptionalPath(None)).0, origin)
    };
    let (certificate, certificate_origin) = path(section, "certificate");
    let (key, key_origin) = path(section, "key");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Certificates::Files { certificate, key },
        (None, None) => Certificates::Local,
        (Some(_), None) => {
            let sentence = "a certificate needs its key: set http.key too";
            section.problem(certificate_origin, "certificate", sentence);
            Certificates::Local
        }
        (None, Some(_)) => {
            let sentence = "a key needs its certificate: set http.certificate too";
            section.problem(key_origin, "key", sentence);
            Certificates::Local
        }
    }
}

fn default_door(host: Option<&SocketAddr>, port: u16) -> Door {
    host.map_or(Door::Closed, |host| Door::IfFree(SocketAddr::new(host.ip(), port)))
}

/// Who takes any port, as tests do, wants no fixed ones either.
fn takes_any_port(listen: &[SocketAddr]) -> bool {
    has_port(listen, 0)
}

fn has_port(listen: &[SocketAddr], port: u16) -> bool {
    listen.iter().any(|address| address.port() == port)
}

/// A server that everybody in the network can use is said twice, as with `listen`. Doors that nobody asked
/// for open to whom `listen` does.
pub(super) fn check(
    section: &mut Section<'_>,
    (origin, key): (Origin, &str),
    door: Door,
    mode: AuthMode,
    open_on_network: bool,
) {
    let Door::At(address) = door else { return };
    if !address.ip().is_loopback() && mode == AuthMode::Open && !open_on_network {
        let sentence = format!(
            "{address} can be reached from the network while auth.mode is \"open\" asks nobody for a key; \
             set auth.mode = \"keys\", or say it twice with auth.allow_open_on_network = true"
        );
        section.problem(origin, key, &sentence);
    }
}
