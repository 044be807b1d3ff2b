//! Feeds: streams that other nodes pass on to their viewers.
//!
//! A feed is a peer as viewers are, without a session: it has no lease, since those who watch have theirs
//! at their node, and no choice of picture. It ends with its connection, or with its stream's source.

use std::collections::HashMap;

use control::CameraId;
use engine::{HoldId, HoldRefusal, Rendition, Request};
use media::{StreamId, ViewerId};
use tokio::sync::oneshot;
use tracing::info;

use super::actor::{Actor, Command, Message, Waiting};
use super::outlets::hold_error;
use super::{App, HoldError};
use crate::net::{Accepted, FIRST_RECEIVER, MediaEvent, OfferError};

/// The first id of feeds among viewers. The engine counts its own up from 0, and receivers of voices
/// begin higher still.
const FIRST_FEED: u64 = 1 << 62;

/// Why another node is not fed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Stream(#[from] HoldError),
    #[error(transparent)]
    Offer(#[from] OfferError),
}

/// The answer to a node's offer.
#[derive(Debug)]
pub(crate) struct Feeding {
    /// Unguessable; ends the feed.
    pub(crate) resource: String,
    pub(crate) answer_sdp: String,
}

pub(super) type FeedReply = oneshot::Sender<Result<Feeding, FeedError>>;

/// A call of the methods below.
pub(super) enum FeedCommand {
    Offer { camera: CameraId, rendition: Rendition, offer: String, reply: FeedReply },
    End { resource: String, reply: oneshot::Sender<bool> },
}

/// A feed's offer was answered.
pub(super) struct FeedAnswered {
    viewer: ViewerId,
    result: Result<Accepted, OfferError>,
    reply: FeedReply,
}

/// An offer whose stream is not held yet.
pub(super) struct WaitingFeed {
    camera: CameraId,
    offer: String,
    reply: FeedReply,
}

/// Who is fed. Bounded by [`engine::MAX_FEEDS`].
#[derive(Debug, Default)]
pub(super) struct Feeds {
    by_viewer: HashMap<ViewerId, Feed>,
    made: u64,
}

#[derive(Debug)]
struct Feed {
    hold: HoldId,
    resource: String,
}

impl Feeds {
    /// Whether a peer is a feed, of now or of before.
    pub(super) fn is_feed(viewer: ViewerId) -> bool {
        (FIRST_FEED..FIRST_RECEIVER.0).contains(&viewer.0)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_viewer.len()
    }

    fn viewer_of(&self, fits: impl Fn(&Feed) -> bool) -> Option<ViewerId> {
        self.by_viewer.iter().find(|(_, feed)| fits(feed)).map(|(viewer, _)| *viewer)
    }
}

impl App {
    /// Gives a stream to another node, as long as it takes it.
    pub(crate) async fn feed(
        &self,
        camera: CameraId,
        rendition: Rendition,
        offer: String,
    ) -> Result<Feeding, FeedError> {
        let make = |reply| Command::Feed(FeedCommand::Offer { camera, rendition, offer, reply });
        self.ask(make).await.unwrap_or(Err(HoldError::ShuttingDown.into()))
    }

    /// Ends a feed. False: there is none.
    pub(crate) async fn end_feed(&self, resource: String) -> bool {
        self.ask(|reply| Command::Feed(FeedCommand::End { resource, reply })).await.unwrap_or(false)
    }
}

impl Actor {
    pub(super) fn handle_feed_command(&mut self, command: FeedCommand) {
        match command {
            FeedCommand::Offer { camera, rendition, offer, reply } => {
                let waiting = WaitingFeed { camera: camera.clone(), offer, reply };
                self.ask(Request::Feed { camera, rendition }, Waiting::Feed(waiting));
            }
            FeedCommand::End { resource, reply } => {
                let viewer = self.feeds.viewer_of(|feed| feed.resource == resource);
                if let Some(viewer) = viewer {
                    self.media.close(viewer, "the feed is over");
                    self.end_feed(viewer);
                }
                // Who asked may have hung up.
                let _ = reply.send(viewer.is_some());
            }
        }
    }

