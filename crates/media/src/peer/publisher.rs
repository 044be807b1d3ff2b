//! A publisher's peer connection: all of it is str0m's, SRTP and RTCP included.
//!
//! Unlike a viewer's [`Peer`] it has one sender a key, str0m, which decrypts, answers with receiver
//! reports and transport-wide feedback, and asks for lost packets again (NACK). A camera's packets
//! become frames in [`Track`](crate::publish::Track)s, a voice's leave one by one from a
//! [`ForwardedTrack`](crate::publish::ForwardedTrack). There is at most
//! one picture and one sound; simulcast is not answered.

mod sound;
pub(super) mod tracks;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::dtls::DtlsProvider;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::rtp::{ExtensionMap, RtpPacket};
use str0m::{Candidate, Event, IceCreds, Output, Rtc, RtcConfig};

use super::codecs::add_vp9;
use super::offer::{check_size, malformed, with_candidates};
use super::rsa::{DtlsForAll, widen_request};
use super::tap::KeySlot;
use super::{HostCandidate, IceCredentials, OfferError, Peer, Proven, Received, STAND_IN, is_stun};
use crate::ice::candidate_lines;
use crate::negotiated::{offered_codecs, sends_video, sprop_parameter_sets};
use crate::publish::{TrackFigures, TrackOutput};
use crate::route::Route;
use crate::stun::BindingRequest;

pub use sound::SoundWishes;
use sound::{VoiceAnswer, voice_answer, voice_section};
use tracks::{Form, Tracks, Voice};

/// How often at most a publisher is asked for a keyframe. One costs as much as many frames, and one
/// under way is an answer to all who ask meanwhile.
pub const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// What publishers without transport-wide feedback are told that they may send, in bit/s: more than
/// any camera does. They begin slowly and stay there where they are told nothing.
const RATE_MAX: u64 = 50_000_000;

/// How often they are told. RFC 4585 leaves it to the receiver; libwebrtc forgets after 3 s.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// How often str0m's own counters are read.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Payload types that stand for H.264 until the offer's own replace them: ours, its
/// retransmissions', packetization mode, profile.
const H264_PAYLOADS: [(u8, u8, bool, u32); 9] = [
    (127, 121, true, 0x42_001f),
    (108, 109, true, 0x42_e01f),
    (123, 119, true, 0x4d_001f),
    (114, 115, true, 0x64_001f),
    (37, 38, true, 0x64_0c1f),
    (125, 107, false, 0x42_001f),
    (124, 120, false, 0x42_e01f),
    (35, 36, false, 0x4d_001f),
    (39, 40, false, 0x64_001f),
];

/// Why a publisher's offer cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not SDP, or not an offer of WebRTC.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// No open `m=video` section that wants to send.
    #[error("the offer has no video section that sends; a camera needs a picture")]
    NoVideo,
    /// No open `m=audio` section that wants to send.
    #[error(
        "the offer has no audio section that sends; add the microphone's track before the offer"
    )]
    NoAudio,
    /// No sound that receivers could be given.
    #[error("the offer has no Opus, which is what voices are relayed in; it has {offered}")]
    NoOpus {
        /// The encoding names that were offered.
        offered: String,
    },
    /// Nothing that can be passed on to viewers.
    #[error(
        "the offer has no video codec that viewers can be given (H.264 best, H.265, VP8, VP9 or AV1); it has {offered}"
    )]
    NoCommonCodec {
        /// The encoding names that were offered.
        offered: String,
    },
}

/// What all publishers of a process share.
pub struct PublisherFactory {
    /// For those who send the first hello of DTLS.
    crypto: Arc<CryptoProvider>,
    /// For those who wait for ours. There the other side asks for a certificate, and what it asked
    /// is in the transcript as it came.
    crypto_of_client: Arc<CryptoProvider>,
    certificate: DtlsCert,
    candidates: Vec<HostCandidate>,
}

/// Which codecs are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codecs {
    /// What every browser plays.
    H264,
    /// Where the offer has nothing better.
    Others,
    /// Somebody speaks.
    Voice,
}

