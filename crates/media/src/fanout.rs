//! All viewers of one worker: frames in, batches of protected datagrams out, feedback back in.
//!
//! Sans-IO. After each `handle_*` call [`Fanout::poll_transmit`] until it leaves the batch empty,
//! then [`Fanout::poll_event`]. ICE and DTLS are elsewhere ([`crate::peers`]); what arrives here
//! has keys.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::batch::{Batch, Remote, Route};
use crate::frame::{MediaKind, PacketisedFrame, StreamId, ViewerId};
use crate::hub::Hub;
use crate::peers::Attach;
use crate::viewer::{BURST_INTERVAL, Heard, Lost, REPORT_INTERVAL, Viewer};

mod claims;
mod line;
mod switching;
mod told;

use line::Figure;
use switching::Switch;

pub use switching::SWITCH_TIMEOUT;
pub use told::{FanoutEvent, FanoutFigures};

/// A cached group of more frames than this is long: 5 s of 30 a second. Every viewer that comes gets all
/// of it at once, so that a source which can is asked for a new one; and where there is none, a viewer
/// shall not wait for the source's own time.
const LONG_GROUP: usize = 150;

/// Bytes after which a batch is handed out. Large enough that system calls do not count, small
/// enough to stay in the second-level cache between sealing and sending.
const BATCH_BYTES: usize = 128 * 1024;
/// The reports of all viewers are spread over this many steps of the report interval.
const REPORT_STEPS: u32 = 20;
/// Bytes of repairs that may be ready to go. Beyond it viewers have to ask again: media comes first.
const MAX_REPAIR_BYTES: usize = 8 * BATCH_BYTES;
/// How often at most a viewer is reported to be alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a viewer on a congested connection may be behind before whole frames are skipped for it.
/// A cached group takes that long at twice the stream's rate.
const CONGESTION_PATIENCE: Duration = Duration::from_secs(1);

/// Part of a frame's way to its viewers.
struct Job {
    stream: StreamId,
    frame: Arc<PacketisedFrame>,
    /// Viewers of the stream that have been served, in the hub's order.
    served: usize,
    now: Instant,
}

struct Place {
    viewer: Viewer,
    stream: StreamId,
    sent_media: bool,
    alive_at: Option<Instant>,
    /// The keyframe of the group that it was last given since it could not decode: its serial, which
    /// no other frame of any stream has.
    restored_from: Option<u64>,
    /// Where it goes.
    switch: Option<Switch>,
    /// What it played before, and until when packets of that are repaired.
    came_from: Option<(StreamId, Instant)>,
    /// What was last told of its line.
    line_told: Option<Figure>,
    /// Paths along which its feedback is taken, the one in use among them. Bounded by the
    /// [`PeerTable`](crate::peers::PeerTable) that proves and forgets them.
    paths: Vec<Route>,
    /// The path in use, if it was forgotten while it was.
    forgotten: Option<Route>,
    /// Its connection takes no more at present.
    congested: bool,
    /// Since when packets wait for its connection.
    behind_since: Option<Instant>,
    /// Which of the report steps is its own.
    report_step: u32,
}

/// All viewers of one worker.
pub struct Fanout {
    places: Slab<Place>,
    by_id: HashMap<ViewerId, usize>,
    by_remote: BTreeSet<(Remote, usize)>,
    hubs: HashMap<StreamId, Hub>,
    jobs: VecDeque<Job>,
    /// Viewers on their way to another stream, the one that waits longest first.
    switching: VecDeque<usize>,
    /// Viewers with packets to pace out, and when they are next served.
    catching_up: VecDeque<usize>,
    burst_at: Option<Instant>,
    /// Viewers that have not had their share of the burst that began at `burst_at`.
    burst_left: usize,
    report_at: Option<Instant>,
    report_step: u32,
    /// Control packets that are ready to go.
    immediate: Batch,
    events: VecDeque<FanoutEvent>,
    figures: FanoutFigures,
}

