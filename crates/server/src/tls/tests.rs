//! What a client that trusts the local authority, and nothing else, makes of it; by a clock that is moved.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::*;
use crate::data_dir::tests::Temporary;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day in 2026.
fn today() -> SystemTime {
    UNIX_EPOCH + CLOCK_FLOOR + 200 * DAY
}

fn machine(host: &str, addresses: &str) -> Machine {
    let addresses = addresses.split_whitespace().map(|ip| ip.parse::<IpAddr>().unwrap());
    Machine::new(host, addresses)
}

fn home() -> Machine {
    machine("nas", "192.168.1.7 fd00::7 203.0.113.9")
}

fn local(data: &Temporary, machine: &Machine, now: SystemTime) -> Keeper {
    Keeper::Local(Box::new(LocalKeeper::open(data.0.clone(), machine, now).unwrap()))
}

fn opened(data: &Temporary, machine: &Machine, now: SystemTime) -> Identity {
    LocalKeeper::open(data.0.clone(), machine, now).unwrap().identity()
}

#[derive(Debug)]
struct Clock(SystemTime);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).ok()?))
    }
}

/// A whole handshake at `now`, by a client that trusts `authority` alone and opens `name`.
fn visit(
    identity: &Identity,
    authority: &CertificateDer<'static>,
    name: &str,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let tls = Tls(Arc::new(Shown(RwLock::new(identity.clone()))));
    let acceptor = tls.acceptor(&["http/1.1"]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock(now)))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut server = ServerConnection::new(Arc::clone(acceptor.config()))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut flight.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut flight = Vec::new();
        server.write_tls(&mut flight).unwrap();
        client.read_tls(&mut flight.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(())
}

fn authority(identity: &Identity) -> CertificateDer<'static> {
    identity.authority.clone().unwrap()
}

#[test]
fn the_authority_is_made_once_and_kept() {
    let data = Temporary::new();
    let first = opened(&data, &home(), today());
    let second = opened(&data, &home(), today() + 400 * DAY);

    assert_eq!(authority(&first), authority(&second));
    // Who installed it once opens what was made later.
    visit(&second, &authority(&first), "nas.local", today() + 400 * DAY).unwrap();
    let path = data.0.path("local-ca.pem");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    std::fs::remove_file(path).unwrap();
    assert_ne!(authority(&opened(&data, &home(), today())), authority(&first));
}

