//! Offers from outside, whole, cut, mixed and blown up: an answer or an error, never a panic, and
//! never out of proportion to their length.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use media::peer::{Answer, IceCredentials, OfferError, PeerFactory};
use proptest::prelude::*;

const CHROMIUM: &str = include_str!("../../../../e2e/sdp/chromium.sdp");
const FIREFOX: &str = include_str!("../../../../e2e/sdp/firefox-esr.sdp");

static FACTORY: LazyLock<PeerFactory> =
    LazyLock::new(|| PeerFactory::new(vec![SocketAddr::from(([127, 0, 0, 1], 8555))]).unwrap());

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn now() -> Instant {
    Instant::now()
}

fn answer(offer: &str) -> Result<Answer, OfferError> {
    let credentials = IceCredentials {
        ufrag: "Aserver".to_owned(),
        password: "server-password-of-32-characters".to_owned(),
    };
    let offer = offer.replace('\r', "").replace('\n', "\r\n");
    let (mut peer, answer) = FACTORY.answer(&offer, &credentials, now())?;
    // What an offer left behind may also go wrong later.
    for _ in 0..20 {
        let _ = peer.poll_output();
    }
    peer.handle_timeout(now() + Duration::from_secs(1));
    for _ in 0..20 {
        let _ = peer.poll_output();
    }
    Ok(answer)
}

#[derive(Debug, Clone)]
enum Change {
    Delete(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index, u8),
    Swap(prop::sample::Index, prop::sample::Index),
    Steal(prop::sample::Index, prop::sample::Index),
    Number(prop::sample::Index, String),
    Word(prop::sample::Index, prop::sample::Index, String),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, &'static str),
}

const LINES: &[&str] = &[
    "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "m=audio 0 UDP/TLS/RTP/SAVPF 111",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "m=video 9 RTP/AVP 96",
    "a=sctp-port:5000",
    "a=max-message-size:262144",
    "a=simulcast:recv a;b,c",
    "a=simulcast:send a;b,c recv d",
    "a=rid:a recv",
    "a=rid:a send pt=96;max-width=1280",
    "a=ssrc:1 cname:x",
    "a=ssrc:1 msid:a b",
    "a=ssrc-group:FID 1 2",
    "a=ssrc-group:FID 1",
    "a=ssrc-group:SIM 1 2 3",
    "a=msid:- -",
    "a=msid:a",
    "a=mid:0",
    "a=mid:",
    "a=mid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a=group:BUNDLE 0 1 2 3",
    "a=group:BUNDLE",
    "a=group:LS 0",
    "a=setup:active",
    "a=setup:passive",
    "a=setup:holdconn",
    "a=sendrecv",
    "a=sendonly",
    "a=inactive",
    "a=extmap:0 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:15 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:255 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:4/recvonly urn:x",
    "a=rtpmap:96 H264/0",
    "a=rtpmap:96 H264/90000/0",
    "a=rtpmap:255 H264/90000",
    "a=fmtp:96 apt=96",
    "a=fmtp:97 apt=97",
    "a=fmtp:96 profile-level-id=ffffffff;packetization-mode=1",
    "a=fmtp:96 profile-level-id=;packetization-mode=",
    "a=rtcp-fb:* nack",
    "a=candidate:1 1 udp 4294967295 127.0.0.1 65535 typ host",
    "a=candidate:1 1 tcp 1 ::1 9 typ host tcptype active",
    "a=candidate:1 1 udp 1 x.local 9 typ host",
    "a=candidate:1 2 udp 1 0.0.0.0 0 typ relay raddr 0.0.0.0 rport 0",
    "a=end-of-candidates",
    "a=ice-lite",
    "a=ice-ufrag:",
    "a=ice-pwd:x",
    "a=fingerprint:sha-256 00",
    "a=fingerprint:sha-1 00:00",
    "a=fingerprint:md5 ",
    "c=IN IP6 ::",
    "b=AS:4294967296",
    "t=18446744073709551616 0",
    "v=1",
    "",
    "\u{0}",
    "a=\u{1b}[2J",
];

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let number = prop_oneof![
        Just("0".to_owned()),
        Just("-1".to_owned()),
        Just("127".to_owned()),
        Just("128".to_owned()),
        Just("255".to_owned()),
        Just("256".to_owned()),
        Just("65536".to_owned()),
        Just("4294967296".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("99999999999999999999999999".to_owned()),
        "[0-9]{1,6}",
    ];
    let word = prop_oneof![Just(String::new()), "[ -~]{0,12}", "\\PC{0,6}", "[:; /=,]{1,4}"];
    prop_oneof![
        index().prop_map(Change::Delete),
        (index(), index(), 1u8..40).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
        (index(), index()).prop_map(|(from, to)| Change::Steal(from, to)),
        (index(), number).prop_map(|(at, number)| Change::Number(at, number)),
        (index(), index(), word).prop_map(|(line, at, word)| Change::Word(line, at, word)),
        index().prop_map(Change::Cut),
        (index(), prop::sample::select(LINES)).prop_map(|(at, line)| Change::Insert(at, line)),
        (index(), prop::sample::select(LINES)).prop_map(|(at, line)| Change::Insert(at, line)),
    ]
}

