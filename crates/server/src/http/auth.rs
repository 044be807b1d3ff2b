//! Access tokens: JSON Web Tokens signed with HMAC-SHA-256, in LiveKit's format.
//!
//! One key signs, every configured key is accepted. The algorithm is fixed: what the token's header
//! says of it is compared, never followed. What a token is good for is decided here too; whether
//! the reservation still lives is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use control::{CameraId, ReservationId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};

use super::wire::{Claims, VideoGrant};
use crate::app::{KeyNumber, Permit};
use crate::config;
use crate::revocations::Revocations;

/// Longest token that is looked at. Ours have about 400 characters.
const TOKEN_LENGTH_MAX: usize = 4096;

/// Clocks of token makers may be ahead by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

/// The last second of the year 9999, the last that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// Name of the key that is made at start when none is configured.
const OWN_KEY_ID: &str = "manifold";

/// Signs and checks tokens.
pub(crate) struct Keyring {
    /// Never empty; the first signs.
    keys: RwLock<Arc<[Key]>>,
    /// Lifetime of viewers' tokens.
    ttl: Duration,
    revoked: Revocations,
    next_number: AtomicU32,
}

#[derive(Clone)]
struct Key {
    id: String,
    number: KeyNumber,
    /// To know it again when the settings are read anew. `None`: it was made here.
    secret: Option<SecretString>,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Key {
    fn new(number: KeyNumber, entry: &config::ApiKey) -> Self {
        let secret = entry.secret.expose_secret().as_bytes();
        Self {
            id: entry.id.clone(),
            number,
            secret: Some(entry.secret.clone()),
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
        }
    }

    /// One that nobody knows.
    fn random(number: KeyNumber) -> Result<Self, SignError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| SignError::NoRandomness)?;
        Ok(Self {
            id: OWN_KEY_ID.to_owned(),
            number,
            secret: None,
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
        })
    }

    fn is(&self, entry: &config::ApiKey) -> bool {
        let same = |secret: &SecretString| {
            verify_slices_are_equal(
                secret.expose_secret().as_bytes(),
                entry.secret.expose_secret().as_bytes(),
            )
        };
        self.id == entry.id && self.secret.as_ref().is_some_and(|secret| same(secret).is_ok())
    }
}

/// Why a token opens nothing: 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// No `Authorization` header.
    #[error("there is no token; send Authorization: Bearer <token>")]
    Missing,
    /// Another scheme than `Bearer`.
    #[error("the Authorization header is not of the form: Bearer <token>")]
    NotBearer,
    /// Not a JSON Web Token.
    #[error("the token is malformed")]
    Malformed,
    /// `none`, `RS256` and everything else.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// `iss` names no configured key.
    #[error("the token is signed with a key that this server does not have")]
    UnknownKey,
    /// The signature is not that of its key.
    #[error("the token has a bad signature")]
    Signature,
    /// `exp` is past.
    #[error("the token expired at {at}; ask for a fresh one by heartbeat or reserve again")]
    Expired {
        /// RFC 3339, UTC.
        at: String,
    },
    /// `nbf` is to come.
    #[error("the token is valid from {at} on; check the clocks")]
    NotYet {
        /// RFC 3339, UTC.
        at: String,
    },
    /// It was taken back.
    #[error("the token was revoked: its viewer was sent away by an operator")]
    Revoked,
    /// Role and sources are not what they must be. The rest of a sentence.
    #[error("the token's attributes are wrong: {0}")]
    Attributes(String),
}

/// Why a valid token does not open this: 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    /// The token names another camera's room.
    #[error("the token is for another room, not {room}")]
    OtherRoom {
        /// The room that was asked for.
        room: String,
    },
    /// A token that is not from a reservation.
    #[error("the token is no viewer's token; use the token that reserve answered")]
    NotAViewer,
    /// A viewer's token at the API.
    #[error("the token may not call this; it needs the grant roomAdmin or roomCreate")]
    NotAnAdmin,
    /// A viewer's token at somebody else's reservation.
    #[error("the token is for another reservation")]
    OtherReservation,
    /// A viewer names somebody else.
    #[error("a viewer reserves for himself alone: the token is for user_id {identity:?}")]
    NotHimself {
        /// Whom the token is for.
        identity: String,
    },
    /// A viewer's token where somebody's things are to be changed.
    #[error("the token lets its holder watch, and change nothing here; it needs the role operator")]
    NotAnOperator,
}

