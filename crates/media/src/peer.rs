//! One viewer's peer connection: SDP and DTLS by str0m, ICE by `crate::ice`, with the keys tapped.
//!
//! str0m sets the connection up; it never sends media. It knows of one path, which is none
//! (`STAND_IN`): where packets really go is decided here, so that a viewer may come by UDP and by
//! TCP, move, and restart ICE without its noticing. A tap stands between str0m and its DTLS back end and takes the SRTP keys away, and our own egress
//! ([`crate::srtp`]) sends under them.
//!
//! **Invariant:** one sender a key; two would use a GCM nonce twice. str0m never gets the keys, so
//! that it can seal nothing; and nothing of it leaves this module unless it is DTLS. With a [`publisher`]
//! it is the other way round: str0m alone has the keys.
//!
//! **Invariant:** DTLS from an address is handed to str0m only after an authentic check came from
//! that very address.

pub mod client;
mod codecs;
mod dial;
mod offer;
pub mod publisher;
pub mod puller;
pub mod pusher;
mod receiver;
mod rsa;
mod tap;
pub mod tapped_client;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::dtls::DtlsProvider;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

pub use crate::ice::{CandidateKind, HostCandidate, IceCredentials};

use crate::ice::{Checked, IceLite, candidate_lines};
use crate::negotiated::{Negotiated, offered_codecs, wants_video};
use crate::route::Route;
use crate::srtp::SrtpProfile;
use crate::stun::BindingRequest;
use offer::{
    as_one_stream, check_size, malformed, offers_all, with_candidates, with_served_feedback,
};
use receiver::{Answered, Offered};
use rsa::{DtlsForAll, widen_request};
use tap::{KeySlot, KeyTap, KeyTapProvider};

/// The two ends of the one path that str0m knows of (RFC 5737: addresses that nobody has). Every
/// authentic check is shown to it as if it came this way.
const STAND_IN: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 2),
];

/// Why an offer cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not SDP, or not an offer of WebRTC.
    #[error("the offer cannot be read: {0}")]
    Malformed(String),
    /// No open `m=video` section that wants to receive.
    #[error("the offer has no video section that receives; add a recvonly video transceiver")]
    NoVideo,
    /// No codec that any source could send.
    #[error(
        "the offer has no video codec that is sent here: H.264 with packetization-mode=1, H.265, VP8, VP9 or AV1; it has {offered}"
    )]
    NoCommonCodec {
        /// The encoding names that were offered.
        offered: String,
    },
}

/// Why a receiver's answer to our offer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not SDP, or not an answer to what was offered.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
    /// It takes no sound, or none in a codec that was offered.
    #[error("the answer takes no sound; its audio section must be recvonly and keep Opus")]
    NoSound,
    /// It wants DTLS to begin from our side.
    #[error("the answer says a=setup:passive; answer a=setup:active, as browsers do")]
    Passive,
    /// No offer waits for an answer: none was made, it was answered before, or it is over.
    #[error("no offer waits for this answer; send start_receiving first")]
    Over,
}

/// The keys of a finished handshake.
#[derive(Clone)]
pub struct SessionKeys {
    /// The settled protection profile.
    pub profile: SrtpProfile,
    /// Client key, server key, client salt, server salt (RFC 5764 §4.2). We are the server.
    pub material: Vec<u8>,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// What all peers of a process share: the certificate, the crypto, the announced addresses.
pub struct PeerFactory {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    candidates: Vec<HostCandidate>,
}

/// The answer to an offer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The whole SDP, all candidates inside.
    pub sdp: String,
    /// Our user fragment in it, which names the ICE session.
    pub ufrag: String,
    /// What we may send.
    pub negotiated: Negotiated,
}

