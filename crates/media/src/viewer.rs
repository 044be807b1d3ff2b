//! One viewer's egress: sequence numbers, timestamps, the keyframe gate, pacing, repairs, reports.
//!
//! A viewer of sound alone has none of what is for pictures: its first packet goes at once.
//!
//! Frames come packetised and shared; what is a viewer's own is a header a packet, the seal, and a
//! place in the batch. Knows nothing of ICE, DTLS or sockets.
//!
//! ```text
//! Waiting --keyframe or cached group--> Playing --source restarts--> Waiting
//!                                        |    ^
//!                           too slow     v    | keyframe
//!                                       Skipping
//! ```

mod feedback;
mod numbering;
mod pace;
mod track;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use feedback::{Heard, Lost};

use crate::batch::{Batch, Route};
use crate::estimate::{Estimator, LineState};
use crate::frame::{Codec, MediaKind, NtpTime, PacketisedFrame, ViewerId};
use crate::negotiated::Negotiated;
use crate::peer::SessionKeys;
use crate::rtcp;
use crate::srtp::{SrtcpReceiver, SrtpError, SrtpSender};
use pace::Pace;
use track::{OutTrack, Outlet};

/// Packets a viewer gets at most in one [`BURST_INTERVAL`] when it catches up. Measured: 30 in 2 ms
/// are clean with Chromium, above about 1,000 at once its socket overflows.
pub const BURST_PACKETS: usize = 30;
/// See [`BURST_PACKETS`].
pub const BURST_INTERVAL: Duration = Duration::from_millis(2);
/// A live frame up to this size is sent at once; a larger one is paced like a cached group.
const LIVE_PACKETS: usize = 2 * BURST_PACKETS;
/// Packets that may wait for a viewer: a cached group of 16 MiB in payloads of 1160 bytes, and a
/// quarter more of live frames meanwhile. Beyond it whole frames are skipped up to a keyframe.
pub const MAX_PENDING_PACKETS: usize = 18_000;
/// How long the last of what waits may take at the pace of a thin line. Beyond it whole frames are
/// skipped up to a keyframe: a live picture that is later than this is none.
pub const MAX_WAIT: Duration = Duration::from_secs(1);
/// Between two sender reports of a track. RFC 3550 §6.2 asks for 5 s; browsers synchronise picture
/// and sound only after the first ones, and at 1 s a report is 0.1 % of the traffic.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A viewer that lost its picture gets the cached group again at most this often.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);
/// While repairs are under way, or a thin line still carries the last group, at most this often.
/// Browsers ask every 200 ms until the first keyframe is whole, and give up repairs after 3 s.
const PATIENT_RESTART_INTERVAL: Duration = Duration::from_secs(3);

/// What a viewer's track counts. All rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackFigures {
    /// RTP packets sent, without repeats.
    pub packets: u64,
    /// Payload bytes of them.
    pub octets: u64,
}

/// What a viewer counts between two calls of [`Viewer::take_tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that the viewer asked for again.
    pub nacked: u64,
    /// Of these, those that were sent again.
    pub repaired: u64,
    /// Of these, those that were refused: too often, too early, or too many.
    pub refused: u64,
    /// Of these, those that are not kept any more, or never were.
    pub missed: u64,
    /// Frames that were not sent since the viewer was too slow.
    pub frames_skipped: u64,
    /// Packets of sound that were not passed on: they came twice, or too late for a number.
    pub packets_too_late: u64,
}

struct Pending {
    frame: Arc<PacketisedFrame>,
    timestamp: u64,
    next_payload: usize,
}

/// What becomes of the next picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Play {
    /// There is nothing yet that it could refer to: only a keyframe is sent.
    Waiting,
    /// It is sent.
    Playing,
    /// One before it was not sent since the viewer is too slow: only a keyframe is sent.
    Skipping,
}

