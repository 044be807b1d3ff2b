//! What an answer promises of repairs and estimates, and that it is what the viewer offered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use media::Codec;
use media::negotiated::{ExtensionKind, HeaderExtension};
use media::peer::{Answer, IceCredentials, PeerFactory};

const CHROMIUM: &str = include_str!("../../../../e2e/sdp/chromium.sdp");

#[test]
fn chromium_is_promised_retransmission_and_estimates_itself() {
    let answer = answer(CHROMIUM);
    assert_eq!(
        video_feedback(&answer.sdp),
        BTreeSet::from(["ccm fir", "goog-remb", "nack", "nack pli"]),
        "{}",
        answer.sdp
    );

    let video = answer.negotiated.video.unwrap();
    let kind = ExtensionKind::AbsoluteSendTime;
    assert_eq!(video.extension, Some(HeaderExtension { id: 2, kind }), "the offer's number");
    let rtx_ssrc = video.rtx_ssrc.unwrap();
    assert_ne!(video.ssrc, rtx_ssrc);
    let payload = video.payload(Codec::H264).unwrap();
    let apt = format!("a=fmtp:{} apt={}", payload.rtx.unwrap(), payload.payload_type);
    assert!(CHROMIUM.lines().any(|line| line == apt), "the offer's own pair");
    for line in [
        apt,
        format!("a=ssrc-group:FID {} {rtx_ssrc}", video.ssrc),
        format!("a=ssrc:{rtx_ssrc} cname:{}", answer.negotiated.cname),
    ] {
        assert!(answer.sdp.lines().any(|other| other == line), "{line}: {}", answer.sdp);
    }

    let audio = answer.negotiated.audio.unwrap();
    assert_eq!((audio.rtx_ssrc, audio.extension), (None, None));
    assert_eq!(answer.sdp.matches("a=extmap:").count(), 1, "{}", answer.sdp);
}

#[test]
fn without_either_half_of_the_estimate_the_other_way_is_taken() {
    let abs_send_time = ExtensionKind::AbsoluteSendTime.uri();
    let kind = ExtensionKind::TransportSequence;
    for missing in ["goog-remb", abs_send_time] {
        let answer = answer(&without_lines(CHROMIUM, missing));
        let feedback = video_feedback(&answer.sdp);
        assert!(feedback.contains("transport-cc") && !feedback.contains("goog-remb"), "{missing}");
        let extension = answer.negotiated.video.unwrap().extension;
        assert_eq!(extension, Some(HeaderExtension { id: 4, kind }), "{missing}");
    }
}

#[test]
fn what_was_not_offered_is_not_promised() {
    let mut offer = CHROMIUM.replace(" rtx/90000", " red/90000");
    for name in ["goog-remb", "transport-cc", "apt="] {
        offer = without_lines(&offer, name);
    }
    let offer = offer.replace(" nack\n", " ack\n").replace(" nack\r\n", " ack\r\n");
    let answer = answer(&offer);
    assert_eq!(video_feedback(&answer.sdp), BTreeSet::from(["ccm fir", "nack pli"]));
    let video = answer.negotiated.video.unwrap();
    assert_eq!((video.rtx_ssrc, video.extension), (None, None));
    assert_eq!(video.payload(Codec::H264).unwrap().rtx, None);
    assert!(!answer.sdp.contains("a=extmap:"), "{}", answer.sdp);
}

#[test]
fn feedback_for_all_payload_types_counts_for_each() {
    let lines: Vec<&str> = CHROMIUM.lines().filter(|line| !line.contains("rtcp-fb:")).collect();
    let offer = lines.join("\n").replace("a=rtcp-rsize", "a=rtcp-rsize\na=rtcp-fb:* nack");
    assert!(video_feedback(&answer(&offer).sdp).contains("nack"));
}

/// The lines that do not contain `text`.
fn without_lines(sdp: &str, text: &str) -> String {
    sdp.lines().filter(|line| !line.contains(text)).flat_map(|line| [line, "\n"]).collect()
}

fn video_feedback(answer: &str) -> BTreeSet<&str> {
    let (audio, video) = if answer.find("m=audio") < answer.find("m=video") {
        answer.split_once("m=video").unwrap()
    } else {
        let (video, audio) = answer.split_once("m=audio").unwrap();
        (audio, video)
    };
    assert!(!audio.contains("rtcp-fb"), "{audio}");
    let lines = video.lines().filter_map(|line| line.strip_prefix("a=rtcp-fb:")?.split_once(' '));
    lines.map(|(_, kind)| kind).collect()
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn answer(offer: &str) -> Answer {
    let server = SocketAddr::from(([127, 0, 0, 1], 8555));
    let credentials = IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    };
    let offer = offer.replace('\r', "").replace('\n', "\r\n");
    let factory = PeerFactory::new(vec![server]).unwrap();
    factory.answer(&offer, &credentials, Instant::now()).unwrap().1
}
