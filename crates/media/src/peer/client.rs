//! A viewer: the other end of a [`Peer`](super::Peer), for load tools, benchmarks and tests.
//!
//! A complete WebRTC endpoint on str0m, so that what we send is received by code that is not ours.
//! It offers, checks, decrypts and puts pictures together; it decodes nothing. Sans-IO like its
//! counterpart: datagrams and time in, [`ClientOutput`] out. All that str0m wants to send is handed
//! out: here it is the only one who has the keys.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::change::SdpPendingOffer;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as StrMediaKind, Mid};
use str0m::{Event, Output, Rtc};

use super::dial::{self, Identity};
use crate::frame::MediaKind;

/// What all clients of a process share: the certificate and the crypto.
pub struct ClientFactory {
    identity: Identity,
}

/// Why a client cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The client's own address cannot be a candidate (0.0.0.0, for one).
    #[error("{0} cannot be a viewer's address")]
    Address(SocketAddr),
    /// The server's offer is none.
    #[error("the offer cannot be used: {0}")]
    Offer(String),
    /// The server's answer is none.
    #[error("the answer cannot be used: {0}")]
    Answer(String),
}

/// What a client wants done or tells.
#[derive(Debug)]
pub enum ClientOutput {
    /// Send this datagram from the client's address.
    Transmit {
        /// The server's address.
        destination: SocketAddr,
        /// STUN, DTLS or SRTCP.
        contents: Vec<u8>,
    },
    /// DTLS is done.
    Connected,
    /// A whole picture or packet of sound arrived.
    Media {
        /// Which of both.
        kind: MediaKind,
        /// RTP time in ticks of the codec's clock, extended so that it never wraps.
        ticks: u64,
        /// H.264 with start codes (Annex B), or the sound packet's payload.
        data: Vec<u8>,
    },
    /// The server said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// One viewer.
pub struct Client {
    rtc: Rtc,
    address: SocketAddr,
    video: Mid,
    pending: Option<SdpPendingOffer>,
}

impl ClientFactory {
    /// Makes the one certificate that all clients use. `None` when the crypto library fails.
    pub fn new() -> Option<Self> {
        Some(Self { identity: Identity::new()? })
    }

    /// A client that is reached at `address`, and its offer to receive picture and sound.
    pub fn offer(
        &self,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(Client, String), ClientError> {
        let mut rtc = self.identity.config().build(now);
        dial::set_address(&mut rtc, address)?;
        let mut change = rtc.sdp_api();
        let receive = Direction::RecvOnly;
        let video = change.add_media(StrMediaKind::Video, receive, None, None, None);
        change.add_media(StrMediaKind::Audio, receive, None, None, None);
        let (offer, pending) = change.apply().expect("two sections were added");
        let client = Client { rtc, address, video, pending: Some(pending) };
        Ok((client, offer.to_sdp_string()))
    }
}

impl Client {
    /// The server's answer; taken once.
    pub fn handle_answer(&mut self, sdp: &str) -> Result<(), ClientError> {
        dial::handle_answer(&mut self.rtc, &mut self.pending, sdp)
    }

    /// A datagram that arrived at the client's address. What is not understood is ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, packet: &[u8], now: Instant) {
        dial::handle_datagram(&mut self.rtc, (source, self.address), packet, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        dial::handle_timeout(&mut self.rtc, now);
    }

    /// Tells the server that the picture is lost (PLI). Nothing before media came.
    pub fn request_keyframe(&mut self) {
        if let Some(mut writer) = self.rtc.writer(self.video) {
            // Only a simulcast layer that is not there could be refused.
            let _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
        }
    }

    /// Starts the goodbye (DTLS close_notify); poll until [`ClientOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        dial::close(&mut self.rtc);
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self) -> ClientOutput {
        loop {
            if !self.rtc.is_alive() {
                return ClientOutput::Closed;
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return ClientOutput::Timeout(at),
                Ok(Output::Transmit(transmit)) => {
                    let (destination, contents) =
                        (transmit.destination, transmit.contents.to_vec());
                    return ClientOutput::Transmit { destination, contents };
                }
                Ok(Output::Event(Event::Connected)) => return ClientOutput::Connected,
                Ok(Output::Event(Event::MediaData(media))) => {
                    let kind =
                        if media.mid == self.video { MediaKind::Video } else { MediaKind::Audio };
                    let (ticks, data) = (media.time.numer(), media.data.to_vec());
                    return ClientOutput::Media { kind, ticks, data };
                }
                Ok(Output::Event(Event::Closed)) => return ClientOutput::Closed,
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "viewer's connection failed");
                    self.rtc.disconnect();
                    return ClientOutput::Closed;
                }
            }
        }
    }
}

/// The receiving end of somebody's offer to send, for tests of publishers.
#[cfg(test)]
pub(super) fn answering(offer: &str, address: SocketAddr, now: Instant) -> (Client, String) {
    let mut rtc = Identity::new().expect("crypto works").config().build(now);
    dial::set_address(&mut rtc, address).expect("a usable address");
    let offer = str0m::change::SdpOffer::from_sdp_string(offer).expect("an offer");
    let answer = rtc.sdp_api().accept_offer(offer).expect("an acceptable one").to_sdp_string();
    let video = answer.lines().find_map(|line| line.strip_prefix("a=mid:")).expect("a section");
    let video = Mid::from(video);
    (Client { rtc, address, video, pending: None }, answer)
}