impl PeerFactory {
    /// `candidates` are the addresses under which viewers reach the media port by UDP, in order of
    /// preference; none of them may be unspecified (0.0.0.0).
    ///
    /// Makes the one certificate of the process (2 ms).
    pub fn new(candidates: Vec<SocketAddr>) -> Option<Self> {
        let mut crypto = str0m_aws_lc_rs::default_provider();
        let certificate = DtlsForAll.generate_certificate()?;
        crypto.dtls_provider = &KeyTapProvider(&DtlsForAll);
        let candidates = candidates.into_iter().map(HostCandidate::udp).collect();
        Some(Self { crypto: Arc::new(crypto), certificate, candidates })
    }

    /// What is announced from here on, in order of preference.
    pub fn set_candidates(&mut self, candidates: Vec<HostCandidate>) {
        self.candidates = candidates;
    }

    /// The candidates as lines of SDP, for an answer or a fragment.
    pub fn candidate_lines(&self) -> String {
        candidate_lines(&self.candidates)
    }

    /// Answers an offer with `setup:passive`, ICE-lite, and every codec that both sides have.
    pub fn answer(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<(Peer, Answer), OfferError> {
        check_size(offer)?;
        // str0m reads what strangers wrote, and a panic here would end the thread of many viewers.
        catch_unwind(AssertUnwindSafe(|| self.answer_readable(offer, credentials, now)))
            .unwrap_or_else(|_| Err(OfferError::Malformed("it is not understood".to_owned())))
    }

    fn answer_readable(
        &self,
        offer: &str,
        credentials: &IceCredentials,
        now: Instant,
    ) -> Result<(Peer, Answer), OfferError> {
        let parsed = SdpOffer::from_sdp_string(offer).map_err(|error| malformed(&error))?;
        if !wants_video(offer) {
            return Err(OfferError::NoVideo);
        }
        if offer.lines().any(|line| line == "a=setup:passive") {
            return Err(OfferError::Malformed("a=setup must be actpass or active".to_owned()));
        }
        let mut rtc = self.config(credentials).build(now);
        let key_slot = KeyTap::take_newest();
        if let Ok(candidate) = Candidate::host(STAND_IN[0], "udp") {
            rtc.add_local_candidate(candidate);
        }
        let answer =
            rtc.sdp_api().accept_offer(parsed).map_err(|error| malformed(&error))?.to_sdp_string();
        let answer = as_one_stream(&with_served_feedback(offer, &answer));
        let answer = with_candidates(&answer, &self.candidate_lines());
        let negotiated = Negotiated::from_answer(&answer);
        if !offers_all(offer, &negotiated) {
            let why = "an a=rtpmap line names a payload type that its m= line has not";
            return Err(OfferError::Malformed(why.to_owned()));
        }
        if negotiated.video.as_ref().is_none_or(|video| video.payloads.is_empty()) {
            let offered = offered_codecs(offer, "video").join(", ");
            return Err(OfferError::NoCommonCodec { offered });
        }
        let peer = Peer::new(rtc, key_slot, credentials);
        Ok((peer, Answer { sdp: answer, ufrag: credentials.ufrag.clone(), negotiated }))
    }

    /// Offers sound alone, `sendonly` and ICE-lite, with all candidates inside. The connection waits
    /// for [`Peer::handle_answer`].
    pub fn offer_sound(&self, credentials: &IceCredentials, now: Instant) -> (Peer, String) {
        let mut rtc = self.config(credentials).build(now);
        let key_slot = KeyTap::take_newest();
        if let Ok(candidate) = Candidate::host(STAND_IN[0], "udp") {
            rtc.add_local_candidate(candidate);
        }
        let api = rtc.direct_api();
        let offered = Offered::new(*api.new_ssrc(), credentials);
        let sdp = offered.sdp(credentials, api.local_dtls_fingerprint(), &self.candidate_lines());
        let mut peer = Peer::new(rtc, key_slot, credentials);
        peer.offered = Some(Box::new(offered));
        (peer, sdp)
    }

    fn config(&self, credentials: &IceCredentials) -> RtcConfig {
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&self.crypto))
            .set_dtls_cert(self.certificate.clone())
            // 1.2: the server chooses the profile, so that Chromium gets GCM instead of SHA-1.
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_local_ice_credentials(IceCreds {
                ufrag: credentials.ufrag.clone(),
                pass: credentials.password.clone(),
            })
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_extension_map(extensions())
            .clear_codecs();
        codecs::add_all(config.codec_config());
        config
    }
}

