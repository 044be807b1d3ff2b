//! The media plane's sockets: one UDP port, one worker a core, handshakes beside them.
//! (Owner of this module: the net work. Others use only the types below.)

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use media::{Frame, StreamId, ViewerId};
use tokio::sync::mpsc;

/// Where the media port is bound and what is announced of it.
#[derive(Debug, Clone)]
pub(crate) struct MediaConfig {
    pub(crate) udp: SocketAddr,
    pub(crate) advertise: Vec<IpAddr>,
    pub(crate) workers: Option<usize>,
}

/// What the media plane tells of viewers and streams.
#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// DTLS finished, media flows from here on.
    Connected { viewer: ViewerId, handshake_ms: u32 },
    /// An authenticated packet (STUN check, SRTCP) came from the viewer; at most once a second.
    Alive { viewer: ViewerId, at: Instant },
    /// The viewer's session is over, whoever ended it. Sent exactly once a viewer.
    Closed { viewer: ViewerId, reason: CloseReason },
    /// Viewers of the stream cannot decode: the source should send a keyframe, if it can.
    KeyframeWanted { stream: StreamId },
    /// The first packet of media left for this viewer.
    FirstMedia { viewer: ViewerId },
}

/// Why a viewer's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CloseReason {
    /// The peer closed DTLS or said BYE.
    Peer,
    /// ICE or DTLS never finished (30 s).
    NeverConnected,
    /// ICE or DTLS failed.
    Handshake,
    /// Nothing authentic came for the lease's time.
    Silent,
    /// `MediaPlane::close` was called.
    Asked,
}

/// The answer to a viewer's offer.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) answer_sdp: String,
    /// The ICE user fragment of the answer: names the ICE session (the WHEP ETag).
    pub(crate) ice_ufrag: String,
}

/// Why an offer was refused; each is one clear sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OfferError {
    /// Not SDP, or not an offer that can be answered: 400.
    #[error("the offer is not valid SDP: {0}")]
    Malformed(String),
    /// No `m=video` section: 400... (422)
    #[error("the offer has no video section; add a recvonly video transceiver")]
    NoVideo,
    /// Nothing in common: 406.
    #[error("the offer has no H.264 video with packetization-mode 1; offered: {offered}")]
    NoCommonCodec { offered: String },
}

/// Handle to the running media plane; cheap to clone.
#[derive(Clone)]
pub(crate) struct MediaPlane {}

impl MediaPlane {
    /// Binds the port and starts workers and handshake threads.
    pub(crate) fn start(_config: &MediaConfig, _events: mpsc::UnboundedSender<MediaEvent>) -> std::io::Result<Self> {
        todo!()
    }
    /// Answers a viewer's offer and attaches it to the stream as soon as its DTLS is done.
    pub(crate) async fn accept(&self, _viewer: ViewerId, _stream: StreamId, _offer_sdp: String) -> Result<Accepted, OfferError> {
        todo!()
    }
    /// Trickle (RFC 8840 fragment). Remote candidates are optional for an ICE-lite server.
    pub(crate) fn trickle(&self, _viewer: ViewerId, _fragment: String) {
        todo!()
    }
    /// Ends a viewer's session: BYE and DTLS close_notify are sent, then `Closed` is reported.
    pub(crate) fn close(&self, _viewer: ViewerId) {
        todo!()
    }
    /// Puts a source's frame before all viewers of the stream. Never blocks.
    pub(crate) fn publish(&self, _stream: StreamId, _frame: Frame) {
        todo!()
    }
    /// The source is gone or restarts: the cached picture is dropped, viewers stay and wait.
    pub(crate) fn interrupt(&self, _stream: StreamId) {
        todo!()
    }
    /// The stream has no viewers and no source any more: everything of it is freed.
    pub(crate) fn remove_stream(&self, _stream: StreamId) {
        todo!()
    }
    /// Sum over all workers since the start.
    pub(crate) fn figures(&self) -> MediaFigures {
        todo!()
    }
    /// Ends all sessions (BYE, close_notify) and the threads; returns when all are told or after 2 s.
    pub(crate) async fn shutdown(&self) {
        todo!()
    }
}

/// Counters of the media plane since the start; all rise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MediaFigures {
    pub(crate) frames_in: u64,
    pub(crate) packets_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) packets_received: u64,
    /// Datagrams on the media port that belong to nobody or are not authentic.
    pub(crate) datagrams_dropped: u64,
    /// Media packets not sent because the socket would not take them.
    pub(crate) send_drops: u64,
    /// Picture loss indications and full intra requests received.
    pub(crate) keyframe_requests: u64,
    pub(crate) packets_lost_reported: u64,
    pub(crate) viewers_connected: u64,
}
