//! Answers of anybody to our offer of a voice: settled as it was offered, or one sentence to be shown.

use std::sync::LazyLock;
use std::time::Duration;

use super::START;
use crate::frame::Codec;
use crate::peer::{AnswerError, IceCredentials, PeerFactory};

static FACTORY: LazyLock<PeerFactory> = LazyLock::new(|| {
    // As with offers: panics below str0m are caught and answered.
    drop(std::panic::take_hook());
    PeerFactory::new(Vec::new()).expect("a certificate can be made")
});

/// Longest refusal.
const REFUSAL_BYTES_MAX: usize = 200;

/// An answer as it comes by the WebSocket.
pub fn sdp_answer(data: &[u8]) {
    let Ok(answer) = std::str::from_utf8(data) else { return };
    let credentials = IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    };
    let (mut peer, offer) = FACTORY.offer_sound(&credentials, *START);
    match peer.handle_answer(answer, *START) {
        Ok(negotiated) => {
            let track = negotiated.audio.expect("sound alone is offered");
            assert!(offer.contains(&format!("a=ssrc:{} ", track.ssrc)), "another SSRC");
            let head = answer.lines().find(|line| line.starts_with("m=audio ")).expect("a section");
            let payload = track.payload(Codec::Opus).expect("Opus alone is offered");
            for payload_type in std::iter::once(payload.payload_type).chain(track.red) {
                let is_listed =
                    head.split(' ').skip(3).any(|word| word.trim().parse() == Ok(payload_type));
                assert!(is_listed && payload_type < 128, "{payload_type} is not in {head:?}");
            }
            assert_eq!(peer.handle_answer(answer, *START), Err(AnswerError::Over));
        }
        Err(error) => {
            let text = error.to_string();
            let printable = text.chars().all(|c| (' '..='~').contains(&c));
            assert!(printable && text.len() < REFUSAL_BYTES_MAX, "{text:?}");
        }
    }
    // What an answer left behind may also go wrong later.
    let _ = peer.poll_output();
    peer.handle_timeout(*START + Duration::from_secs(1));
    let _ = peer.poll_output();
}
