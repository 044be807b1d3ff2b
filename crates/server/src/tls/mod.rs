//! TLS for whatever listens: with certificate files, or with a certificate authority of this server's own
//! that people install once, since browsers open the microphone to nobody else.
//!
//! | module | what |
//! |---|---|
//! | `machine` | the names and addresses that a certificate must have |
//! | `authority` | the local authority: made once, kept, signs |
//! | `files` | certificate files |
//! | `keeper` | renews and reloads |
//! | `look` | what a certificate says, for who looks for faults |
//!
//! It knows no HTTP. Nothing here asks a public authority: that takes a name of the Internet, and who has
//! one has a tool that writes files.

mod authority;
mod files;
mod keeper;
mod look;
mod machine;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::data_dir::DataDir;
pub(crate) use authority::kept_authority;
pub(crate) use look::{Certificate, LookError, of_files, presented};

use authority::{AuthorityError, CLOCK_FLOOR};
use files::{CertificateFiles, FilesError};
use keeper::{FileKeeper, Identity, Keeper, LocalKeeper};
use machine::Machine;

/// How often files and interfaces are looked at, which takes 0.1 ms. Who plugs a cable in waits no longer
/// for a certificate that fits.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificates {
    /// Of an authority of this server's own.
    Local,
    /// Of PEM files, read anew when they change.
    Files {
        /// The server's certificate, and those of the authorities between it and a known one.
        certificate: PathBuf,
        /// Its key, not encrypted.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The local authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificate files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The library refused its settings; not by anything that a person did.
    #[error("TLS could not be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// A certificate that is always right, for any number of listeners. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tls(Arc<Shown>);

/// What keeps the certificate right while it runs.
pub(crate) struct Upkeep {
    keeper: Keeper,
    shown: Arc<Shown>,
    advertised: Vec<IpAddr>,
}

/// Opens what is there, or makes it. `advertised` are addresses that lead to this machine without being
/// its own.
pub(crate) fn open(
    certificates: &Certificates,
    data: DataDir,
    advertised: Vec<IpAddr>,
) -> Result<(Tls, Upkeep), TlsError> {
    let (keeper, identity) = match certificates {
        Certificates::Local => {
            let machine = Machine::look(&advertised);
            let local = LocalKeeper::open(data, &machine, clock())?;
            let identity = local.identity();
            (Keeper::Local(Box::new(local)), identity)
        }
        Certificates::Files { certificate, key } => {
            let files = CertificateFiles::new(certificate.clone(), key.clone());
            let (files, identity) = FileKeeper::open(files)?;
            (Keeper::Files(Box::new(files)), identity)
        }
    };
    let shown = Arc::new(Shown(RwLock::new(identity)));
    Ok((Tls(Arc::clone(&shown)), Upkeep { keeper, shown, advertised }))
}

impl Tls {
    /// For a listener whose clients may speak one of `protocols` (RFC 7301), as in `http/1.1`.
    pub(crate) fn acceptor(&self, protocols: &[&str]) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&self.0));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// The certificate of the local authority, which people install; `None` with certificate files.
    pub(crate) fn authority(&self) -> Option<CertificateDer<'static>> {
        self.0.identity().authority
    }
}

impl Upkeep {
    /// Renews and reloads until `closing` is cancelled. Open connections keep what they have.
    pub(crate) async fn run(self, closing: CancellationToken) {
        let Self { mut keeper, shown, advertised } = self;
        let advertised: Arc<[IpAddr]> = advertised.into();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = looks.tick() => {}
            }
            let advertised = Arc::clone(&advertised);
            // Files may lie on a network that does not answer.
            let looked = tokio::task::spawn_blocking(move || {
                let newest = keeper.look(&Machine::look(&advertised), clock());
                (keeper, newest)
            });
            let Ok((back, newest)) = looked.await else {
                tracing::error!(
                    "certificates are not looked after any more; start the server again"
                );
                return;
            };
            keeper = back;
            if let Some(identity) = newest {
                shown.replace(identity);
            }
        }
    }
}

fn clock() -> SystemTime {
    SystemTime::now().max(UNIX_EPOCH + CLOCK_FLOOR)
}

/// What the next handshake is answered with.
#[derive(Debug)]
struct Shown(RwLock<Identity>);

impl Shown {
    fn identity(&self) -> Identity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.identity().key)
    }
}
