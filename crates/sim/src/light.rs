//! Light viewers: real SRTP and RTCP, but a handshake of one datagram.
//!
//! ICE and DTLS cost milliseconds of CPU a viewer; most viewers of a run do without. [`LightTable`]
//! keeps the contract of [`media::peers::PeerTable`] towards the rest of the server, and a
//! [`LightViewer`] is the other end, with keys that both make up from the run's seed.
//!
//! ```text
//! hello   | 100 | viewer (8) |        answered by        | 101 | viewer (8) |
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use media::batch::Route;
use media::negotiated::{Negotiated, Payload, Track};
use media::peer::SessionKeys;
use media::peers::{ALIVE_INTERVAL, Attach, CloseReason, HANDSHAKE_TIMEOUT, PeersOutput};
use media::srtp::SrtpProfile;
use media::{Codec, MediaKind, StreamId, ViewerId};

use crate::cipher::ViewerCipher;
use crate::clock::{Clock, SimTime};
use crate::judge::{Judge, Received};
use crate::network::Path;
use crate::picture::Log;
use crate::random::Random;
use crate::rtp::{RtpTrack, read_compound, write_feedback, write_missing};

/// First byte of a hello: none of STUN, DTLS, RTP or TURN (RFC 7983).
pub(crate) const HELLO: u8 = 100;
const ANSWER: u8 = 101;
/// Between two hellos before the first answer, and after it (consent, RFC 7675).
const EAGER_HELLO_US: u64 = 200_000;
const CONSENT_HELLO_US: u64 = 2_500_000;
/// Without an answer for so long a viewer takes its connection for dead.
const CONSENT_TIMEOUT_US: u64 = 30_000_000;
const REPORT_US: u64 = 1_000_000;
/// Reports come once a second, so that the network repeats none behind so many.
const REPORTS_REMEMBERED: usize = 64;
/// A viewer without a picture asks for one at most this often.
const ASK_US: u64 = 500_000;
const VIDEO_PAYLOAD_TYPE: u8 = 102;
const AUDIO_PAYLOAD_TYPES: [(Codec, u8); 3] =
    [(Codec::Opus, 111), (Codec::Pcmu, 0), (Codec::Pcma, 8)];
/// The SSRC under which viewers send feedback.
const OWN_SSRC: u32 = 1;

/// The keys of a viewer, known to both ends.
fn keys(secret: u64, viewer: ViewerId) -> SessionKeys {
    let mut random = Random::new(secret ^ viewer.0.rotate_left(32));
    let profile = *random.pick(&[SrtpProfile::AeadAes256Gcm, SrtpProfile::AeadAes128Gcm]);
    SessionKeys { profile, material: random.bytes(profile.keying_material_len()) }
}

fn ssrc(viewer: ViewerId, kind: MediaKind) -> u32 {
    let lowest = match kind {
        MediaKind::Video => 0,
        MediaKind::Audio => 1,
    };
    0x5000_0000 | (viewer.0 as u32) << 1 | lowest
}

fn negotiated(viewer: ViewerId) -> Negotiated {
    let payload = |(codec, payload_type), profile_level_id| Payload {
        codec,
        payload_type,
        rtx: None,
        profile_level_id,
    };
    let track = |kind, payloads| Track {
        kind,
        ssrc: ssrc(viewer, kind),
        rtx_ssrc: None,
        payloads,
        extension: None,
        red: None,
    };
    let h264 = payload((Codec::H264, VIDEO_PAYLOAD_TYPE), Some([0x42, 0xe0, 31]));
    let sound = AUDIO_PAYLOAD_TYPES.map(|known| payload(known, None));
    Negotiated {
        video: Some(track(MediaKind::Video, vec![h264])),
        audio: Some(track(MediaKind::Audio, sound.to_vec())),
        cname: "light".to_owned(),
    }
}

fn message(kind: u8, viewer: ViewerId) -> Vec<u8> {
    [&[kind][..], &viewer.0.to_be_bytes()].concat()
}

