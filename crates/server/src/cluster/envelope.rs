//! What one node tells another under seal: passwords of cameras, which go over plain HTTP.
//!
//! AES-256-GCM under a key of the answering node's secret, which it has told the store, and of a key for tokens
//! that stands in the settings of all nodes: neither the store nor the line alone is enough to read it.
//!
//! ```text
//! +------------+------------+----------+
//! | nonce 12 B | ciphertext | tag 16 B |
//! +------------+------------+----------+
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::Cluster;

/// What the key is for, so that nothing else that is made with a node's secret is like it.
const PURPOSE: &[u8] = b"records for another node";

impl Cluster {
    /// Seals what this node answers. `key` is one for tokens, where there is any. `None`: the library could
    /// not; it has no reason to.
    pub(crate) fn seal(&self, key: Option<&SecretString>, text: &[u8]) -> Option<String> {
        let cipher = cipher(&self.0.secret, key)?;
        let mut body = text.to_vec();
        let nonce = cipher.seal_in_place_append_tag(Aad::from(PURPOSE), &mut body).ok()?;
        Some(BASE64_STANDARD.encode([&nonce.as_ref()[..], &body].concat()))
    }

    /// Opens what the node called `node` has sealed. `None`: with another key, or since then it began anew.
    pub(crate) fn open(
        &self,
        node: &str,
        key: Option<&SecretString>,
        sealed: &str,
    ) -> Option<Vec<u8>> {
        let secret = self.peers(|peers| peers.by_name.get(node).map(|peer| peer.secret.clone()))?;
        open(&secret, key, sealed)
    }

    /// The other nodes that are there, by name.
    pub(crate) fn others(&self) -> Vec<String> {
        self.peers(|peers| peers.by_name.keys().cloned().collect())
    }
}

fn open(secret: &str, key: Option<&SecretString>, sealed: &str) -> Option<Vec<u8>> {
    let sealed = BASE64_STANDARD.decode(sealed).ok()?;
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let opened = cipher(secret, key)?.open_in_place(nonce, Aad::from(PURPOSE), &mut body).ok()?;
    Some(opened.to_vec())
}

fn cipher(secret: &str, key: Option<&SecretString>) -> Option<RandomizedNonceKey> {
    let node = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&node);
    context.update(PURPOSE);
    if let Some(key) = key {
        context.update(key.expose_secret().as_bytes());
    }
    RandomizedNonceKey::new(&AES_256_GCM, context.sign().as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_both_secrets_only() {
        let key = SecretString::from("a key for tokens");
        let mut body = b"canary".to_vec();
        let sealer = cipher("of the node", Some(&key)).unwrap();
        let nonce = sealer.seal_in_place_append_tag(Aad::from(PURPOSE), &mut body).unwrap();
        let sealed = BASE64_STANDARD.encode([&nonce.as_ref()[..], &body].concat());

        assert_eq!(open("of the node", Some(&key), &sealed).as_deref(), Some(&b"canary"[..]));
        assert!(open("of the node", None, &sealed).is_none());
        assert!(open("of another", Some(&key), &sealed).is_none());
        let other = SecretString::from("another key");
        assert!(open("of the node", Some(&other), &sealed).is_none());
        assert!(open("of the node", Some(&key), "").is_none());
        assert!(open("of the node", Some(&key), &sealed[4..]).is_none());
    }
}
