//! One track of a publisher: packets in any order in, whole frames in order out.
//!
//! A picture that misses a packet never leaves, and neither does any behind it up to a keyframe:
//! viewers get packets with numbers of our own, so that none of them could know what is missing. The
//! publisher is asked for that keyframe. Sound goes on behind a gap. A voice's sound does not even wait
//! for one: that is [`ForwardedTrack`].

mod forwarded;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use forwarded::ForwardedTrack;

use crate::depacketise::{Assembled, Depacketiser, Packet};
use crate::frame::{AudioLevel, Codec, Forwarded, MediaKind, PictureSize};
use crate::jitter::{Inserted, JitterBuffer, Next};

/// How long packets of a picture wait for one that is missing. The first NACK leaves within 33 ms,
/// the next one within 138 ms after it; with 100 ms of round trip both have their answer by then.
const PICTURE_PATIENCE: Duration = Duration::from_millis(300);

/// How long sound waits: packets that overtook each other, but no retransmission. A gap of 20 ms is
/// heard less than a delay that comes and goes.
const SOUND_PATIENCE: Duration = Duration::from_millis(60);

/// How long a track's SSRC must be silent before another one takes its place. Simulcast and
/// retransmissions of unknown origin send beside it.
const SSRC_SILENCE: Duration = Duration::from_secs(1);

/// One RTP packet, decrypted.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Synchronization source.
    pub ssrc: u32,
    /// What its payload type stands for.
    pub codec: Codec,
    /// Sequence number, extended so that it never wraps.
    pub number: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// Without header, extensions and padding.
    pub payload: Bytes,
    /// The codec's payload type, where the payload is one of RED (RFC 2198) with blocks of that type.
    pub red: Option<u8>,
    /// How loud its sender says that it is (RFC 6464).
    pub level: Option<AudioLevel>,
    /// The newest sender report of its source, if there was one.
    pub report: Option<SenderReport>,
}

/// What a sender report ties together (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// The publisher's clock.
    pub ntp: u64,
    /// The same moment in the track's ticks.
    pub timestamp: u32,
}

/// A whole picture, or a packet of sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its codec.
    pub codec: Codec,
    /// Presentation time in ticks of the codec's clock, extended so that it never wraps.
    pub ticks: i64,
    /// When its last packet was here.
    pub arrived: Instant,
    /// Decoding can start here.
    pub keyframe: bool,
    /// It is shown before a picture that was sent before it.
    pub reordered: bool,
    /// Of the newest keyframe.
    pub size: Option<PictureSize>,
    /// See [`Frame::units`](crate::Frame::units).
    pub units: Vec<Bytes>,
    /// See [`Frame::forwarded`](crate::Frame::forwarded).
    pub forwarded: Option<Forwarded>,
    /// How loud its sender says that it is; sound only.
    pub level: Option<AudioLevel>,
}

/// What comes of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackOutput {
    /// A frame, in order.
    Frame(Published),
    /// A sender report that was not told before, with its timestamp extended as the frames' are.
    Report {
        /// Picture or sound.
        kind: MediaKind,
        /// The publisher's clock.
        ntp: u64,
        /// The same moment in ticks.
        ticks: i64,
    },
    /// Packets that never came.
    Lost(u64),
    /// Nothing leaves before a keyframe comes.
    KeyframeWanted,
}

/// Counters of a track since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackFigures {
    /// Packets that came.
    pub packets: u64,
    /// Packets that were missing and not waited for any more.
    pub lost: u64,
    /// Packets that came twice or too late.
    pub late: u64,
    /// Whole frames.
    pub frames: u64,
    /// Pictures that were not passed on: a packet was missing, or the keyframe before them.
    pub withheld: u64,
}

impl std::ops::Add for TrackFigures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            late: self.late + other.late,
            frames: self.frames + other.frames,
            withheld: self.withheld + other.withheld,
        }
    }
}

