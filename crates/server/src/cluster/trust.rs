//! By whom another node is believed that is asked by HTTPS.
//!
//! With `cluster.ca` by the authorities of that file alone. Without it by those of this machine, and by the
//! local authority whose certificate the node has told the store of, as it did its address and what opens
//! it: whoever may write to the store is one of the nodes, with or without.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tracing::warn;

use super::Cluster;
use crate::remote::{Trust, TrustError};

/// How long authorities are believed before they are read anew: files are renewed while a server runs.
const TRUST_KEPT: Duration = Duration::from_secs(60);

/// Longest certificate of an authority that is taken from the store, as base64. Ours have 700 bytes.
const AUTHORITY_BYTES_MAX: usize = 16 * 1024;

/// What was made of authorities. Bounded by the nodes.
pub(super) struct Trusts {
    ca: Option<PathBuf>,
    /// By the certificate that a node told of itself; empty where it told none.
    made: BTreeMap<String, Made>,
}

struct Made {
    /// `None`: there is nobody to go by.
    trust: Option<Trust>,
    at: Instant,
    used: Instant,
}

impl Trusts {
    pub(super) fn new(ca: Option<PathBuf>) -> Self {
        Self { ca, made: BTreeMap::new() }
    }

    /// By whom a node is believed that told of `authority`.
    pub(super) fn of(&mut self, authority: Option<&str>, now: Instant) -> Option<Trust> {
        let told = authority.filter(|text| self.ca.is_none() && text.len() <= AUTHORITY_BYTES_MAX);
        let told = told.unwrap_or_default();
        let kept = self.made.get_mut(told);
        if let Some(made) = kept.filter(|made| now.duration_since(made.at) < TRUST_KEPT) {
            made.used = now;
            return made.trust.clone();
        }
        let trust = match &self.ca {
            Some(path) => of_file(path),
            None => Trust::of_machine(certificate(told)),
        };
        let before = self.made.remove(told).and_then(|made| made.trust);
        let trust = match trust {
            Ok(trust) => Some(trust),
            Err(error) => {
                warn!(%error, "other nodes are believed by what was read before, if by anything");
                before
            }
        };
        self.made.insert(told.to_owned(), Made { trust: trust.clone(), at: now, used: now });
        trust
    }

    /// Leaves out what no node has told for a while.
    pub(super) fn forget_unused(&mut self, now: Instant) {
        self.made.retain(|_, made| now.duration_since(made.used) < TRUST_KEPT);
    }
}

/// The authorities of `cluster.ca`.
pub(super) fn of_file(path: &Path) -> Result<Trust, TrustError> {
    Trust::of_file("cluster.ca", path)
}

fn certificate(told: &str) -> Option<CertificateDer<'static>> {
    let bytes = BASE64_STANDARD.decode(told).ok().filter(|bytes| !bytes.is_empty())?;
    Some(CertificateDer::from(bytes))
}

impl Cluster {
    /// The local authority that vouches for this node, for the store; `None` where others do.
    pub(super) fn told_authority(&self) -> Option<String> {
        let authority = self.0.settings.tls.as_ref()?.authority()?;
        Some(BASE64_STANDARD.encode(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::tests::Temporary;

    #[test]
    fn a_file_of_authorities_is_read_anew_and_kept_where_it_is_of_no_use_any_more() {
        let place = Temporary::new();
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let path = place.0.private_file("ca.crt").unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        let mut trusts = Trusts::new(Some(path.clone()));
        let start = Instant::now();
        assert!(trusts.of(Some("what a node told"), start).is_some());
        assert_eq!(trusts.made.keys().collect::<Vec<_>>(), [""], "only the file counts");

        std::fs::write(&path, "none").unwrap();
        assert!(trusts.of(None, start + TRUST_KEPT).is_some());
        assert!(Trusts::new(Some(path)).of(None, start).is_none());
    }

    #[test]
    fn what_nodes_told_is_forgotten_with_them() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let told = BASE64_STANDARD.encode(made.cert.der());
        let mut trusts = Trusts::new(None);
        let start = Instant::now();
        for text in [Some(&*told), Some("%"), None] {
            assert!(trusts.of(text, start).is_some(), "{text:?}");
        }
        let long = "A".repeat(AUTHORITY_BYTES_MAX + 1);
        assert!(trusts.of(Some(&long), start).is_some());
        assert_eq!(trusts.made.len(), 3, "one that is too long counts as none");
        assert!(trusts.of(None, start + TRUST_KEPT).is_some());
        trusts.forget_unused(start + TRUST_KEPT);
        assert_eq!(trusts.made.keys().collect::<Vec<_>>(), [""]);
    }
}