impl PublisherFactory {
    /// `candidates` as for [`PeerFactory`](super::PeerFactory). Makes a certificate of its own.
    pub fn new(candidates: Vec<SocketAddr>) -> Option<Self> {
        let mut crypto = str0m_aws_lc_rs::default_provider();
        let certificate = DtlsForAll.generate_certificate()?;
        crypto.dtls_provider = &DtlsForAll;
        let crypto_of_client = Arc::new(str0m_aws_lc_rs::default_provider());
        let candidates = candidates.into_iter().map(HostCandidate::udp).collect();
        Some(Self { crypto: Arc::new(crypto), crypto_of_client, certificate, candidates })
    }

    /// What is announced from here on, in order of preference.
    pub fn set_candidates(&mut self, candidates: Vec<HostCandidate>) {
        self.candidates = candidates;
    }

    /// The candidates as lines of SDP.
    pub fn candidate_lines(&self) -> String {
        candidate_lines(&self.candidates)
    }

    /// Answers an offer with `recvonly` and ICE-lite: with H.264 alone where it is offered, so that
    /// every browser can watch, else with what there is. DTLS begins from the other side, but for
    /// offers that say `setup:passive`, as FFmpeg's do.
    pub fn answer(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<(Publisher, String), PublishError> {
        guarded(offer, || self.answer_readable(offer, credentials, now))
    }

    /// Answers the offer of somebody who speaks with `recvonly` and ICE-lite: one section of sound,
    /// Opus with redundancy where it is offered. Whatever else is offered is rejected. DTLS as in
    /// [`Self::answer`].
    pub fn answer_sound(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        wishes: &SoundWishes,
        now: Instant,
    ) -> Result<(Publisher, String), PublishError> {
        guarded(offer, || self.answer_readable_sound(offer, credentials, wishes, now))
    }

    fn answer_readable_sound(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        wishes: &SoundWishes,
        now: Instant,
    ) -> Result<(Publisher, String), PublishError> {
        let offer = without_layers(offer);
        SdpOffer::from_sdp_string(&offer).map_err(|error| malformed(&error))?;
        let taken = voice_section(&offer)?;
        let (rtc, answer) = self.answer_with(Codecs::Voice, &offer, credentials, now)?;
        let lines = candidate_lines(&self.candidates);
        let VoiceAnswer { sdp, resends } = voice_answer(&offer, &answer, taken, wishes, &lines)?;
        let peer = Peer::new(rtc, KeySlot::default(), credentials);
        Ok((Publisher::new(peer, Tracks::Voice(Box::new(Voice::new(resends)))), sdp))
    }

    fn answer_readable(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<(Publisher, String), PublishError> {
        let parameter_sets = sprop_parameter_sets(offer);
        let offer = without_layers(offer);
        // Broken ones are refused for that, whatever else they lack.
        SdpOffer::from_sdp_string(&offer).map_err(|error| malformed(&error))?;
        if !sends_video(&offer) {
            return Err(PublishError::NoVideo);
        }
        for codecs in [Codecs::H264, Codecs::Others] {
            let (rtc, answer) = self.answer_with(codecs, &offer, credentials, now)?;
            let answer = with_candidates(&as_receiver(&answer), &candidate_lines(&self.candidates));
            if has_video(&answer) {
                let peer = Peer::new(rtc, KeySlot::default(), credentials);
                let tracks = Tracks::of_camera(parameter_sets);
                return Ok((Publisher::new(peer, tracks), answer));
            }
        }
        let offered = offered_codecs(&offer, "video").join(", ");
        Err(PublishError::NoCommonCodec { offered })
    }

    fn answer_with(
        &self,
        codecs: Codecs,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<(Rtc, String), OfferError> {
        let parsed = SdpOffer::from_sdp_string(offer).map_err(|error| malformed(&error))?;
        let crypto = if offer.lines().any(|line| line == "a=setup:passive") {
            &self.crypto_of_client
        } else {
            &self.crypto
        };
        let mut rtc = self.config(codecs, credentials, crypto).build(now);
        if let Ok(candidate) = Candidate::host(STAND_IN[0], "udp") {
            rtc.add_local_candidate(candidate);
        }
        let answer = rtc.sdp_api().accept_offer(parsed).map_err(|error| malformed(&error))?;
        Ok((rtc, answer.to_sdp_string()))
    }

    fn config(
        &self,
        codecs: Codecs,
        credentials: &IceCredentials,
        crypto: &Arc<CryptoProvider>,
    ) -> RtcConfig {
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(crypto))
            .set_dtls_cert(self.certificate.clone())
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_local_ice_credentials(IceCreds {
                ufrag: credentials.ufrag.clone(),
                pass: credentials.password.clone(),
            })
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_stats_interval(Some(STATS_INTERVAL))
            .clear_codecs();
        match codecs {
            Codecs::H264 => {
                config = camera(config);
                for (payload, resend, mode, profile) in H264_PAYLOADS {
                    let (payload, resend) = (payload.into(), Some(resend.into()));
                    config.codec_config().add_h264(payload, resend, mode, profile);
                }
                config
            }
            Codecs::Others => {
                config = camera(config).enable_h265(true).enable_vp8(true).enable_av1(true);
                add_vp9(config.codec_config());
                config
            }
            Codecs::Voice => sound::configured(config),
        }
    }
}

/// Answers an offer that is not too large. str0m reads what strangers wrote, and a panic here would end
/// the thread of all publishers.
fn guarded<T>(
    offer: &str,
    answer: impl FnOnce() -> Result<T, PublishError>,
) -> Result<T, PublishError> {
    check_size(offer)?;
    catch_unwind(AssertUnwindSafe(answer))
        .unwrap_or_else(|_| Err(OfferError::Malformed("it is not understood".to_owned()).into()))
}

/// What every camera may send besides its picture.
fn camera(config: RtcConfig) -> RtcConfig {
    config
        .set_extension_map(ExtensionMap::standard())
        .enable_opus(true, false)
        .enable_pcmu(true, false)
        .enable_pcma(true, false)
}

/// What a publisher wants done or tells.
#[derive(Debug)]
pub enum PublisherOutput {
    /// Send this packet.
    Transmit {
        /// Where from and where to.
        route: Route,
        /// STUN, DTLS or SRTCP.
        contents: Vec<u8>,
    },
    /// DTLS is done; media may come.
    Connected,
    /// What came of packets; never [`TrackOutput::KeyframeWanted`].
    Track(TrackOutput),
    /// The publisher said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// Counters of one publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherFigures {
    /// Both tracks' together.
    pub tracks: TrackFigures,
    /// Keyframes that it was asked for.
    pub keyframes_asked: u64,
    /// Messages that asked it for lost packets (NACK), as of a second ago.
    pub nacks: u64,
}

impl std::ops::Add for PublisherFigures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tracks: self.tracks + other.tracks,
            keyframes_asked: self.keyframes_asked + other.keyframes_asked,
            nacks: self.nacks + other.nacks,
        }
    }
}