impl Place {
    /// Whether the connection is too far behind for this frame. Pictures may wait a while behind
    /// others that wait; anything else would be late when it leaves.
    fn must_skip(&self, frame: &PacketisedFrame, now: Instant) -> bool {
        let is_picture = frame.codec.kind() == MediaKind::Video;
        let may_wait = self.behind_since.is_none_or(|since| now < since + CONGESTION_PATIENCE);
        self.congested && !(is_picture && self.viewer.is_catching_up() && may_wait)
    }
}

impl Default for Fanout {
    fn default() -> Self {
        Self::new()
    }
}

impl Fanout {
    /// Nobody watches anything.
    pub fn new() -> Self {
        Self {
            places: Slab::new(),
            by_id: HashMap::new(),
            by_remote: BTreeSet::new(),
            hubs: HashMap::new(),
            jobs: VecDeque::new(),
            switching: VecDeque::new(),
            catching_up: VecDeque::new(),
            burst_at: None,
            burst_left: 0,
            report_at: None,
            report_step: 0,
            immediate: Batch::default(),
            events: VecDeque::new(),
            figures: FanoutFigures::default(),
        }
    }

    /// Counters so far.
    pub fn figures(&self) -> FanoutFigures {
        FanoutFigures { viewers: self.places.len() as u64, ..self.figures }
    }

    /// Packets that wait to be paced out, the most that wait for one viewer.
    pub fn longest_queue(&self) -> usize {
        let waiting = self.places.iter().map(|(_, place)| place.viewer.pending_packets());
        waiting.max().unwrap_or(0)
    }

