//! `[rtsp]`: where players and recorders read cameras, and with which passwords.

use std::net::SocketAddr;

use secrecy::{ExposeSecret, SecretString};

use super::reader::{Section, Setting, text};
use super::tree::{Node, Origin};
use super::{AuthMode, shipped};
/// Shortest password of a reader. A connection has four tries; recorders need not remember it.
const PASSWORD_LENGTH_MIN: usize = 8;

/// Most users. Each try is compared with one of them; they are written by hand.
const USERS_MAX: usize = 1_000;

/// RTSP for players and recorders.
#[derive(Debug, Clone)]
pub(crate) struct Rtsp {
    /// `None`: it is off.
    pub(crate) listen: Option<SocketAddr>,
    /// Who may read all cameras by a password. Names are unique.
    pub(crate) users: Vec<RtspUser>,
}

/// A user and the password that opens all cameras.
#[derive(Debug, Clone)]
pub(crate) struct RtspUser {
    pub(crate) name: String,
    pub(crate) password: SecretString,
}

/// An address, or an empty text for none.
struct OptionalAddress(Option<SocketAddr>);

impl Setting for OptionalAddress {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "an address with a port, or empty")?;
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        SocketAddr::read(node).map(Some).map(Self)
    }
}

/// Reads the section; where `listen` is written comes with it, for [`check`].
pub(super) fn read(mut section: Section<'_>) -> (Rtsp, Origin) {
    let origin = section.origin_of("listen");
    let listen = section.value("listen", OptionalAddress(Some(shipped::RTSP))).0;
    let users = read_users(section.section("users"));
    section.finish();
    (Rtsp { listen, users }, origin)
}

fn read_users(mut section: Section<'_>) -> Vec<RtspUser> {
    let mut users: Vec<RtspUser> = Vec::new();
    for (name, node) in section.rest() {
        let sentence = match SecretString::read(&node) {
            Err(sentence) => sentence,
            Ok(_) if name.is_empty() || name.contains([':', '"']) || has_control(&name) => {
                "a user's name has no colon, quote or control character".to_owned()
            }
            Ok(_) if users.len() == USERS_MAX => {
                format!("there are more than {USERS_MAX} users")
            }
            Ok(password) if password.expose_secret().len() < PASSWORD_LENGTH_MIN => {
                format!("the password is too short; use at least {PASSWORD_LENGTH_MIN} characters")
            }
            Ok(password) => {
                users.push(RtspUser { name, password });
                continue;
            }
        };
        section.problem(node.origin, &name, &sentence);
    }
    users
}

fn has_control(name: &str) -> bool {
    name.chars().any(char::is_control)
}

/// Cameras that everybody in the network can see are said twice, as with `listen`.
pub(super) fn check(
    section: &mut Section<'_>,
    origin: Origin,
    rtsp: &Rtsp,
    mode: AuthMode,
    open_on_network: bool,
) {
    let Some(address) = rtsp.listen.filter(|address| !address.ip().is_loopback()) else { return };
    if mode == AuthMode::Open && !open_on_network && rtsp.users.is_empty() {
        let sentence = format!(
            "{address} can be reached from the network while nobody is asked for a password; add \
             users under [rtsp.users], set auth.mode = \"keys\", or say it twice with \
             auth.allow_open_on_network = true"
        );
        section.problem(origin, "rtsp.listen", &sentence);
    }
}