/// The header extensions that our packets may carry; the offer's own numbers replace ours.
fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(2, Extension::AbsoluteSendTime);
    map.set(3, Extension::TransportSequenceNumber);
    map
}

/// What a peer wants done.
#[derive(Debug)]
pub enum PeerOutput {
    /// Send this packet.
    Transmit {
        /// Where from and where to.
        route: Route,
        /// STUN or DTLS.
        contents: Vec<u8>,
    },
    /// DTLS is done; from here on media may be sent with these keys. Everything that was to be
    /// sent before (the Finished flight) has been handed out.
    Connected(SessionKeys),
    /// The peer said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It came from the viewer for certain (an authentic check).
    Authentic,
    /// It was handed on, its authenticity is the DTLS layer's to judge.
    Accepted,
    /// Not ours, not authentic, a copy of a check from elsewhere, or along a path that never proved
    /// itself.
    Dropped,
}

/// One viewer's peer connection.
pub struct Peer {
    rtc: Rtc,
    key_slot: KeySlot,
    ice: IceLite,
    /// Answers to checks that wait to be sent; drained after every input, and each input adds one.
    answers: VecDeque<(Route, Vec<u8>)>,
    /// Where DTLS goes, and media from the end of the handshake on.
    selected: Option<Route>,
    connected: bool,
    /// It was made an offer that it has not answered: str0m is told nothing before.
    offered: Option<Box<Offered>>,
    /// str0m panicked: it is asked nothing any more.
    failed: bool,
}

/// What a check changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// It is the first one of its path.
    pub is_new_path: bool,
    /// It came the same way before: a retransmission, or a copy with a forged source.
    pub is_repeated: bool,
    /// The path that was forgotten for it.
    pub forgotten: Option<Route>,
}

impl Peer {
    fn new(rtc: Rtc, key_slot: KeySlot, credentials: &IceCredentials) -> Self {
        Self {
            rtc,
            key_slot,
            ice: IceLite::new(credentials.clone()),
            answers: VecDeque::new(),
            selected: None,
            connected: false,
            offered: None,
            failed: false,
        }
    }

    /// Where packets to the viewer go, once an authentic check came.
    pub fn selected_route(&self) -> Option<Route> {
        self.selected
    }

