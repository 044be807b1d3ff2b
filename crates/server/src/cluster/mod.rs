//! Several servers as one: who is there, and which of them pulls a camera.
//!
//! Each server is a **node** with a lease in the store. A camera has one **origin**, the node that holds
//! the lease on it and pulls it; the others are **edges** and pull the origin, each once, over a WHEP of
//! their own kind (`/node`) that takes no quota. Who watches is the ledger's business, not known here.

mod ask;
mod envelope;
mod figures;
mod origin;
mod published;
mod registry;
mod renewal;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use control::CameraId;
use engine::Rendition;
use secrecy::SecretString;
use tokio::time::Instant;
use url::Url;

use crate::ledger::connection::{Script, Store};
use crate::remote::{HttpClient, Trust, TrustError};
use crate::tls::Tls;

pub(crate) use ask::{Asked, Silent, SilentReason};
pub(crate) use figures::ClusterFigures;
pub(crate) use origin::Place;
pub(crate) use published::{Elsewhere, KeptPlace};

/// What a node is called: `[cluster] node`.
const NAME_LENGTH_MAX: usize = 64;

/// `[cluster]`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// This node's name, which no other has.
    pub(crate) node: String,
    /// How other nodes reach it.
    pub(crate) url: Url,
    /// Where nodes and origins are kept.
    pub(crate) store: Store,
    /// The authorities by whose word other nodes are believed, and nobody else's: a file. `None`: those of
    /// this machine, and the one that each node has told the store of.
    pub(crate) ca: Option<PathBuf>,
    /// What this node shows to who asks it by HTTPS, where it does.
    pub(crate) tls: Option<Tls>,
}

impl Settings {
    /// With what is shown by HTTPS; an error where the file of authorities is of no use.
    pub(crate) fn secured(self, tls: Option<Tls>) -> Result<Self, TrustError> {
        if let Some(path) = &self.ca {
            trust::of_file(path)?;
        }
        Ok(Self { tls, ..self })
    }
}

/// Whether a node may be called so: it becomes part of keys in the store.
pub(crate) fn is_node_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.chars().all(fits)
}

/// This node among the others; cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// Name and process, so that a process that took the name over is another owner.
    owner: String,
    secret: String,
    scripts: Scripts,
    peers: Mutex<Peers>,
    trusts: Mutex<trust::Trusts>,
    /// Leases on cameras that this node has.
    held: Mutex<BTreeSet<String>>,
    /// Of these, those that are renewed at the next turn. Bounded by the cameras.
    wanted: Mutex<Vec<renewal::Wanted>>,
    /// Who was found when somebody looked last for a node that sees the store.
    seeing: tokio::sync::Mutex<Option<origin::Seeing>>,
    counters: figures::Counters,
}

struct Scripts {
    register: Script,
    claim: Script,
    owner: Script,
    release: Script,
    leave: Script,
}

/// The other nodes, as the store told last. Bounded by the servers that people run.
#[derive(Default)]
struct Peers {
    by_name: BTreeMap<String, Peer>,
    /// Those that were there, and when they were missed first.
    gone: BTreeMap<String, Instant>,
    /// The store has answered the last time that it was asked.
    sees_store: bool,
}

/// Another node.
#[derive(Clone)]
struct Peer {
    name: String,
    url: Url,
    secret: String,
    /// By whom it is believed, where it is asked by HTTPS.
    trust: Option<Trust>,
}

impl Cluster {
    /// Joins the others, and stays until [`Self::leave`].
    pub(crate) fn start(settings: Settings) -> Self {
        let owner = format!("{} {}", settings.node, uuid::Uuid::new_v4());
        let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let scripts = Scripts {
            register: Script::new(include_str!("register.lua")),
            claim: Script::new(include_str!("claim.lua")),
            owner: Script::new("return redis.call('GET', KEYS[1])"),
            release: Script::new(include_str!("release.lua")),
            leave: Script::new(include_str!("leave.lua")),
        };
        let trusts = Mutex::new(trust::Trusts::new(settings.ca.clone()));
        let (peers, held, wanted, seeing, counters) = Default::default();
        let cluster = Self(Arc::new(Inner {
            settings,
            owner,
            secret,
            scripts,
            peers,
            trusts,
            held,
            wanted,
            seeing,
            counters,
        }));
        tokio::spawn(registry::stay(Arc::downgrade(&cluster.0)));
        tokio::spawn(renewal::take_turns(Arc::downgrade(&cluster.0)));
        cluster
    }