/// One viewer's egress state.
pub struct Viewer {
    id: ViewerId,
    route: Route,
    sender: SrtpSender,
    receiver: SrtcpReceiver,
    cname: String,
    video: Option<OutTrack>,
    audio: Option<OutTrack>,
    play: Play,
    pending: VecDeque<Pending>,
    pending_packets: usize,
    pending_bytes: usize,
    pace: Pace,
    estimator: Estimator,
    tally: Tally,
    restarted_at: Option<Instant>,
    /// The newest full intra request: the same number again is a repetition (RFC 5104 §4.3.1.2).
    newest_request: Option<u8>,
    /// What times in packets count from.
    epoch: Option<Instant>,
}

impl Viewer {
    /// `seed` decides the first sequence numbers and timestamps; it must be random (RFC 3550 §5.1).
    /// `None` when there is nothing to send, or the keys do not fit their profile.
    pub fn new(
        id: ViewerId,
        route: Route,
        keys: &SessionKeys,
        negotiated: Negotiated,
        seed: u64,
    ) -> Option<Self> {
        let video = negotiated.video.map(|track| OutTrack::new(track, seed));
        let audio = negotiated.audio.map(|track| OutTrack::new(track, seed.rotate_left(29)));
        if video.is_none() && audio.is_none() {
            return None;
        }
        Some(Self {
            id,
            route,
            sender: SrtpSender::from_dtls_server(keys.profile, &keys.material).ok()?,
            receiver: SrtcpReceiver::from_dtls_server(keys.profile, &keys.material).ok()?,
            cname: negotiated.cname,
            video,
            audio,
            play: Play::Waiting,
            pending: VecDeque::new(),
            pending_packets: 0,
            pending_bytes: 0,
            pace: Pace::default(),
            estimator: Estimator::default(),
            tally: Tally::default(),
            restarted_at: None,
            newest_request: None,
            epoch: None,
        })
    }

    /// Who it is.
    pub fn id(&self) -> ViewerId {
        self.id
    }

    /// Where it is.
    pub fn route(&self) -> Route {
        self.route
    }

    /// It moved.
    pub fn set_route(&mut self, route: Route) {
        self.route = route;
    }

