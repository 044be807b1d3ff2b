//! Camera addresses as people write them, parsed into what can be pulled.
//!
//! The allow-list of schemes lives here: nothing that starts a program or opens a file is a source.
//! Credentials leave the address at this point and live in a type that cannot be printed. This
//! module resolves no names and opens no connection.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::testcard::{FRAME_RATES, GROUP_LENGTHS, HEIGHTS, WIDTHS};
use super::whip::{KEY_LENGTHS, PublishPoint};

/// The port of `rtsp://` when the address names none (RFC 2326 §3.2).
pub(super) const RTSP_PORT: u16 = 554;

/// Longest address that is read. Camera addresses are under 200 characters; the bound keeps a
/// pasted file out of error texts and logs.
const LENGTH_MAX: usize = 2048;

/// Longest name of a synthetic pattern.
const PATTERN_LENGTH_MAX: usize = 32;

/// How a camera is reached. Made by [`SourceUrl::parse`] alone, so that `Rtsp::url` never holds a
/// user name or password.
#[derive(Clone)]
pub(crate) enum SourceUrl {
    /// `rtsp://[user:pass@]host[:554]/path`
    Rtsp {
        /// The address without credentials.
        url: Url,
        /// Percent-decoded.
        username: Option<String>,
        /// Percent-decoded; present exactly when `username` is.
        password: Option<SecretString>,
    },
    /// `test://[pattern]?width=640&height=360&fps=15&gop=30`: a synthetic camera.
    Test {
        /// Which picture is painted; empty for the usual one.
        pattern: String,
        /// Pixels, even.
        width: u32,
        /// Pixels, even.
        height: u32,
        /// Frames a second.
        fps: u32,
        /// Frames from one keyframe to the next.
        gop: u32,
    },
    /// `whip://<stream key>`: an encoder publishes to it. Clones share it.
    Whip(Arc<PublishPoint>),
    /// `whep+http://[token@]host[:80]/path`: another server, which it is watched at.
    Whep {
        /// The endpoint, `http:` and without the token.
        url: Url,
        /// Percent-decoded; goes along as the bearer token.
        token: Option<SecretString>,
    },
    /// An address that was kept and cannot be read any more.
    Sealed {
        /// What [`SourceUrl::display`] said of it.
        shown: String,
        /// As it was kept.
        sealed: Vec<u8>,
        /// Why it cannot be read.
        reason: String,
    },
}