/// The `index`-th run of digits becomes `number`.
fn with_number(text: &str, index: &prop::sample::Index, number: &str) -> String {
    let is_start = |at: usize| {
        text.as_bytes()[at].is_ascii_digit()
            && (at == 0 || !text.as_bytes()[at - 1].is_ascii_digit())
    };
    let starts: Vec<usize> = (0..text.len()).filter(|at| is_start(*at)).collect();
    if starts.is_empty() {
        return text.to_owned();
    }
    let start = starts[index.index(starts.len())];
    let rest = text[start..].trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{}{number}{rest}", &text[..start])
}

fn with_word(line: &str, index: &prop::sample::Index, word: &str) -> String {
    let mut parts: Vec<&str> = line.split([' ', ':', '=', ';']).collect();
    let at = index.index(parts.len());
    parts[at] = word;
    let head = line.get(..2).unwrap_or_default();
    if at == 0 { parts.join(" ") } else { format!("{head}{}", parts[1..].join(":")) }
}

fn changed(lines: &mut Vec<String>, other: &[&str], change: &Change) {
    if lines.is_empty() {
        return;
    }
    let count = lines.len();
    match change {
        Change::Delete(at) => {
            lines.remove(at.index(count));
        }
        Change::Repeat(from, to, times) => {
            let line = lines[from.index(count)].clone();
            let to = to.index(count);
            lines.splice(to..to, std::iter::repeat_n(line, usize::from(*times)));
        }
        Change::Swap(a, b) => lines.swap(a.index(count), b.index(count)),
        Change::Steal(from, to) => {
            lines.insert(to.index(count), other[from.index(other.len())].to_owned());
        }
        Change::Number(at, number) => {
            let line = &mut lines[at.index(count)];
            *line = with_number(line, at, number);
        }
        Change::Word(line, at, word) => {
            let line = &mut lines[line.index(count)];
            *line = with_word(line, at, word);
        }
        Change::Cut(at) => lines.truncate(at.index(count)),
        Change::Insert(at, line) => lines.insert(at.index(count), (*line).to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_changed_offer_makes_it_panic(
        from_firefox: bool,
        changes in prop::collection::vec(change(), 1..12),
    ) {
        let (base, other) = if from_firefox { (FIREFOX, CHROMIUM) } else { (CHROMIUM, FIREFOX) };
        let other: Vec<&str> = other.lines().collect();
        let mut lines: Vec<String> = base.lines().map(ToOwned::to_owned).collect();
        for change in &changes {
            changed(&mut lines, &other, change);
        }
        let offer = lines.join("\n") + "\n";
        if let Err(error) = answer(&offer) {
            prop_assert!(is_presentable(&error), "{error}");
            // What is caught in there is a bug that is contained, and a bug nevertheless.
            prop_assert!(!error.to_string().contains("not understood"), "{offer}");
        }
    }
}

/// The length that a request may have.
const LIMIT: usize = 256 * 1024;

/// The session and the video section of Chromium's offer.
fn head() -> (String, String) {
    let (session, rest) = CHROMIUM.split_at(CHROMIUM.find("m=").unwrap());
    let video = &rest[..rest[2..].find("m=").map_or(rest.len(), |at| at + 2)];
    (session.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"), video.to_owned())
}

/// An offer filled up with lines.
fn filled(line: impl Fn(usize) -> String) -> String {
    let (session, video) = head();
    let mut offer = session + &video;
    for line in (0..).map(line) {
        if offer.len() + line.len() > LIMIT - 16 * 1024 {
            break;
        }
        offer.push_str(&line);
    }
    let sections = offer.matches("m=").count();
    let mids: String = (0..sections).map(|mid| format!(" {mid}")).collect();
    offer.replace("a=group:BUNDLE 0", &format!("a=group:BUNDLE{mids}"))
}

/// Offers of the largest size that a request may have, each heavy in another way.
fn heavy_offers() -> Vec<(&'static str, String)> {
    let (session, video) = head();
    let h264 = "H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n";
    let section = |index| {
        let mid = index + 1;
        format!("m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:{mid}\na=recvonly\na=rtpmap:96 {h264}")
    };
    let candidate = |index| {
        let [_, b, c, d] = u32::try_from(index).unwrap().to_be_bytes();
        format!("a=candidate:1 1 udp {} 10.{b}.{c}.{d} 4000 typ host\n", index + 1)
    };
    let group = session.replace("BUNDLE 0", &format!("BUNDLE{}", " 0".repeat(LIMIT / 2 - 5_000)));
    let padding = LIMIT - session.len() - video.len() - 5;
    vec![
        ("sections", filled(|at| video.replace("a=mid:0", &format!("a=mid:{}", at + 1)))),
        ("small sections", filled(section)),
        ("candidates", filled(candidate)),
        ("codecs", filled(|at| format!("a=rtpmap:{} {h264}", at % 128))),
        ("ssrcs", filled(|at| format!("a=ssrc:{at} cname:x\na=ssrc:{at} msid:a b{at}\n"))),
        ("groups", filled(|at| format!("a=ssrc-group:FID {at} {}\n", at + 1))),
        ("simulcast", filled(|at| format!("a=rid:r{at} recv\n")) + "a=simulcast:recv r0;r1\n"),
        ("extensions", filled(|at| format!("a=extmap:{} urn:x:{at}\n", at % 14 + 1))),
        ("feedback", filled(|at| format!("a=rtcp-fb:{} nack\n", at % 128))),
        ("unknown", filled(|at| format!("a=x{at}:y\n"))),
        ("one line", format!("{session}{video}a=x:{}\n", "y".repeat(padding))),
        ("bundle", format!("{group}{video}")),
    ]
}

/// A sentence for people: one short printable line that tells nothing of this process.
fn is_presentable(error: &OfferError) -> bool {
    let text = error.to_string();
    text.len() < 600 && !text.contains("0x") && text.chars().all(|c| (' '..='~').contains(&c))
}

#[test]
fn the_heaviest_offers_cost_little_and_are_refused_in_a_sentence() {
    for (name, offer) in heavy_offers() {
        match answer(&offer) {
            Ok(answer) => {
                // Length alone costs nothing; parts do.
                assert_eq!(name, "one line");
                assert!(answer.sdp.len() < 32 * 1024, "{}", answer.sdp.len());
            }
            Err(error) => assert!(is_presentable(&error), "{name}: {error}"),
        }
    }
}