    /// Paths along which checks came, as many as are remembered.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.ice.paths()
    }

    /// The viewer proved that it is at the other end of this path: packets go there from here on.
    /// Paths along which no check came are ignored.
    pub fn select(&mut self, route: Route) {
        if self.ice.is_proven(&route) {
            self.selected = Some(route);
        }
    }

    /// The answer to [`PeerFactory::offer_sound`]. After an error the offer still waits; once it was
    /// answered, or where none was made, every answer is [`AnswerError::Over`].
    pub fn handle_answer(&mut self, sdp: &str, now: Instant) -> Result<Negotiated, AnswerError> {
        let offered = self.offered.as_ref().ok_or(AnswerError::Over)?;
        let Answered { credentials, fingerprint, negotiated } = offered.read(sdp)?;
        let early = self.offered.take().into_iter().flat_map(|offered| offered.early());
        self.handle_timeout(now);
        let started = self.guarded(|rtc| {
            let mut api = rtc.direct_api();
            api.set_remote_ice_credentials(credentials);
            api.set_remote_fingerprint(fingerprint);
            api.start_dtls(false)
        });
        if !matches!(started, Some(Ok(()))) {
            self.rtc.disconnect();
            return Err(AnswerError::Over);
        }
        for packet in early {
            self.receive(&packet, now);
        }
        Ok(negotiated)
    }

    /// An ICE restart (RFC 8445 §9): new credentials of both sides. Our old ones are good until the
    /// first check with the new ones; DTLS and media do not notice.
    pub fn restart(&mut self, ours: IceCredentials, theirs: IceCredentials) {
        let [local, remote] = [&ours, &theirs]
            .map(|side| IceCreds { ufrag: side.ufrag.clone(), pass: side.password.clone() });
        self.ice.restart(ours);
        self.guarded(|rtc| {
            let mut api = rtc.direct_api();
            api.set_local_ice_credentials(local);
            api.set_remote_ice_credentials(remote);
        });
    }

    /// The user fragment from before a restart, while it is good.
    pub fn previous_ufrag(&self) -> Option<&str> {
        self.ice.previous_ufrag()
    }

    /// A binding request, already known to name our user fragment. `None` when it is not authentic
    /// or somebody else's copy: nothing is answered then.
    ///
    /// Before DTLS is done the first authentic check of a path is taken as a nomination, which saves
    /// the round trips until the browser nominates.
    pub fn handle_check(
        &mut self,
        route: Route,
        request: &BindingRequest<'_>,
        now: Instant,
    ) -> Option<Proven> {
        let checked = self.ice.handle_check(route, request, self.selected).ok()?;
        let Checked { answer, is_new_path, is_repeated, forgotten, is_current } = checked;
        self.selected.get_or_insert(route);
        self.answers.push_back((route, answer));
        if is_current {
            let nominated = request.nominated(self.ice.password());
            self.receive(&nominated, now);
        }
        Some(Proven { is_new_path, is_repeated, forgotten })
    }

    /// A DTLS packet. During the handshake our flights go where the viewer's newest packet came from,
    /// and the one that ends it says where media goes: nobody else could have made that.
    pub fn handle_dtls(&mut self, route: Route, packet: &[u8], now: Instant) -> Received {
        if !self.ice.is_proven(&route) {
            return Received::Dropped;
        }
        if !self.connected {
            self.selected = Some(route);
        }
        self.receive(packet, now);
        Received::Accepted
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !matches!(self.guarded(|rtc| rtc.handle_input(Input::Timeout(now))), Some(Ok(()))) {
            self.rtc.disconnect();
        }
    }

    /// Starts the goodbye (DTLS close_notify); poll until [`PeerOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        if !matches!(self.guarded(Rtc::close), Some(Ok(()))) {
            self.rtc.disconnect();
        }
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self) -> PeerOutput {
        if let Some((route, contents)) = self.poll_answer() {
            return PeerOutput::Transmit { route, contents };
        }
        loop {
            if self.failed || !self.rtc.is_alive() {
                return PeerOutput::Closed;
            }
            let Some(output) = self.guarded(Rtc::poll_output) else { return PeerOutput::Closed };
            match output {
                Ok(Output::Transmit(transmit)) => {
                    if let Some(route) = self.selected.filter(|_| is_dtls(&transmit.contents)) {
                        return PeerOutput::Transmit {
                            route,
                            contents: widen_request(transmit.contents.to_vec()),
                        };
                    }
                }
                Ok(Output::Timeout(at)) => match self.take_keys() {
                    Some(keys) => return PeerOutput::Connected(keys),
                    None => return PeerOutput::Timeout(at),
                },
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::Closed)) => return PeerOutput::Closed,
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "peer connection failed");
                    self.rtc.disconnect();
                    return PeerOutput::Closed;
                }
            }
        }
    }

    /// An answer to a check.
    fn poll_answer(&mut self) -> Option<(Route, Vec<u8>)> {
        self.answers.pop_front()
    }

    /// The keys, once, when the handshake is done.
    fn take_keys(&mut self) -> Option<SessionKeys> {
        if !self.connected {
            return None;
        }
        take_from(&self.key_slot)
    }

    /// Asks str0m something. It reads what strangers send; should that make it panic, this peer has
    /// failed and no other. `None` then, and ever after.
    fn guarded<T>(&mut self, ask: impl FnOnce(&mut Rtc) -> T) -> Option<T> {
        if self.failed {
            return None;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| ask(&mut self.rtc))).ok();
        self.failed = answer.is_none();
        answer
    }

    fn receive(&mut self, packet: &[u8], now: Instant) {
        if let Some(offered) = &mut self.offered {
            offered.keep(packet);
            return;
        }
        let [ours, theirs] = STAND_IN;
        let Ok(receive) = Receive::new(Protocol::Udp, theirs, ours, packet) else { return };
        let handled = self.guarded(|rtc| rtc.handle_input(Input::Receive(now, receive)));
        if let Some(Err(error)) = handled {
            tracing::debug!(%error, "packet refused");
        }
    }
}