/// Whether anybody wants what a publisher sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nobody: packets are thrown away as they come.
    Unwanted,
    /// Somebody does, from the next keyframe on.
    Wanted,
}

/// One publisher. See the module's documentation.
pub struct Publisher {
    peer: Peer,
    tracks: Tracks,
    demand: Demand,
    connected: bool,
    /// When something authentic came last.
    heard: Option<Instant>,
    /// When a keyframe was asked for last, and whether one is wanted again.
    keyframe_asked: Option<Instant>,
    keyframe_wanted: bool,
    keyframes_asked: u64,
    /// By section; an offer has a bounded number of them.
    nacks: HashMap<Mid, u64>,
    rate_due: Option<Instant>,
    outputs: VecDeque<TrackOutput>,
}

impl Publisher {
    fn new(peer: Peer, tracks: Tracks) -> Self {
        Self {
            peer,
            tracks,
            demand: Demand::Unwanted,
            connected: false,
            heard: None,
            keyframe_asked: None,
            keyframe_wanted: false,
            keyframes_asked: 0,
            nacks: HashMap::new(),
            rate_due: None,
            outputs: VecDeque::new(),
        }
    }

    /// A binding request that names our user fragment, as [`Peer::handle_check`] takes it. What we
    /// send goes along the path that was nominated last: reports, which are of use to nobody else.
    pub fn handle_check(
        &mut self,
        route: Route,
        request: &BindingRequest<'_>,
        now: Instant,
    ) -> Option<Proven> {
        let proven = self.peer.handle_check(route, request, now)?;
        // A copy of an old check holds no place and moves nothing.
        if !proven.is_repeated {
            if request.nominates {
                self.peer.select(route);
            }
            self.heard = Some(now);
        }
        Some(proven)
    }

