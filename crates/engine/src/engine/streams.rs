//! Streams: their sources start, deliver, fail, wait and stop.

use std::time::Duration;

use control::{CameraId, Timestamp};
use media::StreamId;
use tracing::{debug, info, warn};

use super::{Engine, KEYFRAME_INTERVAL_MIN, STOPPED};
use crate::failure::SourceFailure;
use crate::io::{Action, SourceEvent};
use crate::note::Note;
use crate::stream::{Condition, Rendition, Stream, StreamEvent, StreamState};
use crate::timers::Timer;

impl Engine {
    /// Takes what attempt number `attempt` at a source tells. Attempts that were ended are ignored.
    pub fn handle_source(
        &mut self,
        stream: StreamId,
        attempt: u64,
        event: SourceEvent,
        now: Timestamp,
    ) {
        let Some(on) = self.streams.get_mut(&stream) else {
            return;
        };
        if on.attempts != attempt || !on.state.pulls() {
            return;
        }
        match event {
            SourceEvent::Live { codec } => {
                on.failure = None;
                let is_news = on.live_since.is_none();
                on.live_since.get_or_insert(now);
                on.codec = Some(codec);
                if is_news {
                    self.note_all(stream, &Note::CameraLive);
                }
                self.drive(stream, StreamEvent::Live, now);
            }
            SourceEvent::Failed(failure) => {
                let live =
                    on.live_since.map_or(Duration::ZERO, |since| now.saturating_since(since));
                let wait = on.backoff.fail(&failure, live, &mut self.random);
                on.retry_at = now + wait;
                log_failure(on, &failure, wait);
                on.failures += 1;
                let is_news = on.failure.replace(failure.clone()).as_ref() != Some(&failure);
                if is_news {
                    self.note_all(stream, &Note::CameraFailed(failure.clone()));
                }
                self.drive(stream, StreamEvent::Failed, now);
                self.end_holds(stream, Some(&failure), now);
            }
        }
        self.review_stream(stream, now);
    }

    /// The same step for all who watch a stream.
    fn note_all(&mut self, stream: StreamId, note: &Note) {
        let Some(on) = self.streams.get(&stream) else { return };
        let noted = on.reservations.iter().cloned();
        let noted = noted.map(|reservation| Action::Note { reservation, note: note.clone() });
        self.actions.extend(noted);
    }

    /// A publisher came for a camera's stream: a stream that waits after a failure is tried now.
    pub fn handle_publisher(&mut self, camera: &CameraId, rendition: Rendition, now: Timestamp) {
        let entry = self.cameras.get(camera);
        let stream = entry.and_then(|entry| match rendition {
            Rendition::Main => Some(entry.main),
            Rendition::Sub => entry.sub,
        });
        let Some(on) = stream.and_then(|stream| self.streams.get(&stream)) else {
            return;
        };
        match on.state {
            StreamState::Waiting => self.drive(on.id, StreamEvent::RetryDue, now),
            // Nobody watches; the next one who asks shall not be refused for what is over.
            StreamState::Failed => self.drive(on.id, StreamEvent::Probe, now),
            StreamState::Idle
            | StreamState::Connecting
            | StreamState::Live
            | StreamState::Reconnecting
            | StreamState::Probing
            | StreamState::ClosingConnecting
            | StreamState::ClosingLive => {}
        }
    }

    /// Viewers of a stream cannot decode. The source is asked for a keyframe, not too often.
    pub fn handle_keyframe_wanted(&mut self, stream: StreamId, now: Timestamp) {
        let Some(on) = self.streams.get_mut(&stream) else {
            return;
        };
        let asked_just_before =
            on.keyframe_asked_at.is_some_and(|at| now < at + KEYFRAME_INTERVAL_MIN);
        if on.live_since.is_none() || asked_just_before {
            return;
        }
        on.keyframe_asked_at = Some(now);
        self.actions.push_back(Action::RequestKeyframe { stream });
    }

    pub(super) fn retry_due(&mut self, stream: StreamId, now: Timestamp) {
        if self.streams.get(&stream).is_some_and(Stream::awaits_retry) {
            self.drive(stream, StreamEvent::RetryDue, now);
        }
    }