/// Why an address is no camera. No variant repeats the address: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceUrlError {
    /// Over [`LENGTH_MAX`].
    #[error("the camera address is longer than {LENGTH_MAX} characters")]
    TooLong,
    /// The grammar of URLs is broken.
    #[error(
        "the camera address is not a URL ({0}); write it as rtsp://user:password@host:554/path, \
         with @ : / ? # and % in the password percent-encoded"
    )]
    Malformed(url::ParseError),
    /// A scheme that is not, and will not be, a source.
    #[error(
        "a camera address cannot begin with {0:?}; use rtsp://, whip://, whep+http:// or test://"
    )]
    Scheme(String),
    /// RTSP inside TLS.
    #[error("rtsps:// is not supported; use rtsp:// inside a trusted network or a tunnel")]
    Tls,
    /// WHEP inside TLS, or without saying inside what.
    #[error(
        "{0}:// is not supported; use whep+http:// inside a trusted network or a tunnel, as in \
         whep+http://host:8080/whep/cam-1"
    )]
    WhepScheme(String),
    /// A user name and a password where there is one token.
    #[error(
        "a WHEP address takes one token and no password, as in whep+http://token@host/whep/cam-1"
    )]
    TokenAlone,
    /// A stream key that is too short to be a secret, or would not survive in a path.
    #[error(
        "a stream key is {} to {} letters, digits, hyphens and underscores, as in \
         whip://3f0c9a…; write whip:// alone to have the key made by the API",
        KEY_LENGTHS.start(),
        KEY_LENGTHS.end()
    )]
    StreamKey,
    /// Nothing to connect to.
    #[error("the camera address names no host; write it as rtsp://host:554/path")]
    NoHost,
    /// `#` or `@` where only a badly written password puts them.
    #[error(
        "the camera address has a {0:?} behind the host; a password with @ : / ? # or % must be \
         percent-encoded (@ as %40, # as %23), and so must these signs in the path"
    )]
    StraySign(char),
    /// Percent-decoded credentials are no text.
    #[error("the user name or password in the camera address is not printable UTF-8 text")]
    Credentials,
    /// What is shown in place of a password, sent back.
    #[error(
        "the camera address has {MASK} in place of what is not shown; write the password or the key \
         itself, or the whole address as it was shown to leave it as it is"
    )]
    Masked,
    /// A key that a synthetic camera does not have.
    #[error("a test:// camera has no setting {0:?}; it has width, height, fps and gop")]
    UnknownSetting(String),
    /// A number out of bounds.
    #[error("{key} of a test:// camera must be {even}from {low} to {high}")]
    Setting {
        /// The key in the query.
        key: &'static str,
        /// "even, " or nothing.
        even: &'static str,
        /// Smallest allowed value.
        low: u32,
        /// Largest allowed value.
        high: u32,
    },
    /// The name behind `test://`.
    #[error(
        "the pattern of a test:// camera is at most {PATTERN_LENGTH_MAX} letters, digits and \
         hyphens, as in test://bars?width=640"
    )]
    Pattern,
}

impl SourceUrl {
    /// Reads an address from the config.
    pub(crate) fn parse(text: &str) -> Result<Self, SourceUrlError> {
        if text.len() > LENGTH_MAX {
            return Err(SourceUrlError::TooLong);
        }
        if parameter_values(text).iter().any(|(_, value)| *value == MASK) || text == WHIP_SHOWN {
            return Err(SourceUrlError::Masked);
        }
        if let Some(key) = text.strip_prefix("whip://") {
            return parse_whip(key);
        }
        if let Some(rest) = text.strip_prefix("whep+http://") {
            return parse_whep(rest);
        }
        let url = Url::parse(text).map_err(SourceUrlError::Malformed)?;
        match url.scheme() {
            "rtsp" => parse_rtsp(url),
            "test" => parse_test(&url),
            "rtsps" => Err(SourceUrlError::Tls),
            // Without the slashes, or in capitals.
            "whip" => Err(SourceUrlError::StreamKey),
            "whep" | "whep+https" => Err(SourceUrlError::WhepScheme(url.scheme().to_owned())),
            // Without the slashes, or in capitals.
            "whep+http" => Err(SourceUrlError::NoHost),
            other => Err(SourceUrlError::Scheme(excerpt(other))),
        }
    }

    /// The address for people and logs: without user name and password, and with the values of
    /// password-like parameters in the path masked.
    pub(crate) fn display(&self) -> String {
        match self {
            Self::Rtsp { url, .. } => mask_parameters(url.as_str()),
            Self::Test { pattern, width, height, fps, gop } => {
                format!("test://{pattern}?width={width}&height={height}&fps={fps}&gop={gop}")
            }
            Self::Whip(_) => WHIP_SHOWN.to_owned(),
            Self::Whep { url, .. } => format!("whep+{}", mask_parameters(url.as_str())),
            Self::Sealed { shown, .. } => shown.clone(),
        }
    }

    /// Whether there is something in it that is not shown.
    pub(crate) fn has_credentials(&self) -> bool {
        match self {
            Self::Rtsp { url, username, .. } => {
                username.is_some() || !parameter_values(url.as_str()).is_empty()
            }
            Self::Whep { url, token } => {
                token.is_some() || !parameter_values(url.as_str()).is_empty()
            }
            Self::Test { .. } => false,
            Self::Whip(point) => point.digest().is_some(),
            Self::Sealed { .. } => true,
        }
    }