    /// DTLS, SRTP or SRTCP. Only what comes along a proven path is looked at.
    pub fn handle_datagram(&mut self, route: Route, packet: &[u8], now: Instant) -> Received {
        self.peer.handle_dtls(route, packet, now)
    }

    /// Paths along which checks came, as many as are remembered.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.peer.routes()
    }

    /// Where packets to the publisher go, once an authentic check came.
    pub fn selected_route(&self) -> Option<Route> {
        self.peer.selected_route()
    }

    /// An ICE restart, as [`Peer::restart`] does it.
    pub fn restart(&mut self, ours: IceCredentials, theirs: IceCredentials) {
        self.peer.restart(ours, theirs);
    }

    /// The user fragment from before a restart, while it is good.
    pub fn previous_ufrag(&self) -> Option<&str> {
        self.peer.previous_ufrag()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
        self.tracks.handle_timeout(now);
        self.collect();
        self.ask_for_keyframe(now);
        if self.rate_due.is_some_and(|due| due <= now) {
            self.rate_due = Some(now + RATE_INTERVAL);
            self.tell_rate();
        }
    }

    /// Somebody begins or ceases to want what it sends.
    pub fn set_demand(&mut self, demand: Demand) {
        self.demand = demand;
        if demand == Demand::Wanted {
            self.want_keyframe();
        }
    }

    /// Frames were lost behind it: a picture goes on at the next keyframe.
    pub fn handle_overflow(&mut self) {
        self.tracks.hold();
        self.collect();
    }

    /// Somebody cannot decode. Asked at most once a [`KEYFRAME_INTERVAL`]; never forgotten.
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Starts the goodbye; poll until [`PublisherOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        self.peer.close();
    }

    /// When something authentic came from it last.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Counters.
    pub fn figures(&self) -> PublisherFigures {
        let tracks = self.tracks.figures();
        let nacks = self.nacks.values().sum();
        PublisherFigures { tracks, keyframes_asked: self.keyframes_asked, nacks }
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self, now: Instant) -> PublisherOutput {
        self.ask_for_keyframe(now);
        if let Some((route, contents)) = self.peer.poll_answer() {
            return PublisherOutput::Transmit { route, contents };
        }
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return PublisherOutput::Track(output);
            }
            if self.peer.failed || !self.peer.rtc.is_alive() {
                return PublisherOutput::Closed;
            }
            let Some(output) = self.peer.guarded(Rtc::poll_output) else {
                return PublisherOutput::Closed;
            };
            match output {
                // Checks are not answered by str0m, which knows of no path.
                Ok(Output::Transmit(transmit)) if is_stun(&transmit.contents) => {}
                Ok(Output::Transmit(transmit)) => {
                    let contents = widen_request(transmit.contents.to_vec());
                    if let Some(route) = self.peer.selected_route() {
                        return PublisherOutput::Transmit { route, contents };
                    }
                }
                Ok(Output::Timeout(at)) => return PublisherOutput::Timeout(self.earliest(at)),
                Ok(Output::Event(Event::Connected)) => {
                    self.peer.connected = true;
                    self.connected = true;
                    self.rate_due = self.tracks.are_told_rates().then_some(now);
                    return PublisherOutput::Connected;
                }
                Ok(Output::Event(Event::RtpPacket(packet))) => self.handle_packet(packet, now),
                Ok(Output::Event(Event::MediaIngressStats(stats))) => {
                    self.nacks.insert(stats.mid, stats.nacks);
                }
                // A sender report: SRTCP is authentic as SRTP is.
                Ok(Output::Event(Event::SenderFeedback(_))) => self.heard = Some(now),
                Ok(Output::Event(Event::Closed)) => return PublisherOutput::Closed,
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "publisher's connection failed");
                    self.peer.rtc.disconnect();
                    return PublisherOutput::Closed;
                }
            }
        }
    }

    fn handle_packet(&mut self, packet: RtpPacket, now: Instant) {
        self.heard = Some(now);
        let form = Form::of(packet.header.payload_type, self.peer.rtc.codec_config());
        let Some(form) = form.filter(|_| self.demand == Demand::Wanted) else { return };
        let incoming = form.incoming(packet);
        self.ask_for_resends(incoming.ssrc);
        self.tracks.handle_packet(incoming, now);
        self.collect();
        self.ask_for_keyframe(now);
    }

    /// str0m asks for lost packets only where they would come in a stream of their own. Those of a
    /// voice come as they were.
    fn ask_for_resends(&mut self, ssrc: u32) {
        if self.tracks.begins_to_ask(ssrc) {
            // A stream that is gone meanwhile has nothing to ask for.
            let _ = self.peer.guarded(|rtc| {
                if let Some(stream) = rtc.direct_api().stream_rx(&ssrc.into()) {
                    stream.suppress_nack(false);
                }
            });
        }
    }

    /// Takes over what the tracks have.
    fn collect(&mut self) {
        while let Some(output) = self.tracks.poll_output() {
            match output {
                TrackOutput::KeyframeWanted => self.keyframe_wanted = true,
                TrackOutput::Frame(_) | TrackOutput::Report { .. } | TrackOutput::Lost(_) => {
                    self.outputs.push_back(output);
                }
            }
        }
    }

    fn keyframe_due(&self) -> Option<Instant> {
        let asked = self.keyframe_asked.filter(|_| self.keyframe_wanted)?;
        Some(asked + KEYFRAME_INTERVAL)
    }

    fn ask_for_keyframe(&mut self, now: Instant) {
        let is_too_soon = self.keyframe_due().is_some_and(|due| now < due);
        if !self.keyframe_wanted || !self.connected || is_too_soon {
            return;
        }
        let [ssrc, _] = self.tracks.ssrcs();
        let asked = self.peer.guarded(|rtc| {
            let mut api = rtc.direct_api();
            let stream = ssrc.and_then(|ssrc| api.stream_rx(&ssrc.into()));
            stream.map(|stream| stream.request_keyframe(KeyframeRequestKind::Pli)).is_some()
        });
        // Before its first packet there is no SSRC to ask for.
        if asked == Some(true) {
            self.keyframe_wanted = false;
            self.keyframe_asked = Some(now);
            self.keyframes_asked += 1;
        }
    }

    /// Lets a publisher that only knows REMB send at full rate.
    fn tell_rate(&mut self) {
        let ssrcs = self.tracks.ssrcs();
        // Nothing to say before the first packet.
        let _ = self.peer.guarded(|rtc| {
            for ssrc in ssrcs.into_iter().flatten() {
                if let Some(stream) = rtc.direct_api().stream_rx(&ssrc.into()) {
                    stream.request_remb(Bitrate::bps(RATE_MAX));
                }
            }
        });
    }

    fn earliest(&self, at: Instant) -> Instant {
        let own = [
            self.tracks.next_timeout(),
            self.keyframe_due().filter(|_| self.connected),
            self.rate_due,
        ];
        own.into_iter().flatten().fold(at, Instant::min)
    }
}

/// The offer without simulcast (RFC 8853): what is left is one stream a section.
fn without_layers(offer: &str) -> String {
    let is_layer = |line: &&str| line.starts_with("a=simulcast:") || line.starts_with("a=rid:");
    offer.lines().filter(|line| !is_layer(line)).flat_map(|line| [line, "\r\n"]).collect()
}

/// The answer with every section `recvonly` (RFC 9725 §4.2), whatever direction was offered.
fn as_receiver(answer: &str) -> String {
    let lines = answer.lines().map(|line| match line {
        "a=sendrecv" => "a=recvonly",
        "a=sendonly" => "a=inactive",
        other => other,
    });
    let is_ours = |line: &&str| line.starts_with("a=ssrc") || line.starts_with("a=msid:");
    lines.filter(|line| !is_ours(line)).flat_map(|line| [line, "\r\n"]).collect()
}

/// Whether the answer takes a picture.
fn has_video(answer: &str) -> bool {
    let mut sections =
        answer.split("\r\nm=").skip(1).filter(|section| section.starts_with("video "));
    sections.any(|section| {
        !section.starts_with("video 0 ")
            && section.lines().any(|line| line == "a=recvonly")
            && section.lines().any(|line| line.starts_with("a=rtpmap:"))
    })
}
