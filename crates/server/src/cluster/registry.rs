//! Who is there: each node's lease in the store, and what the others need to know to reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, Weak};
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};
use url::Url;

use super::ask::GONE_KEPT;
use super::trust::Trusts;
use super::{Cluster, Inner, Peer, Peers};
use crate::ledger::connection::StoreError;

/// How long a node is there after it said so: two times may get lost.
const NODE_LEASE: Duration = Duration::from_secs(3);

/// How often it says so.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that are remembered. A cluster is a handful of servers; the bound keeps a store with other
/// people's data from filling this one's memory.
const NODES_MAX: usize = 256;

/// Who is among the nodes, as the store tells it. No `Debug`, for their secrets are in it.
#[derive(Default)]
pub(super) struct Others {
    /// By name.
    there: BTreeMap<String, Peer>,
    /// Those who went by themselves, a moment ago.
    left: BTreeSet<String>,
}

/// The keys of a node's lease, of all nodes, and of their ends.
fn keys(cluster: &Cluster) -> Vec<String> {
    let settings = &cluster.0.settings;
    let keys = [node_key(&settings.node), "stream:nodes".into(), "stream:nodes:until".into()];
    keys.iter().map(|key| settings.store.key(key)).collect()
}

/// The key of a node's lease.
pub(super) fn node_key(node: &str) -> String {
    format!("stream:node:{node}")
}

/// Renews this node's lease as long as anybody has the cluster.
pub(super) async fn stay(cluster: Weak<Inner>) {
    let mut interval = tokio::time::interval(RENEWAL_INTERVAL);
    let mut is_in = None;
    loop {
        interval.tick().await;
        let Some(inner) = cluster.upgrade() else { return };
        let cluster = Cluster(inner);
        let joined = cluster.register().await;
        let said = cluster.note(joined);
        if is_in.as_ref() != Some(&said) {
            match &said {
                Ok(()) => info!(node = cluster.0.settings.node, "this node is among the others"),
                Err(reason) => {
                    if matches!(is_in, Some(Ok(()))) {
                        cluster.count(|counters| &counters.registrations_lost);
                    }
                    warn!(reason, "this node cannot say that it is there");
                }
            }
            is_in = Some(said);
        }
    }
}

impl Cluster {
    /// All other nodes. `None`: another process has this one's name.
    async fn register(&self) -> Result<Option<Others>, StoreError> {
        let inner = &self.0;
        let (settings, store) = (&inner.settings, &inner.settings.store);
        let known = json!({
            "node": settings.node,
            "url": settings.url.as_str(),
            "owner": inner.owner,
            "secret": inner.secret,
            "authority": self.told_authority(),
        });
        let args = [
            settings.node.clone(),
            known.to_string(),
            inner.owner.clone(),
            NODE_LEASE.as_millis().to_string(),
        ];
        let args = args.into_iter().map(String::into_bytes).collect();
        let answer = store.eval(&inner.scripts.register, keys(self), args).await?;
        let Value::Array(nodes) = answer else { return Ok(None) };
        let mut trusts = inner.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others(&nodes, &settings.node, &mut trusts);
        trusts.forget_unused(Instant::now());
        Ok(Some(others))
    }

    /// Takes this node out, and has those who are left know that it went by itself.
    pub(super) async fn unregister(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let (settings, store) = (&inner.settings, &inner.settings.store);
        let left = json!({ "node": settings.node, "left": true });
        let lease = NODE_LEASE.as_millis();
        let args = [settings.node.clone(), left.to_string(), lease.to_string()];
        let args = args.into_iter().map(String::into_bytes).collect();
        store.eval(&inner.scripts.leave, keys(self), args).await.map(drop)
    }

    /// Remembers what the store said. What it said last stays known while it is away.
    fn note(&self, joined: Result<Option<Others>, StoreError>) -> Result<(), String> {
        self.peers(|peers| match joined {
            Ok(Some(others)) => {
                peers.replace(others, Instant::now());
                peers.sees_store = true;
                Ok(())
            }
            Ok(None) => {
                peers.sees_store = true;
                let name = &self.0.settings.node;
                Err(format!("another server calls itself {name:?}; give each its own cluster.node"))
            }
            Err(error) => {
                peers.sees_store = false;
                Err(error.to_string())
            }
        })
    }
}

