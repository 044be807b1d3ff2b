//! A certificate and its key in files of somebody else, who replaces them when their time has come.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Largest file. A chain of ten certificates with RSA keys has 20 KiB.
const LENGTH_MAX: u64 = 1024 * 1024;

/// The files, by their names: what they hold is read anew whenever it has changed.
#[derive(Debug, Clone)]
pub(super) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why the files cannot be used. Nothing of what they hold is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// One is not there, or must not be read.
    #[error("cannot read {} ({setting}): {source}", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// Which setting names it.
        setting: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificate is none.
    #[error("{} ({CERTIFICATE}) holds no certificate in PEM, the server's own first", .0.display())]
    NoCertificate(PathBuf),
    /// The key is none.
    #[error("{} ({KEY}) holds no private key in PEM that is not encrypted", .0.display())]
    NoKey(PathBuf),
    /// Both are, and cannot be used.
    #[error("{} ({CERTIFICATE}) cannot be used with {} ({KEY}): {reason}", certificate.display(), key.display())]
    Unfit {
        /// As configured.
        certificate: PathBuf,
        /// As configured.
        key: PathBuf,
        /// As when the one does not belong to the other.
        reason: rustls::Error,
    },
}

const CERTIFICATE: &str = "http.certificate";
const KEY: &str = "http.key";

/// What tells a file that was replaced or rewritten from what it was; links are followed, for that is
/// how certbot replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 2]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Of the content and of the inode, in nanoseconds.
    changed: [(i64, i64); 2],
}

impl From<Metadata> for FileStamp {
    fn from(about: Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            length: about.len(),
            changed: [(about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec())],
        }
    }
}

impl CertificateFiles {
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key }
    }

    /// How both files are at present; a file that cannot be looked at is a state too.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |path| std::fs::metadata(path).ok().map(FileStamp::from);
        Stamp([stamp(&self.certificate), stamp(&self.key)])
    }

    /// Reads both, and checks that one belongs to the other.
    pub(super) fn load(&self) -> Result<Arc<CertifiedKey>, FilesError> {
        let text = read(&self.certificate, CERTIFICATE)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.unwrap_or_default();
        if chain.is_empty() {
            return Err(FilesError::NoCertificate(self.certificate.clone()));
        }
        let text = read(&self.key, KEY)?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| FilesError::NoKey(self.key.clone()))?;
        let usable = CertifiedKey::from_der(chain, key, &default_provider());
        usable.map(Arc::new).map_err(|reason| FilesError::Unfit {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason,
        })
    }
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, FilesError> {
    let within_bounds = || {
        if std::fs::metadata(path)?.len() > LENGTH_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
        }
        std::fs::read(path)
    };
    let unreadable = |source| FilesError::Unreadable { path: path.to_owned(), setting, source };
    within_bounds().map_err(unreadable)
}
