//! One viewer's peer connection: SDP, ICE-lite and DTLS by str0m, with the keys tapped.
//!
//! str0m sets the connection up and answers consent checks; it never sends media. A tap stands
//! between str0m and its DTLS back end and takes the SRTP keys away, and our own egress
//! ([`crate::srtp`]) sends under them.
//!
//! **Invariant:** one sender a key; two would use a GCM nonce twice. str0m never gets the keys, so
//! that it can seal nothing; and nothing of it leaves this module unless it is STUN or DTLS.
//!
//! **Invariant:** DTLS from an address is handed to str0m only after an authentic check came from
//! that very address.

pub mod client;
mod codecs;
mod offer;
pub mod publisher;
mod rsa;
mod tap;
pub mod tapped_client;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::dtls::DtlsProvider;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use crate::negotiated::{Negotiated, offered_video_codecs, wants_video};
use crate::srtp::SrtpProfile;
use crate::stun::BindingRequest;
use offer::{as_one_stream, check_size, malformed, with_served_feedback};
use rsa::{DtlsForAll, widen_request};
use tap::{KeySlot, KeyTap, KeyTapProvider};

/// Addresses that proved to be the viewer's, at most. A browser has a handful of interfaces; the
/// oldest is forgotten beyond that.
const MAX_ADDRESSES: usize = 16;

/// Addresses that a viewer may come from in the whole session, since str0m forgets none of them
/// (some 200 bytes each). A phone that gets a new one every 30 s comes to this in eight hours.
const MAX_MOVES: u32 = 1_000;

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

/// The ICE credentials of our side, chosen by the caller: it owns the randomness.
#[derive(Clone)]
pub struct IceCredentials {
    /// 4 to 256 ice-chars (RFC 8839 §5.4). Names the session in the first packets.
    pub ufrag: String,
    /// 22 to 256 ice-chars.
    pub password: String,
}

/// What all peers of a process share: the certificate, the crypto, the announced addresses.
pub struct PeerFactory {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    candidates: Vec<SocketAddr>,
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
    /// `candidates` are the addresses under which viewers reach the media port, in order of
    /// preference; none of them may be unspecified (0.0.0.0).
    ///
    /// Makes the one certificate of the process (2 ms).
    pub fn new(candidates: Vec<SocketAddr>) -> Option<Self> {
        let mut crypto = str0m_aws_lc_rs::default_provider();
        let certificate = DtlsForAll.generate_certificate()?;
        crypto.dtls_provider = &KeyTapProvider(&DtlsForAll);
        Some(Self { crypto: Arc::new(crypto), certificate, candidates })
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
        for address in &self.candidates {
            if let Ok(candidate) = Candidate::host(*address, "udp") {
                rtc.add_local_candidate(candidate);
            }
        }
        let answer =
            rtc.sdp_api().accept_offer(parsed).map_err(|error| malformed(&error))?.to_sdp_string();
        let answer = as_one_stream(&with_served_feedback(offer, &answer));
        let negotiated = Negotiated::from_answer(&answer);
        if negotiated.video.as_ref().is_none_or(|video| video.payloads.is_empty()) {
            let offered = offered_video_codecs(offer).join(", ");
            return Err(OfferError::NoCommonCodec { offered });
        }
        let peer = Peer::new(rtc, key_slot, credentials, self.candidates.clone());
        Ok((peer, Answer { sdp: answer, ufrag: credentials.ufrag.clone(), negotiated }))
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
    /// Send this datagram.
    Transmit {
        /// The viewer's address.
        destination: SocketAddr,
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

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It came from the viewer for certain (an authentic check).
    Authentic,
    /// It was handed on, its authenticity is the DTLS layer's to judge.
    Accepted,
    /// Not ours, not authentic or from an address that never proved itself.
    Dropped,
}

/// One viewer's peer connection.
pub struct Peer {
    rtc: Rtc,
    key_slot: KeySlot,
    password: String,
    local: Vec<SocketAddr>,
    /// Sources of authentic checks, oldest first.
    addresses: VecDeque<SocketAddr>,
    /// How many there ever were.
    moves: u32,
    /// The one that gave way to the newest.
    forgotten: Option<SocketAddr>,
    /// Where media goes: the path of the newest nominating check, before that of the first one.
    selected: Option<Path>,
    connected: bool,
    /// str0m panicked: it is asked nothing any more.
    failed: bool,
}

/// The two ends between which a check came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Our address that it arrived at.
    pub local: SocketAddr,
    /// The viewer's address.
    pub remote: SocketAddr,
}

impl Peer {
    fn new(
        rtc: Rtc,
        key_slot: KeySlot,
        credentials: &IceCredentials,
        local: Vec<SocketAddr>,
    ) -> Self {
        Self {
            rtc,
            key_slot,
            password: credentials.password.clone(),
            local,
            addresses: VecDeque::new(),
            moves: 0,
            forgotten: None,
            selected: None,
            connected: false,
            failed: false,
        }
    }