/// The system gave no random bytes, or the claims could not be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// `getrandom` failed.
    #[error("the system gives no random numbers to make a signing key of")]
    NoRandomness,
    /// The library refused.
    #[error("a token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl Keyring {
    /// Takes the configured keys, or makes a random one: then tokens end with the process.
    pub(crate) fn new(auth: &config::Auth) -> Result<Self, SignError> {
        let keyring = Self {
            keys: RwLock::new(Arc::new([])),
            ttl: auth.token_ttl,
            revoked: Revocations::default(),
            next_number: AtomicU32::new(0),
        };
        keyring.replace(&auth.keys)?;
        Ok(keyring)
    }

    /// Takes other keys from here on: tokens of those that are gone open nothing any more. Returns all
    /// that there are now.
    pub(crate) fn replace(&self, entries: &[config::ApiKey]) -> Result<Vec<KeyNumber>, SignError> {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let number = || KeyNumber(self.next_number.fetch_add(1, Ordering::Relaxed));
        let known = |entry| current.iter().find(|key| key.is(entry)).cloned();
        let mut keys: Vec<Key> = entries
            .iter()
            .map(|entry| known(entry).unwrap_or_else(|| Key::new(number(), entry)))
            .collect();
        if keys.is_empty() {
            let own = current.iter().find(|key| key.secret.is_none()).cloned();
            keys.push(own.map_or_else(|| Key::random(number()), Ok)?);
        }
        let numbers = keys.iter().map(|key| key.number).collect();
        *current = keys.into();
        Ok(numbers)
    }

    /// All keys as they are told apart: one that has another secret has another number.
    pub(crate) fn numbered(&self) -> Vec<(String, KeyNumber)> {
        self.keys().iter().map(|key| (key.id.clone(), key.number)).collect()
    }

    /// The ids of all keys, the one that signs first.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.keys().iter().map(|key| key.id.clone()).collect()
    }

    fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The token that lets the viewer of `reservation` watch `camera`.
    pub(crate) fn viewer_token(
        &self,
        reservation: &ReservationId,
        camera: &CameraId,
        now: SystemTime,
    ) -> Result<String, SignError> {
        self.viewer_pass(reservation, camera, now).map(|pass| pass.token)
    }

    /// The same, with what it allows.
    pub(crate) fn viewer_pass(
        &self,
        reservation: &ReservationId,
        camera: &CameraId,
        now: SystemTime,
    ) -> Result<Pass, SignError> {
        let video = VideoGrant {
            room_join: true,
            room: camera.room_name(),
            can_subscribe: Some(true),
            can_publish: Some(false),
            room_admin: false,
            room_create: false,
        };
        let claims = Claims {
            iss: String::new(),
            sub: reservation.viewer_identity(),
            exp: unix(now).saturating_add(self.ttl.as_secs()),
            nbf: unix(now),
            jti: String::new(),
            video,
            attributes: BTreeMap::new(),
        };
        self.sign(claims)
    }

    /// Signs with the first key; `iss` and `jti` are filled in.
    pub(crate) fn sign(&self, mut claims: Claims) -> Result<Pass, SignError> {
        let keys = self.keys();
        let key = keys.first().ok_or(SignError::NoRandomness)?;
        claims.iss.clone_from(&key.id);
        claims.jti = uuid::Uuid::new_v4().to_string();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key.encoding)?;
        Ok(Pass { token, permit: Permit { until: time(claims.exp), key: key.number } })
    }

    /// Takes back all tokens of a reservation, whether they were made already or not.
    pub(crate) fn revoke(&self, reservation: &ReservationId, now: SystemTime) {
        self.revoked.insert(reservation.viewer_identity(), now + self.ttl + CLOCK_SKEW, now);
    }

    /// What was taken back.
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revoked
    }

    /// How long a viewer's token is good.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What the token of an `Authorization` header says, if it holds at `now`.
    pub(crate) fn verify(
        &self,
        authorization: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Grant, TokenError> {
        self.verify_token(bearer(authorization.ok_or(TokenError::Missing)?)?, now)
    }

    /// What a token says, if it holds at `now`.
    pub(crate) fn verify_token(&self, token: &str, now: SystemTime) -> Result<Grant, TokenError> {
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(TokenError::Malformed);
        }
        check_algorithm(token)?;
        let unverified: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| TokenError::Malformed)?;
        let keys = self.keys();
        let key = keys.iter().find(|key| key.id == unverified.iss);
        let key = key.ok_or(TokenError::UnknownKey)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation())
            .map_err(|_| TokenError::Signature)?;
        check_times(&data.claims, now)?;
        let revoked = &self.revoked;
        if revoked.contains(&data.claims.sub) || revoked.contains(&data.claims.jti) {
            return Err(TokenError::Revoked);
        }
        Ok(Grant { claims: data.claims, key: key.number })
    }
}

