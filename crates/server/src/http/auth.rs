//! Access tokens: JSON Web Tokens signed with HMAC-SHA-256, in LiveKit's format.
//!
//! One key signs, every configured key is accepted. The algorithm is fixed: what the token's header
//! says of it is compared, never followed. What a token is good for is decided here too; whether
//! the reservation still lives is not.

mod errors;
mod grant;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use control::{CameraId, ReservationId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};

pub(crate) use self::errors::{GrantError, SignError, TokenError};
pub(crate) use self::grant::Grant;
use super::wire::{Claims, VideoGrant};
use crate::app::{KeyNumber, Permit};
use crate::config;
use crate::revocations::Revocations;

/// Longest token that is looked at. Ours have about 400 characters.
const TOKEN_LENGTH_MAX: usize = 4096;

/// Clocks of token makers may be ahead by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

/// Clocks of servers with one store may be apart by this much: each takes the tokens that another made, and what
/// one took back is forgotten by none before it has expired for all.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(900);

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

    /// The first key of the settings, which other nodes of a cluster have as well, with its id.
    pub(crate) fn configured(&self) -> Option<(String, SecretString)> {
        self.keys().iter().find_map(|key| Some((key.id.clone(), key.secret.clone()?)))
    }

    /// That of the settings which is called so.
    pub(crate) fn secret_of(&self, id: &str) -> Option<SecretString> {
        self.keys().iter().find(|key| key.id == id)?.secret.clone()
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
            nbf: unix(now).saturating_sub(CLOCKS_APART_MAX.as_secs()),
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
        self.revoked.insert(reservation.viewer_identity(), now + self.ttl + CLOCKS_APART_MAX, now);
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
mod tests;
