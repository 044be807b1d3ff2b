//! What the media plane tells and counts, and whom it tells: the cameras' application or the voice relay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use media::batch::Route;
use media::estimate::LineState;
use media::publishers::GroupFigures;
use media::viewer::TrackFigures;
use media::{StreamId, ViewerId};
use tokio::sync::mpsc;

use super::publishers::{PublisherEnd, PublisherId};
use super::tcp::TcpFigures;
use media::peers::CloseReason;

/// What the media plane tells of viewers and streams.
#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// A viewer's check came along this path, before its DTLS finished; about once a second.
    Reached { viewer: ViewerId, route: Route },
    /// DTLS finished, media flows from here on.
    Connected { viewer: ViewerId, handshake_ms: u32, route: Route },
    /// An authenticated packet (STUN check, SRTCP) came from the viewer; about once a second. SRTCP tells
    /// what the viewer was sent so far.
    Alive { viewer: ViewerId, at: Instant, sent: Option<TrackFigures> },
    /// The viewer's media goes along another path.
    Moved { viewer: ViewerId, route: Route },
    /// The viewer gets no more media. Comes once for each that was connected.
    Detached { viewer: ViewerId, sent: TrackFigures },
    /// The viewer's session is over, whoever ended it. Sent exactly once a viewer.
    Closed { viewer: ViewerId, reason: CloseReason },
    /// Viewers of the stream cannot decode: the source should send a keyframe, if it can.
    KeyframeWanted { stream: StreamId },
    /// The first packet of media left for this viewer.
    FirstMedia { viewer: ViewerId },
    /// The viewer plays the stream that it was last told to go to.
    Switched { viewer: ViewerId, stream: StreamId },
    /// The stream that the viewer was told to go to brought nothing in time; it stays where it is.
    SwitchFailed { viewer: ViewerId, stream: StreamId },
    /// How the viewer's line does, where that changed; at most once a second.
    Line { viewer: ViewerId, line: LineState, stream: StreamId },
    /// A publisher's DTLS finished: it may be asked for media.
    PublisherConnected { publisher: PublisherId },
    /// A publisher's session is over, whoever ended it. Sent exactly once a publisher.
    PublisherClosed { publisher: PublisherId, reason: PublisherEnd },
    /// A thread of the media plane panicked. Its viewers are lost, and it does not come back.
    Failed,
}

/// Who is told of an event.
enum Audience {
    Cameras,
    Voice,
    /// The voice relay gets this copy. Each side knows its own publishers and passes over the others.
    Both(MediaEvent),
}

impl MediaEvent {
    fn audience(&self) -> Audience {
        match *self {
            Self::Reached { viewer, .. }
            | Self::Connected { viewer, .. }
            | Self::Alive { viewer, .. }
            | Self::Moved { viewer, .. }
            | Self::Detached { viewer, .. }
            | Self::Closed { viewer, .. }
            | Self::FirstMedia { viewer }
            | Self::Switched { viewer, .. }
            | Self::SwitchFailed { viewer, .. }
            | Self::Line { viewer, .. } => {
                if viewer < FIRST_RECEIVER {
                    Audience::Cameras
                } else {
                    Audience::Voice
                }
            }
            Self::PublisherConnected { publisher } => {
                Audience::Both(Self::PublisherConnected { publisher })
            }
            Self::PublisherClosed { publisher, reason } => {
                Audience::Both(Self::PublisherClosed { publisher, reason })
            }
            Self::KeyframeWanted { .. } | Self::Failed => Audience::Cameras,
        }
    }
}