    /// All of it, to be kept under seal. [`Self::from_secret`] reads it again.
    pub(crate) fn to_secret(&self) -> SecretString {
        let text = match self {
            Self::Rtsp { url, username, password } => {
                let mut whole = url.clone();
                let password = password.as_ref().map(ExposeSecret::expose_secret);
                // Both can only fail without a host, and there is one.
                let _ = whole.set_username(&encode(username.as_deref().unwrap_or_default()));
                let _ = whole.set_password(password.map(encode).as_deref());
                whole.to_string()
            }
            Self::Whep { url, token } => {
                let mut whole = url.clone();
                let token = token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
                // It can only fail without a host, and there is one.
                let _ = whole.set_username(&encode(token));
                format!("whep+{whole}")
            }
            Self::Whip(point) => match point.digest() {
                Some(digest) => format!("{DIGEST_SCHEME}{}", STANDARD.encode(digest)),
                None => "whip://".to_owned(),
            },
            Self::Test { .. } | Self::Sealed { .. } => self.display(),
        };
        SecretString::from(text)
    }

    /// What [`Self::to_secret`] wrote.
    pub(crate) fn from_secret(text: &SecretString) -> Result<Self, SourceUrlError> {
        let text = text.expose_secret();
        let Some(digest) = text.strip_prefix(DIGEST_SCHEME) else { return Self::parse(text) };
        let digest = STANDARD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or(SourceUrlError::StreamKey)?;
        Ok(Self::Whip(Arc::new(PublishPoint::of_digest(digest))))
    }

    /// Reads an address that takes the place of another one. One that is written as the other is shown is
    /// the other; one of the same host and port without user and password has those of the other.
    pub(crate) fn parse_over(text: &str, before: &Self) -> Result<Self, SourceUrlError> {
        if text == before.display() {
            return Ok(before.clone());
        }
        let mut new = Self::parse(text)?;
        if let (
            Self::Rtsp { url, username, password },
            Self::Rtsp { url: old, username: user, password: secret },
        ) = (&mut new, before)
            && username.is_none()
            && authority(url) == authority(old)
        {
            username.clone_from(user);
            password.clone_from(secret);
        }
        if let (Self::Whep { url, token }, Self::Whep { url: old, token: secret }) =
            (&mut new, before)
            && token.is_none()
            && authority(url) == authority(old)
        {
            token.clone_from(secret);
        }
        Ok(new)
    }

    /// Whether both lead to the same picture, in the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // A key that changes concerns those who publish, not those who watch.
            (Self::Whip(one), Self::Whip(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.to_secret().expose_secret() == other.to_secret().expose_secret(),
        }
    }

    /// Whether this process paints the picture itself.
    pub(crate) fn is_synthetic(&self) -> bool {
        matches!(self, Self::Test { .. })
    }
}

/// Prints what [`SourceUrl::display`] does, and whether there are credentials.
impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = matches!(
            self,
            Self::Rtsp { username: Some(_), .. } | Self::Whep { token: Some(_), .. }
        );
        f.debug_struct("SourceUrl")
            .field("url", &self.display())
            .field("credentials", &credentials)
            .finish()
    }
}

/// `host:port` of an RTSP address, for messages.
pub(super) fn authority(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(RTSP_PORT)
    )
}

/// Path and query of an RTSP address, password-like parameters masked.
pub(super) fn masked_path(url: &Url) -> String {
    mask_parameters(&url[url::Position::BeforePath..])
}

/// Replaces whatever is secret in a text that a library wrote about this address.
pub(super) fn scrub(text: &str, url: &Url, password: Option<&SecretString>) -> String {
    let path = &url[url::Position::BeforePath..];
    let mut scrubbed = text.to_owned();
    for (_, secret) in parameter_values(path) {
        scrubbed = scrubbed.replace(secret, MASK);
    }
    let password = password.map(ExposeSecret::expose_secret).unwrap_or_default();
    if password.is_empty() { scrubbed } else { scrubbed.replace(password, MASK) }
}

