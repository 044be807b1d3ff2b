//! A certificate authority of this server alone, whose certificate people install on their phones once.
//!
//! It is made once and kept in the data directory, in one file, so that its key and its certificate
//! cannot come apart. What it may vouch for is limited by its own certificate (name constraints, RFC 5280
//! §4.2.1.10): of names only those of local networks, and the name that this host had, so that whoever
//! steals the key cannot pass for a site of the web. Addresses are not limited, for a local network may
//! have any.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;

use super::machine::Machine;
use crate::data_dir::{DataDir, DataError};

/// In the data directory: the key and the certificate, as PEM (RFC 7468).
const FILE: &str = "local-ca.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A small machine without a clock of its own begins in 1970 until the network has told it the time. What
/// it made then would be over soon; 2026-01-01 is no later than this program.
pub(super) const CLOCK_FLOOR: Duration = Duration::from_secs(1_767_225_600);

/// People install it once; ten years outlive the phones.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3652 * 24 * 60 * 60);

/// Apple takes at most 825 days of authorities that users install, and 398 of all others.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A third of its life is left for clocks that are wrong.
const RENEWED_BEFORE_END: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How far a phone's clock may be behind ours.
const CLOCK_LAG_MAX: Duration = DAY;

/// Names of local networks: multicast DNS (RFC 6762), this machine (RFC 6761), home networks
/// (RFC 8375), what ICANN keeps for private use, and what home routers hand out. What ends with one of
/// them is meant as well.
const LOCAL_NAMES: [&str; 7] =
    ["localhost", "local", "home.arpa", "internal", "lan", "home", "localdomain"];

/// The authority, ready to sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    permitted: Vec<String>,
    end: SystemTime,
}

/// Why there is no local authority.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The data directory does not let it be kept.
    #[error("the local certificate authority cannot be kept: {0}")]
    Data(#[from] DataError),
    /// What is kept is damaged.
    #[error(
        "{} holds no local certificate authority any more ({reason}); bring it back, or remove it: then a \
         new one is made, which must be installed on all phones anew",
        path.display()
    )]
    Broken {
        /// The whole path.
        path: PathBuf,
        /// What is wrong with it; nothing of the key.
        reason: String,
    },
    /// The cryptography refused; not by anything that a person did.
    #[error("a certificate could not be made: {0}")]
    Unsigned(String),
}

/// A certificate for this machine.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) key: Arc<CertifiedKey>,
    machine: Machine,
    begin: SystemTime,
    end: SystemTime,
}

impl Leaf {
    /// Whether `machine` needs another: it is called what this one does not say, or the time has come.
    /// An address that went away is no reason: it may come back.
    pub(super) fn is_due(&self, machine: &Machine, now: SystemTime) -> bool {
        let is_named = machine.addresses().is_subset(self.machine.addresses())
            && machine.names().is_subset(&self.machine.names());
        !is_named || now < self.begin || now >= self.end - RENEWED_BEFORE_END
    }
}

/// The certificate of the authority that is kept in `data`, for who asks the server of this machine; `None`
/// where there is none, or none that this user may read.
pub(crate) fn kept_authority(data: &DataDir) -> Option<CertificateDer<'static>> {
    let text = std::fs::read(data.path(FILE)).ok()?;
    CertificateDer::from_pem_slice(&text).ok()
}

impl Authority {
    /// The one that is kept, or a new one where there is none or its time is over.
    pub(super) fn open(
        data: &DataDir,
        machine: &Machine,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let Some(text) = data.read(FILE)? else {
            return Self::make(data, machine, now);
        };
        let broken = |reason| AuthorityError::Broken { path: data.path(FILE), reason };
        let kept = Self::parse(&text).map_err(broken)?;
        if !kept.is_over(now) {
            return Ok(kept);
        }
        tracing::warn!(
            "the local certificate authority has come to its end and a new one is made; install \
             /ca.crt on all phones anew"
        );
        Self::make(data, machine, now)
    }

