//! STUN and TURN servers that clients are told of: in `Link` headers (RFC 9725 §4.6), and in what
//! reserve answers.
//!
//! Some have a name and password that stand in the settings. Others share a secret with us: each
//! client gets a password of its own that is good for a while (coturn's `use-auth-secret`, as
//! draft-uberti-behave-turn-rest-00 has it).

use std::time::SystemTime;

use aws_lc_rs::hmac;
use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::wire::IceServerAnswer;
use crate::config::{IceServer, Media, TurnServer};

/// All servers of the settings.
pub(super) struct IceServers {
    /// Those that are the same for everybody.
    fixed: Vec<IceServer>,
    turn: Vec<TurnServer>,
}

impl IceServers {
    pub(super) fn new(media: &Media) -> Self {
        Self { fixed: media.ice_servers.clone(), turn: media.turn.clone() }
    }

    /// All of them, with fresh passwords for `client`: whose they are, for the TURN server's log.
    pub(super) fn told(&self, client: &str, now: SystemTime) -> Vec<IceServerAnswer> {
        let told = |server: &IceServer| IceServerAnswer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: credential_of(server),
        };
        let fresh = |server: &TurnServer| {
            let (username, credential) = turn_login(server, client, now);
            let credential = credential.expose_secret().to_owned();
            let (username, credential) = (Some(username), Some(credential));
            IceServerAnswer { urls: server.urls.clone(), username, credential }
        };
        self.fixed.iter().map(told).chain(self.turn.iter().map(fresh)).collect()
    }

    /// Those without a password, which anybody may be told.
    pub(super) fn open(&self) -> Vec<IceServerAnswer> {
        let fixed = self.fixed.iter().filter(|server| credential_of(server).is_none());
        let told = |server: &IceServer| {
            let (urls, username) = (server.urls.clone(), None);
            IceServerAnswer { urls, username, credential: None }
        };
        fixed.map(told).collect()
    }

    /// What [`Self::told`] tells, one `Link` header an address.
    pub(super) fn links(&self, client: &str, now: SystemTime) -> Vec<HeaderValue> {
        let told = self.told(client, now);
        let of_server = |server: &IceServerAnswer| -> Vec<HeaderValue> {
            server.urls.iter().filter_map(|url| link(url, server)).collect()
        };
        told.iter().flat_map(of_server).collect()
    }
}

/// A password without a name is of no use.
fn credential_of(server: &IceServer) -> Option<String> {
    server.username.as_ref().and(server.credential.as_ref()).map(|c| c.expose_secret().to_owned())
}

/// `expiry:client`, and the HMAC-SHA1 of it under the shared secret, in base64.
fn turn_login(server: &TurnServer, client: &str, now: SystemTime) -> (String, SecretString) {
    let expiry = (now + server.ttl).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let username = format!("{}:{client}", expiry.as_secs());
    let secret = server.secret.expose_secret().as_bytes();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, username.as_bytes());
    (username, STANDARD.encode(tag).into())
}

/// The config refuses addresses that would break out of the angle brackets.
fn link(url: &str, server: &IceServerAnswer) -> Option<HeaderValue> {
    let mut link = format!("<{url}>; rel=\"ice-server\"");
    if let Some(username) = &server.username {
        link.push_str(&format!("; username=\"{}\"", escaped(username)));
    }
    if let Some(credential) = &server.credential {
        let credential = escaped(credential);
        link.push_str(&format!("; credential=\"{credential}\"; credential-type=\"password\""));
    }
    let mut link = HeaderValue::try_from(link).ok()?;
    link.set_sensitive(server.username.is_some());
    Some(link)
}

/// The inside of a quoted string (RFC 9110 §5.6.4).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    fn told(settings: &str) -> Vec<String> {
        let servers = IceServers::new(&config::from_toml(settings).media);
        let links = servers.links("67e55044", SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        links.iter().map(|link| link.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn servers_of_the_settings_become_link_headers() {
        let links = told(
            "[[media.ice_servers]]\nurls = [\"stun:s.example\", \"turn:t.example?transport=udp\"]\n\
             username = \"a\\\"b\"\ncredential = \"c\"\n",
        );
        let rest = "; rel=\"ice-server\"; username=\"a\\\"b\"; credential=\"c\"; \
                    credential-type=\"password\"";
        let wanted =
            [format!("<stun:s.example>{rest}"), format!("<turn:t.example?transport=udp>{rest}")];
        assert_eq!(links, wanted);
    }

    /// The password as coturn computes it:
    /// `echo -n 1600:67e55044 | openssl dgst -sha1 -hmac north -binary | base64`
    #[test]
    fn a_turn_password_is_good_for_its_time_and_its_client() {
        let links = told(
            "[[media.turn]]\nurls = [\"turn:t.example:3478\"]\nsecret = \"north\"\nttl = \"10m\"\n",
        );
        assert_eq!(
            links,
            ["<turn:t.example:3478>; rel=\"ice-server\"; username=\"1600:67e55044\"; \
              credential=\"cQJZn1mtMtSmTHmA7bQ8AP26pek=\"; credential-type=\"password\""]
        );
    }
}