fn read_message(kind: u8, packet: &[u8]) -> Option<ViewerId> {
    let (first, viewer) = packet.split_first()?;
    (*first == kind).then_some(ViewerId(u64::from_be_bytes(viewer.try_into().ok()?)))
}

struct Entry {
    stream: StreamId,
    accepted_at: SimTime,
    destination: Option<SocketAddr>,
    alive_at: SimTime,
}

/// The server's end of all light viewers.
pub(crate) struct LightTable {
    clock: Clock,
    secret: u64,
    entries: BTreeMap<ViewerId, Entry>,
    /// Who has not said hello, and until when it may.
    waiting: BTreeSet<(SimTime, ViewerId)>,
    outputs: VecDeque<PeersOutput>,
}

impl LightTable {
    pub(crate) fn new(clock: Clock, secret: u64) -> Self {
        let (entries, waiting) = (BTreeMap::new(), BTreeSet::new());
        Self { clock, secret, entries, waiting, outputs: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.waiting.is_empty() && self.outputs.is_empty()
    }

    pub(crate) const fn secret(&self) -> u64 {
        self.secret
    }

    pub(crate) fn viewers(&self) -> impl Iterator<Item = ViewerId> {
        self.entries.keys().copied()
    }

    pub(crate) fn handle_offer(&mut self, viewer: ViewerId, stream: StreamId, now: SimTime) {
        let entry = Entry { stream, accepted_at: now, destination: None, alive_at: now };
        self.entries.insert(viewer, entry);
        self.waiting.insert((hello_due(now), viewer));
    }

    /// A hello. Returns from whom, if it is somebody's.
    pub(crate) fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        packet: &[u8],
        now: SimTime,
    ) -> Option<ViewerId> {
        let viewer = read_message(HELLO, packet)?;
        let entry = self.entries.get_mut(&viewer)?;
        let at = self.clock.instant(now);
        self.waiting.remove(&(hello_due(entry.accepted_at), viewer));
        match entry.destination.replace(source) {
            None => self.outputs.push_back(PeersOutput::Attach(Box::new(Attach {
                viewer,
                stream: entry.stream,
                route: Route::new(local, source),
                keys: keys(self.secret, viewer),
                negotiated: negotiated(viewer),
                handshake: Duration::from_micros(now.since(entry.accepted_at)),
            }))),
            Some(before) if before != source => {
                let route = Route::new(local, source);
                self.outputs.push_back(PeersOutput::PathProven { viewer, route });
            }
            Some(_) => {}
        }
        if now.since(entry.alive_at) >= ALIVE_INTERVAL.as_micros() as u64 {
            entry.alive_at = now;
            let route = Route::new(local, source);
            self.outputs.push_back(PeersOutput::Alive { viewer, at, route });
        }
        let contents = message(ANSWER, viewer);
        let route = Route::new(local, source);
        self.outputs.push_back(PeersOutput::Transmit { route, contents });
        Some(viewer)
    }

