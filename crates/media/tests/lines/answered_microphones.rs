//! What the offers of those who speak are answered with: Chromium's and aiortc's, and changed ones.

use std::net::SocketAddr;
use std::time::Instant;

use media::peer::IceCredentials;
use media::peer::publisher::{PublishError, PublisherFactory, SoundWishes};

const CHROMIUM: &str = include_str!("../../../../e2e/sdp/chromium-microphone.sdp");
const AIORTC: &str = include_str!("../../../../e2e/sdp/aiortc-microphone.sdp");
const VIDEO: &str = include_str!("../../../../e2e/sdp/chromium.sdp");

const WISHES: SoundWishes =
    SoundWishes { sample_rate: 16_000, channels: 1, packet_time: 20, fec: true, dtx: false };

#[test]
fn chromium_is_answered_with_redundancy_first_and_what_the_wishes_say() {
    let offer = CHROMIUM.replace("opus/48000/2\r\n", "opus/48000/2\r\na=rtcp-fb:111 nack\r\n");
    let lines = answer(&offer, &WISHES).unwrap();
    let expected = [
        "a=group:BUNDLE 0",
        "a=ice-lite",
        "m=audio 9 UDP/TLS/RTP/SAVPF 63 111",
        "a=setup:passive",
        "a=mid:0",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=recvonly",
        "a=rtcp-mux",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 transport-cc",
        "a=rtcp-fb:111 nack",
        "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=0;stereo=0;maxplaybackrate=16000",
        "a=ptime:20",
        "a=end-of-candidates",
    ];
    for line in expected {
        assert_eq!(lines.iter().filter(|other| *other == line).count(), 1, "{line}: {lines:#?}");
    }
    let candidates = lines.iter().filter(|line| line.starts_with("a=candidate:")).count();
    assert_eq!((candidates, &lines[lines.len() - 1][..]), (2, "a=end-of-candidates"));
    let others = ["PCMU", "PCMA", "a=ssrc", "a=msid:", "a=sendrecv", "telephone", "abs-send-time"];
    assert!(!lines.iter().any(|line| others.iter().any(|word| line.contains(word))), "{lines:#?}");
}

#[test]
fn feedback_that_is_not_offered_is_not_answered() {
    let lines = answer(CHROMIUM, &WISHES).unwrap();
    assert!(!lines.iter().any(|line| line.contains("nack")), "{lines:#?}");
    let lines = answer(&CHROMIUM.replace("rtcp-fb:111 transport-cc", "rtcp-fb:* nack"), &WISHES);
    let lines = lines.unwrap();
    assert!(lines.contains(&"a=rtcp-fb:111 nack".to_owned()), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("transport-cc")), "{lines:#?}");
}

#[test]
fn aiortc_is_answered_without_redundancy_under_its_own_numbers() {
    let wishes =
        SoundWishes { sample_rate: 48_000, channels: 2, packet_time: 60, fec: false, dtx: true };
    let lines = answer(AIORTC, &wishes).unwrap();
    for line in [
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        "a=recvonly",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 minptime=10;useinbandfec=0;usedtx=1;stereo=1;maxplaybackrate=48000",
        "a=ptime:60",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("red/")), "{lines:#?}");
}

#[test]
fn whatever_is_offered_besides_is_rejected() {
    let (_, picture) = VIDEO.split_once("m=video ").unwrap();
    let picture = picture.split("m=audio").next().unwrap().replace("a=recvonly", "a=sendonly");
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:QNdT\r\na=ice-pwd:eGnKgZb6nut/GG7qggK+L1Cf\r\na=setup:actpass\r\na=mid:7\r\na=sctp-port:5000\r\n";
    let (session, sound) = CHROMIUM.split_once("m=audio").unwrap();
    let session = session.replace("BUNDLE 0", "BUNDLE 5 0 7 6");
    let [first, other] = ["a=mid:5", "a=mid:6"].map(|mid| picture.replace("a=mid:0", mid));
    let offer = format!("{session}m=video {first}m=audio{sound}{data}m=video {other}");

    let lines = answer(&offer, &WISHES).unwrap();

    let heads: Vec<&String> = lines.iter().filter(|line| line.starts_with("m=")).collect();
    assert!(heads[0].starts_with("m=video 0 UDP/TLS/RTP/SAVPF 96 "), "{heads:?}");
    assert_eq!(heads[1], "m=audio 9 UDP/TLS/RTP/SAVPF 63 111");
    assert_eq!(heads[2], "m=application 0 UDP/DTLS/SCTP webrtc-datachannel");
    assert!(heads[3].starts_with("m=video 0 "), "{heads:?}");
    assert!(lines.contains(&"a=group:BUNDLE 0".to_owned()), "{lines:#?}");
    let at = |wanted: &str| lines.iter().position(|line| line.starts_with(wanted)).unwrap();
    let sound = at("m=audio")..at("m=application");
    for needed in ["a=candidate:", "a=fingerprint:", "a=ice-ufrag:", "a=setup:", "a=recvonly"] {
        assert!(sound.contains(&at(needed)), "{needed}: {lines:#?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "a=inactive").count(), 3);
    let mids: Vec<&String> = lines.iter().filter(|line| line.starts_with("a=mid:")).collect();
    assert_eq!(mids, ["a=mid:5", "a=mid:0", "a=mid:7", "a=mid:6"]);
}

#[test]
fn an_offer_without_a_voice_is_refused_with_what_it_lacks() {
    for offer in [
        CHROMIUM.replace("a=sendrecv", "a=recvonly"),
        CHROMIUM.replace("a=sendrecv", "a=inactive"),
        CHROMIUM.replace("m=audio 9 ", "m=audio 0 ").replace("m=audio 60332", "m=audio 0"),
        VIDEO.replace("a=recvonly", "a=sendonly").replace("m=audio 9", "m=audio 0"),
    ] {
        assert_eq!(answer(&offer, &WISHES), Err(PublishError::NoAudio), "{offer}");
    }
    let without = CHROMIUM.replace(" opus/", " theora/");
    let Err(PublishError::NoOpus { offered }) = answer(&without, &WISHES) else { panic!() };
    assert!(offered.starts_with("theora, red, G722, PCMU"), "{offered}");
    let elsewhere = CHROMIUM.replace("SAVPF 111 63", "SAVPF 112 63");
    assert!(answer(&elsewhere, &WISHES).is_err(), "111 is in no m= line");
    let Err(PublishError::Offer(_)) = answer("no offer", &WISHES) else { panic!() };
}

#[test]
fn redundancy_that_the_section_does_not_list_is_left_out() {
    let offer = CHROMIUM.replace("SAVPF 111 63", "SAVPF 111");
    let lines = answer(&offer, &WISHES).unwrap();
    assert!(lines.contains(&"m=audio 9 UDP/TLS/RTP/SAVPF 111".to_owned()), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("red/")), "{lines:#?}");
}

/// The answer's lines.
fn answer(offer: &str, wishes: &SoundWishes) -> Result<Vec<String>, PublishError> {
    let addresses = [([10, 0, 0, 1], 8555), ([192, 168, 1, 1], 8555)].map(SocketAddr::from);
    let factory = PublisherFactory::new(addresses.to_vec()).unwrap();
    let credentials = IceCredentials { ufrag: "gabcd".into(), password: "0123456789".repeat(3) };
    let (_, answer) = factory.answer_sound(offer, &credentials, wishes, start())?;
    assert!(answer.ends_with("\r\n") && !answer.contains("\r\n\r\n"), "{answer}");
    Ok(answer.lines().map(ToOwned::to_owned).collect())
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}
