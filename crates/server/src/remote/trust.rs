//! Whose certificates are believed when another server is asked by HTTPS. There is no way to believe all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Authorities whose word is taken. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

/// Why there are no authorities to go by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The file.
    #[error("{setting} {} cannot be read: {source}", path.display())]
    Unreadable {
        /// What names the file.
        setting: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content.
    #[error("{setting} {} holds no certificate of an authority (PEM, or DER)", path.display())]
    Empty {
        /// What names the file.
        setting: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The library refused its settings; not by anything that a person did.
    #[error("TLS could not be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl Trust {
    /// The authorities of a file alone, which `setting` names.
    pub(crate) fn of_file(setting: &'static str, path: &Path) -> Result<Self, TrustError> {
        let unreadable = |source| TrustError::Unreadable { setting, path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
        let certificates =
            if certificates.is_empty() { vec![CertificateDer::from(bytes)] } else { certificates };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(TrustError::Empty { setting, path: path.to_owned() });
        }
        Self::of(roots)
    }

    /// Those of this machine, and `own` beside them.
    pub(crate) fn of_machine(own: Option<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        // Without any, what a server shows is not believed, which is told with the way out.
        let found = rustls_native_certs::load_native_certs().certs;
        roots.add_parsable_certificates(found.into_iter().chain(own));
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, TrustError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Speaks TLS on a connection to `host`, as it is written in a URL.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

/// In the words of the library: people make such with `openssl req -x509`.
const AUTHORITY_SHOWN: &str = "CaUsedAsEndEntity";

/// What to do about an authority that is not known, for a person who types a command.
pub(crate) const GIVE_CA: &str = "give that authority's certificate with --ca FILE (a server that made its own has \
                                  it at /ca.crt; fetch it by a way that you trust)";

/// The same for a node that asks another one.
pub(crate) const NODE_GIVE_CA: &str = "name the file of that authority's certificate in cluster.ca";

/// Why what a server showed was not believed, with what to do; `None` where `error` is of another kind.
/// `give_ca` is what to do about an authority that is not known.
pub(crate) fn disbelief(error: &io::Error, give_ca: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(reason) = error else {
        let is_no_tls = matches!(error, rustls::Error::InvalidMessage(_));
        return is_no_tls.then(|| "no TLS is spoken there; ask it by http://".to_owned());
    };
    let sentence = |problem: &str, remedy: &str| Some(format!("{problem}; {remedy}"));
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and may grow")]
    match reason {
        CertificateError::UnknownIssuer => {
            sentence("its certificate is of an authority that this machine does not know", give_ca)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            sentence(
                "its certificate is for other names",
                "ask it under a name or address that is in the certificate",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => sentence(
            "its certificate's time is over",
            "renew it; if it is good, set this machine's clock",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            sentence("its certificate is not good yet", "set the clocks of both machines")
        }
        CertificateError::Other(other) if other.to_string().contains(AUTHORITY_SHOWN) => sentence(
            "its certificate is that of an authority (CA:TRUE), which a server must not show",
            "make it one that is none, and put that into http.certificate",
        ),
        other => sentence(
            &format!("its certificate cannot be believed ({other})"),
            "`manifold doctor` on the server says more of it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::tests::Temporary;

    fn file(bytes: &[u8]) -> (Temporary, PathBuf) {
        let place = Temporary::new();
        let path = place.0.private_file("ca.crt").unwrap();
        std::fs::write(&path, bytes).unwrap();
        (place, path)
    }

    #[test]
    fn an_authority_is_read_from_pem_and_der_and_nothing_else_is_one() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        for bytes in [made.cert.pem().into_bytes(), made.cert.der().to_vec()] {
            let (_held, path) = file(&bytes);
            assert!(Trust::of_file("--ca", &path).is_ok());
        }
        let (_held, path) = file(b"no certificate");
        let error = Trust::of_file("--ca", &path).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        let error = Trust::of_file("--ca", &path.join("none")).unwrap_err().to_string();
        assert!(error.starts_with("--ca ") && error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn what_is_not_believed_is_told_with_the_way_out_and_other_troubles_are_not() {
        let of = |error: rustls::Error| {
            disbelief(&io::Error::new(io::ErrorKind::InvalidData, error), GIVE_CA)
        };
        let unknown = of(CertificateError::UnknownIssuer.into()).unwrap();
        assert!(unknown.contains("--ca FILE"), "{unknown}");
        assert!(of(CertificateError::NotValidForName.into()).unwrap().contains("other names"));
        assert!(of(CertificateError::Expired.into()).unwrap().contains("clock"));
        assert_eq!(of(rustls::Error::HandshakeNotComplete), None);
        assert_eq!(disbelief(&io::ErrorKind::ConnectionRefused.into(), GIVE_CA), None);
    }
}