    /// Whether nothing of any viewer or stream is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
            && self.by_id.is_empty()
            && self.by_remote.is_empty()
            && self.hubs.is_empty()
            && self.jobs.is_empty()
            && self.switching.is_empty()
            && self.catching_up.is_empty()
    }

    /// A viewer is ready for media: it gets the cached group at once, and one of sound alone the next
    /// packet. `seed` must be random.
    pub fn handle_attach(&mut self, attach: Attach, seed: u64, now: Instant) {
        self.detach(attach.viewer);
        let route = attach.route;
        let Some(mut viewer) =
            Viewer::new(attach.viewer, route, &attach.keys, attach.negotiated, seed)
        else {
            tracing::warn!(
                viewer = attach.viewer.0,
                "keys do not fit their profile; viewer not attached"
            );
            return;
        };
        if viewer.has_picture() {
            self.begin_picture(&mut viewer, attach.stream, now);
        }
        let catching_up = viewer.is_catching_up();
        let hub = self.hubs.entry(attach.stream).or_default();
        let place = self.places.insert(Place {
            viewer,
            stream: attach.stream,
            sent_media: false,
            alive_at: None,
            restored_from: None,
            switch: None,
            came_from: None,
            line_told: None,
            paths: vec![route],
            forgotten: None,
            congested: false,
            behind_since: None,
            report_step: (seed % u64::from(REPORT_STEPS)) as u32,
        });
        hub.add(place);
        self.by_id.insert(attach.viewer, place);
        self.claim(place, route.remote());
        self.report_at.get_or_insert(now + REPORT_INTERVAL / REPORT_STEPS);
        if catching_up {
            self.catch_up(place, now);
        }
    }

    /// A viewer gets the cached group; a new one is asked for where there is none, or a long one.
    fn begin_picture(&mut self, viewer: &mut Viewer, stream: StreamId, now: Instant) {
        let hub = self.hubs.entry(stream).or_default();
        let (group, age) = hub.give_group(now);
        viewer.handle_group(group, age, now);
        let is_long = hub.group().is_empty() || hub.group().len() > LONG_GROUP;
        if is_long && hub.wants_keyframe(now) {
            self.events.push_back(FanoutEvent::KeyframeWanted { stream });
        }
    }

    /// A check of the viewer came along this path: its feedback is taken from there as well, and is
    /// what lets media go there.
    pub fn handle_path(&mut self, viewer: ViewerId, route: Route) {
        let Some(place) = self.by_id.get(&viewer).copied() else { return };
        self.claim(place, route.remote());
        let at = &mut self.places[place];
        at.forgotten = at.forgotten.filter(|forgotten| *forgotten != route);
        if !at.paths.contains(&route) {
            at.paths.push(route);
        }
    }

    /// The path does not count any more. The one in use stays until another is.
    pub fn handle_path_forgotten(&mut self, viewer: ViewerId, route: Route) {
        let Some(place) = self.by_id.get(&viewer).copied() else { return };
        let at = &mut self.places[place];
        if at.viewer.route() == route {
            at.forgotten = Some(route);
            return;
        }
        self.forget_path(place, route);
    }

    fn forget_path(&mut self, place: usize, route: Route) {
        let at = &mut self.places[place];
        at.paths.retain(|path| *path != route);
        if at.paths.iter().all(|path| path.remote() != route.remote()) {
            self.by_remote.remove(&(route.remote(), place));
        }
    }

    /// Media goes along another path from here on.
    pub fn handle_move(&mut self, viewer: ViewerId, route: Route, now: Instant) {
        self.handle_path(viewer, route);
        if let Some(place) = self.by_id.get(&viewer).copied() {
            self.move_to(place, route, now);
        }
    }

    fn move_to(&mut self, place: usize, route: Route, now: Instant) {
        self.figures.moves += 1;
        let at = &mut self.places[place];
        at.viewer.set_route(route);
        // What is known of the connection that it left says nothing of the new one.
        at.behind_since = None;
        if let Some(forgotten) = at.forgotten.take_if(|forgotten| *forgotten != route) {
            self.forget_path(place, forgotten);
        }
        self.resume(place, now);
    }

    /// The connection to `remote` takes no more at present. Its viewer's pictures wait a while, and
    /// are skipped up to a keyframe after that; its sound is skipped at once.
    pub fn handle_congestion(&mut self, remote: Remote, now: Instant) {
        for place in self.claimants(remote) {
            let at = &mut self.places[place];
            if at.viewer.route().remote() == remote {
                at.congested = true;
                at.behind_since.get_or_insert(now);
            }
        }
    }

    /// The connection to `remote` has room again.
    pub fn handle_drained(&mut self, remote: Remote, now: Instant) {
        for place in self.claimants(remote) {
            if self.places[place].viewer.route().remote() == remote {
                self.resume(place, now);
            }
        }
    }

    fn resume(&mut self, place: usize, now: Instant) {
        let at = &mut self.places[place];
        at.congested = false;
        if at.viewer.is_catching_up() {
            self.catch_up(place, now);
        } else {
            at.behind_since = None;
        }
    }

    /// A viewer leaves; with a `reason` it is told by BYE.
    pub fn handle_detach(&mut self, viewer: ViewerId, reason: Option<&str>) {
        if let (Some(reason), Some(place)) = (reason, self.by_id.get(&viewer)) {
            let said = self.places[*place].viewer.poll_goodbye(reason, &mut self.immediate);
            self.figures.seal_errors += u64::from(said.is_err());
        }
        self.detach(viewer);
    }

    fn detach(&mut self, viewer: ViewerId) {
        let Some(place) = self.by_id.remove(&viewer) else { return };
        self.cancel_switch(place);
        self.leave_hub(place);
        let mut gone = self.places.remove(place);
        self.figures.count(gone.viewer.take_tally());
        self.events.push_back(FanoutEvent::Detached { viewer, sent: gone.viewer.sent() });
        for path in &gone.paths {
            self.by_remote.remove(&(path.remote(), place));
        }
        self.catching_up.retain(|other| *other != place);
        self.burst_left = self.burst_left.min(self.catching_up.len());
        if self.catching_up.is_empty() {
            self.burst_at = None;
        }
    }

    /// The viewer plays its stream no more.
    fn leave_hub(&mut self, place: usize) {
        let stream = self.places[place].stream;
        let position = self.hubs.get_mut(&stream).and_then(|hub| hub.remove(place));
        self.forget_idle_hub(stream);
        for job in self.jobs.iter_mut().filter(|job| job.stream == stream) {
            job.served -= usize::from(position.is_some_and(|position| position < job.served));
        }
    }

    /// A source's next frame.
    pub fn handle_frame(&mut self, stream: StreamId, frame: Arc<PacketisedFrame>, now: Instant) {
        self.figures.frames_in += 1;
        // A voice nobody listens to leaves nothing behind: its id never comes again.
        if frame.forwarded.is_some() && !self.hubs.contains_key(&stream) {
            return;
        }
        self.admit_arriving(stream, &frame, now);
        let hub = self.hubs.entry(stream).or_default();
        hub.handle_frame(&frame, now);
        if !hub.viewers().is_empty() {
            self.jobs.push_back(Job { stream, frame, served: 0, now });
        }
    }

    /// The frames of a stream since its last keyframe, and how long ago the newest of them came: for
    /// consumers that are no viewers. Empty while there is no whole group.
    pub fn group(&self, stream: StreamId, now: Instant) -> (&[Arc<PacketisedFrame>], Duration) {
        self.hubs.get(&stream).map_or((&[], Duration::ZERO), |hub| (hub.group(), hub.age(now)))
    }

    /// The stream's source is gone: its cached pictures are of no use, its viewers wait.
    pub fn handle_interruption(&mut self, stream: StreamId) {
        let Some(hub) = self.hubs.get_mut(&stream) else { return };
        hub.handle_interruption();
        for place in hub.viewers() {
            self.places[*place].viewer.handle_interruption();
        }
        self.forget_idle_hub(stream);
    }

    /// The stream is over. Viewers that are still there stay attached and wait for its return.
    pub fn handle_stream_removed(&mut self, stream: StreamId) {
        self.handle_interruption(stream);
    }

    /// A stream with neither viewers nor cached pictures is not worth remembering.
    fn forget_idle_hub(&mut self, stream: StreamId) {
        if self.hubs.get(&stream).is_some_and(Hub::is_idle) {
            self.hubs.remove(&stream);
        }
    }

    /// SRTCP that came along `route`. False when no viewer is known at its other end.
    ///
    /// It moves media there if the viewer's checks came that way before: only the viewer itself can
    /// make a report that is newer than all others, which no check can show of itself.
    pub fn handle_rtcp(&mut self, route: Route, packet: &mut [u8], now: Instant) -> bool {
        let mut claimants = self.claimants(route.remote()).peekable();
        let Some(mut place) = claimants.next() else { return false };
        // Opening it spoils what turns out to be another's.
        let original = claimants.peek().map(|_| packet.to_vec());
        let mut heard = self.places[place].viewer.handle_rtcp(packet, now);
        for other in claimants {
            if heard.is_ok() {
                break;
            }
            packet.copy_from_slice(original.as_deref().unwrap_or_default());
            place = other;
            heard = self.places[place].viewer.handle_rtcp(packet, now);
        }
        match heard {
            Ok(heard) => self.handle_heard(place, route, heard, now),
            Err(_) => self.figures.rejected += 1,
        }
        true
    }

    fn handle_heard(&mut self, place: usize, route: Route, heard: Heard, now: Instant) {
        let at = &mut self.places[place];
        let viewer = at.viewer.id();
        if at.alive_at.is_none_or(|last| now >= last + ALIVE_INTERVAL) {
            at.alive_at = Some(now);
            let sent = at.viewer.sent();
            self.events.push_back(FanoutEvent::Alive { viewer, at: now, sent });
            self.tell_of_line(place);
        }
        let at = &mut self.places[place];
        if heard.is_newest && at.viewer.route() != route && at.paths.contains(&route) {
            self.move_to(place, route, now);
            self.events.push_back(FanoutEvent::Moved { viewer, route });
        }
        self.figures.packets_lost += heard.newly_lost;
        self.repair(place, &heard.lost, now);
        if heard.goodbye {
            self.events.push_back(FanoutEvent::Goodbye { viewer });
        } else if heard.picture_lost {
            self.figures.keyframe_requests += 1;
            self.restore_picture(place, now);
        }
    }

    /// Packets go again that a viewer asked for, made of the frames that all viewers share.
    fn repair(&mut self, place: usize, lost: &[Lost], now: Instant) {
        if lost.is_empty() {
            return;
        }
        let at = &mut self.places[place];
        if self.immediate.bytes().len() > MAX_REPAIR_BYTES {
            self.figures.nacks += lost.len() as u64;
            self.figures.repairs_refused += lost.len() as u64;
            return;
        }
        let came_from = at.came_from.filter(|(_, until)| now < *until).map(|(stream, _)| stream);
        let hubs = [Some(at.stream), came_from].map(|stream| self.hubs.get(&stream?));
        // A serial is one frame's, whatever stream it is of.
        let find = |serial| hubs.into_iter().flatten().find_map(|hub| hub.find(serial));
        let sent = at.viewer.repair(lost, find, now, &mut self.immediate);
        self.figures.seal_errors += u64::from(sent.is_err());
    }

    /// A viewer cannot decode: the cached group helps it at once. The source is asked where there is
    /// none, and where the same group did not help before.
    fn restore_picture(&mut self, place: usize, now: Instant) {
        let at = &mut self.places[place];
        let Some(hub) = self.hubs.get_mut(&at.stream) else { return };
        if !at.viewer.may_restart(now) {
            return;
        }
        let keyframe = hub.group().first().map(|frame| frame.serial());
        let is_of_no_use = keyframe.is_none() || at.restored_from == keyframe;
        at.restored_from = keyframe;
        if is_of_no_use && hub.wants_keyframe(now) {
            self.events.push_back(FanoutEvent::KeyframeWanted { stream: at.stream });
        }
        if keyframe.is_none() {
            return;
        }
        let (group, age) = hub.give_group(now);
        at.viewer.handle_group(group, age, now);
        self.catch_up(place, now);
    }

    fn catch_up(&mut self, place: usize, now: Instant) {
        if !self.catching_up.contains(&place) {
            self.catching_up.push_back(place);
        }
        self.burst_at.get_or_insert(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.burst_at, self.report_at, self.switch_deadline()].into_iter().flatten().min()
    }

    /// Time passed. What became due is put into batches by [`Self::poll_transmit`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| now >= at) {
            self.report(now);
        }
        self.give_up_switches(now);
        if self.burst_left == 0 && self.burst_at.is_some_and(|at| now >= at) {
            self.burst_at = Some(now);
            self.burst_left = self.catching_up.len();
        }
    }

    fn report(&mut self, now: Instant) {
        self.report_step = (self.report_step + 1) % REPORT_STEPS;
        let mut viewers_limited = 0;
        self.hubs.values_mut().for_each(|hub| hub.handle_timeout(now));
        for (_, place) in &mut self.places {
            if place.report_step == self.report_step {
                let sent = place.viewer.poll_reports(now, &mut self.immediate);
                self.figures.seal_errors += u64::from(sent.is_err());
                self.figures.count(place.viewer.take_tally());
                place.came_from = place.came_from.filter(|(_, until)| now < *until);
                if let Some(hub) = self.hubs.get(&place.stream) {
                    let before = place.came_from.and_then(|(stream, _)| self.hubs.get(&stream));
                    let oldest = hub.oldest().map(|oldest| {
                        before.and_then(Hub::oldest).map_or(oldest, |other| oldest.min(other))
                    });
                    let rate = hub.bits_per_second();
                    place.viewer.handle_stream_state(rate, oldest, now);
                }
            }
            viewers_limited += u64::from(place.viewer.is_limited());
        }
        self.figures.viewers_limited = viewers_limited;
        let some_left = !self.places.is_empty();
        self.report_at = some_left.then_some(now + REPORT_INTERVAL / REPORT_STEPS);
    }

    /// Serves the next viewer of this burst. False when all had their share.
    fn serve_burst(&mut self, batch: &mut Batch) -> bool {
        let Some(now) = self.burst_at.filter(|_| self.burst_left > 0) else { return false };
        self.burst_left -= 1;
        // One that is congested comes back when its connection is drained.
        let next = self.catching_up.pop_front().filter(|place| !self.places[*place].congested);
        if let Some(place) = next {
            let sent = self.places[place].viewer.poll_pending(now, batch);
            self.figures.seal_errors += u64::from(sent.is_err());
            self.note_first_media(place, now);
            if self.places[place].viewer.is_catching_up() {
                self.catching_up.push_back(place);
            } else {
                self.places[place].behind_since = None;
            }
        }
        if self.burst_left == 0 {
            self.burst_at = (!self.catching_up.is_empty()).then_some(now + BURST_INTERVAL);
        }
        true
    }

    /// Tells once that media flows, and lets the first report go with it: lip sync waits for it.
    fn note_first_media(&mut self, place: usize, now: Instant) {
        let at = &mut self.places[place];
        let kind = if at.viewer.has_picture() { MediaKind::Video } else { MediaKind::Audio };
        if at.sent_media || at.viewer.figures(kind).packets == 0 {
            return;
        }
        at.sent_media = true;
        self.events.push_back(FanoutEvent::FirstMedia { viewer: at.viewer.id() });
        let sent = at.viewer.poll_reports(now, &mut self.immediate);
        self.figures.seal_errors += u64::from(sent.is_err());
    }

    /// Fills an empty `batch` with what is to be sent; leaves it empty when there is nothing more.
    pub fn poll_transmit(&mut self, batch: &mut Batch) {
        debug_assert!(batch.is_empty());
        if self.immediate.is_empty() {
            let full = |batch: &Batch| batch.bytes().len() >= BATCH_BYTES;
            while !full(batch) && (self.serve_burst(batch) || self.serve_next(batch)) {}
        }
        if batch.is_empty() {
            std::mem::swap(batch, &mut self.immediate);
        }
        self.figures.packets_sent += batch.runs().iter().map(|run| run.count as u64).sum::<u64>();
        self.figures.bytes_sent += batch.bytes().len() as u64;
    }

    /// Serves the next viewer of the oldest job. False when all are served.
    fn serve_next(&mut self, batch: &mut Batch) -> bool {
        let Some(job) = self.jobs.front_mut() else { return false };
        let place =
            self.hubs.get(&job.stream).and_then(|hub| hub.viewers().get(job.served)).copied();
        let Some(place) = place else {
            self.jobs.pop_front();
            return true;
        };
        job.served += 1;
        let now = job.now;
        let at = &mut self.places[place];
        if at.viewer.takes(job.frame.codec) == Some(false) {
            self.figures.frames_not_taken += 1;
            return true;
        }
        if at.must_skip(&job.frame, now) {
            at.viewer.handle_skip(&job.frame);
            return true;
        }
        let sent = at.viewer.handle_frame(&job.frame, now, batch);
        self.figures.seal_errors += u64::from(sent.is_err());
        let (is_catching_up, sent_media) = (at.viewer.is_catching_up(), at.sent_media);
        if is_catching_up {
            self.catch_up(place, now);
        }
        if !sent_media {
            self.note_first_media(place, now);
        }
        true
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<FanoutEvent> {
        self.events.pop_front()
    }
}
