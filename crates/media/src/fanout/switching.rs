//! Viewers that go from one stream to another without a gap.
//!
//! ```text
//! handle_switch --> plays the old stream --cached group, or a keyframe--> plays the new one: Switched
//!                            |
//!                            +--SWITCH_TIMEOUT--> plays the old stream on: SwitchFailed
//! ```
//! A viewer of sound alone waits for nothing. A viewer belongs to the hub of the stream that it plays, and to that stream alone. The hub of the
//! stream that it waits for knows it as arriving.

use std::time::{Duration, Instant};

use super::{Fanout, FanoutEvent};
use crate::frame::{MediaKind, PacketisedFrame, StreamId, ViewerId};
use crate::hub::Hub;
use crate::rtx::RING_TIME;

/// How long a viewer waits for the first keyframe of the stream that it goes to. Cameras answer within
/// a second or two and send a keyframe every 1 to 10 s; a stream that brings none in this time is down.
pub const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A keyframe that is expected within this time is waited for: the viewer has a picture meanwhile, and
/// the cached group is up to a whole keyframe interval of the stream in one burst.
const KEYFRAME_IS_NEAR: Duration = Duration::from_secs(1);

/// How late a keyframe may be that was expected, before the cached group is taken after all.
const KEYFRAME_GRACE: Duration = Duration::from_millis(500);

/// A cached group of so few packets is taken however near the next keyframe is: it is no larger than
/// the keyframe will be.
const SMALL_GROUP_PACKETS: usize = 60;

/// A stream whose newest picture is older than this has stopped: who plays it has no picture, and what
/// it has cached is not the present.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Where a viewer is going.
#[derive(Debug)]
pub(super) struct Switch {
    stream: StreamId,
    deadline: Instant,
    /// From when on the cached group is as good as a keyframe.
    group_from: Instant,
}

impl Fanout {
    /// Lets a viewer go to another stream. It plays its old one until the new one has something to
    /// begin with; then [`FanoutEvent::Switched`] is told, or after [`SWITCH_TIMEOUT`]
    /// [`FanoutEvent::SwitchFailed`]. The newest call counts: one for the stream that it plays takes an
    /// earlier one back, and is told as `Switched` at once. Unknown viewers are ignored.
    pub fn handle_switch(&mut self, viewer: ViewerId, stream: StreamId, now: Instant) {
        let Some(place) = self.by_id.get(&viewer).copied() else { return };
        self.cancel_switch(place);
        let at = &mut self.places[place];
        if at.stream == stream {
            self.events.push_back(FanoutEvent::Switched { viewer, stream });
            return;
        }
        let hub = self.hubs.entry(stream).or_default();
        hub.arriving.push(place);
        let group_from = now + wait_for_keyframe(hub, now);
        at.switch = Some(Switch { stream, deadline: now + SWITCH_TIMEOUT, group_from });
        self.switching.push_back(place);
        if !at.viewer.has_picture() {
            self.complete_switch(place, now);
            return;
        }
        if hub.group().is_empty() && hub.wants_keyframe(now) {
            self.events.push_back(FanoutEvent::KeyframeWanted { stream });
        }
        self.begin_with_group(place, now);
    }

    /// A picture is about to come on `stream`: who waits for the stream begins with it, or with what
    /// is cached before it.
    pub(super) fn admit_arriving(
        &mut self,
        stream: StreamId,
        picture: &PacketisedFrame,
        now: Instant,
    ) {
        let Some(hub) = self.hubs.get(&stream).filter(|hub| !hub.arriving.is_empty()) else {
            return;
        };
        if picture.codec.kind() != MediaKind::Video {
            return;
        }
        for place in hub.arriving.clone() {
            if picture.keyframe {
                self.complete_switch(place, now);
            } else if !picture.discontinuity {
                self.begin_with_group(place, now);
            }
        }
    }

    /// Switches a viewer with the cached group, if there is one and it is worth its bytes.
    fn begin_with_group(&mut self, place: usize, now: Instant) {
        let at = &self.places[place];
        let Some(switch) = &at.switch else { return };
        let Some(hub) = self.hubs.get(&switch.stream) else { return };
        let has_picture = at.viewer.is_playing()
            && self.hubs.get(&at.stream).is_some_and(|old| old.age(now) < STALE_AFTER);
        let is_worth_it = hub.age(now) < STALE_AFTER && now >= switch.group_from;
        if hub.group().is_empty() || has_picture && !is_worth_it {
            return;
        }
        let stream = switch.stream;
        self.complete_switch(place, now);
        if let Some(hub) = self.hubs.get_mut(&stream) {
            let (group, age) = hub.give_group(now);
            self.places[place].viewer.handle_group(group, age, now);
            self.catch_up(place, now);
        }
    }

    /// The viewer plays the stream that it waited for from here on.
    fn complete_switch(&mut self, place: usize, now: Instant) {
        let Some(stream) = self.cancel_switch(place) else { return };
        self.leave_hub(place);
        let hub = self.hubs.entry(stream).or_default();
        hub.add(place);
        let at = &mut self.places[place];
        at.came_from = Some((at.stream, now + RING_TIME));
        at.stream = stream;
        at.line_told = None;
        at.viewer.handle_stream_change(hub.bits_per_second(), now);
        let viewer = at.viewer.id();
        self.events.push_back(FanoutEvent::Switched { viewer, stream });
        tracing::debug!(viewer = viewer.0, stream = stream.0, "viewer plays another stream");
    }

    /// The viewer waits for no other stream any more. Returns the one that it waited for.
    pub(super) fn cancel_switch(&mut self, place: usize) -> Option<StreamId> {
        let switch = self.places.get_mut(place)?.switch.take()?;
        self.switching.retain(|other| *other != place);
        if let Some(hub) = self.hubs.get_mut(&switch.stream) {
            hub.arriving.retain(|other| *other != place);
        }
        self.forget_idle_hub(switch.stream);
        Some(switch.stream)
    }

    /// When the first viewer has waited in vain. All wait equally long, so that who began first is
    /// first.
    pub(super) fn switch_deadline(&self) -> Option<Instant> {
        let first = self.places.get(*self.switching.front()?)?;
        first.switch.as_ref().map(|switch| switch.deadline)
    }

    /// Gives up what was waited for too long.
    pub(super) fn give_up_switches(&mut self, now: Instant) {
        while self.switch_deadline().is_some_and(|deadline| now >= deadline)
            && let Some(place) = self.switching.front().copied()
            && let Some(stream) = self.cancel_switch(place)
        {
            let viewer = self.places[place].viewer.id();
            self.events.push_back(FanoutEvent::SwitchFailed { viewer, stream });
        }
    }
}

/// How long the next keyframe is worth waiting for, by somebody who has a picture.
fn wait_for_keyframe(hub: &Hub, now: Instant) -> Duration {
    let packets: usize = hub.group().iter().map(|frame| frame.packet_count()).sum();
    match hub.cadence.next_keyframe_in(now) {
        Some(wait) if wait <= KEYFRAME_IS_NEAR && packets > SMALL_GROUP_PACKETS => {
            wait + KEYFRAME_GRACE
        }
        Some(_) | None => Duration::ZERO,
    }
}
