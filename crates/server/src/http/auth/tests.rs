//! Tokens as they come, good and forged.

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
fn servers_whose_clocks_are_ten_minutes_apart_take_each_others_tokens_and_what_was_taken_back() {
    let keyring = keyring(&[("dev", SECRET)]);
    let apart = Duration::from_secs(600);
    let (reservation, camera) = (ReservationId::parse(UUID).unwrap(), "cam-1".parse().unwrap());
    let made_at = |now| keyring.viewer_token(&reservation, &camera, now).unwrap();
    let verified_at = |token: &str, now| keyring.verify_token(token, now).map(drop);
    let (behind, ahead) = (made_at(now()), made_at(now() + apart));
    assert!(verified_at(&ahead, now()).is_ok());
    assert!(verified_at(&behind, now() + apart).is_ok());

    // By the clock that is behind. By the one that is ahead, hers is good for another second.
    keyring.revoke(&reservation, now());
    let last = now() + apart + keyring.ttl() - Duration::from_secs(1);
    keyring.revocations().insert("another".to_owned(), last + apart, last);
    assert_eq!(verified_at(&ahead, last), Err(TokenError::Revoked));
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
    assert!(with("exp", 1_800_000_000).starts_with("the token expired at 2027-01-15T08:00:00Z"));
    assert!(with("exp", 0).starts_with("the token expired at 1970-01-01T00:00:00Z"));
    assert!(with("nbf", 1_800_000_011).starts_with("the token is valid from 2027-01-15T08:00:1"));
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
    assert_eq!(verify(&keyring, &forged(HS256, &no_expiry)).unwrap_err(), TokenError::Malformed);
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
