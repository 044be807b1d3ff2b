//! `[cluster]`: which node of which others this server is.

use std::path::PathBuf;

use url::Url;

use super::reader::{Section, Setting, text};
use super::store::Store;
use super::tree::Node;
use crate::cluster;

/// This server among others.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    node: String,
    url: Url,
    ca: Option<PathBuf>,
}

impl Cluster {
    /// What this node is called.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// What the application runs, with a store that was found to be one.
    pub(super) fn application(&self, store: &Store) -> Option<cluster::Settings> {
        let store = store.handle()?;
        let (node, url, ca) = (self.node.clone(), self.url.clone(), self.ca.clone());
        Some(cluster::Settings { node, url, store, ca, tls: None })
    }
}

struct Name(String);

impl Setting for Name {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "a name like \"n1\"")?;
        if cluster::is_node_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err("a node's name is 1 to 64 letters, digits, -, _ and .".to_owned())
    }
}

struct Address(Url);

impl Setting for Address {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "how other nodes reach this one, as in https://10.0.0.1:8443";
        let url = Url::parse(text(node, wanted)?).map_err(|error| format!("{error}; {wanted}"))?;
        let is_plain = ["http", "https"].contains(&url.scheme())
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/";
        if is_plain { Ok(Self(url)) } else { Err(format!("this must be {wanted}")) }
    }
}

/// `None` where nothing of it is written.
pub(super) fn read(mut section: Section<'_>, store: &Store) -> Option<Cluster> {
    let origin = section.origin_of("node");
    let node: Option<Name> = section.optional("node");
    let url: Option<Address> = section.optional("url");
    let ca: Option<String> = section.optional("ca").filter(|path: &String| !path.is_empty());
    let ca = ca.map(PathBuf::from);
    let cluster = match (node, url) {
        (Some(Name(node)), Some(Address(url))) => Some(Cluster { node, url, ca }),
        (None, None) => None,
        (Some(_), None) => {
            section.problem(origin, "url", "this is missing: how other nodes reach this one");
            None
        }
        (None, Some(_)) => {
            section.problem(origin, "node", "this is missing: what this node is called");
            None
        }
    };
    if cluster.is_some() && store.handle().is_none() {
        let origin = section.origin_of("node");
        let sentence = "nodes need a store that all of them share: set store.url";
        section.problem(origin, "node", sentence);
    }
    section.finish();
    cluster
}
