//! One viewer's egress: sequence numbers, timestamps, the keyframe gate, pacing, reports.
//!
//! Frames come packetised and shared; what is a viewer's own is twelve bytes of header a packet,
//! the seal, and a place in the batch. Knows nothing of ICE, DTLS or sockets.
//!
//! ```text
//! Waiting --keyframe or cached group--> Playing --source restarts, too slow--> Waiting
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Route};
use crate::estimate::LineState;
use crate::frame::{Codec, MediaKind, NtpTime, PacketisedFrame, ViewerId};
use crate::negotiated::{Negotiated, Track};
use crate::peer::SessionKeys;
use crate::rtcp::{self, Feedback, SenderInfo};
use crate::srtp::{SrtcpReceiver, SrtpError, SrtpSender};
use crate::timeline::Timeline;

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
/// RFC 3550 §5.1: version 2, no padding, no extension, no CSRC.
const RTP_VERSION_BYTE: u8 = 0x80;
const MARKER: u8 = 0x80;
/// Between two sender reports of a track. RFC 3550 §6.2 asks for 5 s; browsers synchronise picture
/// and sound only after the first ones, and at 1 s a report is 0.1 % of the traffic.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What a viewer's track counts. All rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackFigures {
    /// RTP packets sent.
    pub packets: u64,
    /// Payload bytes sent.
    pub octets: u64,
}

/// One track as this viewer gets it.
struct OutTrack {
    negotiated: Track,
    /// Extended sequence number of the next packet: roll-over counter and 16 bits (RFC 3711 §3.3.1).
    next_index: u64,
    timeline: Option<Timeline>,
    start_timestamp: u32,
    /// Capture time of the frame that has the timeline's newest timestamp.
    captured: NtpTime,
    figures: TrackFigures,
    reported_lost: i32,
    /// The next frame comes from another stream than the one before: their clocks have no relation.
    comes_from_elsewhere: bool,
}

struct Pending {
    frame: Arc<PacketisedFrame>,
    timestamp: u64,
    next_payload: usize,
}

/// One viewer's egress state.
pub struct Viewer {
    id: ViewerId,
    route: Route,
    sender: SrtpSender,
    receiver: SrtcpReceiver,
    cname: String,
    video: OutTrack,
    audio: Option<OutTrack>,
    playing: bool,
    pending: VecDeque<Pending>,
    pending_packets: usize,
    frames_skipped: u64,
    restarted_at: Option<Instant>,
}

/// What a viewer's feedback asks for or tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// It cannot decode (PLI or FIR for our picture).
    pub picture_lost: bool,
    /// Packets newly reported as lost.
    pub newly_lost: u64,
    /// It said BYE.
    pub goodbye: bool,
}