    pub(super) fn reply_feed(
        &mut self,
        waiting: WaitingFeed,
        held: Result<(HoldId, StreamId), HoldRefusal>,
    ) {
        let WaitingFeed { camera, offer, reply } = waiting;
        let (hold, stream) = match held {
            Ok(held) => held,
            Err(refusal) => {
                let _ = reply.send(Err(hold_error(&camera, refusal).into()));
                return;
            }
        };
        let viewer = ViewerId(FIRST_FEED + self.feeds.made);
        self.feeds.made += 1;
        let resource = uuid::Uuid::new_v4().to_string();
        self.feeds.by_viewer.insert(viewer, Feed { hold, resource });
        info!(camera_id = %camera, "another node pulls this camera from here");
        let (media, messages) = (self.media.clone(), self.messages.clone());
        tokio::spawn(async move {
            let result = media.accept(viewer, stream, offer).await;
            // Nobody listens any more only while the application ends.
            let _ = messages.send(Message::Fed(FeedAnswered { viewer, result, reply }));
        });
    }

    pub(super) fn handle_feed_answered(&mut self, answered: FeedAnswered) {
        let FeedAnswered { viewer, result, reply } = answered;
        let resource = self.feeds.by_viewer.get(&viewer).map(|feed| feed.resource.clone());
        let told = match (result, resource) {
            (Ok(accepted), Some(resource)) => {
                Ok(Feeding { resource, answer_sdp: accepted.answer_sdp })
            }
            // Its source failed meanwhile.
            (Ok(_), None) => {
                self.media.close(viewer, "the feed is over");
                let reason = "its source has just failed".to_owned();
                Err(HoldError::CameraOffline(reason).into())
            }
            (Err(refused), _) => {
                self.end_feed(viewer);
                Err(refused.into())
            }
        };
        if let Err(Ok(_)) = reply.send(told) {
            self.media.close(viewer, "the feed is over");
            self.end_feed(viewer);
        }
    }

    /// Takes what the media plane tells of a feed. Whether it was one's.
    pub(super) fn is_of_feed(&mut self, event: &MediaEvent) -> bool {
        let viewer = match event {
            MediaEvent::Connected { viewer, .. }
            | MediaEvent::Alive { viewer, .. }
            | MediaEvent::FirstMedia { viewer }
            | MediaEvent::Switched { viewer, .. }
            | MediaEvent::SwitchFailed { viewer, .. }
            | MediaEvent::Line { viewer, .. }
            | MediaEvent::Reached { viewer, .. }
            | MediaEvent::Moved { viewer, .. }
            | MediaEvent::Detached { viewer, .. }
            | MediaEvent::Closed { viewer, .. } => *viewer,
            MediaEvent::KeyframeWanted { .. }
            | MediaEvent::PublisherConnected { .. }
            | MediaEvent::PublisherClosed { .. }
            | MediaEvent::Failed => return false,
        };
        if matches!(event, MediaEvent::Closed { .. }) && Feeds::is_feed(viewer) {
            self.end_feed(viewer);
        }
        Feeds::is_feed(viewer)
    }

    /// A feed's peer is gone.
    pub(super) fn end_feed(&mut self, viewer: ViewerId) {
        if let Some(feed) = self.feeds.by_viewer.remove(&viewer) {
            self.engine.handle_let_go(feed.hold, self.clock.now());
        }
    }

    /// A hold has ended. Whether it was a feed's.
    pub(super) fn end_feed_of(&mut self, hold: HoldId) -> bool {
        let Some(viewer) = self.feeds.viewer_of(|feed| feed.hold == hold) else { return false };
        self.feeds.by_viewer.remove(&viewer);
        self.media.close(viewer, "the feed is over");
        true
    }
}