    /// Gives back what this node has in the store, so that others need not wait for it to expire. After
    /// `limit` it is left to that.
    pub(crate) async fn leave(&self, limit: Duration) {
        let inner = &self.0;
        let held = std::mem::take(&mut *inner.held.lock().unwrap_or_else(PoisonError::into_inner));
        let leave = async {
            self.release_all(held.into_iter()).await;
            let _ = self.unregister().await;
        };
        // What is left expires.
        let _ = tokio::time::timeout(limit, leave).await;
    }

    /// What opens `place` at the node with this `secret`: not the secret itself, so that who reads a
    /// request can repeat that one and no other.
    fn token(secret: &str, place: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, place.as_bytes()))
    }

    /// Whether the bearer `token` of a request was made for `place` at this node.
    pub(crate) fn admits(&self, token: &str, place: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.secret.as_bytes());
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&key, place.as_bytes(), &token).is_ok()
    }

    /// What this node is called.
    pub(crate) fn node(&self) -> &str {
        &self.0.settings.node
    }

    /// Whether this node has the lease on one of a camera's streams.
    pub(crate) fn is_origin(&self, camera: &CameraId) -> bool {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = |rendition| {
            let name = origin::lease_name(&place_name(camera, rendition));
            held.contains(&self.0.settings.store.key(&name))
        };
        leads(Rendition::Main) || leads(Rendition::Sub)
    }

    /// Whether the store answered the last time that it was asked, at most a second ago.
    pub(crate) fn sees_store(&self) -> bool {
        self.peers(|peers| peers.sees_store)
    }

    /// Notes a lease that this node has.
    fn hold(&self, key: &str) {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    }

    fn peers<T>(&self, act: impl FnOnce(&mut Peers) -> T) -> T {
        act(&mut self.0.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Peer {
    /// The address of `place` there, and what opens it.
    fn at(&self, place: &str) -> Option<(Url, SecretString)> {
        let url = self.url.join(&format!("/node/{place}")).ok()?;
        Some((url, Cluster::token(&self.secret, place).into()))
    }

    /// Asks it, and waits for `limit`.
    fn client(&self, limit: Duration) -> HttpClient {
        match &self.trust {
            Some(trust) => HttpClient::with_trust(limit, trust.clone()),
            None => HttpClient::new(limit),
        }
    }
}

/// A stream's name in addresses and keys.
fn place_name(camera: &CameraId, rendition: Rendition) -> String {
    format!("{camera}/{}", rendition.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_one_place_at_one_node() {
        let store = crate::ledger::StoreAddress::parse("redis://127.0.0.1:1").unwrap();
        let settings = Settings {
            node: "n1".to_owned(),
            url: "http://10.0.0.1:8080".parse().unwrap(),
            store: Store::new(store, String::new()),
            ca: None,
            tls: None,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let [one, other] = [0, 1].map(|_| Cluster::start(settings.clone()));
        let token = Cluster::token(&one.0.secret, "cam-1/main");
        assert!(one.admits(&token, "cam-1/main"));
        assert!(!one.admits(&token, "cam-1/sub") && !one.admits(&token, "cam-2/main"));
        assert!(!other.admits(&token, "cam-1/main"));
        assert!(!one.admits("", "cam-1/main") && !one.admits("%", "cam-1/main"));
        let token = Cluster::token(&one.0.secret, &ask::place_of("who?"));
        assert!(one.admits_question(&token, "who?") && !one.admits_question(&token, "why?"));
        assert!(!one.admits(&token, "ask") && !other.admits_question(&token, "who?"));
    }

    #[test]
    fn names_of_nodes_fit_into_keys() {
        assert!(is_node_name("n1") && is_node_name("edge-2.site_a"));
        for text in ["", "a b", "a:b", "a/b", "{a}", "é", &"x".repeat(65)] {
            assert!(!is_node_name(text), "{text:?}");
        }
    }
}
