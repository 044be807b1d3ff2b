//! A viewer that passes on what it sees: the other end of somebody's WHEP server, whose frames become
//! a camera's. The whole of it is str0m: ICE, DTLS, SRTP, reports, requests for lost packets.
//!
//! Sans-IO like its neighbours: datagrams and time in, [`PullerOutput`] out. Packets become whole
//! frames as a publisher's do, in [`Track`](crate::publish::Track)s.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use str0m::change::SdpPendingOffer;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as StrMediaKind};
use str0m::rtp::{ExtensionMap, RtpPacket};
use str0m::{Event, Output, Rtc};

use super::client::ClientError;
use super::dial::{self, Identity};
use super::offer::check_size;
use super::publisher::KEYFRAME_INTERVAL;
use super::publisher::tracks::{Form, Tracks};
use super::{OfferError, codecs};
use crate::negotiated::sprop_parameter_sets;
use crate::publish::TrackOutput;

/// What all pullers of a process share: the certificate and the crypto.
pub struct PullerFactory {
    identity: Identity,
}

/// What a puller wants done or tells.
#[derive(Debug)]
pub enum PullerOutput {
    /// Send this datagram from the puller's address.
    Transmit {
        /// The server's address.
        destination: SocketAddr,
        /// STUN, DTLS or SRTCP.
        contents: Vec<u8>,
    },
    /// DTLS is done: media may come.
    Connected,
    /// What came of packets; never [`TrackOutput::KeyframeWanted`].
    Track(TrackOutput),
    /// The server said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// One connection.
pub struct Puller {
    /// Boxed: some 20 KB, which callers would carry in their futures.
    rtc: Box<Rtc>,
    address: SocketAddr,
    tracks: Tracks,
    pending: Option<SdpPendingOffer>,
    connected: bool,
    /// When a keyframe was asked for last, and whether one is wanted again.
    keyframe_asked: Option<Instant>,
    keyframe_wanted: bool,
    /// What the tracks had; drained after every input.
    outputs: VecDeque<TrackOutput>,
}

impl PullerFactory {
    /// Makes the one certificate that all pullers use. `None` when the crypto library fails.
    pub fn new() -> Option<Self> {
        Some(Self { identity: Identity::new()? })
    }

    /// A puller that is reached at `address`, and its offer to receive one picture and one sound in
    /// every codec that viewers can be given.
    pub fn offer(
        &self,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(Puller, String), ClientError> {
        let mut config = self
            .identity
            .config()
            .set_rtp_mode(true)
            .set_extension_map(ExtensionMap::standard())
            .clear_codecs();
        codecs::add_all(config.codec_config());
        let mut rtc = Box::new(config.build(now));
        dial::set_address(&mut rtc, address)?;
        let mut change = rtc.sdp_api();
        for kind in [StrMediaKind::Video, StrMediaKind::Audio] {
            change.add_media(kind, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = change.apply().expect("two sections were added");
        let puller = Puller {
            rtc,
            address,
            tracks: Tracks::of_camera(Vec::new()),
            pending: Some(pending),
            connected: false,
            keyframe_asked: None,
            keyframe_wanted: false,
            outputs: VecDeque::new(),
        };
        Ok((puller, offer.to_sdp_string()))
    }
}

impl Puller {
    /// The server's answer; taken once.
    pub fn handle_answer(&mut self, sdp: &str) -> Result<(), ClientError> {
        if let Err(OfferError::Malformed(reason)) = check_size(sdp) {
            return Err(ClientError::Answer(reason));
        }
        dial::handle_answer(&mut self.rtc, &mut self.pending, sdp)?;
        self.tracks = Tracks::of_camera(sprop_parameter_sets(sdp));
        Ok(())
    }

    /// A datagram that arrived at the puller's address. What is not understood is ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, packet: &[u8], now: Instant) {
        dial::handle_datagram(&mut self.rtc, (source, self.address), packet, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        dial::handle_timeout(&mut self.rtc, now);
        self.tracks.handle_timeout(now);
        self.collect();
    }

    /// Somebody cannot decode. The server is asked at most once a [`KEYFRAME_INTERVAL`].
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Starts the goodbye (DTLS close_notify); poll until [`PullerOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        dial::close(&mut self.rtc);
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self, now: Instant) -> PullerOutput {
        self.ask_for_keyframe(now);
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return PullerOutput::Track(output);
            }
            if !self.rtc.is_alive() {
                return PullerOutput::Closed;
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return PullerOutput::Timeout(self.earliest(at)),
                Ok(Output::Transmit(transmit)) => {
                    let (destination, contents) =
                        (transmit.destination, transmit.contents.to_vec());
                    return PullerOutput::Transmit { destination, contents };
                }
                Ok(Output::Event(Event::Connected)) => {
                    self.connected = true;
                    return PullerOutput::Connected;
                }
                Ok(Output::Event(Event::RtpPacket(packet))) => self.handle_packet(packet, now),
                Ok(Output::Event(Event::Closed)) => return PullerOutput::Closed,
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "the connection failed");
                    self.rtc.disconnect();
                    return PullerOutput::Closed;
                }
            }
        }
    }

    fn handle_packet(&mut self, packet: RtpPacket, now: Instant) {
        let form = Form::of(packet.header.payload_type, self.rtc.codec_config());
        let Some(form) = form else { return };
        self.tracks.handle_packet(form.incoming(packet), now);
        self.collect();
        self.ask_for_keyframe(now);
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

    /// When the keyframe that is wanted may be asked for.
    fn keyframe_due(&self) -> Option<Instant> {
        let asked = self.keyframe_asked.filter(|_| self.keyframe_wanted && self.connected)?;
        Some(asked + KEYFRAME_INTERVAL)
    }

    fn ask_for_keyframe(&mut self, now: Instant) {
        let is_too_soon = self.keyframe_due().is_some_and(|due| now < due);
        if !self.keyframe_wanted || !self.connected || is_too_soon {
            return;
        }
        // Before its first packet there is no SSRC to ask for.
        let [Some(ssrc), _] = self.tracks.ssrcs() else { return };
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.keyframe_wanted = false;
            self.keyframe_asked = Some(now);
        }
    }

    fn earliest(&self, at: Instant) -> Instant {
        let own = [self.tracks.next_timeout(), self.keyframe_due()];
        own.into_iter().flatten().fold(at, Instant::min)
    }
}
