//! Keeps the certificate right: renewed in time, replaced when the machine's addresses or the files
//! change. It looks when it is told to, at the time that it is told.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::authority::{Authority, AuthorityError, Leaf};
use super::files::{CertificateFiles, FilesError, Stamp};
use super::machine::Machine;
use crate::data_dir::DataDir;

/// What connections are served with from now on.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// What people install; `None` with files of somebody else.
    pub(super) authority: Option<CertificateDer<'static>>,
}

/// Where certificates come from.
pub(super) enum Keeper {
    /// Of an authority of this server's own.
    Local(Box<LocalKeeper>),
    /// Of files.
    Files(Box<FileKeeper>),
}

impl Keeper {
    /// What has changed since the last look.
    pub(super) fn look(&mut self, machine: &Machine, now: SystemTime) -> Option<Identity> {
        match self {
            Self::Local(local) => local.look(machine, now),
            Self::Files(files) => files.look(),
        }
    }
}

/// The local authority and its newest certificate.
pub(super) struct LocalKeeper {
    data: DataDir,
    authority: Authority,
    leaf: Leaf,
    /// What was last complained of, so that it is not said every time.
    complaint: Option<String>,
}

impl LocalKeeper {
    pub(super) fn open(
        data: DataDir,
        machine: &Machine,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let authority = Authority::open(&data, machine, now)?;
        let leaf = authority.issue(machine, now)?;
        Ok(Self { data, authority, leaf, complaint: None })
    }

    pub(super) fn identity(&self) -> Identity {
        let authority = Some(self.authority.certificate().clone());
        Identity { key: Arc::clone(&self.leaf.key), authority }
    }

    fn look(&mut self, machine: &Machine, now: SystemTime) -> Option<Identity> {
        if !self.leaf.is_due(machine, now) {
            return None;
        }
        match self.renew(machine, now) {
            Ok(()) => {
                self.complaint = None;
                tracing::info!("a new certificate was made for HTTPS");
                Some(self.identity())
            }
            Err(error) => {
                complain(&mut self.complaint, error.to_string());
                None
            }
        }
    }

    fn renew(&mut self, machine: &Machine, now: SystemTime) -> Result<(), AuthorityError> {
        if self.authority.is_over(now) {
            self.authority = Authority::open(&self.data, machine, now)?;
        }
        self.leaf = self.authority.issue(machine, now)?;
        Ok(())
    }
}

/// Files of somebody else.
pub(super) struct FileKeeper {
    files: CertificateFiles,
    /// Of what was tried last, with or without success.
    tried: Stamp,
    /// At the last look.
    seen: Stamp,
    complaint: Option<String>,
}

impl FileKeeper {
    pub(super) fn open(files: CertificateFiles) -> Result<(Self, Identity), FilesError> {
        // Before they are read: what is written meanwhile is read once more.
        let stamp = files.stamp();
        let key = files.load()?;
        let keeper = Self { files, tried: stamp, seen: stamp, complaint: None };
        Ok((keeper, Identity { key, authority: None }))
    }

    /// Reads the files once they have changed, and have not changed any more since the last look: who
    /// replaces two files does so one after the other.
    fn look(&mut self) -> Option<Identity> {
        let stamp = self.files.stamp();
        let is_at_rest = std::mem::replace(&mut self.seen, stamp) == stamp;
        if stamp == self.tried || !is_at_rest {
            return None;
        }
        self.tried = stamp;
        match self.files.load() {
            Ok(key) => {
                self.complaint = None;
                tracing::info!("the new certificate files are used for HTTPS");
                Some(Identity { key, authority: None })
            }
            Err(error) => {
                complain(&mut self.complaint, error.to_string());
                None
            }
        }
    }
}

/// Says what is wrong, once.
fn complain(complaint: &mut Option<String>, sentence: String) {
    if complaint.as_ref() != Some(&sentence) {
        tracing::warn!("{sentence}; HTTPS goes on with the certificate that it has");
        *complaint = Some(sentence);
    }
}