const MASK: &str = "***";

/// What is shown of an address with a stream key.
const WHIP_SHOWN: &str = "whip://***";

/// A stream key's digest, in what is kept. No address that people write begins so.
const DIGEST_SCHEME: &str = "whip-digest:";

/// Parameter names whose values are credentials in the paths of some cameras, as in
/// `/user=admin&password=secret&channel=1`.
const SECRET_PARAMETERS: [&str; 6] = ["password=", "passwd=", "pwd=", "pass=", "token=", "auth="];

/// The values of [`SECRET_PARAMETERS`] in `path`, with the byte offset of each.
fn parameter_values(path: &str) -> Vec<(usize, &str)> {
    let lower = path.to_ascii_lowercase();
    let mut values = Vec::new();
    for name in SECRET_PARAMETERS {
        for (at, _) in lower.match_indices(name) {
            let start = at + name.len();
            let rest = &path[start..];
            let value = &rest[..rest.find(['&', '/', '?', ';']).unwrap_or(rest.len())];
            if !value.is_empty() {
                values.push((start, value));
            }
        }
    }
    values
}

fn mask_parameters(text: &str) -> String {
    let mut masked = text.to_owned();
    for (_, value) in parameter_values(text) {
        masked = masked.replace(value, MASK);
    }
    masked
}

fn parse_rtsp(mut url: Url) -> Result<SourceUrl, SourceUrlError> {
    let (username, password) = take_credentials(&mut url)?;
    let has_credentials = !username.is_empty() || password.is_some();
    Ok(SourceUrl::Rtsp {
        url,
        username: has_credentials.then_some(username),
        password: has_credentials.then(|| SecretString::from(password.unwrap_or_default())),
    })
}

/// `rest` is what stands behind `whep+http://`.
fn parse_whep(rest: &str) -> Result<SourceUrl, SourceUrlError> {
    if rest.is_empty() {
        return Err(SourceUrlError::NoHost);
    }
    let mut url = Url::parse(&format!("http://{rest}")).map_err(SourceUrlError::Malformed)?;
    let (token, password) = take_credentials(&mut url)?;
    if password.is_some() {
        return Err(SourceUrlError::TokenAlone);
    }
    Ok(SourceUrl::Whep { url, token: (!token.is_empty()).then(|| SecretString::from(token)) })
}

/// Takes user name and password out of an address, percent-decoded.
fn take_credentials(url: &mut Url) -> Result<(String, Option<String>), SourceUrlError> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err(SourceUrlError::NoHost);
    }
    if url.fragment().is_some() {
        return Err(SourceUrlError::StraySign('#'));
    }
    // `rtsp://admin:12/34@host/` parses as host "admin", port 12 and a path with half the password.
    if url[url::Position::BeforePath..].contains('@') {
        return Err(SourceUrlError::StraySign('@'));
    }
    let username = decode(url.username())?;
    let password = url.password().map(decode).transpose()?;
    // Both can only fail without a host, and there is one.
    let stripped = url.set_username("").and_then(|()| url.set_password(None));
    if stripped.is_err() {
        return Err(SourceUrlError::NoHost);
    }
    Ok((username, password))
}

fn parse_whip(key: &str) -> Result<SourceUrl, SourceUrlError> {
    if key.is_empty() {
        return Ok(SourceUrl::Whip(Arc::new(PublishPoint::new(None))));
    }
    let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !is_plain || !KEY_LENGTHS.contains(&key.len()) {
        return Err(SourceUrlError::StreamKey);
    }
    Ok(SourceUrl::Whip(Arc::new(PublishPoint::new(Some(key)))))
}