    /// Whether packets wait to be paced out by [`Self::poll_pending`].
    pub fn is_catching_up(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Packets that wait to be paced out, at most [`MAX_PENDING_PACKETS`].
    pub fn pending_packets(&self) -> usize {
        self.pending_packets
    }

    /// How its line does.
    pub fn line(&self) -> LineState {
        self.estimator.line()
    }

    /// Whether its line is too thin for the stream: it is paced, and frames may be skipped.
    pub fn is_limited(&self) -> bool {
        self.pace.is_limited()
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether it can be sent this codec; `None` when it wants nothing of that kind at all.
    pub fn takes(&self, codec: Codec) -> Option<bool> {
        let track = match codec.kind() {
            MediaKind::Video => self.video.as_ref(),
            MediaKind::Audio => self.audio.as_ref(),
        };
        track.map(|track| track.takes(codec))
    }

    /// Whether there is a picture to be sent, and not sound alone.
    pub fn has_picture(&self) -> bool {
        self.video.is_some()
    }

    fn tracks(&self) -> impl Iterator<Item = &OutTrack> {
        self.video.iter().chain(&self.audio)
    }

    /// Sent so far, by kind.
    pub fn figures(&self, kind: MediaKind) -> TrackFigures {
        let track = match kind {
            MediaKind::Video => &self.video,
            MediaKind::Audio => &self.audio,
        };
        track.as_ref().map_or_else(TrackFigures::default, |track| track.figures)
    }

    /// Sent so far, picture and sound.
    pub fn sent(&self) -> TrackFigures {
        self.tracks().fold(TrackFigures::default(), |sum, track| TrackFigures {
            packets: sum.packets + track.figures.packets,
            octets: sum.octets + track.figures.octets,
        })
    }

    /// Puts a cached group of pictures before the viewer, so that it has a picture at once. The
    /// timestamps are compressed: the last frame, which came `age` ago, is "now". The viewer plays
    /// from then on.
    ///
    /// A line that would take longer than [`MAX_WAIT`] for the group gets its keyframe alone, and
    /// plays from the next one on.
    pub fn handle_group(&mut self, frames: &[Arc<PacketisedFrame>], age: Duration, now: Instant) {
        let (Some(last), true) = (frames.last(), self.has_picture()) else { return };
        self.restarted_at = Some(now);
        self.tally.frames_skipped += self.keep_begun();
        let bytes = frames.iter().map(|frame| frame.wire_bytes()).sum();
        let affordable = if self.pace.time_for(bytes) > MAX_WAIT { &frames[..1] } else { frames };
        self.tally.frames_skipped += (frames.len() - affordable.len()) as u64;
        self.play = if affordable.len() == frames.len() { Play::Playing } else { Play::Skipping };
        // What a camera captures at this moment would have the timestamp of the last frame.
        let shown_us = last.captured.unix_micros() + age.as_micros() as u64;
        let Some(video) = &mut self.video else { return };
        video.comes_from_elsewhere = false;
        video.captured = NtpTime::from_unix_micros(shown_us);
        let timeline = video.timeline(last.codec);
        let timestamps = timeline.compress(affordable.len(), last.ticks, age, now);
        for (frame, timestamp) in affordable.iter().zip(timestamps) {
            self.wait(frame, timestamp);
        }
    }

    /// Whether a viewer that lost its picture gets the cached group again. A group that is on its
    /// way is waited for, and so are repairs of it.
    pub fn may_restart(&self, now: Instant) -> bool {
        let Some(at) = self.restarted_at else { return !self.is_catching_up() };
        let round_trip = self.line().round_trip;
        let is_repairing = |video: &OutTrack| video.repairs.is_repairing(round_trip, now);
        let interval = if self.video.as_ref().is_some_and(is_repairing)
            || (self.pace.is_limited() && self.is_catching_up())
        {
            PATIENT_RESTART_INTERVAL
        } else {
            RESTART_INTERVAL
        };
        let is_full_speed = self.is_catching_up() && !self.pace.is_limited();
        !is_full_speed && now.saturating_duration_since(at) >= interval
    }

    /// Frames come from another stream from here on, of `rate` bits a second where that is known; the
    /// first picture of them is a keyframe or a cached group. They go on in the same sequence numbers
    /// and at the time at which they come; what waits of the old stream is dropped, but for a frame of
    /// which a part has left.
    pub fn handle_stream_change(&mut self, rate: Option<u64>, now: Instant) {
        self.tally.frames_skipped += self.keep_begun();
        self.play = Play::Waiting;
        for track in self.video.iter_mut().chain(&mut self.audio) {
            track.comes_from_elsewhere = true;
        }
        self.estimator.handle_stream_change(rate, now);
        self.pace.set(self.estimator.limit(), now);
    }

    /// Whether it has a picture that goes on: a keyframe or a cached group came, and nothing was
    /// dropped since.
    pub fn is_playing(&self) -> bool {
        self.play == Play::Playing
    }

    /// The source is gone: what waits is dropped, but for a frame of which a part has left, and play
    /// goes on with the next keyframe.
    pub fn handle_interruption(&mut self) {
        self.play = Play::Waiting;
        self.keep_begun();
    }

    /// The next live frame of either track. What fits goes to the batch at once; a large picture,
    /// or one behind others, or any over a thin line, waits for [`Self::poll_pending`].
    pub fn handle_frame(
        &mut self,
        frame: &Arc<PacketisedFrame>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        match frame.codec.kind() {
            MediaKind::Audio => self.handle_sound(frame, now, batch),
            MediaKind::Video => self.handle_picture(frame, now, batch),
        }
    }

    /// Sound is not paced: it is little, and a gap is heard.
    fn handle_sound(
        &mut self,
        frame: &Arc<PacketisedFrame>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        let (mut out, _, audio) = self.outlet(batch, now);
        let Some(track) = audio else { return Ok(()) };
        let sent = match &frame.forwarded {
            Some(forwarded) => track.pass_on(&mut out, frame, forwarded.number, now)?,
            None => {
                let timestamp = track.timestamp(frame, now);
                Some(track.send(&mut out, frame, 0..frame.packet_count(), timestamp)?)
            }
        };
        match sent {
            Some(bytes) => self.pace.spend(bytes),
            None => self.tally.packets_too_late += 1,
        }
        Ok(())
    }

    fn handle_picture(
        &mut self,
        frame: &Arc<PacketisedFrame>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        if frame.discontinuity {
            self.handle_interruption();
        }
        let Some(video) = &mut self.video else { return Ok(()) };
        if frame.discontinuity {
            // Here, since this frame may not be sent, and those behind it do not tell of the new clock.
            video.timeline(frame.codec).anchor(frame.ticks, now);
        }
        if !self.admits(frame) {
            return Ok(());
        }
        self.play = Play::Playing;
        let Some(video) = &mut self.video else { return Ok(()) };
        let timestamp = video.timestamp(frame, now);
        let is_small = frame.packet_count() <= LIVE_PACKETS;
        if !self.pending.is_empty() || !is_small || self.pace.is_limited() {
            self.wait(frame, timestamp);
            return Ok(());
        }
        let (mut out, video, _) = self.outlet(batch, now);
        let Some(video) = video else { return Ok(()) };
        video.send(&mut out, frame, 0..frame.packet_count(), timestamp).map(drop)
    }

    /// The viewer's connection does not take this live frame. What waits goes as well, but for a frame
    /// of which a part has left, and then nothing comes up to the next keyframe.
    pub fn handle_skip(&mut self, frame: &PacketisedFrame) {
        let is_picture = frame.codec.kind() == MediaKind::Video;
        if is_picture && self.play == Play::Waiting {
            return;
        }
        self.tally.frames_skipped += 1;
        if is_picture {
            self.tally.frames_skipped += self.keep_begun();
            self.begin_to_skip();
        }
    }

    /// Whether the next picture is sent. A viewer that is too slow for it has what waits, and then
    /// nothing up to the next keyframe, which goes before all that waits then.
    fn admits(&mut self, frame: &PacketisedFrame) -> bool {
        if self.play != Play::Playing && !frame.keyframe {
            self.tally.frames_skipped += u64::from(self.play == Play::Skipping);
            return false;
        }
        if frame.keyframe && !self.has_room(frame) {
            self.tally.frames_skipped += self.keep_begun();
        }
        let has_room = self.has_room(frame);
        if !has_room {
            self.tally.frames_skipped += 1;
            self.begin_to_skip();
        }
        has_room
    }

    /// A frame that nothing waits before is let through however long it takes.
    fn has_room(&self, frame: &PacketisedFrame) -> bool {
        let bytes = self.pending_bytes + frame.wire_bytes();
        self.pending_packets + frame.packet_count() <= MAX_PENDING_PACKETS
            && (self.pending.is_empty() || self.pace.time_for(bytes) <= MAX_WAIT)
    }

    fn begin_to_skip(&mut self) {
        if self.play != Play::Skipping {
            tracing::debug!(viewer = self.id.0, "viewer is too slow, frames are skipped");
        }
        self.play = Play::Skipping;
    }

    /// Drops what waits, but for a frame of which a part has left: a decoder would see half of it.
    /// Returns how many frames went.
    fn keep_begun(&mut self) -> u64 {
        let waiting = self.pending.len() as u64;
        let begun = self.pending.pop_front().filter(|first| first.next_payload > 0);
        self.drop_pending();
        let Some(begun) = begun else { return waiting };
        self.pending_packets = begun.frame.packet_count() - begun.next_payload;
        self.pending_bytes = begun.wire_bytes_left();
        self.pending.push_back(begun);
        waiting - 1
    }

    /// The line turned out to be thinner: what would come too late is not sent, the newest first,
    /// since nothing that stays refers to it.
    fn drop_what_is_late(&mut self) {
        while self.pending.len() > 1 && self.pace.time_for(self.pending_bytes) > MAX_WAIT {
            let Some(last) = self.pending.pop_back() else { return };
            self.pending_packets -= last.frame.packet_count() - last.next_payload;
            self.pending_bytes -= last.wire_bytes_left();
            self.tally.frames_skipped += 1;
            self.begin_to_skip();
        }
    }

    fn wait(&mut self, frame: &Arc<PacketisedFrame>, timestamp: u64) {
        let pending = Pending { frame: Arc::clone(frame), timestamp, next_payload: 0 };
        self.pending_packets += frame.packet_count();
        self.pending_bytes += pending.wire_bytes_left();
        self.pending.push_back(pending);
    }

    fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_packets = 0;
        self.pending_bytes = 0;
    }

    /// What waits, as far as it is due: [`BURST_PACKETS`] at most, less over a thin line. Call once a
    /// [`BURST_INTERVAL`].
    pub fn poll_pending(&mut self, now: Instant, batch: &mut Batch) -> Result<(), SrtpError> {
        self.pace.refill(now);
        let mut left = BURST_PACKETS;
        while let Some(first) = self.pending.front_mut() {
            let begin = first.next_payload;
            let waiting = first.frame.packet_count() - begin;
            let affordable = self.pace.packets(first.wire_bytes_left().div_ceil(waiting.max(1)));
            let count = waiting.min(left).min(affordable);
            let bytes_before = first.wire_bytes_left();
            first.next_payload += count;
            let sent_bytes = bytes_before - first.wire_bytes_left();
            let (frame, timestamp) = (Arc::clone(&first.frame), first.timestamp);
            if count == waiting {
                self.pending.pop_front();
            }
            left -= count;
            self.pending_packets -= count;
            self.pending_bytes -= sent_bytes;
            if count > 0 {
                let (mut out, video, _) = self.outlet(batch, now);
                let Some(video) = video else { return Ok(()) };
                let bytes = video.send(&mut out, &frame, begin..begin + count, timestamp)?;
                self.pace.spend(bytes);
            }
            if count < waiting || left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Sender reports of both tracks as one datagram, so that the viewer can put picture and sound
    /// on one clock. Nothing before the first frame.
    pub fn poll_reports(&mut self, now: Instant, batch: &mut Batch) -> Result<(), SrtpError> {
        let mut compound = Vec::with_capacity(192);
        for track in self.video.iter_mut().chain(&mut self.audio) {
            if let Some(info) = track.report(now) {
                rtcp::write_sender_report(&info, &self.cname, &mut compound);
            }
        }
        self.send_rtcp(&compound, batch)
    }

    /// BYE for both tracks.
    pub fn poll_goodbye(&mut self, reason: &str, batch: &mut Batch) -> Result<(), SrtpError> {
        let ssrcs: Vec<u32> = self.tracks().map(OutTrack::ssrc).collect();
        let mut compound = Vec::with_capacity(64);
        rtcp::write_bye(&ssrcs, reason, &mut compound);
        self.send_rtcp(&compound, batch)
    }

    fn send_rtcp(&mut self, compound: &[u8], batch: &mut Batch) -> Result<(), SrtpError> {
        if compound.is_empty() {
            return Ok(());
        }
        batch.end_run();
        let added = batch.add(&self.route, |out| self.sender.protect_rtcp(compound, out));
        batch.end_run();
        added
    }

    /// What packets leave through, and the tracks that they leave from.
    fn outlet<'a>(
        &'a mut self,
        batch: &'a mut Batch,
        now: Instant,
    ) -> (Outlet<'a>, Option<&'a mut OutTrack>, Option<&'a mut OutTrack>) {
        let epoch = *self.epoch.get_or_insert(now);
        let out = Outlet {
            sender: &mut self.sender,
            estimator: &mut self.estimator,
            route: &self.route,
            batch,
            at_micros: now.saturating_duration_since(epoch).as_micros() as u64,
        };
        (out, self.video.as_mut(), self.audio.as_mut())
    }
}

impl Pending {
    /// What its packets that have not left take of the line.
    fn wire_bytes_left(&self) -> usize {
        self.frame.wire_bytes_from(self.next_payload)
    }
}

#[cfg(test)]
mod tests;