/// A signed token. No `Debug`, for it is a secret.
pub(crate) struct Pass {
    pub(crate) token: String,
    /// What it allows.
    pub(crate) permit: Permit,
}

/// What a verified token allows.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    claims: Claims,
    key: KeyNumber,
}

impl Grant {
    /// The reservation, if the token lets its holder watch in `room`.
    pub(crate) fn viewer_of(&self, room: &str) -> Result<ReservationId, GrantError> {
        let video = &self.claims.video;
        if video.room != room {
            return Err(GrantError::OtherRoom { room: room.to_owned() });
        }
        let id = self.claims.sub.strip_prefix("viewer_");
        let id = id.and_then(|id| ReservationId::parse(id).ok()).ok_or(GrantError::NotAViewer)?;
        let may_watch = video.room_join && video.can_subscribe != Some(false);
        if may_watch { Ok(id) } else { Err(GrantError::NotAViewer) }
    }

    /// How long it lets its holder watch.
    pub(crate) fn permit(&self) -> Permit {
        Permit { until: time(self.claims.exp), key: self.key }
    }

    /// Whom the token was made for.
    pub(crate) fn subject(&self) -> &str {
        &self.claims.sub
    }

    /// The room that its holder may join; empty where none is named.
    pub(crate) fn room(&self) -> &str {
        let video = &self.claims.video;
        if video.room_join && video.can_subscribe != Some(false) { &video.room } else { "" }
    }

    /// Whether it is for the viewer of a reservation, rather than for a person or a program.
    pub(crate) fn is_viewers(&self) -> bool {
        self.claims.sub.starts_with("viewer_")
    }

    /// The reservation that it is for, if it is a viewer's of one.
    pub(crate) fn reservation(&self) -> Option<ReservationId> {
        ReservationId::parse(self.claims.sub.strip_prefix("viewer_")?).ok()
    }

    /// One of LiveKit's `attributes`, if it is there. `Err` where it is no text: half a sentence.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<&str>, String> {
        match self.claims.attributes.get(name) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} must be a text")),
        }
    }

    /// Whether the token may call the API.
    pub(crate) fn admin(&self) -> Result<(), GrantError> {
        let video = &self.claims.video;
        if video.room_admin || video.room_create { Ok(()) } else { Err(GrantError::NotAnAdmin) }
    }
}

