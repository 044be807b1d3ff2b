//! DTLS 1.2 for peers whose certificate has an RSA key, as GStreamer's has up to 1.22.
//!
//! `dimpl` asks a client for an ECDSA certificate only (CertificateRequest, RFC 5246 §7.4.4), and a
//! client that has another one then sends none. The rest it leaves to its crypto provider. So the
//! request is widened on its way out, and both places that read the transcript read it as the peer
//! saw it: the handshake's hash (Finished, extended master secret) and the check of the peer's
//! signature. Where the two sides would differ by a byte, the handshake fails; nothing is let in.
//!
//! ```text
//! CertificateRequest   types 1: ecdsa_sign         algorithms n                      authorities 0
//! as it leaves         types 2: …, rsa_sign        algorithms n + 2: …, two of PKCS#1           0
//! ```
//! This holds for our being the server of DTLS alone. Our own certificate stays ECDSA. This module checks no fingerprint: str0m compares the
//! certificate with the one of the SDP, whatever its key.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey,
};
use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, HashContext, HashProvider, SignatureAlgorithm,
    SignatureVerifier,
};
use dimpl::{Config, CryptoError, Dtls};
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError as ProviderError;
use str0m::crypto::dtls::{DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};
use x509_cert::der::Decode;

/// `ClientCertificateType` (RFC 5246 §7.4.4).
const RSA_SIGN: u8 = 1;

/// `rsa_pkcs1_sha256` and `rsa_pkcs1_sha384` (RFC 5246 §7.4.1.4.1), which is what DTLS 1.2 signs with.
const RSA_ALGORITHMS: [u8; 4] = [4, 1, 5, 1];

const CLIENT_HELLO: u8 = 1;
const CERTIFICATE_REQUEST: u8 = 13;
/// A record's header (RFC 6347 §4.1): type, version, epoch and sequence number, length.
const RECORD_HEADER: usize = 13;
/// A message's header (RFC 6347 §4.2.2): type, length, number, fragment offset and length.
const MESSAGE_HEADER: usize = 12;

/// Messages of a transcript up to the CertificateRequest: ClientHello, ServerHello, Certificate and
/// ServerKeyExchange come before it. Those behind it are not looked at.
const MAX_MESSAGES: usize = 8;

/// Makes DTLS instances that take peers with RSA certificates too.
#[derive(Debug)]
pub(super) struct DtlsForAll;

impl DtlsProvider for DtlsForAll {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, ProviderError> {
        // ICE has proved the address before DTLS begins, so that cookies would only cost a round trip.
        let mut config =
            Config::builder().use_server_cookie(false).with_crypto_provider(PROVIDER.clone());
        if let Some(mtu) = mtu {
            config = config.mtu(mtu);
        }
        let config = config.build().map_err(|error| {
            ProviderError::Other(format!("the DTLS library refuses its settings: {error}"))
        })?;
        Ok(Box::new(Instance(Dtls::new_12(Arc::new(config), certificate.clone(), now))))
    }
}

static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(|| {
    let provider = dimpl::crypto::aws_lc_rs::default_provider();
    CryptoProvider { signature_verification: &Verifier, hash_provider: &Hashes, ..provider }
});

/// What leaves, with the request widened if it is in there. A datagram of DTLS, else untouched.
pub(super) fn widen_request(datagram: Vec<u8>) -> Vec<u8> {
    match widened_records(&datagram) {
        Some(widened) => widened,
        None => datagram,
    }
}

/// `None` without a request.
fn widened_records(datagram: &[u8]) -> Option<Vec<u8>> {
    const HANDSHAKE: u8 = 22;
    let mut widened = Vec::new();
    let mut rest = datagram;
    let mut has_request = false;
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER) {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        let (body, next) = behind.split_at_checked(length)?;
        let is_plain_handshake = header[0] == HANDSHAKE && header[3..5] == [0, 0];
        let messages = is_plain_handshake.then(|| widened_messages(body)).flatten();
        has_request |= messages.is_some();
        let body = messages.as_deref().unwrap_or(body);
        widened.extend_from_slice(&header[..11]);
        widened.extend_from_slice(&u16::try_from(body.len()).ok()?.to_be_bytes());
        widened.extend_from_slice(body);
        rest = next;
    }
    (has_request && rest.is_empty()).then_some(widened)
}