/// Counters of the media plane since the start; all rise, except `viewers_connected`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MediaFigures {
    /// Frames that sources handed over.
    pub(crate) frames_in: u64,
    /// RTP and RTCP packets sent to viewers.
    pub(crate) packets_sent: u64,
    /// Bytes of them, with headers and tags.
    pub(crate) bytes_sent: u64,
    /// Datagrams that arrived at the media port.
    pub(crate) packets_received: u64,
    /// Datagrams on the media port that belong to nobody or are not authentic.
    pub(crate) datagrams_dropped: u64,
    /// Media packets not sent because the socket would not take them, or a worker was too late.
    pub(crate) send_drops: u64,
    /// Packets that viewers asked for again (NACK).
    pub(crate) nacks: u64,
    /// Of these, those that were sent again.
    pub(crate) repairs: u64,
    /// Of these, those that were refused: too often, too early, or too many.
    pub(crate) repairs_refused: u64,
    /// Of these, those that are not kept any more, or never were.
    pub(crate) repairs_missed: u64,
    /// Frames skipped for viewers that were too slow.
    pub(crate) frames_skipped: u64,
    /// Frames not sent to a viewer whose answer has no such codec.
    pub(crate) frames_not_taken: u64,
    /// Packets of voices not passed on to a receiver: they came twice, or too late for a number.
    pub(crate) packets_too_late: u64,
    /// Frames of which no packets could be made: empty, or cut larger than a packet may be.
    pub(crate) frames_not_cut: u64,
    /// Picture loss indications and full intra requests received.
    pub(crate) keyframe_requests: u64,
    /// Packets that viewers reported as lost.
    pub(crate) packets_lost_reported: u64,
    /// Frames skipped for taps that were too slow.
    pub(crate) tap_frames_skipped: u64,
    /// Viewers to whom media flows.
    pub(crate) viewers_connected: u64,
    /// Of these, those whose line is too thin for their stream.
    pub(crate) viewers_limited: u64,
    /// Publishers whose connection stands.
    pub(crate) publishers_connected: u64,
    /// Packets of media that publishers sent and somebody wanted.
    pub(crate) publisher_packets: u64,
    /// Packets of publishers that never came, however often they were asked for again.
    pub(crate) publisher_packets_lost: u64,
    /// Messages that asked publishers for lost packets.
    pub(crate) publisher_nacks: u64,
    /// Pictures of publishers that were not passed on: broken, or before a keyframe.
    pub(crate) publisher_frames_withheld: u64,
    /// Keyframes that publishers were asked for.
    pub(crate) publisher_keyframes_asked: u64,
    /// Datagrams and frames of publishers for which a queue had no room.
    pub(crate) publisher_overflows: u64,
    /// Those who speak.
    pub(crate) voices: GroupFigures,
    /// Viewers that moved to another address, or from UDP to TCP and back.
    pub(crate) moves: u64,
    /// Viewers that were let go since no authentic check came (RFC 7675).
    pub(crate) consents_expired: u64,
    /// Sessions of viewers and publishers that ended since something panicked.
    pub(crate) sessions_failed: u64,
    /// Connections of viewers that come by TCP.
    pub(crate) tcp: TcpFigures,
}

/// Receivers of voices have ids from here on; below it they are viewers of cameras.
pub(crate) const FIRST_RECEIVER: ViewerId = ViewerId(1 << 63);

/// Voices have ids from here on; below it they are streams of cameras.
pub(crate) const FIRST_VOICE: StreamId = StreamId(1 << 31);

/// Where events go, and the counts that belong to no worker.
#[derive(Clone)]
pub(crate) struct EventSink {
    pub(super) events: mpsc::UnboundedSender<MediaEvent>,
    /// Those of receivers, and a second copy of those of publishers.
    pub(super) voice: Arc<OnceLock<mpsc::UnboundedSender<MediaEvent>>>,
    pub(super) rejected: Arc<AtomicU64>,
    pub(super) consents_expired: Arc<AtomicU64>,
    pub(super) sessions_failed: Arc<AtomicU64>,
}

impl EventSink {
    pub(super) fn new(events: mpsc::UnboundedSender<MediaEvent>) -> Self {
        let (voice, rejected, consents_expired, sessions_failed) = Default::default();
        Self { events, voice, rejected, consents_expired, sessions_failed }
    }

    pub(super) fn send(&self, event: MediaEvent) {
        // Nobody listens any more only while the program ends.
        let _ = match (self.voice.get(), event.audience()) {
            (Some(voice), Audience::Voice) => voice.send(event),
            (Some(voice), Audience::Both(copy)) => {
                voice.send(copy).and_then(|()| self.events.send(event))
            }
            (Some(_), Audience::Cameras) | (None, _) => self.events.send(event),
        };
    }

    pub(super) fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_expired_consent(&self) {
        self.consents_expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failed_session(&self) {
        self.sessions_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells that its thread panicked.
pub(super) struct Alarm(pub(super) EventSink);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(MediaEvent::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of_and_one_that_ends_is_not() {
        let (events, mut told) = mpsc::unbounded_channel();
        let sink = EventSink::new(events);
        let run = |panics: bool| {
            let alarm = Alarm(sink.clone());
            let thread = thread::spawn(move || {
                let _alarm = alarm;
                assert!(!panics, "this panic belongs to the test");
            });
            thread.join().is_err()
        };
        assert!(!run(false) && told.try_recv().is_err());
        assert!(run(true) && matches!(told.try_recv(), Ok(MediaEvent::Failed)));
    }
}