    /// Whether what it signs would outlive it.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        now + LEAF_LIFE > self.end
    }

    /// What people install.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    fn make(data: &DataDir, machine: &Machine, now: SystemTime) -> Result<Self, AuthorityError> {
        let text = new_authority(machine, now).map_err(unsigned)?;
        data.write(FILE, &text)?;
        tracing::info!(file = %data.path(FILE).display(), "a local certificate authority was made");
        Self::parse(&text).map_err(AuthorityError::Unsigned)
    }

    /// Reads key and certificate. Errors say nothing of the key.
    fn parse(text: &str) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "there is no certificate in it")?;
        let key = KeyPair::from_pem(text).map_err(|_| "there is no private key in it")?;
        let wrong = |error| format!("its certificate cannot be read: {error}");
        let parsed = x509_cert::Certificate::from_der(&certificate).map_err(wrong)?;
        let fields = parsed.tbs_certificate();
        let public_key = &fields.subject_public_key_info().subject_public_key;
        if public_key.raw_bytes() != key.der_bytes() {
            return Err("its key does not belong to its certificate".to_owned());
        }
        let end = UNIX_EPOCH + fields.validity().not_after.to_unix_duration();
        let permitted = permitted_names(fields).map_err(wrong)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| format!("its certificate cannot be used: {error}"))?;
        Ok(Self { issuer, certificate, permitted, end })
    }

    /// A certificate for all names and addresses of `machine` that this authority may vouch for.
    pub(super) fn issue(&self, machine: &Machine, now: SystemTime) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate().map_err(unsigned)?;
        let names = machine.names().into_iter().filter(|name| self.permits(name)).collect();
        let (begin, end) = (now - CLOCK_LAG_MAX, now - CLOCK_LAG_MAX + LEAF_LIFE);
        let parameters = leaf_parameters(machine, names, begin, end).map_err(unsigned)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(unsigned)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(unsigned)?;
        let chain = vec![certificate.der().clone()];
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(unsigned)?;
        Ok(Leaf { key: Arc::new(key), machine: machine.clone(), begin, end })
    }

    fn permits(&self, name: &str) -> bool {
        self.permitted.iter().any(|root| {
            name.strip_suffix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

fn unsigned(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Unsigned(error.to_string())
}

/// Key and certificate of a new authority, as PEM.
fn new_authority(machine: &Machine, now: SystemTime) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    // The number tells two authorities of one host apart, in a phone's list too.
    let number = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("Manifold on {} ({})", machine.title(), &number[..8]);
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    // However wrong the clock was that it was made by.
    parameters.not_before = date_time_ymd(1970, 1, 1) + CLOCK_FLOOR;
    parameters.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + AUTHORITY_LIFE);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let names: BTreeSet<String> =
        machine.names().into_iter().chain(LOCAL_NAMES.map(ToOwned::to_owned)).collect();
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.into_iter().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: Vec::new(),
    });
    let certificate = parameters.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

fn leaf_parameters(
    machine: &Machine,
    names: Vec<String>,
    begin: SystemTime,
    end: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("Manifold on {}", machine.title()));
    parameters.not_before = date_time_ymd(1970, 1, 1) + since_1970(begin);
    parameters.not_after = date_time_ymd(1970, 1, 1) + since_1970(end);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let addresses = machine.addresses().iter().copied().map(SanType::IpAddress);
    let names = names.into_iter().map(|name| Ia5String::try_from(name).map(SanType::DnsName));
    parameters.subject_alt_names = addresses.map(Ok).chain(names).collect::<Result<_, _>>()?;
    Ok(parameters)
}

/// In whole seconds, as certificates have them (RFC 5280 §4.1.2.5).
fn since_1970(time: SystemTime) -> Duration {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(since.as_secs())
}

/// The names that the authority's own certificate limits it to.
fn permitted_names(
    fields: &x509_cert::TbsCertificate,
) -> Result<Vec<String>, x509_cert::der::Error> {
    let constraints = fields.get_extension::<x509_cert::ext::pkix::NameConstraints>()?;
    let subtrees =
        constraints.and_then(|(_, limits)| limits.permitted_subtrees).unwrap_or_default();
    let name = |subtree: x509_cert::ext::pkix::constraints::name::GeneralSubtree| {
        if let GeneralName::DnsName(name) = subtree.base { Some(name.to_string()) } else { None }
    };
    Ok(subtrees.into_iter().filter_map(name).collect())
}