/// One track. See the module's documentation.
#[derive(Debug)]
pub struct Track {
    kind: MediaKind,
    source: Option<Source>,
    buffer: JitterBuffer<Incoming>,
    depacketiser: Option<Depacketiser>,
    parameter_sets: Vec<Vec<u8>>,
    ticks: Ticks,
    report: Option<SenderReport>,
    /// Pictures are held back until a keyframe.
    holds: bool,
    figures: TrackFigures,
    outputs: VecDeque<TrackOutput>,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
struct Source {
    ssrc: u32,
    heard: Instant,
}

impl Track {
    /// Waits for its first packet, and for a keyframe if it is a picture's.
    pub fn new(kind: MediaKind) -> Self {
        let patience = match kind {
            MediaKind::Video => PICTURE_PATIENCE,
            MediaKind::Audio => SOUND_PATIENCE,
        };
        Self {
            kind,
            source: None,
            buffer: JitterBuffer::new(patience),
            depacketiser: None,
            parameter_sets: Vec::new(),
            ticks: Ticks::default(),
            report: None,
            holds: kind == MediaKind::Video,
            figures: TrackFigures::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Parameter sets of the session description, for publishers that send none in band.
    pub fn set_parameter_sets(&mut self, sets: Vec<Vec<u8>>) {
        self.parameter_sets = sets;
    }

    /// A packet arrived.
    pub fn handle_packet(&mut self, packet: Incoming, now: Instant) {
        if !self.admits(packet.ssrc, now) {
            self.figures.late += 1;
            return;
        }
        self.figures.packets += 1;
        if self.buffer.insert(packet.number, packet, now) == Inserted::Late {
            self.figures.late += 1;
        }
        self.handle_timeout(now);
    }

    /// Time passed: holes that were waited for long enough are given up.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(next) = self.buffer.take(now) {
            match next {
                Next::Packet(packet) => self.handle_next(packet, now),
                Next::Gap(missing) => {
                    self.figures.lost += missing;
                    self.outputs.push_back(TrackOutput::Lost(missing));
                    if let Some(depacketiser) = &mut self.depacketiser {
                        depacketiser.handle_gap();
                    }
                    self.hold();
                }
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.buffer.next_timeout()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<TrackOutput> {
        self.outputs.pop_front()
    }

    /// Lets no picture out before the next keyframe, and asks for it. Nothing for sound.
    pub fn hold(&mut self) {
        if self.kind == MediaKind::Video {
            self.holds = true;
            self.outputs.push_back(TrackOutput::KeyframeWanted);
        }
    }

    /// The SSRC that it listens to.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.map(|source| source.ssrc)
    }

    /// Counters.
    pub fn figures(&self) -> TrackFigures {
        self.figures
    }

    /// Follows the publisher to another SSRC once the one before is silent.
    fn admits(&mut self, ssrc: u32, now: Instant) -> bool {
        match &mut self.source {
            Some(source) if source.ssrc == ssrc => source.heard = now,
            Some(source) if now < source.heard + SSRC_SILENCE => return false,
            Some(_) => {
                self.source = Some(Source { ssrc, heard: now });
                self.restart();
            }
            None => self.source = Some(Source { ssrc, heard: now }),
        }
        true
    }

    /// Numbers and timestamps of another source have no relation to those before.
    fn restart(&mut self) {
        self.buffer.reset();
        self.depacketiser = None;
        self.report = None;
        self.hold();
    }

    fn handle_next(&mut self, packet: Incoming, now: Instant) {
        if self.depacketiser.as_ref().is_none_or(|made| made.codec() != packet.codec) {
            let mut depacketiser = Depacketiser::new(packet.codec);
            for set in &self.parameter_sets {
                depacketiser.handle_parameter_set(set);
            }
            self.depacketiser = Some(depacketiser);
            self.hold();
        }
        let Some(depacketiser) = &mut self.depacketiser else { return };
        let (timestamp, marker, report) = (packet.timestamp, packet.marker, packet.report);
        let payload = packet.payload;
        // Padding and probes.
        if payload.is_empty() {
            return;
        }
        match depacketiser.handle_packet(Packet { timestamp, marker, payload }) {
            Ok(frames) => {
                for frame in frames {
                    self.handle_frame(packet.codec, frame, now);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a publisher's frame cannot be read");
                self.figures.withheld += 1;
                self.hold();
            }
        }
        self.handle_report(report);
    }

    fn handle_frame(&mut self, codec: Codec, frame: Assembled, now: Instant) {
        let Assembled { timestamp, keyframe, reordered, size, units } = frame;
        let ticks = self.ticks.extend(timestamp);
        if self.holds && !keyframe {
            self.figures.withheld += 1;
            self.outputs.push_back(TrackOutput::KeyframeWanted);
            return;
        }
        self.holds = false;
        self.figures.frames += 1;
        let arrived = now;
        let frame = Published {
            forwarded: None,
            level: None,
            codec,
            ticks,
            arrived,
            keyframe,
            reordered,
            size,
            units,
        };
        self.outputs.push_back(TrackOutput::Frame(frame));
    }

    fn handle_report(&mut self, report: Option<SenderReport>) {
        let (Some(report), Some(_)) = (report, self.ticks.last) else { return };
        if self.report.replace(report) != Some(report) {
            let ticks = self.ticks.place(report.timestamp);
            let (kind, ntp) = (self.kind, report.ntp);
            self.outputs.push_back(TrackOutput::Report { kind, ntp, ticks });
        }
    }
}

/// Timestamps extended to 64 bits.
#[derive(Debug, Default)]
struct Ticks {
    last: Option<i64>,
}

impl Ticks {
    /// The timestamp's place nearest to the last one, which it becomes.
    fn extend(&mut self, timestamp: u32) -> i64 {
        let ticks = self.place(timestamp);
        self.last = Some(ticks);
        ticks
    }

    fn place(&self, timestamp: u32) -> i64 {
        let Some(last) = self.last else { return i64::from(timestamp) };
        // The lower half is the sender's; the signed difference is the nearest way there.
        let step = timestamp.wrapping_sub(last as u32) as i32;
        last.saturating_add(i64::from(step))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use super::*;

    const SSRC: u32 = 7;

    /// Packet `number` of VP8 pictures of two packets each; every fifth is a keyframe.
    fn packet(number: u64) -> Incoming {
        let (picture, is_last) = (number / 2, number % 2 == 1);
        let is_key = picture % 5 == 0;
        // RFC 7741 §4.2: the S bit on a picture's first packet. §4.3: the P bit is off for keyframes.
        let head: &[u8] = match (is_last, is_key) {
            (true, _) => &[0x00, 1, 2, 3],
            (false, true) => &[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 32, 0],
            (false, false) => &[0x10, 0x11, 0, 0],
        };
        Incoming {
            ssrc: SSRC,
            codec: Codec::Vp8,
            number,
            timestamp: (u32::MAX - 9_000).wrapping_add(picture as u32 * 3_000),
            marker: is_last,
            payload: Bytes::copy_from_slice(head),
            red: None,
            level: None,
            report: None,
        }
    }

    fn sound(number: u64) -> Incoming {
        let payload = Bytes::from_static(&[1, 2, 3]);
        let timestamp = number as u32 * 960;
        Incoming { codec: Codec::Opus, number, timestamp, payload, ..packet(0) }
    }

    fn drain(track: &mut Track) -> Vec<TrackOutput> {
        std::iter::from_fn(|| track.poll_output()).collect()
    }

    /// The pictures that left, by their time since the first.
    fn pictures(outputs: &[TrackOutput]) -> Vec<i64> {
        let first = i64::from(u32::MAX - 9_000);
        let ticks = outputs.iter().filter_map(|output| match output {
            TrackOutput::Frame(frame) => Some((frame.ticks - first) / 3_000),
            TrackOutput::Report { .. } | TrackOutput::Lost(_) | TrackOutput::KeyframeWanted => None,
        });
        ticks.collect()
    }

    #[test]
    fn shuffled_packets_leave_as_pictures_in_order() {
        let (mut track, now) = (Track::new(MediaKind::Video), Instant::now());
        for number in [0, 2, 1, 3, 5, 4, 8, 9, 6, 7, 7] {
            track.handle_packet(packet(number), now);
        }
        assert_eq!(pictures(&drain(&mut track)), [0, 1, 2, 3, 4], "over the wrap of 2^32");
        assert_eq!((track.figures().lost, track.figures().late), (0, 1));
    }

    #[test]
    fn behind_a_hole_nothing_leaves_up_to_a_keyframe_and_one_is_asked_for() {
        let (mut track, now) = (Track::new(MediaKind::Video), Instant::now());
        for number in (0..14).filter(|number| *number != 4) {
            track.handle_packet(packet(number), now);
        }
        assert_eq!(pictures(&drain(&mut track)), [0, 1], "what is behind the hole waits");
        let due = track.next_timeout().unwrap();
        assert_eq!(due, now + PICTURE_PATIENCE);
        track.handle_timeout(due);
        let outputs = drain(&mut track);
        assert_eq!(pictures(&outputs), [5, 6]);
        assert_eq!(outputs[0], TrackOutput::Lost(1));
        assert_eq!(outputs[1], TrackOutput::KeyframeWanted);
        assert_eq!(track.figures().withheld, 3, "the broken one and the two that build on it");
    }

    #[test]
    fn a_packet_that_comes_again_in_time_mends_the_picture() {
        let (mut track, now) = (Track::new(MediaKind::Video), Instant::now());
        for number in [0, 1, 3, 4, 5] {
            track.handle_packet(packet(number), now);
        }
        track.handle_packet(packet(2), now + PICTURE_PATIENCE / 2);
        assert_eq!(pictures(&drain(&mut track)), [0, 1, 2]);
        assert_eq!(track.figures().lost, 0);
    }

    #[test]
    fn a_stream_begins_with_a_keyframe() {
        let (mut track, now) = (Track::new(MediaKind::Video), Instant::now());
        for number in 4..12 {
            track.handle_packet(packet(number), now);
        }
        let outputs = drain(&mut track);
        assert_eq!(pictures(&outputs), [5]);
        assert!(outputs.contains(&TrackOutput::KeyframeWanted));
    }

    #[test]
    fn sound_goes_on_behind_a_gap() {
        let (mut track, now) = (Track::new(MediaKind::Audio), Instant::now());
        for number in [0, 1, 3] {
            track.handle_packet(sound(number), now);
        }
        track.handle_timeout(now + SOUND_PATIENCE);
        let outputs = drain(&mut track);
        assert_eq!(outputs[2], TrackOutput::Lost(1));
        assert!(matches!(&outputs[3], TrackOutput::Frame(frame) if frame.ticks == 3 * 960));
        assert!(!outputs.contains(&TrackOutput::KeyframeWanted));
    }

    #[test]
    fn another_source_takes_over_only_when_the_first_is_silent() {
        let (mut track, now) = (Track::new(MediaKind::Video), Instant::now());
        let other = |number| Incoming { ssrc: 8, ..packet(number) };
        for number in 0..2 {
            track.handle_packet(packet(number), now);
            track.handle_packet(other(90_000 + number), now);
        }
        assert_eq!((track.ssrc(), pictures(&drain(&mut track)).len()), (Some(SSRC), 1));
        for number in 0..4 {
            track.handle_packet(other(number), now + SSRC_SILENCE);
        }
        assert_eq!((track.ssrc(), pictures(&drain(&mut track)).len()), (Some(8), 2));
    }

    #[test]
    fn a_report_is_told_once_in_the_ticks_of_the_frames() {
        let (mut track, now) = (Track::new(MediaKind::Audio), Instant::now());
        let report = Some(SenderReport { ntp: 99, timestamp: 480 });
        for number in 1..4 {
            track.handle_packet(Incoming { report, ..sound(number) }, now);
        }
        let reports: Vec<_> = drain(&mut track)
            .into_iter()
            .filter(|output| matches!(output, TrackOutput::Report { .. }))
            .collect();
        assert_eq!(reports, [TrackOutput::Report { kind: MediaKind::Audio, ntp: 99, ticks: 480 }]);
    }
}
