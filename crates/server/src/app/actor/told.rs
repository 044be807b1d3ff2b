//! What the media plane, the sources and the actor's own tasks tell, as the engine's events.

use control::CameraId;
use engine::{Rendition, SourceEvent, SourceFailure, ViewerEvent};
use media::StreamId;
use tracing::{error, info};

use super::super::publishing::Presence;
use super::super::pullers::Ended;
use super::{Actor, Message, Waiting};
use crate::ledger::News;
use crate::net::{MediaEvent, PublisherEnd, PublisherId};

impl Actor {
    pub(super) fn handle_media(&mut self, event: &MediaEvent) {
        let now = self.clock.now();
        if self.is_of_feed(event) {
            return;
        }
        self.journal.handle_media(event);
        let (viewer, event) = match *event {
            MediaEvent::Connected { viewer, handshake_ms, .. } => {
                (viewer, ViewerEvent::Connected { handshake_ms })
            }
            MediaEvent::Alive { viewer, at, .. } => {
                let at = self.clock.timestamp(at);
                if let Some(peer) = self.peers.get_mut(&viewer) {
                    peer.is_checked = true;
                    peer.heard = peer.heard.max(Some(at));
                }
                (viewer, ViewerEvent::Alive { at })
            }
            MediaEvent::Closed { viewer, reason } => {
                self.forget_peer(viewer);
                (viewer, ViewerEvent::Closed(reason))
            }
            MediaEvent::FirstMedia { viewer } => {
                self.observe_join(viewer);
                (viewer, ViewerEvent::FirstMedia)
            }
            MediaEvent::Switched { viewer, stream } => (viewer, ViewerEvent::Switched { stream }),
            MediaEvent::SwitchFailed { viewer, stream } => {
                (viewer, ViewerEvent::SwitchFailed { stream })
            }
            MediaEvent::Line { viewer, line, stream } => {
                if let Some(peer) = self.peers.get_mut(&viewer) {
                    peer.line = Some(line);
                }
                (viewer, ViewerEvent::Line { line, stream })
            }
            // They are told to the journal alone.
            MediaEvent::Reached { .. } | MediaEvent::Moved { .. } | MediaEvent::Detached { .. } => {
                return;
            }
            MediaEvent::KeyframeWanted { stream } => {
                return self.engine.handle_keyframe_wanted(stream, now);
            }
            MediaEvent::PublisherConnected { publisher } => return self.begin_publisher(publisher),
            MediaEvent::PublisherClosed { publisher, reason } => {
                return self.end_publisher(publisher, reason);
            }
            MediaEvent::Failed => {
                error!("a thread of the media plane panicked; the message is on standard error");
                self.has_failed = true;
                return;
            }
        };
        self.engine.handle_viewer(viewer, event, now);
        // A batch may hold what causes many actions; they are not let pile up.
        self.run_actions();
    }

    /// A camera that waits for its publisher is live at once.
    fn begin_publisher(&mut self, publisher: PublisherId) {
        let Some((camera_id, rendition)) = self.publishing.place_of(publisher) else { return };
        info!(%camera_id, rendition = rendition.as_str(), "a publisher is connected");
        self.engine.handle_publisher(&camera_id, rendition, self.clock.now());
    }

    fn end_publisher(&self, publisher: PublisherId, reason: PublisherEnd) {
        if let Some((camera_id, rendition)) = self.publishing.place_of(publisher) {
            let rendition = rendition.as_str();
            info!(%camera_id, rendition, ?reason, "a publisher is gone");
        }
        self.publishing.forget(publisher);
    }

    pub(super) fn handle_message(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Restarted { viewer, their_ufrag, result, reply } => {
                let _ = reply.send(self.end_restart(viewer, their_ufrag, result));
            }
            Message::Answered { request, viewer, result } => {
                let event = match &result {
                    Ok(accepted) => ViewerEvent::Accepted { codecs: accepted.codecs },
                    Err(_) => ViewerEvent::Refused,
                };
                if let Some(Waiting::Watch(watch)) = self.waiting.get_mut(&request) {
                    watch.answer = Some(result);
                }
                self.engine.handle_viewer(viewer, event, now);
            }
            Message::Ledger(News::Outcome(op, outcome)) => {
                self.engine.handle_outcome(op, outcome, now);
            }
            Message::Ledger(News::Ended(ended)) => self.engine.handle_ended(ended, now),
            Message::Outlet(message) => self.handle_outlet_message(message),
            Message::Fed(answered) => self.handle_feed_answered(answered),
            Message::Live { stream, attempt, codec } => {
                self.forget_finding(stream);
                self.engine.handle_source(stream, attempt, SourceEvent::Live { codec }, now);
            }
        }
    }

    pub(super) fn handle_ended(&mut self, ended: Option<Ended>) {
        if let Some(Ended { stream, attempt, failure }) = ended {
            self.forget_finding(stream);
            let found_nobody = failure == SourceFailure::NoPublisher;
            let event = SourceEvent::Failed(failure);
            self.engine.handle_source(stream, attempt, event, self.clock.now());
            if found_nobody {
                self.retry_if_published(stream);
            }
        }
    }

    /// Other nodes have these cameras. Those that are published to, and have nobody here, are tried there now:
    /// this node was told nothing when their publishers came.
    pub(super) fn handle_origins_elsewhere(&mut self, cameras: &[CameraId]) {
        let now = self.clock.now();
        for camera in cameras {
            for rendition in [Rendition::Main, Rendition::Sub] {
                if self.publishing.presence(camera, rendition) == Some(Presence::Nobody) {
                    self.engine.handle_publisher(camera, rendition, now);
                }
            }
        }
    }

    /// Somebody may have come while an attempt found nobody.
    fn retry_if_published(&mut self, stream: StreamId) {
        let now = self.clock.now();
        let Some((camera, rendition)) = self.engine.place_of(stream) else { return };
        if self.publishing.presence(&camera, rendition) == Some(Presence::Here) {
            self.engine.handle_publisher(&camera, rendition, now);
        }
    }
}
