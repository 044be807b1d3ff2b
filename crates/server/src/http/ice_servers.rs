//! STUN and TURN servers that clients are told of in `Link` headers (RFC 9725 §4.6).
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

use crate::config::{IceServer, Media, TurnServer};

/// All servers of the settings.
pub(super) struct IceServers {
    /// Those that are the same for everybody.
    fixed: Vec<HeaderValue>,
    turn: Vec<TurnServer>,
}

/// A name and a password.
struct Login<'s> {
    username: &'s str,
    credential: Option<&'s str>,
}

impl IceServers {
    pub(super) fn new(media: &Media) -> Self {
        Self { fixed: links(&media.ice_servers), turn: media.turn.clone() }
    }

    /// One `Link` header a server address, with fresh passwords for `client`: whose they are, for the
    /// TURN server's log.
    pub(super) fn links(&self, client: &str, now: SystemTime) -> Vec<HeaderValue> {
        let fresh = self.turn.iter().flat_map(|server| server_links(server, client, now));
        self.fixed.iter().cloned().chain(fresh).collect()
    }
}

fn server_links(server: &TurnServer, client: &str, now: SystemTime) -> Vec<HeaderValue> {
    let (username, credential) = turn_login(server, client, now);
    let login = Login { username: &username, credential: Some(credential.expose_secret()) };
    server.urls.iter().filter_map(|url| link(url, Some(&login))).collect()
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

fn links(servers: &[IceServer]) -> Vec<HeaderValue> {
    let links = servers.iter().flat_map(|server| {
        let credential = server.credential.as_ref().map(ExposeSecret::expose_secret);
        let login = server.username.as_deref().map(|username| Login { username, credential });
        server.urls.iter().filter_map(move |url| link(url, login.as_ref()))
    });
    links.collect()
}

/// The config refuses addresses that would break out of the angle brackets.
fn link(url: &str, login: Option<&Login<'_>>) -> Option<HeaderValue> {
    let mut link = format!("<{url}>; rel=\"ice-server\"");
    if let Some(Login { username, credential }) = login {
        link.push_str(&format!("; username=\"{}\"", escaped(username)));
        if let Some(credential) = credential {
            let credential = escaped(credential);
            link.push_str(&format!("; credential=\"{credential}\"; credential-type=\"password\""));
        }
    }
    let mut link = HeaderValue::try_from(link).ok()?;
    link.set_sensitive(login.is_some());
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