    pub(crate) fn handle_close(&mut self, viewer: ViewerId, reason: CloseReason) {
        if let Some(entry) = self.entries.remove(&viewer) {
            self.waiting.remove(&(hello_due(entry.accepted_at), viewer));
            self.outputs.push_back(PeersOutput::Closed { viewer, reason });
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<SimTime> {
        self.waiting.first().map(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: SimTime) {
        while let Some((_, viewer)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.handle_close(viewer, CloseReason::NeverConnected);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<PeersOutput> {
        self.outputs.pop_front()
    }
}

/// Until when a viewer whose offer was accepted may say hello.
fn hello_due(accepted_at: SimTime) -> SimTime {
    accepted_at + HANDSHAKE_TIMEOUT.as_micros() as u64
}

/// How long a packet that is asked for is waited for: a server keeps it for two seconds from when it
/// was handed in, and it may have been paced out for a while.
const REPAIR_PATIENCE_US: u64 = 1_800_000;
/// On top of a round trip before it is asked for once more: the server refuses what comes earlier than
/// the round trip that it takes for granted at first.
const REPAIR_SLACK_US: u64 = 110_000;

/// A viewer: says hello, takes its packets apart, and reports.
pub(crate) struct LightViewer {
    viewer: ViewerId,
    cipher: ViewerCipher,
    picture: RtpTrack,
    sound: RtpTrack,
    /// Index and tag of the newest reports.
    reports_seen: BTreeMap<u32, Vec<u8>>,
    next_hello: SimTime,
    next_report: SimTime,
    answered_at: SimTime,
    is_answered: bool,
    asked_at: SimTime,
    /// Frames so far; a viewer whose number stands still asks for the picture.
    progress: (u64, SimTime),
    sent: Vec<Vec<u8>>,
    pub(crate) is_closed: bool,
}

impl LightViewer {
    /// `viewer` is what the answer to its offer named.
    pub(crate) fn new(
        viewer: ViewerId,
        secret: u64,
        path: &Path,
        strict: bool,
        now: SimTime,
    ) -> Option<Self> {
        let patience_us = Self::patience_us(path);
        let audio = AUDIO_PAYLOAD_TYPES.iter().map(|(_, payload_type)| *payload_type).collect();
        let track = |kind, payload_types| {
            RtpTrack::new(kind, ssrc(viewer, kind), payload_types, patience_us, strict)
        };
        Some(Self {
            viewer,
            cipher: ViewerCipher::new(&keys(secret, viewer))?,
            picture: track(MediaKind::Video, vec![VIDEO_PAYLOAD_TYPE]),
            sound: track(MediaKind::Audio, audio),
            reports_seen: BTreeMap::new(),
            next_hello: now,
            next_report: now + REPORT_US,
            answered_at: now,
            is_answered: false,
            asked_at: now,
            progress: (0, now),
            sent: Vec::new(),
            is_closed: false,
        })
    }

    /// What is lost on its path is asked for again, and has to come while the server keeps it.
    pub(crate) const fn expect_repairs(&mut self, path: &Path, stall_us: u64) {
        let every_us = 2 * path.delay_us_max() + REPAIR_SLACK_US;
        self.picture.expect_repairs(every_us, REPAIR_PATIENCE_US + stall_us);
        self.sound.expect_repairs(every_us, REPAIR_PATIENCE_US + stall_us);
    }

    /// Asks for what is missing.
    fn ask_again(&mut self, now: SimTime) {
        for track in [&mut self.picture, &mut self.sound] {
            let missing = track.take_missing(now);
            if !missing.is_empty() {
                let nack = write_missing(OWN_SSRC, track, &missing);
                self.sent.push(self.cipher.seal_rtcp(&nack));
            }
        }
    }

    /// How long it waits for a packet that others have overtaken.
    pub(crate) const fn patience_us(path: &Path) -> u64 {
        if path.disorder { path.jitter_us + 1_000 } else { 0 }
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }

    /// Asks for the picture again, as if it were lost.
    pub(crate) fn ask_for_picture(&mut self, judge: &mut Judge, now: SimTime) {
        self.asked_at = now;
        judge.handle_asked(now);
        self.picture.relax();
        self.send_feedback(true, false);
    }

    /// Says BYE.
    pub(crate) fn say_goodbye(&mut self) {
        self.send_feedback(false, true);
        self.is_closed = true;
    }

    /// Its address changed: consent is asked for from the new one.
    pub(crate) const fn handle_moved(&mut self, now: SimTime) {
        self.picture.relax();
        self.sound.relax();
        self.next_hello = now;
    }

    pub(crate) fn handle_datagram(
        &mut self,
        packet: &[u8],
        judge: &mut Judge,
        log: &Log,
        now: SimTime,
    ) -> Result<(), String> {
        match packet {
            [ANSWER, ..] if read_message(ANSWER, packet) == Some(self.viewer) => {
                self.is_answered = true;
                self.answered_at = now;
                Ok(())
            }
            [128..=191, 192..=223, ..] => self.handle_reports(packet, judge, log),
            [128..=191, ..] if packet.len() > 28 => {
                let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                let tracks = [&mut self.picture, &mut self.sound];
                let Some(track) = tracks.into_iter().find(|track| track.ssrc() == ssrc) else {
                    return Err(format!("a packet has the unknown SSRC {ssrc:08x}"));
                };
                track.handle_packet(packet, &self.cipher, now)?;
                self.ask_again(now);
                self.hand_in(judge, log, now)
            }
            _ => Err(format!("the server sent {:02x?}", packet.get(..8).unwrap_or(packet))),
        }
    }

    pub(crate) fn next_timeout(&self) -> SimTime {
        let missing = [self.picture.next_timeout(), self.sound.next_timeout()];
        let due = [Some(self.next_hello), Some(self.next_report)];
        missing.into_iter().chain(due).flatten().min().unwrap_or(self.next_hello)
    }

    pub(crate) fn handle_timeout(
        &mut self,
        judge: &mut Judge,
        log: &Log,
        now: SimTime,
    ) -> Result<(), String> {
        if now >= self.next_hello {
            self.sent.push(message(HELLO, self.viewer));
            let wait = if self.is_answered { CONSENT_HELLO_US } else { EAGER_HELLO_US };
            self.next_hello = now + wait;
        }
        if now.since(self.answered_at) > CONSENT_TIMEOUT_US {
            self.is_closed = true;
            return Ok(());
        }
        self.picture.handle_timeout(now)?;
        self.sound.handle_timeout(now)?;
        self.ask_again(now);
        self.hand_in(judge, log, now)?;
        if now >= self.next_report {
            self.next_report = now + REPORT_US;
            let stalls = now.since(self.progress.1) > 2 * ASK_US;
            let is_lossy = !judge.is_strict() && self.picture.lost > 0;
            if stalls && is_lossy && now.since(self.asked_at) >= ASK_US {
                self.ask_for_picture(judge, now);
            } else if self.is_answered {
                self.send_feedback(false, false);
            }
        }
        Ok(())
    }

    fn hand_in(&mut self, judge: &mut Judge, log: &Log, now: SimTime) -> Result<(), String> {
        for frame in self.picture.take_frames() {
            let units: Vec<&[u8]> = frame.units.iter().map(|unit| &unit[..]).collect();
            judge.handle_picture(&Received { units: &units, timestamp: frame.timestamp }, log)?;
            self.progress = (self.progress.0 + 1, now);
        }
        for frame in self.sound.take_frames() {
            let units: Vec<&[u8]> = frame.units.iter().map(|unit| &unit[..]).collect();
            judge.handle_sound(&Received { units: &units, timestamp: frame.timestamp }, log)?;
        }
        Ok(())
    }

    fn handle_reports(
        &mut self,
        packet: &[u8],
        judge: &mut Judge,
        log: &Log,
    ) -> Result<(), String> {
        let Some((index, compound)) = self.cipher.open_rtcp(packet) else {
            return Err("a report of the server's is not authentic".to_owned());
        };
        let told = read_compound(&compound).ok_or("a report of the server's is malformed")?;
        self.is_closed |= told.goodbye;
        let is_newest = self.reports_seen.keys().next_back().is_none_or(|newest| index > *newest);
        let tag = packet[packet.len() - 20..].to_vec();
        let before = self.reports_seen.insert(index, tag.clone());
        if before.is_some_and(|before| before != tag) {
            return Err(format!("SRTCP index {index} was used twice"));
        }
        if self.reports_seen.len() > REPORTS_REMEMBERED {
            self.reports_seen.pop_first();
        }
        if !is_newest {
            return Ok(());
        }
        for report in told.reports {
            let kind = if report.ssrc == self.picture.ssrc() {
                MediaKind::Video
            } else if report.ssrc == self.sound.ssrc() {
                MediaKind::Audio
            } else {
                return Err(format!("a report is on the unknown SSRC {:08x}", report.ssrc));
            };
            let ntp_us = media::NtpTime(report.ntp).unix_micros();
            judge.handle_report(kind, ntp_us, report.timestamp, log)?;
        }
        Ok(())
    }

    fn send_feedback(&mut self, picture_lost: bool, leaves: bool) {
        let compound = write_feedback(OWN_SSRC, &self.picture, picture_lost, leaves);
        self.sent.push(self.cipher.seal_rtcp(&compound));
    }
}