    pub(super) fn close_due(&mut self, stream: StreamId, now: Timestamp) {
        self.drive(stream, StreamEvent::CloseDue, now);
    }

    /// Ends a stream's source and forgets its failures. For who still wants it, it returns after [`STOPPED`].
    pub(super) fn stop_stream(&mut self, stream: StreamId, now: Timestamp) {
        if let Some(on) = self.streams.get_mut(&stream) {
            on.failure = None;
            on.backoff.reset();
            self.drive(stream, StreamEvent::Stop, now);
        }
    }

    /// Moves a stream by its transition table and does what the move entails.
    pub(super) fn drive(&mut self, id: StreamId, event: StreamEvent, now: Timestamp) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let before = stream.state;
        let after = before.on(event);
        stream.state = after;
        let begins = !before.pulls() && after.pulls();
        if begins {
            stream.attempts += 1;
        }
        if before != after {
            log_state(stream);
        }
        if begins {
            self.actions.push_back(Action::StartSource {
                stream: id,
                camera: stream.camera.clone(),
                rendition: stream.rendition,
                attempt: stream.attempts,
            });
        }
        let ends = before.pulls() && !after.pulls();
        if ends {
            stream.live_since = None;
            stream.codec = None;
            stream.keyframe_asked_at = None;
        }
        if ends && event != StreamEvent::Failed {
            self.actions.push_back(Action::StopSource { stream: id });
        }
        let is_wanted = stream.is_wanted();
        let stops_waiting = event == StreamEvent::Stop && before == StreamState::Waiting;
        let is_let_go = event == StreamEvent::Emptied || stops_waiting;
        if ends && is_wanted {
            self.actions.push_back(Action::InterruptStream { stream: id });
        }
        if !is_wanted && !after.pulls() && (ends || is_let_go) {
            self.actions.push_back(Action::RemoveStream { stream: id });
            log_cleaned_up(stream);
        }
        if event == StreamEvent::Stop {
            stream.retry_at = now + STOPPED;
        }
        self.set_timers(id, before, after, now);
    }

    fn set_timers(
        &mut self,
        id: StreamId,
        before: StreamState,
        after: StreamState,
        now: Timestamp,
    ) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if !stream.awaits_retry() {
            self.timers.clear(Timer::Retry(id));
        } else if before != after {
            self.timers.set(Timer::Retry(id), stream.retry_at.max(now));
        }
        match (before.is_closing(), after.is_closing()) {
            (false, true) => self.timers.set(Timer::Close(id), now + stream.close_after),
            (true, false) => self.timers.clear(Timer::Close(id)),
            (true, true) | (false, false) => {}
        }
    }
}

/// What a user sees, once a change. Failures are logged with their sentence where they happen.
fn log_state(stream: &Stream) {
    let (camera_id, rendition) = (&stream.camera, stream.rendition.as_str());
    match stream.condition() {
        Condition::Failed(_) => {
            debug!(%camera_id, rendition, state = ?stream.state, "camera state changed");
        }
        condition @ (Condition::Idle
        | Condition::Connecting
        | Condition::Live
        | Condition::Closing) => {
            info!(%camera_id, rendition, state = condition.word(), attempt = stream.attempts, "camera state changed");
        }
    }
}

/// The same failure again is no news: it is counted, and told to who debugs.
fn log_failure(stream: &Stream, failure: &SourceFailure, wait: Duration) {
    let (camera_id, rendition, state) =
        (&stream.camera, stream.rendition.as_str(), failure.state());
    let in_a_row = stream.backoff.failures();
    let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    if stream.failure.as_ref() == Some(failure) {
        debug!(%camera_id, rendition, state, in_a_row, retry_in_ms, reason = %failure, "camera still gives no picture");
    } else {
        warn!(%camera_id, rendition, state, in_a_row, retry_in_ms, reason = %failure, "camera gives no picture");
    }
}

fn log_cleaned_up(stream: &mut Stream) {
    if let Some(reservation_id) = stream.last_viewer.take() {
        let camera_id = &stream.camera;
        info!(%camera_id, %reservation_id, "All stream resources cleaned up (last viewer)");
    }
}