impl Peers {
    /// Takes those who are there at `now`, and remembers who was and is gone without a word.
    pub(super) fn replace(&mut self, others: Others, now: Instant) {
        let Others { there, left } = others;
        let before = std::mem::replace(&mut self.by_name, there);
        let (by_name, gone) = (&self.by_name, &mut self.gone);
        for name in before.into_keys() {
            gone.entry(name).or_insert(now);
        }
        gone.retain(|name, since| {
            !by_name.contains_key(name)
                && !left.contains(name)
                && now.duration_since(*since) < GONE_KEPT
        });
        while gone.len() > NODES_MAX {
            gone.pop_first();
        }
    }
}

/// What the nodes but the one called `own` told of themselves. Whatever else is in the store is passed over.
fn others(told: &[Value], own: &str, trusts: &mut Trusts) -> Others {
    let mut others = Others::default();
    for known in told.iter().take(NODES_MAX).filter_map(text) {
        let Ok(known) = serde_json::from_str::<serde_json::Value>(&known) else { continue };
        let Some(name) = known["node"].as_str().filter(|name| *name != own) else { continue };
        if known["left"] == true {
            others.left.insert(name.to_owned());
        } else if let Some(peer) = peer(name, &known, trusts) {
            others.there.insert(name.to_owned(), peer);
        }
    }
    others
}

fn peer(name: &str, known: &serde_json::Value, trusts: &mut Trusts) -> Option<Peer> {
    let of = |name: &str| known[name].as_str();
    let url: Url = of("url")?.parse().ok()?;
    let secret = of("secret")?.to_owned();
    let is_secure = url.scheme() == "https";
    let trust = is_secure.then(|| trusts.of(of("authority"), Instant::now())).flatten();
    Some(Peer { name: name.to_owned(), url, secret, trust })
}

/// An answer that is text; nothing for every other.
pub(super) fn text(value: &Value) -> Option<String> {
    if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the store tells them; a name that ends in `-` has left.
    fn nodes(names: &[&str]) -> Others {
        let node = |name: &&str| {
            let known = match name.strip_suffix('-') {
                None => json!({"node": name, "url": "http://10.0.0.1:8080", "secret": "s"}),
                Some(name) => json!({"node": name, "left": true}),
            };
            Value::BulkString(known.to_string().into_bytes())
        };
        let told: Vec<_> = names.iter().map(node).collect();
        others(&told, "own", &mut Trusts::new(None))
    }

    #[test]
    fn who_goes_by_himself_is_not_missed() {
        let start = Instant::now();
        let mut peers = Peers::default();
        peers.replace(nodes(&["n1", "n2", "own"]), start);
        assert_eq!(peers.by_name.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        peers.replace(nodes(&["n1-", "n2"]), start);
        assert_eq!(peers.by_name.keys().collect::<Vec<_>>(), ["n2"]);
        assert!(peers.gone.is_empty());
        peers.replace(nodes(&[]), start);
        assert_eq!(peers.gone.keys().collect::<Vec<_>>(), ["n2"]);
        // It was only slow to say goodbye.
        peers.replace(nodes(&["n2-"]), start);
        assert!(peers.gone.is_empty());
    }

    #[test]
    fn what_is_no_node_is_passed_over() {
        let told = ["", "{}", "[]", r#"{"node":"n1"}"#, r#"{"node":"n1","url":"%","secret":"s"}"#];
        let told = told.map(|text| Value::BulkString(text.as_bytes().to_vec()));
        let others = others(
            &[&told[..], &[Value::Nil, Value::Int(1)]].concat(),
            "own",
            &mut Trusts::new(None),
        );
        assert!(others.there.is_empty() && others.left.is_empty());
    }

    #[test]
    fn who_is_gone_is_remembered_until_he_is_back_or_forgotten() {
        let start = Instant::now();
        let mut peers = Peers::default();
        peers.replace(nodes(&["n1", "n2"]), start);
        assert!(peers.gone.is_empty());
        peers.replace(nodes(&["n2"]), start);
        peers.replace(nodes(&[]), start + GONE_KEPT / 2);
        assert_eq!(peers.gone["n1"], start, "from when it was missed first");
        peers.replace(nodes(&["n2"]), start + GONE_KEPT / 2);
        assert_eq!(peers.gone.keys().collect::<Vec<_>>(), ["n1"]);
        peers.replace(nodes(&["n2"]), start + GONE_KEPT);
        assert!(peers.gone.is_empty());
    }
}