/// The reservation that a token claims to be of, whether it is true or not: for notes on tokens that were
/// not accepted, and for nothing else.
pub(super) fn claimed_reservation(authorization: Option<&[u8]>) -> Option<ReservationId> {
    let token = bearer(authorization?).ok().filter(|token| token.len() <= TOKEN_LENGTH_MAX)?;
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    ReservationId::parse(claims.sub.strip_prefix("viewer_")?).ok()
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
pub(super) fn bearer(header: &[u8]) -> Result<&str, TokenError> {
    let header = std::str::from_utf8(header).map_err(|_| TokenError::NotBearer)?;
    let (scheme, token) = header.trim().split_once(' ').ok_or(TokenError::NotBearer)?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    if is_bearer { Ok(token.trim()) } else { Err(TokenError::NotBearer) }
}

fn check_algorithm(token: &str) -> Result<(), TokenError> {
    if token.split('.').count() != 3 {
        return Err(TokenError::Malformed);
    }
    match jsonwebtoken::decode_header(token) {
        Ok(header) if header.alg == Algorithm::HS256 => Ok(()),
        Ok(_) => Err(TokenError::Algorithm),
        Err(error) if is_unknown_name(&error) => Err(TokenError::Algorithm),
        Err(_) => Err(TokenError::Malformed),
    }
}

/// `none` and unheard-of algorithms are no value of the library's enum.
fn is_unknown_name(error: &jsonwebtoken::errors::Error) -> bool {
    matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(json) if json.is_data())
}

/// The signature alone: times are compared with our own clock and skew.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    let now = unix(now);
    if claims.exp <= now {
        return Err(TokenError::Expired { at: rfc3339(claims.exp) });
    }
    if claims.nbf > now + CLOCK_SKEW.as_secs() {
        return Err(TokenError::NotYet { at: rfc3339(claims.nbf) });
    }
    Ok(())
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The claims may hold any number; what is beyond the last second of 9999 is that one.
fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND))
}

