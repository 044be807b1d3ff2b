//! Who is there: each node's lease in the store, and what the others need to know to reach it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ask::GONE_KEPT;
use super::{Cluster, Inner, Peer, Peers};
use crate::ledger::connection::StoreError;

/// How long a node is there after it said so: two times may get lost.
const NODE_LEASE: Duration = Duration::from_secs(3);

/// How often it says so.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that are remembered. A cluster is a handful of servers; the bound keeps a store with other
/// people's data from filling this one's memory.
const NODES_MAX: usize = 256;

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
    async fn register(&self) -> Result<Option<BTreeMap<String, Peer>>, StoreError> {
        let inner = &self.0;
        let (settings, store) = (&inner.settings, &inner.settings.store);
        let keys = [node_key(&settings.node), "stream:nodes".into(), "stream:nodes:until".into()];
        let known = json!({
            "node": settings.node,
            "url": settings.url.as_str(),
            "owner": inner.owner,
            "secret": inner.secret,
        });
        let args = [
            settings.node.clone(),
            known.to_string(),
            inner.owner.clone(),
            NODE_LEASE.as_millis().to_string(),
        ];
        let keys = keys.iter().map(|key| store.key(key)).collect();
        let args = args.into_iter().map(String::into_bytes).collect();
        let answer = store.eval(&inner.scripts.register, keys, args).await?;
        let Value::Array(nodes) = answer else { return Ok(None) };
        let peers = nodes.iter().filter_map(peer).filter(|peer| peer.name != settings.node);
        Ok(Some(peers.take(NODES_MAX).map(|peer| (peer.name.clone(), peer)).collect()))
    }

    /// Remembers what the store said. What it said last stays known while it is away.
    fn note(
        &self,
        joined: Result<Option<BTreeMap<String, Peer>>, StoreError>,
    ) -> Result<(), String> {
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
    /// Takes those who are there at `now`, and remembers who was.
    pub(super) fn replace(&mut self, others: BTreeMap<String, Peer>, now: Instant) {
        let before = std::mem::replace(&mut self.by_name, others);
        let (by_name, gone) = (&self.by_name, &mut self.gone);
        for name in before.into_keys() {
            gone.entry(name).or_insert(now);
        }
        gone.retain(|name, since| {
            !by_name.contains_key(name) && now.duration_since(*since) < GONE_KEPT
        });
        while gone.len() > NODES_MAX {
            gone.pop_first();
        }
    }
}

/// What a node told of itself. Whatever else is in the store is passed over.
fn peer(value: &Value) -> Option<Peer> {
    let known: serde_json::Value = serde_json::from_str(&text(value)?).ok()?;
    let of = |name: &str| known[name].as_str().map(ToOwned::to_owned);
    Some(Peer { name: of("node")?, url: of("url")?.parse().ok()?, secret: of("secret")? })
}

/// An answer that is text; nothing for every other.
pub(super) fn text(value: &Value) -> Option<String> {
    if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeMap<String, Peer> {
        let node = |name: &&str| {
            let known = json!({"node": name, "url": "http://10.0.0.1:8080", "secret": "s"});
            let known = Value::BulkString(known.to_string().into_bytes());
            let peer = peer(&known).unwrap();
            (peer.name.clone(), peer)
        };
        names.iter().map(node).collect()
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
