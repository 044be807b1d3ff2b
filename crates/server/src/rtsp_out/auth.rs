//! Who a client says it is: Basic and Digest as RTSP has them (RFC 2326 §14, RFC 2617), and Bearer.
//!
//! This reads headers and compares passwords; who may see what is decided by the library.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};

/// What the challenge names. Players show it when they ask for a password.
const REALM: &str = "Manifold";

/// Longest `Authorization` header that is looked at: a token of 4 KiB as the password of Basic.
const HEADER_LENGTH_MAX: usize = 7 * 1024;

/// An `Authorization` header, taken apart.
#[derive(Debug)]
pub(crate) enum Authorization {
    /// RFC 2617 §2.
    Basic {
        /// The user's name.
        user: String,
        /// The user's password, or a token.
        password: SecretString,
    },
    /// RFC 6750 §2.1.
    Bearer(SecretString),
    /// RFC 2617 §3.2.2, without `qop`.
    Digest(DigestResponse),
}

/// The fields of a Digest response that matter without `qop`.
#[derive(Debug, Default)]
pub(crate) struct DigestResponse {
    /// The user's name.
    pub(crate) user: String,
    nonce: String,
    uri: String,
    response: String,
}

/// How a Digest response and a user's password relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The response was made with the password.
    Right,
    /// It was made with the password, for a challenge that is not ours (any more).
    Stale,
    /// It was not.
    Wrong,
}

impl Authorization {
    /// `None`: another scheme, or malformed.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        if header.len() > HEADER_LENGTH_MAX {
            return None;
        }
        let (scheme, rest) = header.trim().split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let text = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some(Self::Basic { user: user.to_owned(), password: password.into() });
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.into()));
        }
        scheme.eq_ignore_ascii_case("digest").then(|| Self::Digest(DigestResponse::parse(rest)))
    }
}

impl DigestResponse {
    fn parse(text: &str) -> Self {
        let mut fields = Self::default();
        let mut rest = text;
        while let Some((name, behind)) = rest.split_once('=') {
            let (value, next) = read_value(behind);
            let name = name.rsplit([',', ' ']).find(|part| !part.is_empty()).unwrap_or_default();
            let field = match name.to_ascii_lowercase().as_str() {
                "username" => Some(&mut fields.user),
                "nonce" => Some(&mut fields.nonce),
                "uri" => Some(&mut fields.uri),
                "response" => Some(&mut fields.response),
                _ => None,
            };
            if let Some(field) = field {
                *field = value;
            }
            rest = next.trim_start().trim_start_matches(',');
        }
        fields
    }

    /// Compares with what the user's password gives for this method and our challenge.
    pub(crate) fn verify(&self, method: &str, nonce: &str, password: &SecretString) -> Verdict {
        let secret = password.expose_secret();
        let identity = hex(&format!("{}:{REALM}:{secret}", self.user));
        let asked = hex(&format!("{method}:{}", self.uri));
        let expected = hex(&format!("{identity}:{}:{asked}", self.nonce));
        let given = self.response.to_ascii_lowercase();
        match (same(&expected, &given), same(nonce, &self.nonce)) {
            (true, true) => Verdict::Right,
            (true, false) => Verdict::Stale,
            (false, _) => Verdict::Wrong,
        }
    }
}

/// A value, in quotes or up to the next comma, and what follows.
fn read_value(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

fn hex(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client is asked for, as the values of `WWW-Authenticate` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A password of a known user, which need not travel itself; or a token by Basic.
    DigestOrBasic,
    /// The same; the password was right, and the challenge too old.
    Stale,
    /// A token as the password: Digest could not check one that is not known beforehand.
    Basic,
}

impl Challenge {
    /// The headers' values, the best first.
    pub(crate) fn headers(self, nonce: &str) -> Vec<String> {
        let basic = format!("Basic realm=\"{REALM}\"");
        let digest = format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm=MD5");
        match self {
            Self::DigestOrBasic => vec![digest, basic],
            Self::Stale => vec![format!("{digest}, stale=true"), basic],
            Self::Basic => vec![basic],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_and_bearer_are_read() {
        let basic = Authorization::parse("basic bmFtZTpwYTpzcw==").unwrap();
        let Authorization::Basic { user, password } = basic else { panic!() };
        assert_eq!((user.as_str(), password.expose_secret()), ("name", "pa:ss"));
        let bearer = Authorization::parse("Bearer  a.b.c ").unwrap();
        assert!(matches!(bearer, Authorization::Bearer(token) if token.expose_secret() == "a.b.c"));
        let long = format!("Basic {}", "a".repeat(HEADER_LENGTH_MAX));
        for header in ["", "Basic", "Basic !", "Basic bmFtZQ==", "Negotiate abc", &long] {
            assert!(Authorization::parse(header).is_none(), "{header}");
        }
    }

    #[test]
    fn a_digest_is_checked_against_password_method_and_nonce() {
        let (method, nonce, uri) = ("DESCRIBE", "abc", "rtsp://h/cam-1");
        let identity = hex("viewer:Manifold:secret");
        let response = hex(&format!("{identity}:{nonce}:{}", hex(&format!("{method}:{uri}"))));
        let header = format!(
            "Digest username=\"viewer\", realm=\"Manifold\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5"
        );
        let Some(Authorization::Digest(digest)) = Authorization::parse(&header) else { panic!() };
        assert_eq!(digest.user, "viewer");
        assert_eq!(digest.verify(method, nonce, &"secret".into()), Verdict::Right);
        assert_eq!(digest.verify(method, "other", &"secret".into()), Verdict::Stale);
        assert_eq!(digest.verify("PLAY", nonce, &"secret".into()), Verdict::Wrong);
        assert_eq!(digest.verify(method, nonce, &"Secret".into()), Verdict::Wrong);
    }

    #[test]
    fn md5_is_that_of_rfc_1321() {
        assert_eq!(hex("abc"), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn odd_fields_are_passed_over() {
        let digest = DigestResponse::parse("x, username=\"a\\\"b\" , nonce=plain,uri=\"open");
        assert_eq!((digest.user.as_str(), digest.nonce.as_str()), ("a\"b", "plain"));
        assert_eq!(digest.uri, "open");
    }
}