/// Years over 9999 are the last second of 9999: the claims may hold any number.
fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(time(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    const SECRET: &str = "a-secret-of-at-least-32-characters!!";
    const OTHER: &str = "another-secret-of-32-characters!!!!!";
    const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn keyring(keys: &[(&str, &str)]) -> Keyring {
        let keys = keys
            .iter()
            .map(|(id, secret)| config::ApiKey { id: (*id).to_owned(), secret: (*secret).into() })
            .collect();
        let token_ttl = Duration::from_secs(3600);
        Keyring::new(&config::Auth { mode: config::AuthMode::Open, keys, token_ttl }).unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn token(keyring: &Keyring) -> String {
        let reservation = ReservationId::parse(UUID).unwrap();
        keyring.viewer_token(&reservation, &CameraId::parse("cam-1").unwrap(), now()).unwrap()
    }

    fn verify(keyring: &Keyring, token: &str) -> Result<Grant, TokenError> {
        keyring.verify(Some(format!("Bearer {token}").as_bytes()), now())
    }

    /// A token with any header and claims, its signature made with `SECRET`.
    fn forged(header: &str, claims: &serde_json::Value) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(header), part(&claims.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "iss": "dev", "sub": format!("viewer_{UUID}"), "exp": 1_800_000_060_u64,
            "video": {"roomJoin": true, "room": "camera_cam-1"},
        })
    }

    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn an_own_token_opens_its_room_and_no_other() {
        let keyring = keyring(&[("dev", SECRET)]);
        let grant = verify(&keyring, &token(&keyring)).unwrap();
        assert_eq!(grant.viewer_of("camera_cam-1").unwrap().as_str(), UUID);
        let other = grant.viewer_of("camera_cam-2").unwrap_err();
        assert_eq!(other.to_string(), "the token is for another room, not camera_cam-2");
        assert_eq!(grant.admin(), Err(GrantError::NotAnAdmin));
    }

    #[test]
    fn a_token_made_elsewhere_in_livekits_format_is_accepted() {
        let keyring = keyring(&[("dev", SECRET)]);
        let grant = verify(&keyring, &forged(HS256, &claims())).unwrap();
        assert!(grant.viewer_of("camera_cam-1").is_ok(), "canSubscribe is yes where not said");
    }

    #[test]
    fn every_configured_key_is_accepted_and_the_first_signs() {
        let old = keyring(&[("old", OTHER)]);
        let both = keyring(&[("dev", SECRET), ("old", OTHER)]);
        assert!(verify(&both, &token(&old)).is_ok());
        assert_eq!(verify(&old, &token(&both)).unwrap_err(), TokenError::UnknownKey);
    }

    #[test]
    fn a_random_key_is_made_where_none_is_configured() {
        let (one, two) = (keyring(&[]), keyring(&[]));
        assert!(verify(&one, &token(&one)).is_ok());
        assert_eq!(verify(&two, &token(&one)).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn keys_are_changed_while_tokens_are_about() {
        let entry =
            |id: &str, secret: &str| config::ApiKey { id: id.to_owned(), secret: secret.into() };
        let keyring = keyring(&[("old", OTHER)]);
        let before = token(&keyring);
        let old = keyring.replace(&[entry("old", OTHER)]).unwrap()[0];
        let both = keyring.replace(&[entry("new", SECRET), entry("old", OTHER)]).unwrap();
        let (new, kept) = (both[0], both[1]);
        assert!(kept == old && new != old, "a key that stays is the same");
        let after = token(&keyring);
        assert_eq!(verify(&keyring, &before).unwrap().permit().key, old);
        assert_eq!(verify(&keyring, &after).unwrap().permit().key, new);
        keyring.replace(&[entry("new", SECRET)]).unwrap();
        assert_eq!(verify(&keyring, &before).unwrap_err(), TokenError::UnknownKey);
        assert!(verify(&keyring, &after).is_ok());
        let changed = keyring.replace(&[entry("new", OTHER)]).unwrap();
        assert!(!changed.contains(&new), "another secret is another key");
        assert_eq!(verify(&keyring, &after).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn the_key_that_was_made_here_stays_when_settings_are_read_anew() {
        let keyring = keyring(&[]);
        let before = token(&keyring);
        keyring.replace(&[]).unwrap();
        assert!(verify(&keyring, &before).is_ok());
    }

    #[test]
    fn a_key_does_not_speak_for_another() {
        let keyring = keyring(&[("dev", SECRET), ("other", OTHER)]);
        let mut as_other = claims();
        as_other["iss"] = "other".into();
        let error = verify(&keyring, &forged(HS256, &as_other)).unwrap_err();
        assert_eq!(error, TokenError::Signature, "signed by dev in other's name");
        let mut nobody = claims();
        nobody["iss"] = "".into();
        assert_eq!(verify(&keyring, &forged(HS256, &nobody)).unwrap_err(), TokenError::UnknownKey);
    }

    #[test]
    fn what_was_taken_back_opens_nothing_until_it_would_have_expired() {
        let keyring = keyring(&[("dev", SECRET)]);
        let (mine, reservation) = (token(&keyring), ReservationId::parse(UUID).unwrap());
        keyring.revoke(&reservation, now());
        assert_eq!(verify(&keyring, &mine).unwrap_err(), TokenError::Revoked);
        assert_eq!(verify(&keyring, &token(&keyring)).unwrap_err(), TokenError::Revoked);
        let mut other = claims();
        other["sub"] = "viewer_67e55044-10b1-426f-9247-bb680e5fe0c9".into();
        assert!(verify(&keyring, &forged(HS256, &other)).is_ok());
    }

    #[test]
    fn the_algorithm_is_ours_whatever_the_header_says() {
        let keyring = keyring(&[("dev", SECRET)]);
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"typ":"JWT"}"#,
        ] {
            let token = forged(header, &claims());
            assert_eq!(verify(&keyring, &token).unwrap_err(), TokenError::Algorithm, "{header}");
        }
        let unsigned = forged(r#"{"alg":"none"}"#, &claims());
        let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
        assert_eq!(verify(&keyring, unsigned).unwrap_err(), TokenError::Algorithm);
    }

    #[test]
    fn a_changed_token_has_a_bad_signature() {
        let keyring = keyring(&[("dev", SECRET)]);
        let good = forged(HS256, &claims());
        let mut other = claims();
        other["video"]["room"] = "camera_cam-2".into();
        let other = forged(HS256, &other);
        let parts: Vec<&str> = good.split('.').collect();
        let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
        assert_eq!(verify(&keyring, &swapped).unwrap_err(), TokenError::Signature);
        let stripped = format!("{}.{}.", parts[0], parts[1]);
        assert_eq!(verify(&keyring, &stripped).unwrap_err(), TokenError::Signature);
        let wrong_key = self::keyring(&[("dev", OTHER)]);
        assert_eq!(verify(&wrong_key, &good).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn times_are_kept() {
        let keyring = keyring(&[("dev", SECRET)]);
        let with = |key: &str, value: u64| {
            let mut claims = claims();
            claims[key] = value.into();
            verify(&keyring, &forged(HS256, &claims)).map(|_| ()).unwrap_err().to_string()
        };
        assert!(
            with("exp", 1_800_000_000).starts_with("the token expired at 2027-01-15T08:00:00Z")
        );
        assert!(with("exp", 0).starts_with("the token expired at 1970-01-01T00:00:00Z"));
        assert!(
            with("nbf", 1_800_000_011).starts_with("the token is valid from 2027-01-15T08:00:1")
        );
        assert!(with("nbf", u64::MAX).starts_with("the token is valid from 9999-12-31"));
    }

    #[test]
    fn what_is_no_token_is_said_so() {
        let keyring = keyring(&[("dev", SECRET)]);
        let header = |text: &str| keyring.verify(Some(text.as_bytes()), now()).unwrap_err();
        assert_eq!(keyring.verify(None, now()).unwrap_err(), TokenError::Missing);
        assert_eq!(header("Basic dXNlcjpwYXNz"), TokenError::NotBearer);
        assert_eq!(header("Bearer"), TokenError::NotBearer);
        for text in ["Bearer x", "Bearer a.b", "Bearer a.b.c.d", "Bearer ..", "Bearer a.b.c"] {
            assert_eq!(header(text), TokenError::Malformed, "{text}");
        }
        let huge = format!("Bearer {}", "a.b.c".repeat(2000));
        assert_eq!(header(&huge), TokenError::Malformed);
        let no_expiry = serde_json::json!({"iss": "dev", "sub": "x"});
        assert_eq!(
            verify(&keyring, &forged(HS256, &no_expiry)).unwrap_err(),
            TokenError::Malformed
        );
        let lower = format!("bearer {}", forged(HS256, &claims()));
        assert!(keyring.verify(Some(lower.as_bytes()), now()).is_ok());
    }

    #[test]
    fn only_viewers_watch_and_only_admins_administrate() {
        let keyring = keyring(&[("dev", SECRET)]);
        let grant = |change: fn(&mut serde_json::Value)| {
            let mut claims = claims();
            change(&mut claims);
            verify(&keyring, &forged(HS256, &claims)).unwrap()
        };
        let watch = |change| grant(change).viewer_of("camera_cam-1");
        let refused = Err(GrantError::NotAViewer);
        assert_eq!(watch(|c| c["sub"] = "admin".into()), refused);
        assert_eq!(watch(|c| c["sub"] = "viewer_../x".into()), refused);
        assert_eq!(watch(|c| c["video"]["canSubscribe"] = false.into()), refused);
        assert_eq!(watch(|c| c["video"]["roomJoin"] = false.into()), refused);
        assert!(grant(|c| c["video"]["roomAdmin"] = true.into()).admin().is_ok());
        assert!(grant(|c| c["video"]["roomCreate"] = true.into()).admin().is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header in proptest::collection::vec(0_u8.., 0..200)) {
            let keyring = keyring(&[("dev", SECRET)]);
            proptest::prop_assert!(keyring.verify(Some(&header), now()).is_err());
        }
    }
}