#[test]
fn every_address_and_name_of_the_machine_is_trusted_and_no_other() {
    let data = Temporary::new();
    let identity = opened(&data, &home(), today());
    let visit = |name: &str| visit(&identity, &authority(&identity), name, today());
    for name in [
        "192.168.1.7",
        "fd00::7",
        "203.0.113.9",
        "127.0.0.1",
        "::1",
        "nas",
        "nas.local",
        "localhost",
    ] {
        visit(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in ["192.168.1.8", "bank.example", "local", "other.local"] {
        assert!(visit(name).is_err(), "{name}");
    }
}

/// Signs with the key of the authority, as somebody would who stole it.
fn forged(data: &Temporary, trusted: &CertificateDer<'_>, name: &str) -> Identity {
    let text = data.0.read("local-ca.pem").unwrap().unwrap();
    let issuer = Issuer::from_ca_cert_der(trusted, KeyPair::from_pem(&text).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![certificate.der().clone()];
    let key = CertifiedKey::from_der(chain, key, &default_provider()).unwrap();
    Identity { key: Arc::new(key), authority: None }
}

#[test]
fn a_stolen_authority_cannot_pass_for_a_site_of_the_web() {
    let data = Temporary::new();
    let trusted = authority(&opened(&data, &home(), today()));

    let neighbour = forged(&data, &trusted, "tv.local");
    visit(&neighbour, &trusted, "tv.local", today()).unwrap();
    let bank = forged(&data, &trusted, "bank.example");
    let refused = visit(&bank, &trusted, "bank.example", today()).unwrap_err();

    assert!(format!("{refused:?}").contains("NameConstraintViolation"), "{refused:?}");
}

#[test]
fn a_host_that_is_called_like_a_part_of_the_web_cannot_pass_for_that() {
    let data = Temporary::new();
    let host = opened(&data, &machine("cam", "192.168.1.7"), today());
    let trusted = authority(&host);
    visit(&host, &trusted, "cam.local", today()).unwrap();

    let bank = forged(&data, &trusted, "bank.cam");
    let refused = visit(&bank, &trusted, "bank.cam", today()).unwrap_err();

    assert!(format!("{refused:?}").contains("NameConstraintViolation"), "{refused:?}");
}

#[test]
fn a_host_that_was_renamed_is_opened_by_what_its_authority_may_vouch_for() {
    let data = Temporary::new();
    let trusted = authority(&opened(&data, &home(), today()));
    let renamed = opened(&data, &machine("cam.example", "192.168.1.7"), today());

    visit(&renamed, &trusted, "192.168.1.7", today()).unwrap();
    visit(&renamed, &trusted, "cam.local", today()).unwrap();
    assert!(visit(&renamed, &trusted, "cam.example", today()).is_err());
}

#[test]
fn a_certificate_is_renewed_a_month_before_its_end() {
    let data = Temporary::new();
    let mut keeper = local(&data, &home(), today());
    let first = opened(&data, &home(), today());
    let trusted = authority(&first);
    assert!(visit(&first, &trusted, "nas", today() + 88 * DAY).is_ok());
    assert!(visit(&first, &trusted, "nas", today() + 90 * DAY).is_err(), "it has an end");

    assert!(keeper.look(&home(), today() + 58 * DAY).is_none());
    let renewed = keeper.look(&home(), today() + 60 * DAY).unwrap();
    assert!(keeper.look(&home(), today() + 60 * DAY).is_none(), "once is enough");

    assert_eq!(authority(&renewed), trusted);
    visit(&renewed, &trusted, "nas", today() + 140 * DAY).unwrap();
}

#[test]
fn a_clock_that_was_wrong_at_the_start_does_no_harm() {
    let data = Temporary::new();
    let future = today() + 1000 * DAY;
    let mut keeper = local(&data, &home(), future);
    let trusted = authority(&opened(&data, &home(), future));

    let back = keeper.look(&home(), today()).unwrap();
    visit(&back, &trusted, "nas", today()).unwrap();
    let ahead = keeper.look(&home(), today() + 2000 * DAY).unwrap();
    visit(&ahead, &trusted, "nas", today() + 2000 * DAY).unwrap();
}

#[test]
fn the_authority_itself_is_made_anew_before_it_ends() {
    let data = Temporary::new();
    let mut keeper = local(&data, &home(), today());
    let first = authority(&opened(&data, &home(), today()));

    let nine_years = today() + 3500 * DAY;
    let last = keeper.look(&home(), nine_years).unwrap();
    assert_eq!(authority(&last), first);
    let end = today() + 3600 * DAY;
    let next = keeper.look(&home(), end).unwrap();

    assert_ne!(authority(&next), first);
    visit(&next, &authority(&next), "nas", end).unwrap();
    assert_eq!(authority(&opened(&data, &home(), end)), authority(&next), "it is kept");
}

#[test]
fn a_new_address_is_in_the_next_certificate_and_one_that_went_is_no_reason() {
    let data = Temporary::new();
    let mut keeper = local(&data, &home(), today());
    assert!(keeper.look(&machine("nas", "192.168.1.7"), today()).is_none());

    let moved = keeper.look(&machine("nas", "10.0.0.7"), today()).unwrap();
    visit(&moved, &authority(&moved), "10.0.0.7", today()).unwrap();
    let renamed = keeper.look(&machine("attic", "10.0.0.7"), today()).unwrap();
    visit(&renamed, &authority(&renamed), "attic.local", today()).unwrap();
}

#[test]
fn a_damaged_authority_is_told_and_nothing_of_its_key() {
    let data = Temporary::new();
    opened(&data, &home(), today());
    let kept = data.0.read("local-ca.pem").unwrap().unwrap();
    let other = Temporary::new();
    opened(&other, &home(), today());
    let stranger = other.0.read("local-ca.pem").unwrap().unwrap();
    let key_of =
        |text: &str| text.split_inclusive("-----END PRIVATE KEY-----\n").next().map(String::from);
    let certificate_of =
        |text: &str| text.split("-----END PRIVATE KEY-----\n").nth(1).map(String::from);
    let mixed = key_of(&kept).unwrap() + &certificate_of(&stranger).unwrap();
    let cases = [
        (String::new(), "there is no certificate in it"),
        (key_of(&kept).unwrap(), "there is no certificate in it"),
        (certificate_of(&kept).unwrap(), "there is no private key in it"),
        (mixed, "its key does not belong to its certificate"),
    ];
    for (text, reason) in cases {
        data.0.write("local-ca.pem", &text).unwrap();
        let error = LocalKeeper::open(data.0.clone(), &home(), today()).err().unwrap();
        let sentence = error.to_string();
        assert!(sentence.contains(reason) && sentence.contains("local-ca.pem"), "{sentence}");
        assert!(sentence.contains("remove it"), "{sentence}");
        let secret: BTreeSet<&str> = kept.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(secret.iter().all(|line| !sentence.contains(line)), "{sentence}");
    }
}

/// Certificate files of a test, beside each other.
struct Pair {
    folder: Temporary,
}

impl Pair {
    fn new(name: &str) -> Self {
        let pair = Self { folder: Temporary::new() };
        pair.write(name);
        pair
    }

    fn certificate(&self) -> PathBuf {
        self.folder.0.path("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.0.path("key.pem")
    }

    fn write(&self, name: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        self.folder.0.write("cert.pem", &made.cert.pem()).unwrap();
        self.folder.0.write("key.pem", &made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    fn files(&self) -> CertificateFiles {
        CertificateFiles::new(self.certificate(), self.key())
    }

    fn refusal(&self) -> String {
        self.files().load().err().unwrap().to_string()
    }
}

/// What the keeper has at the second look after a change; the files are at rest by then.
fn look_twice(keeper: &mut Keeper) -> Option<Identity> {
    assert!(keeper.look(&home(), today()).is_none(), "they may still be written");
    keeper.look(&home(), today())
}

#[test]
fn files_that_were_replaced_are_read_anew() {
    let pair = Pair::new("a.example");
    let (files, first) = FileKeeper::open(pair.files()).unwrap();
    let mut keeper = Keeper::Files(Box::new(files));
    assert!(first.authority.is_none(), "there is nothing to install");
    assert!(look_twice(&mut keeper).is_none());

    let wanted = pair.write("b.example");

    let second = look_twice(&mut keeper).unwrap();
    assert_eq!(second.key.cert, [wanted]);
    assert_ne!(first.key.cert, second.key.cert);
    assert!(look_twice(&mut keeper).is_none());
}

#[test]
fn files_that_are_broken_change_nothing_until_they_are_right_again() {
    let pair = Pair::new("a.example");
    let (files, _) = FileKeeper::open(pair.files()).unwrap();
    let mut keeper = Keeper::Files(Box::new(files));
    std::fs::remove_file(pair.key()).unwrap();
    assert!(look_twice(&mut keeper).is_none());
    let mut half = std::fs::OpenOptions::new().append(true).open(pair.certificate()).unwrap();
    half.write_all(b"-----BEGIN CERTIFICATE-----\n").unwrap();
    assert!(look_twice(&mut keeper).is_none());

    let wanted = pair.write("c.example");

    assert_eq!(look_twice(&mut keeper).unwrap().key.cert, [wanted]);
}

#[test]
fn files_that_cannot_be_used_are_told_with_file_and_setting() {
    let pair = Pair::new("a.example");
    let (certificate, key) =
        (pair.certificate().display().to_string(), pair.key().display().to_string());
    let right = std::fs::read_to_string(pair.key()).unwrap();

    std::fs::write(pair.key(), "no key").unwrap();
    let sentence = format!("{key} (http.key) holds no private key in PEM that is not encrypted");
    assert_eq!(pair.refusal(), sentence);
    std::fs::write(pair.key(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let wanted = format!("{certificate} (http.certificate) cannot be used with {key} (http.key): ");
    assert!(pair.refusal().starts_with(&wanted), "{}", pair.refusal());
    std::fs::write(pair.key(), right).unwrap();
    std::fs::write(pair.certificate(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert!(pair.refusal().contains("(http.certificate) holds no certificate in PEM"));
    std::fs::remove_file(pair.certificate()).unwrap();
    let wanted = format!("cannot read {certificate} (http.certificate): No such file");
    assert!(pair.refusal().starts_with(&wanted), "{}", pair.refusal());
}
