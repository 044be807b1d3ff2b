//! What all nodes of a cluster must have alike, and one has otherwise: the clock, and the keys that sign tokens.
//!
//! Each tells it with its state, and whoever hears it compares. Nothing is refused for it here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use super::Http;
use super::wire::nodes::{KeyMark, StateAnswer};

/// How far clocks may be apart: an answer is a second old at most, and no time server is worse than this.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// What a mark is of, so that it is like nothing else that is made with the key.
const PURPOSE: &[u8] = b"the key by which a node signs";

/// Bytes of a mark: enough that two keys do not have the same.
const MARK_BYTES: usize = 9;

impl Http {
    /// With what other nodes compare.
    pub(super) fn comparable(&self, answer: StateAnswer) -> StateAnswer {
        let signs = self.keyring().configured();
        let signs = signs.map(|(id, secret)| KeyMark { mark: mark(&secret), id });
        StateAnswer { now_ms: Some(unix_ms(SystemTime::now())), signs, ..answer }
    }

    /// What another node has otherwise, in one sentence that its name stands before.
    pub(super) fn difference(&self, told: &StateAnswer) -> Option<String> {
        // Who does not tell its clock tells nothing of its keys either.
        let theirs = told.now_ms?;
        let own = self.keyring().configured().is_some();
        let of_keys = keys_differ(told.signs.as_ref(), own, |id| self.keyring().secret_of(id));
        of_keys.or_else(|| clocks_differ(theirs, unix_ms(SystemTime::now())))
    }
}

fn keys_differ(
    theirs: Option<&KeyMark>,
    has_own: bool,
    secret_of: impl Fn(&str) -> Option<SecretString>,
) -> Option<String> {
    let Some(KeyMark { id, mark: theirs }) = theirs else {
        let sentence = "it has no auth.keys, and this node has; give all nodes the same auth.keys";
        return has_own.then(|| sentence.to_owned());
    };
    // Whatever it calls its key.
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    match secret_of(&id) {
        None => Some(format!(
            "it signs with the key {id:?}, and auth.keys of this node has none of that name; give all nodes the \
             same auth.keys"
        )),
        Some(secret) if mark(&secret) != *theirs => Some(format!(
            "its key {id:?} has another secret than that of this node; give all nodes the same auth.keys"
        )),
        Some(_) => None,
    }
}

fn clocks_differ(theirs: u64, ours: u64) -> Option<String> {
    let apart = Duration::from_millis(theirs.abs_diff(ours));
    let direction = if theirs > ours { "ahead of" } else { "behind" };
    let seconds = apart.as_secs();
    (apart > CLOCKS_APART_MAX).then(|| {
        format!(
            "its clock is {seconds} s {direction} this node's; let both follow a time server (chrony, \
             systemd-timesyncd)"
        )
    })
}

fn mark(secret: &SecretString) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let tag = hmac::sign(&key, PURPOSE);
    BASE64_URL_SAFE_NO_PAD.encode(&tag.as_ref()[..MARK_BYTES])
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_and_not_told() {
        let secret = |text: &str| SecretString::from(text.to_owned());
        let own = |id: &str| (id == "k1").then(|| secret("canary-secret"));
        let of = |id: &str, text: &str| KeyMark { id: id.to_owned(), mark: mark(&secret(text)) };
        assert_eq!(keys_differ(Some(&of("k1", "canary-secret")), true, own), None);
        assert_eq!(keys_differ(None, false, own), None);
        let other = keys_differ(Some(&of("k1", "another")), true, own).unwrap();
        assert!(other.starts_with("its key \"k1\" has another secret"), "{other}");
        let none = keys_differ(Some(&of("k2", "canary-secret")), true, own).unwrap();
        assert!(none.contains("none of that name"), "{none}");
        assert!(keys_differ(None, true, own).unwrap().starts_with("it has no auth.keys"));
        assert!(!format!("{:?}", of("k1", "canary-secret")).contains("canary"));
    }

    #[test]
    fn clocks_are_apart_in_either_direction() {
        assert_eq!(clocks_differ(10_000, 5_000), None);
        assert!(clocks_differ(20_000, 5_000).unwrap().starts_with("its clock is 15 s ahead of"));
        assert!(clocks_differ(5_000, 20_000).unwrap().starts_with("its clock is 15 s behind"));
        assert!(clocks_differ(u64::MAX, 0).is_some());
    }
}