/// The transcript of a handshake as the peer has it; other text is returned as it is.
fn as_peer_saw(transcript: &[u8]) -> Cow<'_, [u8]> {
    if transcript.first() != Some(&CLIENT_HELLO) {
        return Cow::Borrowed(transcript);
    }
    widened_messages(transcript).map_or(Cow::Borrowed(transcript), Cow::Owned)
}

/// Messages with the request among them widened. `None` when there is no whole one.
fn widened_messages(messages: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    for _ in 0..MAX_MESSAGES {
        let header = messages.get(at..at + MESSAGE_HEADER)?;
        let is_whole = header[1..4] == header[9..12] && header[6..9] == [0, 0, 0];
        let end = at + MESSAGE_HEADER + number(&header[9..12]);
        let body = messages.get(at + MESSAGE_HEADER..end)?;
        if header[0] == CERTIFICATE_REQUEST && is_whole {
            let body = widened_body(body)?;
            let length = &u32::try_from(body.len()).ok()?.to_be_bytes()[1..];
            let (before, after) = (&messages[..at], &messages[end..]);
            let header = [&header[..1], length, &header[4..9], length].concat();
            return Some([before, &header, &body, after].concat());
        }
        at = end;
    }
    None
}

/// The body of a CertificateRequest that takes RSA as well.
fn widened_body(body: &[u8]) -> Option<Vec<u8>> {
    let (count, rest) = body.split_first()?;
    let (types, rest) = rest.split_at_checked(usize::from(*count))?;
    let (length, rest) = rest.split_at_checked(2)?;
    let (algorithms, authorities) = rest.split_at_checked(number(length))?;
    let length = u16::try_from(algorithms.len() + RSA_ALGORITHMS.len()).ok()?.to_be_bytes();
    let count = [count.checked_add(1)?];
    Some([&count, types, &[RSA_SIGN], &length, algorithms, &RSA_ALGORITHMS, authorities].concat())
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

/// Hashes transcripts as the peer saw them.
#[derive(Debug)]
struct Hashes;

impl HashProvider for Hashes {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        let provider = dimpl::crypto::aws_lc_rs::default_provider().hash_provider;
        Box::new(Hash(provider.create_hash(algorithm)))
    }
}

#[derive(Debug)]
struct Hash(Box<dyn HashContext>);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        // dimpl hands over a transcript as a whole, from the ClientHello on.
        self.0.update(&as_peer_saw(data));
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        self.0.clone_and_finalize(out);
    }
}

/// Checks what the peer signed: the transcript (RFC 5246 §7.4.8).
#[derive(Debug)]
struct Verifier;

impl SignatureVerifier for Verifier {
    fn verify_signature(
        &self,
        certificate: &[u8],
        data: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        let data = as_peer_saw(data);
        if algorithm == SignatureAlgorithm::RSA {
            return verify_rsa(certificate, &data, signature, hash);
        }
        let provider = dimpl::crypto::aws_lc_rs::default_provider().signature_verification;
        provider.verify_signature(certificate, &data, signature, hash, algorithm)
    }
}

fn verify_rsa(
    certificate: &[u8],
    data: &[u8],
    signature: &[u8],
    hash: HashAlgorithm,
) -> Result<(), CryptoError> {
    let scheme = match hash {
        HashAlgorithm::SHA256 => &RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::SHA384 => &RSA_PKCS1_2048_8192_SHA384,
        _ => return Err(CryptoError::UnsupportedSignatureAlgorithm(SignatureAlgorithm::RSA)),
    };
    let certificate = x509_cert::Certificate::from_der(certificate)
        .map_err(|_| CryptoError::CertificateParseFailed)?;
    let key = certificate.tbs_certificate().subject_public_key_info();
    // Whatever key it is: one that is no RSA key is refused with its signature.
    let key = key.subject_public_key.as_bytes().ok_or(CryptoError::InvalidSubjectPublicKey)?;
    UnparsedPublicKey::new(scheme, key)
        .verify(data, signature)
        .map_err(|_| CryptoError::UnsupportedPublicKeyAlgorithm)
}

