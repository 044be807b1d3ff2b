//! What a certificate says: until when it is good, and for which names. For who looks for faults; nothing
//! is decided by it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::files::{CertificateFiles, FilesError};

/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) begins: SystemTime,
    pub(crate) ends: SystemTime,
    /// Names and addresses that it is for.
    pub(crate) names: Vec<String>,
}

/// Why a certificate cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    /// Its files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// No connection, or no TLS on it.
    #[error("there is no TLS at {address}: {reason}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// What the network or the library said.
        reason: io::Error,
    },
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
}

impl Certificate {
    fn read(der: &[u8]) -> Result<Self, LookError> {
        let wrong = |error: x509_cert::der::Error| LookError::Malformed(error.to_string());
        let parsed = x509_cert::Certificate::from_der(der).map_err(wrong)?;
        let fields = parsed.tbs_certificate();
        let validity = fields.validity();
        let names = fields.get_extension::<SubjectAltName>().map_err(wrong)?;
        Ok(Self {
            begins: UNIX_EPOCH + validity.not_before.to_unix_duration(),
            ends: UNIX_EPOCH + validity.not_after.to_unix_duration(),
            names: names.iter().flat_map(|(_, names)| names.0.iter()).filter_map(text_of).collect(),
        })
    }

    /// Whether it is for this host, which may be an address.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            // One label, and no more (RFC 6125 §6.4.3).
            Some(domain) => {
                host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain))
            }
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is not ours; browsers go by names and addresses alone"
)]
fn text_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// The certificate of two files, once it is seen that one belongs to the other.
pub(crate) fn of_files(certificate: &Path, key: &Path) -> Result<Certificate, LookError> {
    let files = CertificateFiles::new(certificate.to_owned(), key.to_owned());
    let loaded = files.load()?;
    let leaf = loaded.cert.first().ok_or_else(|| LookError::Malformed("there is none".into()))?;
    Certificate::read(leaf)
}

/// The certificate that a server shows to who connects. Nothing is sent to it and nothing believed: it may be
/// anybody's.
pub(crate) async fn presented(address: SocketAddr, host: &str) -> Result<Certificate, LookError> {
    let failed = |reason| LookError::Handshake { address, reason };
    let handshake = async {
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Onlooker(algorithms)))
            .with_no_client_auth();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let stream = tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake)
        .await
        .map_err(late)
        .and_then(|done| done)
        .map_err(failed)?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = shown.ok_or_else(|| LookError::Malformed("none was shown".into()))?;
    Certificate::read(leaf)
}

/// Takes every certificate, to see what it says.
#[derive(Debug)]
struct Onlooker(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_a_certificate_are_read() {
        let names = ["cctv.example", "*.wall.example", "192.0.2.7", "2001:db8::7"];
        let made = rcgen::generate_simple_self_signed(names.map(String::from).to_vec()).unwrap();
        let certificate = Certificate::read(made.cert.der()).unwrap();
        assert_eq!(certificate.names, names);
        for host in ["cctv.example", "CCTV.example", "a.wall.example", "192.0.2.7", "[2001:db8::7]"]
        {
            assert!(certificate.is_for(host), "{host}");
        }
        for host in ["wall.example", "a.b.wall.example", "192.0.2.8", "other.example"] {
            assert!(!certificate.is_for(host), "{host}");
        }
        assert!(certificate.begins < certificate.ends);
        assert!(matches!(Certificate::read(b"none"), Err(LookError::Malformed(_))));
    }
}