/// The keys in a slot, once.
fn take_from(slot: &KeySlot) -> Option<SessionKeys> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// RFC 7983 §7: 0 to 3 is STUN, 20 to 63 is DTLS; SRTP and SRTCP are 128 to 191.
fn is_stun_or_dtls(packet: &[u8]) -> bool {
    is_stun(packet) || is_dtls(packet)
}

fn is_stun(packet: &[u8]) -> bool {
    matches!(packet.first(), Some(0..=3))
}

fn is_dtls(packet: &[u8]) -> bool {
    matches!(packet.first(), Some(20..=63))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::client::{ClientFactory, ClientOutput};
    use super::*;

    /// The invariant at the top: whoever has no keys cannot use a nonce twice.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn str0m_itself_never_gets_the_keys() {
        let mut now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 8555));
        let viewer = SocketAddr::from(([10, 0, 0, 2], 4000));
        let credentials = IceCredentials { ufrag: "abcd".into(), password: "0123456789".repeat(3) };
        let route = Route::new(server, viewer);
        let (mut client, offer) = ClientFactory::new().unwrap().offer(viewer, now).unwrap();
        let factory = PeerFactory::new(vec![server]).unwrap();
        let (mut peer, answer) = factory.answer(&offer, &credentials, now).unwrap();
        client.handle_answer(&answer.sdp).unwrap();

        let mut keys = None;
        for _ in 0..5_000 {
            now += Duration::from_millis(1);
            client.handle_timeout(now);
            loop {
                let contents = match client.poll_output() {
                    ClientOutput::Transmit { contents, .. } => contents,
                    ClientOutput::Connected | ClientOutput::Media { .. } => continue,
                    ClientOutput::Closed | ClientOutput::Timeout(_) => break,
                };
                match BindingRequest::parse(&contents) {
                    Some(check) => assert!(peer.handle_check(route, &check, now).is_some()),
                    None => assert_ne!(peer.handle_dtls(route, &contents, now), Received::Dropped),
                }
            }
            peer.handle_timeout(now);
            loop {
                match peer.poll_output() {
                    PeerOutput::Transmit { contents, .. } => {
                        assert!(matches!(contents[0], 0..=3 | 20..=63));
                        client.handle_datagram(server, &contents, now);
                    }
                    PeerOutput::Connected(tapped) => keys = Some(tapped),
                    PeerOutput::Closed => panic!("closed"),
                    PeerOutput::Timeout(_) => break,
                }
            }
        }

        let keys = keys.expect("the handshake is done within 5 s");
        assert_eq!(keys.material.len(), keys.profile.keying_material_len());
        assert!(peer.connected, "str0m knows that DTLS is done");
        assert!(!peer.rtc.is_connected(), "and has nothing to seal media with");
    }

    /// The parser below would read two lines where all that we look for by lines sees one.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn a_line_that_ends_with_cr_alone_is_refused() {
        let now = Instant::now();
        let viewer = SocketAddr::from(([10, 0, 0, 2], 4000));
        let credentials = IceCredentials { ufrag: "abcd".into(), password: "0123456789".repeat(3) };
        let (_client, offer) = ClientFactory::new().unwrap().offer(viewer, now).unwrap();
        let factory = PeerFactory::new(vec![viewer]).unwrap();
        for (line_end, is_taken) in [("\r\n", true), ("\n", true), ("\r", false), ("\r\r\n", false)]
        {
            let offer = offer.replacen("\r\na=", &format!("{line_end}a="), 1);
            let answer = factory.answer(&offer, &credentials, now);
            assert_eq!(answer.is_ok(), is_taken, "{line_end:?}");
        }
    }
}
