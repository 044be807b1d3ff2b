//! Answers list every codec that both sides have, with retransmissions where they were offered.

use std::net::SocketAddr;
use std::time::Instant;

use media::negotiated::{Negotiated, Track};
use media::peer::{Answer, IceCredentials, OfferError, PeerFactory};
use media::{Codec, MediaKind};

const CHROMIUM: &str = include_str!("../../../../e2e/sdp/chromium.sdp");
const FIREFOX: &str = include_str!("../../../../e2e/sdp/firefox-esr.sdp");

#[test]
fn chromium_gets_all_that_it_has() {
    let video = video(CHROMIUM);
    let codecs = distinct(&video);
    assert_eq!(codecs, [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1], "{video:?}");
    let payload_type = |codec| video.payload(codec).unwrap().payload_type;
    assert_eq!(payload_type(Codec::H264), 108, "constrained baseline, packetization-mode 1");
    assert_eq!(payload_type(Codec::Vp8), 96);
    assert_eq!(payload_type(Codec::Vp9), 98, "profile 0");
    assert_eq!(payload_type(Codec::Av1), 45, "profile 0");
    let audio = answer(CHROMIUM).unwrap().negotiated.audio.unwrap();
    assert_eq!(audio.kind, MediaKind::Audio);
    assert_eq!(distinct(&audio), [Codec::Opus, Codec::Pcmu, Codec::Pcma]);
}

#[test]
fn a_browser_without_h264_gets_what_it_has() {
    let video = video(FIREFOX);
    assert!(!video.takes(Codec::H264) && video.takes(Codec::Vp8) && video.takes(Codec::Vp9));
}

#[test]
fn each_picture_codec_has_its_own_retransmissions() {
    let video = video(CHROMIUM);
    for payload in &video.payloads {
        assert!(payload.rtx.is_some(), "{payload:?}");
    }
    assert!(video.rtx_ssrc.is_some());
}

#[test]
fn h265_is_answered_with_the_viewers_level() {
    let offer = with_video(
        "a=rtpmap:96 H265/90000\na=fmtp:96 level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST\n\
         a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n\
         a=rtpmap:98 H265/90000\na=fmtp:98 level-id=120;profile-id=2;tier-flag=0\n",
        "96 97 98",
    );
    let answer = answer(&offer).unwrap();
    let payload = answer.negotiated.video.unwrap().payload(Codec::H265).unwrap();
    assert_eq!((payload.payload_type, payload.rtx), (96, Some(97)));
    let format = answer.sdp.lines().find(|line| line.starts_with("a=fmtp:96")).unwrap();
    assert!(format.contains("level-id=93") && format.contains("profile-id=1"), "{format}");
}

#[test]
fn h265_without_a_format_line_is_answered() {
    let offer = with_video("a=rtpmap:96 H265/90000\n", "96");
    assert!(video(&offer).takes(Codec::H265));
}

#[test]
fn an_offer_without_any_codec_of_ours_names_what_it_has() {
    let offer = with_video("a=rtpmap:96 theora/90000\na=rtpmap:97 ulpfec/90000\n", "96 97");
    let Err(error) = answer(&offer) else { panic!("answered") };
    assert_eq!(error, OfferError::NoCommonCodec { offered: "theora, ulpfec".to_owned() });
    let text = error.to_string();
    assert!(text.contains("H.264") && text.contains("AV1") && text.ends_with("theora, ulpfec"));
}

fn video(offer: &str) -> Track {
    answer(offer).unwrap().negotiated.video.unwrap()
}

fn distinct(track: &Track) -> Vec<Codec> {
    let mut codecs = Vec::new();
    for payload in &track.payloads {
        if !codecs.contains(&payload.codec) {
            codecs.push(payload.codec);
        }
    }
    codecs
}

/// Chromium's offer with other codecs in its video section.
fn with_video(codecs: &str, payload_types: &str) -> String {
    let (session, rest) = CHROMIUM.split_at(CHROMIUM.find("m=video").unwrap());
    let (video, audio) = rest.split_at(rest.find("m=audio").unwrap());
    let kept = video.lines().skip(1).filter(|line| {
        !["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().any(|prefix| line.starts_with(prefix))
    });
    let attributes: String = kept.flat_map(|line| [line, "\n"]).collect();
    format!("{session}m=video 9 UDP/TLS/RTP/SAVPF {payload_types}\n{attributes}{codecs}{audio}")
}

fn answer(offer: &str) -> Result<Answer, OfferError> {
    let factory = PeerFactory::new(vec![SocketAddr::from(([127, 0, 0, 1], 8555))]).unwrap();
    let credentials = IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    };
    let offer = offer.replace('\r', "").replace('\n', "\r\n");
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    let now = Instant::now();
    let (_, answer) = factory.answer(&offer, &credentials, now)?;
    assert_eq!(answer.negotiated, Negotiated::from_answer(&answer.sdp));
    Ok(answer)
}
