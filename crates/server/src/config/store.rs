//! `[store]`: where leases are kept, and the directory of what is made once.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::choice;
use super::reader::{Section, Setting, text};
use super::tree::Node;
use crate::ledger::connection::Store as StoreHandle;
use crate::ledger::{LedgerPlace, OnStoreLoss, SentinelLogin, StoreAddress};

/// Longest prefix of keys, in bytes. It stands before each of them.
const PREFIX_LENGTH_MAX: usize = 64;

/// Before all keys in a cluster where no prefix is written: scripts need them in one hash slot.
const CLUSTER_PREFIX: &str = "{manifold}";

/// Where leases are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    /// `None`: in this process's memory.
    address: Option<StoreAddress>,
    /// Before every key.
    prefix: String,
    on_store_loss: OnStoreLoss,
    /// Where what is made once is kept; elsewhere than usual, if set.
    pub(crate) data_dir: Option<PathBuf>,
}

impl Store {
    /// Where leases are kept. Each call makes a handle with a connection of its own.
    pub(crate) fn ledger(&self) -> LedgerPlace {
        match &self.address {
            None => LedgerPlace::Memory,
            Some(address) => LedgerPlace::Store {
                store: StoreHandle::new(address.clone(), self.prefix.clone()),
                on_loss: self.on_store_loss,
            },
        }
    }
}

impl Store {
    /// A handle to it, where it is one that other servers can share.
    pub(super) fn handle(&self) -> Option<StoreHandle> {
        let address = self.address.as_ref()?;
        Some(StoreHandle::new(address.clone(), self.prefix.clone()))
    }
}

/// An address, or none for "memory".
struct Address(Option<StoreAddress>);

impl Setting for Address {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "\"memory\" or the address of a store")?.trim();
        if text == "memory" {
            return Ok(Self(None));
        }
        StoreAddress::parse(text).map(Some).map(Self)
    }
}

impl Setting for OnStoreLoss {
    fn read(node: &Node) -> Result<Self, String> {
        choice(node, &[("keep", Self::Keep), ("refuse", Self::Refuse)])
    }
}

struct Prefix(String);

impl Setting for Prefix {
    fn read(node: &Node) -> Result<Self, String> {
        let text = text(node, "a text that stands before every key")?;
        let fits = |c: char| c.is_ascii_graphic();
        if text.len() > PREFIX_LENGTH_MAX || !text.chars().all(fits) {
            return Err(format!(
                "this must be at most {PREFIX_LENGTH_MAX} letters, digits and signs, without spaces"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

pub(super) fn read(mut section: Section<'_>) -> Store {
    let address = section.value("url", Address(None)).0;
    let is_cluster = address.as_ref().is_some_and(StoreAddress::is_cluster);
    let origin = section.origin_of("prefix");
    let usual = if is_cluster { CLUSTER_PREFIX } else { "" };
    let Prefix(prefix) = section.value("prefix", Prefix(usual.to_owned()));
    if is_cluster && !has_hash_tag(&prefix) {
        let sentence = "in a cluster this must have a hash tag like \"{manifold}\", so that all keys \
                        lie on one server";
        section.problem(origin, "prefix", sentence);
    }
    let on_store_loss = section.value("on_store_loss", OnStoreLoss::Keep);
    let data_dir: Option<String> = section.optional("data_dir");
    let ca = read_ca(&mut section, address.as_ref());
    let login = read_sentinel_login(&mut section, address.as_ref());
    let address = address.map(|address| address.trusting(ca).with_sentinel_login(login));
    section.finish();
    let data_dir = data_dir.filter(|path| !path.is_empty()).map(PathBuf::from);
    Store { address, prefix, on_store_loss, data_dir }
}

/// Whom to trust with the store.
fn read_ca(section: &mut Section<'_>, address: Option<&StoreAddress>) -> Option<PathBuf> {
    let origin = section.origin_of("ca");
    let path: String = section.optional("ca").filter(|path: &String| !path.is_empty())?;
    if !address.is_some_and(StoreAddress::is_tls) {
        let sentence = "certificates are those of TLS: write rediss:// (with two s) in `store.url`";
        section.problem(origin, "ca", sentence);
    }
    Some(PathBuf::from(path))
}

fn read_sentinel_login(section: &mut Section<'_>, address: Option<&StoreAddress>) -> SentinelLogin {
    let origin = section.origin_of("sentinel_password");
    let user: Option<String> = section.optional("sentinel_user");
    let password: Option<SecretString> = section.optional("sentinel_password");
    let login = SentinelLogin {
        user: user.filter(|user| !user.is_empty()),
        password: password.filter(|password| !password.expose_secret().is_empty()),
    };
    if login.password.is_some() && !address.is_some_and(StoreAddress::is_sentinel) {
        let sentence =
            "only redis+sentinel:// has Sentinels; the servers' password is in `store.url`";
        section.problem(origin, "sentinel_password", sentence);
    }
    login
}

/// A cluster places a key by what stands between its first '{' and the next '}', if anything does.
fn has_hash_tag(prefix: &str) -> bool {
    let tag = prefix.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}