/// str0m's view of a [`Dtls`].
struct Instance(Dtls);

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buffer)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello of two bytes, then a CertificateRequest as dimpl writes it.
    const TRANSCRIPT: [u8; 36] = [
        1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xfe, 0xfd, // ClientHello
        13, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 10, // CertificateRequest
        1, 64, 0, 4, 4, 3, 5, 3, 0, 0,
    ];
    /// The same as the peer got it.
    const WIDENED: [u8; 41] = [
        1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xfe, 0xfd, //
        13, 0, 0, 15, 0, 4, 0, 0, 0, 0, 0, 15, //
        2, 64, 1, 0, 8, 4, 3, 5, 3, 4, 1, 5, 1, 0, 0,
    ];
    /// Made by `openssl req -x509 -newkey rsa:2048`, and its key's signature of [`WIDENED`].
    const CERTIFICATE: &[u8] = include_bytes!("../../testdata/rsa/certificate.der");
    const SIGNATURE: &[u8] = include_bytes!("../../testdata/rsa/signature.bin");

    /// Messages in a record of epoch 0.
    fn record(messages: &[u8]) -> Vec<u8> {
        let length = u16::try_from(messages.len()).unwrap().to_be_bytes();
        let header: &[u8] = &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 3];
        [header, &length, messages].concat()
    }

    #[test]
    fn the_request_asks_for_rsa_too_and_the_transcript_says_the_same() {
        assert_eq!(as_peer_saw(&TRANSCRIPT)[..], WIDENED);
        let later = [TRANSCRIPT.as_slice(), &[11, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(as_peer_saw(&later)[41..], later[36..], "what follows stays");

        let hello_done = record(&[14, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]);
        let sent = [record(&TRANSCRIPT[14..]), hello_done.clone()].concat();
        assert_eq!(widen_request(sent), [record(&WIDENED[14..]), hello_done].concat());
    }

    #[test]
    fn whatever_else_is_sent_or_hashed_stays() {
        let encrypted = {
            let mut record = record(&TRANSCRIPT[14..]);
            record[4] = 1;
            record
        };
        let fragment = record(&[13, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 2, 1, 64]);
        for datagram in [encrypted, fragment, record(&[]), vec![22; 14], Vec::new()] {
            assert_eq!(widen_request(datagram.clone()), datagram);
        }
        for data in [&TRANSCRIPT[14..] as &[u8], &TRANSCRIPT[..14], &TRANSCRIPT[..30], b"hello"] {
            assert_eq!(&as_peer_saw(data)[..], data);
        }
    }

    #[test]
    fn an_rsa_signature_is_checked() {
        let verify = |data: &[u8], signature: &[u8], hash| {
            Verifier.verify_signature(CERTIFICATE, data, signature, hash, SignatureAlgorithm::RSA)
        };
        assert_eq!(verify(&TRANSCRIPT, SIGNATURE, HashAlgorithm::SHA256), Ok(()));

        let mut other = SIGNATURE.to_vec();
        other[100] ^= 1;
        assert!(verify(&TRANSCRIPT, &other, HashAlgorithm::SHA256).is_err(), "another signature");
        assert!(verify(&TRANSCRIPT[..35], SIGNATURE, HashAlgorithm::SHA256).is_err(), "other text");
        assert!(verify(&TRANSCRIPT, SIGNATURE, HashAlgorithm::SHA384).is_err(), "another hash");
        assert!(verify(&TRANSCRIPT, SIGNATURE, HashAlgorithm::SHA1).is_err(), "a hash of old");
        assert!(verify(&TRANSCRIPT, &[], HashAlgorithm::SHA256).is_err(), "none");
    }

    #[test]
    fn an_ecdsa_certificate_does_not_pass_as_rsa() {
        let certificate = DtlsForAll.generate_certificate().unwrap().certificate;
        let hash = HashAlgorithm::SHA256;
        let refused = Verifier.verify_signature(
            &certificate,
            &TRANSCRIPT,
            SIGNATURE,
            hash,
            SignatureAlgorithm::RSA,
        );
        assert!(refused.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = as_peer_saw(&bytes);
            let _ = widen_request(record(&bytes));
            let _ = widen_request(bytes);
        }
    }
}