    /// Where media goes, once an authentic check came.
    pub fn selected_path(&self) -> Option<Path> {
        self.selected
    }

    /// The address that was forgotten since the last call, if one was: DTLS from it is not taken any
    /// more.
    pub fn take_forgotten(&mut self) -> Option<SocketAddr> {
        self.forgotten.take()
    }

    /// A binding request, already known to name our user fragment.
    ///
    /// `local` is the address it arrived at. Before DTLS is done the first authentic check of an
    /// address is taken as a nomination, which saves the round trips until the browser nominates.
    pub fn handle_check(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        request: &BindingRequest<'_>,
        packet: &[u8],
        now: Instant,
    ) -> Received {
        if !request.is_authentic(&self.password) {
            return Received::Dropped;
        }
        if !self.learn(source) {
            return Received::Dropped;
        }
        if request.nominates || self.selected.is_none() {
            self.selected = Some(Path { local, remote: source });
        }
        if self.connected || request.nominates {
            self.receive(source, local, packet, now);
        } else {
            self.receive(source, local, &request.nominated(&self.password), now);
        }
        Received::Authentic
    }

    /// A DTLS datagram.
    pub fn handle_dtls(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Received {
        if !self.addresses.contains(&source) {
            return Received::Dropped;
        }
        self.receive(source, local, packet, now);
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
        loop {
            if self.failed || !self.rtc.is_alive() {
                return PeerOutput::Closed;
            }
            let Some(output) = self.guarded(Rtc::poll_output) else { return PeerOutput::Closed };
            match output {
                Ok(Output::Transmit(transmit)) => {
                    if is_stun_or_dtls(&transmit.contents) {
                        let destination = transmit.destination;
                        return PeerOutput::Transmit {
                            destination,
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

    /// The keys, once, when the handshake is done.
    fn take_keys(&mut self) -> Option<SessionKeys> {
        if !self.connected {
            return None;
        }
        take_from(&self.key_slot)
    }

    /// False when the viewer came from too many addresses already.
    fn learn(&mut self, source: SocketAddr) -> bool {
        if self.addresses.contains(&source) {
            return true;
        }
        if self.moves == MAX_MOVES {
            return false;
        }
        self.moves += 1;
        if self.addresses.len() == MAX_ADDRESSES {
            self.forgotten = self.addresses.pop_front();
        }
        self.addresses.push_back(source);
        true
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

    fn receive(&mut self, source: SocketAddr, local: SocketAddr, packet: &[u8], now: Instant) {
        let destination = self.candidate_for(local);
        let Ok(receive) = Receive::new(Protocol::Udp, source, destination, packet) else {
            return;
        };
        let handled = self.guarded(|rtc| rtc.handle_input(Input::Receive(now, receive)));
        if let Some(Err(error)) = handled {
            tracing::debug!(%error, %source, "datagram refused");
        }
    }

    /// The announced address that stands for the one a packet arrived at. Behind NAT they differ,
    /// and which one it was makes no difference: there is one port.
    fn candidate_for(&self, local: SocketAddr) -> SocketAddr {
        let same_family = |candidate: &&SocketAddr| candidate.is_ipv4() == local.is_ipv4();
        self.local
            .iter()
            .find(|candidate| **candidate == local)
            .or_else(|| self.local.iter().find(same_family))
            .copied()
            .unwrap_or(local)
    }
}

/// The keys in a slot, once.
fn take_from(slot: &KeySlot) -> Option<SessionKeys> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// RFC 7983 §7: 0 to 3 is STUN, 20 to 63 is DTLS; SRTP and SRTCP are 128 to 191.
fn is_stun_or_dtls(packet: &[u8]) -> bool {
    matches!(packet.first(), Some(0..=3 | 20..=63))
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
                    Some(check) => peer.handle_check(viewer, server, &check, &contents, now),
                    None => peer.handle_dtls(viewer, server, &contents, now),
                };
            }
            peer.handle_timeout(now);
            loop {
                match peer.poll_output() {
                    PeerOutput::Transmit { contents, .. } => {
                        assert!(is_stun_or_dtls(&contents));
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
}
