//! Holds: a stream's source is needed for a moment by somebody who does not watch.
//!
//! What another node passes on (a feed) is held as long as it does. Else:
//! a description or a still picture needs a keyframe, and takes no quota. What is held ends by itself
//! after [`HOLD_TIME_MAX`], and as soon as its source fails: holds never make a source be tried again.

use std::time::Duration;

use control::{CameraId, Timestamp};
use media::StreamId;
use tracing::debug;

use super::Engine;
use crate::failure::SourceFailure;
use crate::io::{Action, HoldId, HoldRefusal, Reply, RequestId};
use crate::stream::{Rendition, Stream, StreamEvent};
use crate::timers::Timer;

/// Most holds at once. Each may start a camera that nobody pays for with quota; 64 let the pictures of
/// a full page of cameras be asked for at once.
pub const MAX_HOLDS: usize = 64;

/// The longest hold. Twice the time that a camera may take to its first keyframe.
pub const HOLD_TIME_MAX: Duration = Duration::from_secs(30);

/// Most feeds at once: a park of 500 cameras with two streams each, given to eight other nodes.
pub const MAX_FEEDS: usize = 8_000;

impl Engine {
    /// A hold is not needed any more. Harmless for one that has ended.
    pub fn handle_let_go(&mut self, hold: HoldId, now: Timestamp) {
        self.remove_hold(hold, now);
    }

    pub(super) fn hold(
        &mut self,
        request: RequestId,
        camera: &CameraId,
        rendition: Rendition,
        now: Timestamp,
    ) {
        let has_room = self.holds.len() - self.feeds.len() < MAX_HOLDS;
        let held = self.may_hold(camera, rendition, has_room, now);
        let held = held.map(|stream| {
            let hold = self.begin_hold(stream, now);
            self.timers.set(Timer::Hold(hold), now + HOLD_TIME_MAX);
            (hold, stream)
        });
        if let Err(refusal) = &held {
            debug!(camera_id = %camera, ?refusal, "not held");
        }
        self.reply(request, Reply::Hold(held));
    }

    pub(super) fn feed(
        &mut self,
        request: RequestId,
        camera: &CameraId,
        rendition: Rendition,
        now: Timestamp,
    ) {
        let has_room = self.feeds.len() < MAX_FEEDS;
        let fed = self.may_hold(camera, rendition, has_room, now);
        let fed = fed.map(|stream| {
            let hold = self.begin_hold(stream, now);
            self.feeds.insert(hold);
            (hold, stream)
        });
        if let Err(refusal) = &fed {
            debug!(camera_id = %camera, ?refusal, "another node is not fed");
        }
        self.reply(request, Reply::Hold(fed));
    }

    fn may_hold(
        &mut self,
        camera: &CameraId,
        rendition: Rendition,
        has_room: bool,
        now: Timestamp,
    ) -> Result<StreamId, HoldRefusal> {
        if self.is_shutting_down {
            return Err(HoldRefusal::ShuttingDown);
        }
        let entry = self.cameras.get(camera).ok_or(HoldRefusal::UnknownCamera)?;
        let stream = match rendition {
            Rendition::Main => entry.main,
            Rendition::Sub => entry.sub.ok_or(HoldRefusal::NoSub)?,
        };
        if let Some(failure) = self.failure_of(stream) {
            self.probe(stream, now);
            return Err(HoldRefusal::CameraOffline(failure));
        }
        if has_room { Ok(stream) } else { Err(HoldRefusal::TooMany) }
    }

    fn begin_hold(&mut self, stream: StreamId, now: Timestamp) -> HoldId {
        let hold = HoldId(self.next_hold);
        self.next_hold += 1;
        self.holds.insert(hold, stream);
        if let Some(on) = self.streams.get_mut(&stream) {
            on.holds += 1;
        }
        self.drive(stream, StreamEvent::Joined, now);
        hold
    }

    /// Ends a hold whose holder did not let go, and tells it.
    pub(super) fn end_hold(
        &mut self,
        hold: HoldId,
        failure: Option<&SourceFailure>,
        now: Timestamp,
    ) {
        if self.remove_hold(hold, now) {
            self.actions.push_back(Action::HoldEnded { hold, failure: failure.cloned() });
        }
    }

    /// Ends all holds on a stream.
    pub(super) fn end_holds(
        &mut self,
        stream: StreamId,
        failure: Option<&SourceFailure>,
        now: Timestamp,
    ) {
        let on_stream = self.holds.iter().filter(|(_, held)| **held == stream);
        let holds: Vec<_> = on_stream.map(|(hold, _)| *hold).collect();
        for hold in holds {
            self.end_hold(hold, failure, now);
        }
    }

    pub(super) fn end_all_holds(&mut self, now: Timestamp) {
        let holds: Vec<_> = self.holds.keys().copied().collect();
        for hold in holds {
            self.end_hold(hold, None, now);
        }
    }

    /// Whether there was such a hold.
    fn remove_hold(&mut self, hold: HoldId, now: Timestamp) -> bool {
        let Some(stream) = self.holds.remove(&hold) else {
            return false;
        };
        self.feeds.remove(&hold);
        self.timers.clear(Timer::Hold(hold));
        if let Some(on) = self.streams.get_mut(&stream) {
            on.holds -= 1;
        }
        if !self.streams.get(&stream).is_some_and(Stream::is_wanted) {
            self.drive(stream, StreamEvent::Emptied, now);
        }
        true
    }
}
