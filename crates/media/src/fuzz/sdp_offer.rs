//! Offers of anybody: an answer that can be sent, or one sentence that can be shown. They are answered
//! to a viewer, and to somebody who speaks.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use super::START;
use crate::peer::publisher::{PublisherFactory, SoundWishes};
use crate::peer::{Answer, IceCredentials, PeerFactory};

static FACTORY: LazyLock<PeerFactory> = LazyLock::new(|| {
    // Panics below str0m are caught and answered, so they must not end the process by a hook that
    // the fuzzer has set; those of this function still end it as they leave it.
    drop(std::panic::take_hook());
    PeerFactory::new(candidates()).expect("a certificate can be made")
});

static PUBLISHERS: LazyLock<PublisherFactory> =
    LazyLock::new(|| PublisherFactory::new(candidates()).expect("a certificate can be made"));

fn candidates() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([10, 0, 0, 1], 8555))]
}

/// Longest answer: 16 sections with all codecs and candidates stay under half of it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Longest refusal: the reason is cut to 160 characters, and a sentence stands around it.
const REFUSAL_BYTES_MAX: usize = 600;

/// An offer as it stands in a request's body.
pub fn sdp_offer(data: &[u8]) {
    let Ok(offer) = std::str::from_utf8(data) else { return };
    let credentials = IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    };
    match FACTORY.answer(offer, &credentials, *START) {
        Ok((mut peer, answer)) => {
            check_answer(offer, &answer);
            // What an offer left behind may also go wrong later.
            let _ = peer.poll_output();
            peer.handle_timeout(*START + Duration::from_secs(1));
            let _ = peer.poll_output();
        }
        Err(error) => check_refusal(&error),
    }
    let wishes =
        SoundWishes { sample_rate: 16_000, channels: 1, packet_time: 20, fec: true, dtx: true };
    match PUBLISHERS.answer_sound(offer, &credentials, &wishes, *START) {
        Ok((mut voice, answer)) => {
            check_voice(offer, &answer);
            let _ = voice.poll_output(*START);
            voice.handle_timeout(*START + Duration::from_secs(1));
            let _ = voice.poll_output(*START + Duration::from_secs(1));
        }
        Err(error) => check_refusal(&error),
    }
}

fn check_refusal(error: &dyn std::error::Error) {
    let text = error.to_string();
    let printable = text.chars().all(|c| (' '..='~').contains(&c));
    assert!(printable && text.len() < REFUSAL_BYTES_MAX, "{text:?}");
}

/// One section is taken, the others are closed, and as many as were offered.
fn check_voice(offer: &str, answer: &str) {
    assert!(answer.len() <= ANSWER_BYTES_MAX + offer.len(), "{} bytes", answer.len());
    let sections = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).count();
    assert_eq!(sections(offer), sections(answer), "{answer:?}");
    let taken = answer.lines().filter(|line| line.starts_with("m=audio 9 ")).count();
    assert_eq!(taken, 1, "{answer:?}");
    for promise in ["a=ice-lite", "a=recvonly", "a=ice-ufrag:Aserver", "a=end-of-candidates"] {
        let said = answer.lines().filter(|line| *line == promise).count();
        assert_eq!(said, 1, "{promise:?} in {answer:?}");
    }
}

fn check_answer(offer: &str, answer: &Answer) {
    assert!(answer.sdp.len() <= ANSWER_BYTES_MAX, "{} bytes", answer.sdp.len());
    for promise in ["a=ice-lite\r\n", "a=setup:passive\r\n", "a=ice-ufrag:Aserver\r\n"] {
        assert!(answer.sdp.contains(promise), "no {promise:?} in {:?}", answer.sdp);
    }
    let video = answer.negotiated.video.as_ref();
    assert!(video.is_some_and(|video| !video.payloads.is_empty()), "an answer without a picture");
    let tracks = answer.negotiated.video.iter().chain(&answer.negotiated.audio);
    for payload in tracks.flat_map(|track| &track.payloads) {
        let payload_type = payload.payload_type.to_string();
        let is_offered = offer
            .lines()
            .filter(|line| line.starts_with("m="))
            .any(|line| line.split_whitespace().skip(3).any(|word| word == payload_type));
        assert!(is_offered, "payload type {payload_type} was not offered");
    }
}
