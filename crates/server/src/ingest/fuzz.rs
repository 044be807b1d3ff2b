//! Camera addresses of anybody.

use super::source_url::{SourceUrl, SourceUrlError};

/// A camera's address. Whatever is taken shows no credentials, and what is shown is an address again.
pub fn camera_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let url = match SourceUrl::parse(text) {
        Ok(url) => url,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let shown = url.display();
    if let SourceUrl::Rtsp { url, .. } | SourceUrl::Whep { url, .. } = &url {
        assert!(url.username().is_empty() && url.password().is_none());
    }
    assert!(!shown.contains('@'), "{shown:?} may show a password");
    // Masks stand for values, so that only an address without them reads the same again.
    if !shown.contains("***") {
        match SourceUrl::parse(&shown) {
            Ok(again) => assert_eq!(again.display(), shown),
            // Percent-encoding makes an address up to three times as long.
            Err(error) => assert_eq!(error, SourceUrlError::TooLong),
        }
    }
}