/// Percent-decodes a user name or password. Control characters are refused: they would end up in a
/// header of the request.
fn decode(text: &str) -> Result<String, SourceUrlError> {
    let decoded =
        percent_decode_str(text).decode_utf8().map_err(|_not_utf8| SourceUrlError::Credentials)?;
    if decoded.chars().any(char::is_control) {
        return Err(SourceUrlError::Credentials);
    }
    Ok(decoded.into_owned())
}

fn parse_test(url: &Url) -> Result<SourceUrl, SourceUrlError> {
    let pattern = url.host_str().unwrap_or_default();
    let plain = pattern.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let bare = matches!(url.path(), "" | "/") && url.username().is_empty();
    if !plain || !bare || pattern.len() > PATTERN_LENGTH_MAX || url.port().is_some() {
        return Err(SourceUrlError::Pattern);
    }
    let (mut width, mut height, mut fps, mut gop) = (640, 360, 15, 30);
    for (key, value) in url.query_pairs() {
        match key.as_ref() {
            "width" => width = even("width", &value, WIDTHS)?,
            "height" => height = even("height", &value, HEIGHTS)?,
            "fps" => fps = number("fps", &value, FRAME_RATES)?,
            "gop" => gop = number("gop", &value, GROUP_LENGTHS)?,
            other => return Err(SourceUrlError::UnknownSetting(excerpt(other))),
        }
    }
    Ok(SourceUrl::Test { pattern: pattern.to_owned(), width, height, fps, gop })
}

fn number(
    key: &'static str,
    text: &str,
    bounds: RangeInclusive<u32>,
) -> Result<u32, SourceUrlError> {
    let value = text.parse().ok().filter(|value| bounds.contains(value));
    value.ok_or(SourceUrlError::Setting {
        key,
        even: "",
        low: *bounds.start(),
        high: *bounds.end(),
    })
}

/// H.264 codes colour for pairs of pixels, so sides are even.
fn even(key: &'static str, text: &str, bounds: RangeInclusive<u32>) -> Result<u32, SourceUrlError> {
    let (low, high) = (*bounds.start(), *bounds.end());
    let value = number(key, text, bounds).ok().filter(|value| value % 2 == 0);
    value.ok_or(SourceUrlError::Setting { key, even: "even, ", low, high })
}

