//! What a request's URI names: a camera, its smaller picture, a track, and perhaps a token.

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

/// The last segment of a track's control URL, before its number.
pub(super) const TRACK: &str = "trackID=";

/// A request URI, taken apart. `rtsp://host:port/<name>[/sub][/trackID=n][?token=...]`
#[derive(Debug, Clone)]
pub(crate) struct Uri {
    /// The path without slashes around it, without `/sub` and the track: a camera's id.
    pub(crate) name: String,
    /// `/sub` was there.
    pub(crate) sub: bool,
    /// The track, counted from 0.
    pub(crate) track: Option<usize>,
    /// Opens the camera instead of a password.
    pub(crate) token: Option<SecretString>,
    /// Scheme, authority and path of the presentation, with a slash at its end and without user
    /// information or query: control URLs are relative to it.
    pub(crate) base: String,
}

impl Uri {
    /// `None`: not an `rtsp:` URI with a path, or not decodable.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("rtsp") {
            return None;
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let token = token(query);
        // A client that appends the track to the whole URL puts it behind the query.
        let behind_query = query.rsplit('/').next().and_then(track_number);
        let mut segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let track = segments.last().and_then(|last| track_number(last));
        if track.is_some() {
            segments.pop();
        }
        let presentation = segments.join("/");
        let sub = segments.len() > 1 && segments.last() == Some(&"sub");
        if sub {
            segments.pop();
        }
        let name = percent_decode_str(&segments.join("/")).decode_utf8().ok()?.into_owned();
        let base = format!("rtsp://{host}/{presentation}/");
        Some(Self { name, sub, track: track.or(behind_query), token, base })
    }
}

fn track_number(segment: &str) -> Option<usize> {
    segment.strip_prefix(TRACK)?.parse().ok()
}

fn token(query: &str) -> Option<SecretString> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    // A token has no slash; a client may have appended the track.
    let value = value.split('/').next().unwrap_or_default();
    let value = percent_decode_str(value).decode_utf8().ok()?;
    (!value.is_empty()).then(|| SecretString::from(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_uri_names_a_camera_its_smaller_picture_and_a_track() {
        for (text, name, sub, track, base) in [
            ("rtsp://h:8554/cam-1", "cam-1", false, None, "rtsp://h:8554/cam-1/"),
            ("RTSP://h/cam-1/", "cam-1", false, None, "rtsp://h/cam-1/"),
            ("rtsp://h/cam-1/sub", "cam-1", true, None, "rtsp://h/cam-1/sub/"),
            ("rtsp://h/cam-1/sub/trackID=1", "cam-1", true, Some(1), "rtsp://h/cam-1/sub/"),
            ("rtsp://u:p@h/cam-1/trackID=0", "cam-1", false, Some(0), "rtsp://h/cam-1/"),
            ("rtsp://h/sub", "sub", false, None, "rtsp://h/sub/"),
            ("rtsp://h/cam%2d1", "cam-1", false, None, "rtsp://h/cam%2d1/"),
            ("rtsp://h", "", false, None, "rtsp://h//"),
        ] {
            let uri = Uri::parse(text).unwrap();
            let read = (uri.name.as_str(), uri.sub, uri.track, uri.base.as_str());
            assert_eq!(read, (name, sub, track, base), "{text}");
        }
        assert!(Uri::parse("*").is_none() && Uri::parse("http://h/cam-1").is_none());
    }

    #[test]
    fn a_token_is_taken_out_of_the_query_and_kept_secret() {
        for text in ["rtsp://h/c?token=a.b%2Ec", "rtsp://h/c?x=1&token=a.b.c/trackID=2"] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.token.as_ref().unwrap().expose_secret(), "a.b.c");
            assert!(!format!("{uri:?}").contains("a.b.c") && uri.base == "rtsp://h/c/");
        }
        assert_eq!(Uri::parse("rtsp://h/c?token=a/trackID=2").unwrap().track, Some(2));
        assert!(Uri::parse("rtsp://h/c?token=").unwrap().token.is_none());
    }
}