impl Viewer {
    /// `seed` decides the first sequence numbers and timestamps; it must be random (RFC 3550 §5.1).
    /// `None` when the answer had no video section or the keys do not fit their profile.
    pub fn new(
        id: ViewerId,
        route: Route,
        keys: &SessionKeys,
        negotiated: Negotiated,
        seed: u64,
    ) -> Option<Self> {
        let video = OutTrack::new(negotiated.video?, seed);
        let audio = negotiated.audio.map(|track| OutTrack::new(track, seed.rotate_left(29)));
        Some(Self {
            id,
            route,
            sender: SrtpSender::from_dtls_server(keys.profile, &keys.material).ok()?,
            receiver: SrtcpReceiver::from_dtls_server(keys.profile, &keys.material).ok()?,
            cname: negotiated.cname,
            video,
            audio,
            playing: false,
            pending: VecDeque::new(),
            pending_packets: 0,
            frames_skipped: 0,
            restarted_at: None,
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

    /// Frames that were not sent since the viewer was too slow.
    pub fn frames_skipped(&self) -> u64 {
        self.frames_skipped
    }

    /// How its line does.
    pub fn line(&self) -> LineState {
        LineState::default()
    }

    /// Whether it can be sent this codec; `None` when it wants nothing of that kind at all.
    pub fn takes(&self, codec: Codec) -> Option<bool> {
        let track = match codec.kind() {
            MediaKind::Video => Some(&self.video),
            MediaKind::Audio => self.audio.as_ref(),
        };
        track.map(|track| track.negotiated.takes(codec))
    }

    /// Sent so far, by kind.
    pub fn figures(&self, kind: MediaKind) -> TrackFigures {
        match kind {
            MediaKind::Video => self.video.figures,
            MediaKind::Audio => {
                self.audio.as_ref().map_or_else(TrackFigures::default, |track| track.figures)
            }
        }
    }

    /// Puts a cached group of pictures before the viewer, so that it has a picture at once. The
    /// timestamps are compressed: the last frame, which came `age` ago, is "now". The viewer plays
    /// from then on.
    pub fn handle_group(&mut self, frames: &[Arc<PacketisedFrame>], age: Duration, now: Instant) {
        let Some(last) = frames.last() else { return };
        self.restarted_at = Some(now);
        self.keep_begun();
        self.video.comes_from_elsewhere = false;
        // What a camera captures at this moment would have the timestamp of the last frame.
        let shown_us = last.captured.unix_micros() + age.as_micros() as u64;
        self.video.captured = NtpTime::from_unix_micros(shown_us);
        let timeline = self.video.timeline(Codec::H264);
        let timestamps = timeline.compress(frames.len(), last.ticks, age, now);
        for (frame, timestamp) in frames.iter().zip(timestamps) {
            self.pending_packets += frame.packet_count();
            self.pending.push_back(Pending {
                frame: Arc::clone(frame),
                timestamp,
                next_payload: 0,
            });
        }
        self.playing = true;
    }

    /// Whether the viewer was given a cached group within `period` before `now`.
    pub fn restarted_within(&self, period: Duration, now: Instant) -> bool {
        self.restarted_at.is_some_and(|at| now.saturating_duration_since(at) < period)
    }

    /// The source is gone: what waits is dropped, and play goes on with the next keyframe.
    pub fn handle_interruption(&mut self) {
        self.playing = false;
        self.drop_pending();
    }

    /// Frames come from another stream from here on, the first picture of them a keyframe or a cached
    /// group. They go on in the same sequence numbers and at the time at which they come; what waits
    /// of the old stream is dropped, but for a frame of which a part has left.
    pub fn handle_stream_change(&mut self) {
        self.frames_skipped += self.keep_begun();
        self.playing = false;
        for track in std::iter::once(&mut self.video).chain(self.audio.as_mut()) {
            track.comes_from_elsewhere = true;
        }
    }

    /// Whether it has a picture that goes on: a keyframe or a cached group came, and nothing was
    /// dropped since.
    pub fn is_playing(&self) -> bool {
        self.playing
    }

    /// The next live frame of either track. What fits goes to the batch at once; a large picture,
    /// or one behind others, waits for [`Self::poll_pending`].
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

    fn handle_sound(
        &mut self,
        frame: &Arc<PacketisedFrame>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        let Some(track) = self.audio.as_mut() else { return Ok(()) };
        let timestamp = track.timestamp(frame, now);
        let route = &self.route;
        (0..frame.packet_count()).try_for_each(|index| {
            track.send(&mut self.sender, route, frame, index, timestamp, batch)
        })
    }

    fn handle_picture(
        &mut self,
        frame: &Arc<PacketisedFrame>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        if frame.discontinuity {
            self.handle_interruption();
            // Here, since this frame may not be sent, and those behind it do not tell of the new clock.
            self.video.timeline(frame.codec).anchor(frame.ticks, now);
        }
        if !self.playing && !frame.keyframe {
            return Ok(());
        }
        if self.pending_packets + frame.packet_count() > MAX_PENDING_PACKETS {
            self.skip(frame);
            return Ok(());
        }
        self.playing = true;
        let timestamp = self.video.timestamp(frame, now);
        if self.pending.is_empty() && frame.packet_count() <= LIVE_PACKETS {
            let route = &self.route;
            let (track, sender) = (&mut self.video, &mut self.sender);
            return (0..frame.packet_count())
                .try_for_each(|index| track.send(sender, route, frame, index, timestamp, batch));
        }
        self.pending_packets += frame.packet_count();
        self.pending.push_back(Pending { frame: Arc::clone(frame), timestamp, next_payload: 0 });
        Ok(())
    }

    /// The viewer is too slow: whole frames go, up to the next keyframe. A frame of which a part
    /// has left is finished, so that no decoder sees half of one.
    fn skip(&mut self, frame: &PacketisedFrame) {
        self.frames_skipped += self.keep_begun() + 1;
        self.playing = false;
        tracing::debug!(
            viewer = self.id.0,
            keyframe = frame.keyframe,
            "viewer is too slow, frames skipped"
        );
    }

    /// Drops what waits, but for a frame of which a part has left: a decoder would see half of it.
    /// Returns how many frames went.
    fn keep_begun(&mut self) -> u64 {
        let waiting = self.pending.len() as u64;
        let begun = self.pending.pop_front().filter(|first| first.next_payload > 0);
        self.drop_pending();
        let Some(begun) = begun else { return waiting };
        self.pending_packets = begun.frame.packet_count() - begun.next_payload;
        self.pending.push_back(begun);
        waiting - 1
    }

    fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_packets = 0;
    }

    /// Up to [`BURST_PACKETS`] of what waits. Call once a [`BURST_INTERVAL`].
    pub fn poll_pending(&mut self, batch: &mut Batch) -> Result<(), SrtpError> {
        for _ in 0..BURST_PACKETS {
            let Some(first) = self.pending.front_mut() else { return Ok(()) };
            if first.next_payload < first.frame.packet_count() {
                let index = first.next_payload;
                first.next_payload += 1;
                self.pending_packets -= 1;
                let (frame, timestamp) = (&first.frame, first.timestamp);
                self.video.send(&mut self.sender, &self.route, frame, index, timestamp, batch)?;
            }
            if first.next_payload >= first.frame.packet_count() {
                self.pending.pop_front();
            }
        }
        Ok(())
    }

    /// Sender reports of both tracks as one datagram, so that the viewer can put picture and sound
    /// on one clock. Nothing before the first frame.
    pub fn poll_reports(&mut self, now: Instant, batch: &mut Batch) -> Result<(), SrtpError> {
        let mut compound = Vec::with_capacity(192);
        for track in std::iter::once(&self.video).chain(self.audio.as_ref()) {
            if let Some(info) = track.report(now) {
                rtcp::write_sender_report(&info, &self.cname, &mut compound);
            }
        }
        self.send_rtcp(&compound, batch)
    }

    /// BYE for both tracks.
    pub fn poll_goodbye(&mut self, reason: &str, batch: &mut Batch) -> Result<(), SrtpError> {
        let ssrcs: Vec<u32> = std::iter::once(&self.video)
            .chain(self.audio.as_ref())
            .map(|track| track.negotiated.ssrc)
            .collect();
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

    /// The viewer's SRTCP. An error changes nothing.
    pub fn handle_rtcp(&mut self, packet: &mut [u8]) -> Result<Heard, SrtpError> {
        let compound = self.receiver.unprotect_rtcp(packet)?;
        let mut heard = Heard::default();
        // Authentic but unreadable: the viewer lives, its words are lost.
        for feedback in rtcp::parse(compound).unwrap_or_default() {
            match feedback {
                Feedback::PictureLoss { ssrc } | Feedback::FullIntra { ssrc, .. } => {
                    heard.picture_lost |= ssrc == self.video.negotiated.ssrc;
                }
                Feedback::Report(block) => {
                    let tracks = std::iter::once(&mut self.video).chain(self.audio.as_mut());
                    for track in tracks.filter(|track| track.negotiated.ssrc == block.ssrc) {
                        heard.newly_lost += track.newly_lost(block.cumulative_lost);
                    }
                }
                Feedback::Bye => heard.goodbye = true,
                Feedback::Nack { .. }
                | Feedback::EstimatedBitrate { .. }
                | Feedback::Transport(_) => {}
            }
        }
        Ok(heard)
    }
}

impl OutTrack {
    fn new(negotiated: Track, seed: u64) -> Self {
        let [a, b, c, d, low, high, _, _] = seed.to_le_bytes();
        Self {
            negotiated,
            // The first sequence number stays below 2^15, so that a lost first packet cannot make
            // the receiver guess a wrong roll-over counter (RFC 3711 §3.3.1).
            next_index: u64::from(u16::from_le_bytes([low, high]) & 0x7fff),
            timeline: None,
            start_timestamp: u32::from_le_bytes([a, b, c, d]),
            captured: NtpTime(0),
            figures: TrackFigures::default(),
            reported_lost: 0,
            comes_from_elsewhere: false,
        }
    }

    /// The timeline in the clock of this codec; a source that changed its codec starts a new one.
    fn timeline(&mut self, codec: Codec) -> &mut Timeline {
        let start = self.start_timestamp;
        let fits = |timeline: &Timeline| timeline.clock_rate() == codec.clock_rate();
        if !self.timeline.as_ref().is_some_and(fits) {
            self.timeline = None;
        }
        self.timeline.get_or_insert_with(|| Timeline::new(start, codec.clock_rate()))
    }

    fn timestamp(&mut self, frame: &PacketisedFrame, now: Instant) -> u64 {
        self.captured = frame.captured;
        let comes_from_elsewhere = std::mem::take(&mut self.comes_from_elsewhere);
        let timeline = self.timeline(frame.codec);
        if frame.discontinuity || comes_from_elsewhere {
            timeline.anchor(frame.ticks, now);
        }
        timeline.map(frame.ticks, now)
    }

    /// Seals payload `index` into the batch. Nothing is sent of a codec that the viewer does not take.
    fn send(
        &mut self,
        sender: &mut SrtpSender,
        route: &Route,
        frame: &PacketisedFrame,
        index: usize,
        timestamp: u64,
        batch: &mut Batch,
    ) -> Result<(), SrtpError> {
        let Some(payload) = self.negotiated.payload(frame.codec) else { return Ok(()) };
        let last_of_picture =
            frame.codec.kind() == MediaKind::Video && index + 1 == frame.packet_count();
        let marker = if last_of_picture { MARKER } else { 0 };
        let mut header = [0; 12];
        header[0] = RTP_VERSION_BYTE;
        header[1] = marker | payload.payload_type;
        header[2..4].copy_from_slice(&(self.next_index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&(timestamp as u32).to_be_bytes());
        header[8..12].copy_from_slice(&self.negotiated.ssrc.to_be_bytes());
        let payload = frame.payload(index);
        let packet_index = self.next_index;
        // Spent even if sealing fails: the sender would refuse it for ever after.
        self.next_index += 1;
        batch.add(route, |out| sender.protect_rtp(&header, payload, packet_index, out))?;
        self.figures.packets += 1;
        self.figures.octets += payload.len() as u64;
        Ok(())
    }

    /// The newest frame's capture time and timestamp, both carried on to `now`.
    fn report(&self, now: Instant) -> Option<SenderInfo> {
        let timeline = self.timeline.as_ref()?;
        let (_, at) = timeline.newest().filter(|_| self.figures.packets > 0)?;
        let elapsed = now.saturating_duration_since(at).as_micros() as u64;
        Some(SenderInfo {
            ssrc: self.negotiated.ssrc,
            ntp: NtpTime::from_unix_micros(self.captured.unix_micros() + elapsed),
            rtp_timestamp: timeline.at(now)? as u32,
            packets: self.figures.packets as u32,
            octets: self.figures.octets as u32,
        })
    }

    fn newly_lost(&mut self, cumulative: i32) -> u64 {
        let new = cumulative.saturating_sub(self.reported_lost).max(0);
        self.reported_lost = cumulative;
        new as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::negotiated::Payload;
    use crate::packetise::packetise;
    use crate::srtp::SrtpProfile;
    use bytes::Bytes;
    use proptest::prelude::*;

    const SSRC: u32 = 0x1234_5678;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn viewer(seed: u64) -> Viewer {
        let profile = SrtpProfile::AeadAes128Gcm;
        let keys = SessionKeys { profile, material: vec![7; profile.keying_material_len()] };
        let payload = Payload {
            codec: Codec::H264,
            payload_type: 108,
            rtx: None,
            profile_level_id: Some([0x42, 0xe0, 31]),
        };
        let payloads = vec![payload];
        let video = Track { kind: MediaKind::Video, ssrc: SSRC, rtx_ssrc: None, payloads };
        let negotiated =
            Negotiated { video: Some(video), audio: None, cname: "manifold".to_owned() };
        let local = "10.0.0.1:8555".parse().unwrap();
        let route = Route { source: local, destination: "10.0.0.2:4000".parse().unwrap() };
        Viewer::new(ViewerId(1), route, &keys, negotiated, seed).unwrap()
    }

    fn picture(ticks: u64, bytes: usize, keyframe: bool) -> Arc<PacketisedFrame> {
        let kind = if keyframe { 0x65 } else { 0x41 };
        let frame = Frame {
            codec: Codec::H264,
            ticks,
            captured: NtpTime::from_unix_micros(1_700_000_000_000_000 + ticks % (1 << 32)),
            keyframe,
            discontinuity: false,
            units: vec![Bytes::from([vec![kind], vec![1; bytes]].concat())],
        };
        Arc::new(packetise(&frame))
    }

    /// Marker, sequence number and timestamp of each RTP packet in the batch.
    fn headers(batch: &Batch) -> Vec<(bool, u16, u32)> {
        let mut headers = Vec::new();
        for run in batch.runs() {
            for packet in batch.bytes()[run.start..run.start + run.len].chunks(run.segment) {
                if packet[1] & 0x7f == 108 {
                    let word =
                        |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                    assert_eq!((packet[0], word(8)), (RTP_VERSION_BYTE, SSRC));
                    headers.push((packet[1] & MARKER != 0, word(0) as u16, word(4)));
                }
            }
        }
        headers
    }

    #[test]
    fn nothing_is_sent_before_a_keyframe() {
        let (mut viewer, mut batch) = (viewer(1), Batch::default());
        viewer.handle_frame(&picture(0, 100, false), epoch(), &mut batch).unwrap();
        assert!(batch.is_empty());
        viewer.handle_frame(&picture(6_000, 100, true), epoch(), &mut batch).unwrap();
        assert_eq!(headers(&batch).len(), 1);
    }

    #[test]
    fn a_viewer_that_is_too_slow_goes_on_at_a_keyframe() {
        let (mut viewer, mut batch) = (viewer(1), Batch::default());
        let now = epoch();
        let large = MAX_PENDING_PACKETS / 10 * crate::frame::MAX_PAYLOAD;
        for index in 0..12 {
            viewer
                .handle_frame(&picture(index * 6_000, large, index == 0), now, &mut batch)
                .unwrap();
        }
        assert!(viewer.frames_skipped() > 0);
        assert!(viewer.pending_packets <= MAX_PENDING_PACKETS);
        viewer.handle_frame(&picture(80_000, 100, false), now, &mut batch).unwrap();
        assert!(headers(&batch).is_empty(), "no picture that refers to a skipped one");
        while viewer.is_catching_up() {
            viewer.poll_pending(&mut batch).unwrap();
        }
        batch.clear();
        viewer.handle_frame(&picture(90_000, 100, true), now, &mut batch).unwrap();
        assert_eq!(headers(&batch).len(), 1);
    }

    #[test]
    fn a_report_ties_the_timestamp_to_the_capture_time() {
        let (mut viewer, mut batch) = (viewer(5), Batch::default());
        let now = epoch();
        let frame = picture(90_000, 100, true);
        viewer.handle_frame(&frame, now, &mut batch).unwrap();
        let (_, _, timestamp) = headers(&batch)[0];
        let report = viewer.video.report(now + Duration::from_millis(500)).unwrap();
        assert_eq!(report.rtp_timestamp, timestamp.wrapping_add(45_000));
        let later = report.ntp.unix_micros() - frame.captured.unix_micros();
        assert!((499_998..=500_000).contains(&later), "{later}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Over the wraps of the sequence number and the timestamp, wherever they start.
        #[test]
        fn sequence_numbers_count_and_timestamps_follow_the_source(
            seed: u64,
            first_ticks: u64,
            sizes in proptest::collection::vec(20_000usize..60_000, 40..60),
        ) {
            let (mut viewer, mut batch) = (viewer(seed), Batch::default());
            let now = epoch();
            // Both are within reach of their wrap, whatever the seed.
            viewer.video.next_index |= 0xf000;
            viewer.video.start_timestamp |= 0xffff_0000;
            let mut expected = viewer.video.next_index as u16;
            let mut start = None;
            let mut packets = 0u64;
            for round in 0..6u64 {
                for (index, size) in sizes.iter().enumerate() {
                    let step = round * sizes.len() as u64 + index as u64;
                    let ticks = first_ticks.wrapping_add(step * 3_000);
                    batch.clear();
                    viewer.handle_frame(&picture(ticks, *size, step == 0), now, &mut batch).unwrap();
                    let sent = headers(&batch);
                    let start = *start.get_or_insert(sent[0].2);
                    packets += sent.len() as u64;
                    for (position, (marker, sequence, timestamp)) in sent.iter().enumerate() {
                        prop_assert_eq!(*marker, position + 1 == sent.len());
                        prop_assert_eq!(*sequence, expected);
                        prop_assert_eq!(*timestamp, start.wrapping_add((step * 3_000) as u32));
                        expected = expected.wrapping_add(1);
                    }
                }
            }
            prop_assert!(packets > 1 << 12, "the sequence number wrapped");
        }
    }
}