/// What [`decode`] makes the same text of again.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The beginning of something hostile, short enough for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANARY: &str = "canary-7f3a";

    fn rtsp(text: &str) -> (Url, Option<String>, Option<String>) {
        match SourceUrl::parse(text) {
            Ok(SourceUrl::Rtsp { url, username, password }) => {
                (url, username, password.map(|secret| secret.expose_secret().to_owned()))
            }
            other => panic!("{text} gave {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        SourceUrl::parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn credentials_leave_the_address_and_are_decoded() {
        let (url, username, password) = rtsp("rtsp://ad%40min:p%3A%2F%23%40ss@10.0.0.1:8554/live");

        assert_eq!(url.as_str(), "rtsp://10.0.0.1:8554/live");
        assert_eq!(username.as_deref(), Some("ad@min"));
        assert_eq!(password.as_deref(), Some("p:/#@ss"));
    }

    #[test]
    fn an_address_without_credentials_has_none() {
        let (url, username, password) = rtsp("rtsp://camera.local/stream1?channel=1");

        assert_eq!(url.as_str(), "rtsp://camera.local/stream1?channel=1");
        assert_eq!((username, password), (None, None));
        assert_eq!(authority(&url), "camera.local:554");
        assert_eq!(masked_path(&url), "/stream1?channel=1");
    }

    #[test]
    fn a_user_name_alone_has_an_empty_password() {
        let (_, username, password) = rtsp("rtsp://admin@[::1]:554/");
        assert_eq!((username.as_deref(), password.as_deref()), (Some("admin"), Some("")));
    }

    #[test]
    fn nothing_that_is_printed_holds_the_password() {
        for text in [
            format!("rtsp://admin:{CANARY}@10.0.0.1/live"),
            format!("rtsp://10.0.0.1/user=admin&password={CANARY}&channel=1"),
            format!("rtsp://10.0.0.1/live?token={CANARY}"),
        ] {
            let source = SourceUrl::parse(&text).expect("is an address");
            assert!(!source.display().contains(CANARY), "{}", source.display());
            assert!(!format!("{source:?}").contains(CANARY), "{source:?}");
            let SourceUrl::Rtsp { url, password, .. } = source else { panic!("{text} is RTSP") };
            assert!(!masked_path(&url).contains(CANARY));
            assert!(!scrub(&format!("bad {text}"), &url, password.as_ref()).contains(CANARY));
        }
    }

    #[test]
    fn refusals_do_not_repeat_the_password() {
        for text in [
            format!("rtsp://admin:{CANARY}#x@10.0.0.1/live"),
            format!("rtsp://admin:12/{CANARY}@10.0.0.1/live"),
            format!("rtsp://admin:12?{CANARY}@10.0.0.1/live"),
            format!("rtsp://admin:a@{CANARY}#@10.0.0.1/live"),
            format!("rtsp://admin:{CANARY}%ff@10.0.0.1/live"),
            format!("rtsp://admin:{CANARY}%0d%0aX: y@10.0.0.1/live"),
            format!("rtsp://admin:{CANARY}@"),
            format!("rtsps://admin:{CANARY}@10.0.0.1/live"),
            format!("http://admin:{CANARY}@10.0.0.1/live"),
            format!("admin:{CANARY}@10.0.0.1/live"),
        ] {
            assert!(!refusal(&text).contains(CANARY), "{text}: {}", refusal(&text));
        }
    }

    #[test]
    fn only_listed_schemes_are_sources() {
        for text in ["file:///etc/passwd", "exec:ffmpeg -i x", "http://10.0.0.1/x", "ffmpeg:x"] {
            let sentence = refusal(text);
            let schemes = "use rtsp://, whip://, whep+http:// or test://";
            assert!(sentence.contains(schemes), "{text}: {sentence}");
        }
        assert!(refusal("whep+https://host/x").contains("use whep+http://"));
        assert!(refusal("whep://host/x").contains("use whep+http://"));
        assert!(refusal("rtsps://host/x").contains("rtsps"));
        assert!(refusal("rtsp:///x").contains("no host"));
        assert!(refusal("10.0.0.1:554/x").contains("not a URL"));
        assert_eq!(SourceUrl::parse(&"a".repeat(3000)).err(), Some(SourceUrlError::TooLong));
    }

    #[test]
    fn the_token_of_another_server_leaves_its_address() {
        let parsed = |text: &str| match SourceUrl::parse(text) {
            Ok(SourceUrl::Whep { url, token }) => {
                (url.to_string(), token.map(|token| token.expose_secret().to_owned()))
            }
            other => panic!("{text} gave {other:?}"),
        };
        let (url, token) = parsed(&format!("whep+http://{CANARY}@10.0.0.1:8080/whep/cam-1"));
        assert_eq!(url, "http://10.0.0.1:8080/whep/cam-1");
        assert_eq!(token.as_deref(), Some(CANARY));
        assert_eq!(parsed("whep+http://[::1]/a?b=c"), ("http://[::1]/a?b=c".to_owned(), None));
        let source = SourceUrl::parse(&format!("whep+http://{CANARY}@host/x?token={CANARY}"));
        let source = source.expect("is an address");
        assert_eq!(source.display(), "whep+http://host/x?token=***");
        assert!(!format!("{source:?}").contains(CANARY));
        let again = SourceUrl::from_secret(&source.to_secret()).expect("is an address");
        assert!(again.is_same(&source) && source.has_credentials());
        let over = SourceUrl::parse_over("whep+http://host/y", &source).expect("is an address");
        let elsewhere = SourceUrl::parse_over("whep+http://other/x", &source);
        let has_token = |url: &SourceUrl| matches!(url, SourceUrl::Whep { token: Some(_), .. });
        assert!(has_token(&over) && !has_token(&elsewhere.expect("is an address")));
        for (text, part) in [
            (format!("whep+http://user:{CANARY}@host/x"), "one token"),
            (format!("whep+http://host/{CANARY}@x"), "percent-encoded"),
            (format!("whep+http://{CANARY}#@host/x"), "percent-encoded"),
            (format!("whep+http://{CANARY}%0d%0a@host/x"), "printable"),
            ("whep+http://".to_owned(), "no host"),
            ("whep+http:host/x".to_owned(), "no host"),
        ] {
            let sentence = refusal(&text);
            assert!(sentence.contains(part) && !sentence.contains(CANARY), "{text}: {sentence}");
        }
    }

    #[test]
    fn a_stream_key_is_kept_as_a_digest_and_shown_to_nobody() {
        let key = format!("{CANARY}-0123456789");
        let source = SourceUrl::parse(&format!("whip://{key}")).expect("is an address");
        assert_eq!(source.display(), "whip://***");
        assert!(!format!("{source:?}").contains(CANARY));
        let SourceUrl::Whip(point) = &source else { panic!("{source:?} is published to") };
        assert!(point.admits(&key) && !point.admits(CANARY) && !point.admits(""));
        let SourceUrl::Whip(closed) = SourceUrl::parse("whip://").expect("has no key yet") else {
            panic!("it is published to");
        };
        assert!(!closed.admits(""), "no key opens what has none");
        for text in ["short", "with/a/slash/0123456789", "sp ace-0123456789", &"a".repeat(129)] {
            let refused = SourceUrl::parse(&format!("whip://{text}"));
            assert!(matches!(refused, Err(SourceUrlError::StreamKey)), "{text}");
        }
        assert!(!refusal("whip:canary-7f3a-0123456789").contains(CANARY));
    }

    #[test]
    fn a_synthetic_camera_has_usual_settings_and_bounds() {
        for text in ["test://", "test://?width=640", "test:///"] {
            let source = SourceUrl::parse(text).expect("is an address");
            assert_eq!(source.display(), "test://?width=640&height=360&fps=15&gop=30", "{text}");
            assert!(source.is_synthetic());
        }
        let source = SourceUrl::parse("test://bars?width=1280&height=720&fps=30&gop=60");
        assert_eq!(
            source.expect("is an address").display(),
            "test://bars?width=1280&height=720&fps=30&gop=60"
        );
        for text in [
            "test://?width=190",
            "test://?width=641",
            "test://?width=3842",
            "test://?height=106",
            "test://?height=2162",
            "test://?fps=0",
            "test://?fps=61",
            "test://?gop=0",
            "test://?gop=-1",
            "test://?colour=red",
            "test://bars/deep",
            "test://a.b",
            "test://user@bars",
        ] {
            assert!(SourceUrl::parse(text).is_err(), "{text} must be refused");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(rtsp|test|rtsps|whep\\+http|x)?:?/{0,3}.{0,60}") {
            if let Ok(SourceUrl::Rtsp { url, .. }) = SourceUrl::parse(&text) {
                prop_assert_eq!(url.username(), "");
                prop_assert_eq!(url.password(), None);
            }
        }

        #[test]
        fn any_credentials_survive_encoding(username in "[^\\p{Cc}]{1,12}", password in "[^\\p{Cc}]{0,12}") {
            let encode = |text: &str| {
                utf8_percent_encode(text, NON_ALPHANUMERIC)
                    .to_string()
            };
            let text = format!("rtsp://{}:{}@host/x", encode(&username), encode(&password));
            let (_, parsed_username, parsed_password) = rtsp(&text);
            prop_assert_eq!(parsed_username, Some(username));
            prop_assert_eq!(parsed_password, Some(password));
        }
    }
}
