//! What repairs are made of: the frames of the last moments, shared by all viewers, and a viewer's
//! record of which of its packets came from which of them.
//!
//! ```text
//! hub     FrameRing    serial 71 ▏ 72 ▏ 73 ▏ 74        one a track, frames by reference; one of the
//!                                                      groups that viewers were given
//! viewer  SentRecord   index 900…907 is serial 72, timestamp t, from its first payload on
//! viewer  RepairLimit  how often and how much
//! ```
//! Seals nothing and parses no feedback.
//!
//! **Invariant:** what is found for a packet is the frame that the packet was made of, or nothing.
//! A serial is never given twice in a process, and a frame never changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::PacketisedFrame;

/// How long a frame is kept for repairs. A frame may wait a second to be paced out
/// ([`MAX_WAIT`](crate::viewer::MAX_WAIT)); in the second after it a viewer can ask four times over
/// a round trip of 250 ms, and browsers show what comes later than that no more.
pub(crate) const RING_TIME: Duration = Duration::from_secs(2);
/// Payload bytes of frames kept for repairs: two seconds at 16 Mbit/s. A camera of 2 Mbit/s takes
/// 0.5 MB, most of which the cached group holds anyway.
pub(crate) const RING_BYTES: usize = 4 << 20;

/// Runs of packets that a viewer's track remembers. Those of the last two seconds and of the cached
/// group are some 120 for a usual camera; the longest group (600 frames) and its live frames fit, or
/// 30,000 packets in full bursts. A run takes 32 bytes.
pub(crate) const MAX_RUNS: usize = 1_024;

/// How often one packet is repeated. At 20 % loss in both directions one of 1,500 packets is still
/// missing after so many.
const MAX_REPEATS: u8 = 8;
/// Packets of which repeats are counted: those of a burst of loss, or a large keyframe with a third
/// lost. An entry takes 24 bytes.
const MAX_COUNTED: usize = 512;
/// Repeats that a viewer may have at once: a quarter of a browser's own list (libwebrtc's
/// `kMaxNackPackets` is 1,000), or half a second of 6 Mbit/s.
const MAX_CREDIT: u32 = 256;
/// Of what is sent, repeats are at most one packet in so many. At 20 % loss one in four is needed.
const PACKETS_A_REPEAT: u32 = 2;
/// Taken for the round trip until one was measured; libwebrtc assumes the same.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Bounds of what is believed of a measured round trip: below, timers are too coarse to tell; above,
/// nobody watches.
const ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// The newest frames of one track of a stream.
#[derive(Debug)]
pub(crate) struct FrameRing {
    frames: VecDeque<(Instant, Arc<PacketisedFrame>)>,
    bytes: usize,
    max_bytes: usize,
}

impl Default for FrameRing {
    fn default() -> Self {
        Self::bounded(RING_BYTES)
    }
}

impl FrameRing {
    /// Keeps so many payload bytes at most.
    pub(crate) const fn bounded(max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Keeps a frame that left at `now`, and gives up the oldest ones beyond the bounds. Frames come by
    /// rising serial and time.
    pub(crate) fn push(&mut self, frame: &Arc<PacketisedFrame>, now: Instant) {
        self.bytes += frame.kept_bytes();
        self.frames.push_back((now, Arc::clone(frame)));
        self.expire(now);
    }

    /// Gives up the oldest frames beyond the bounds, and memory that many of them took.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, oldest)) = self.frames.front() {
            if self.bytes <= self.max_bytes && now.saturating_duration_since(*at) <= RING_TIME {
                break;
            }
            self.bytes -= oldest.kept_bytes();
            self.frames.pop_front();
        }
        if self.frames.capacity() > 4 * self.frames.len().max(64) {
            self.frames.shrink_to(2 * self.frames.len());
        }
    }

    /// The frame with this serial, if it is still there.
    pub(crate) fn find(&self, serial: u64) -> Option<&Arc<PacketisedFrame>> {
        let at = self.frames.binary_search_by_key(&serial, |(_, frame)| frame.serial()).ok()?;
        self.frames.get(at).map(|(_, frame)| frame)
    }

    /// The oldest frame's serial.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.frames.front().map(|(_, frame)| frame.serial())
    }
}

/// Packets of one frame that were sent one after the other, and all that the headers of their
/// repeats need besides the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The frame's [`PacketisedFrame::serial`].
    pub(crate) serial: u64,
    /// Packet index of the first.
    pub(crate) index: u64,
    /// RTP timestamp of all.
    pub(crate) timestamp: u32,
    /// Which payload of the frame the first one carries.
    pub(crate) payload: u32,
    /// How many.
    pub(crate) count: u32,
    /// What the first one's header extension says.
    pub(crate) extension: u32,
}

/// A packet that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The run that it belongs to.
    pub(crate) run: Run,
    /// Which of it, from 0.
    pub(crate) offset: u32,
}

impl Sent {
    /// Its packet index.
    pub(crate) fn index(&self) -> u64 {
        self.run.index + u64::from(self.offset)
    }

    /// Which payload of the frame it carries.
    pub(crate) fn payload(&self) -> usize {
        (self.run.payload + self.offset) as usize
    }
}

/// What one track of one viewer was sent, newest last.
#[derive(Debug, Default)]
pub(crate) struct SentRecord {
    /// At most [`MAX_RUNS`], by rising index.
    runs: VecDeque<Run>,
}

impl SentRecord {
    /// Writes a run down. Runs come by rising index, but for sound that was overtaken on its way.
    pub(crate) fn push(&mut self, run: Run) {
        if self.runs.len() == MAX_RUNS {
            self.runs.pop_front();
        }
        if self.runs.back().is_none_or(|newest| newest.index < run.index) {
            self.runs.push_back(run);
        } else {
            let place = self.runs.partition_point(|other| other.index < run.index);
            self.runs.insert(place, run);
        }
    }

    /// The packet that a viewer names by its sequence number: the newest one that has it.
    pub(crate) fn find(&self, sequence: u16) -> Option<Sent> {
        let newest = self.runs.back()?;
        let last = newest.index + u64::from(newest.count.saturating_sub(1));
        let behind = (last as u16).wrapping_sub(sequence);
        let index = last.checked_sub(u64::from(behind))?;
        let after = self.runs.partition_point(|run| run.index <= index);
        let run = *self.runs.get(after.checked_sub(1)?)?;
        let offset = u32::try_from(index - run.index).ok()?;
        (offset < run.count).then_some(Sent { run, offset })
    }

    /// Forgets runs of frames older than `serial`, which cannot be repaired any more. Gives memory
    /// back that a long group took.
    pub(crate) fn forget_before(&mut self, serial: u64) {
        while self.runs.front().is_some_and(|run| run.serial < serial) {
            self.runs.pop_front();
        }
        if self.runs.capacity() > 4 * self.runs.len().max(64) {
            self.runs.shrink_to(2 * self.runs.len());
        }
    }
}

/// What becomes of a wish for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be repeated.
    Repeat,
    /// It was repeated too often, too lately, or too many were.
    Refuse,
}

/// How much of what a viewer asks for it gets.
#[derive(Debug)]
pub(crate) struct RepairLimit {
    /// Packets that were repeated, by rising index. At most [`MAX_COUNTED`].
    repeated: VecDeque<Repeated>,
    /// In shares of a repeat, [`PACKETS_A_REPEAT`] of which are one.
    credit: u32,
    newest_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Repeated {
    index: u64,
    at: Instant,
    times: u8,
}

impl Default for RepairLimit {
    fn default() -> Self {
        let credit = MAX_CREDIT * PACKETS_A_REPEAT;
        Self { repeated: VecDeque::new(), credit, newest_at: None }
    }
}

impl RepairLimit {
    /// Packets were sent for the first time: some more may be repeated.
    pub(crate) fn handle_sent(&mut self, packets: u32) {
        self.credit = self.credit.saturating_add(packets).min(MAX_CREDIT * PACKETS_A_REPEAT);
    }

    /// Whether the packet is repeated; it counts as such then. A viewer asks again a round trip
    /// after it asked, so whoever asks sooner asks in vain: three quarters of it, as both ends
    /// measure it differently.
    pub(crate) fn judge(
        &mut self,
        index: u64,
        round_trip: Option<Duration>,
        now: Instant,
    ) -> Verdict {
        let round_trip = believed(round_trip);
        if self.credit < PACKETS_A_REPEAT {
            return Verdict::Refuse;
        }
        let place = self.repeated.partition_point(|repeated| repeated.index < index);
        match self.repeated.get_mut(place).filter(|repeated| repeated.index == index) {
            Some(before) => {
                let is_early = now.saturating_duration_since(before.at) < round_trip * 3 / 4;
                if is_early || before.times == MAX_REPEATS {
                    return Verdict::Refuse;
                }
                before.times += 1;
                before.at = now;
            }
            None => self.count(place, Repeated { index, at: now, times: 1 }),
        }
        self.credit -= PACKETS_A_REPEAT;
        self.newest_at = Some(now);
        Verdict::Repeat
    }

    /// Whether repeats may still be on their way, or be asked for once more.
    pub(crate) fn is_repairing(&self, round_trip: Option<Duration>, now: Instant) -> bool {
        let round_trip = believed(round_trip);
        self.newest_at.is_some_and(|at| now.saturating_duration_since(at) < round_trip * 2)
    }

    fn count(&mut self, place: usize, repeated: Repeated) {
        let is_full = self.repeated.len() == MAX_COUNTED;
        if is_full {
            // The oldest packet is the least likely to be asked for again.
            self.repeated.pop_front();
        }
        self.repeated.insert(place.saturating_sub(usize::from(is_full)), repeated);
    }
}

fn believed(round_trip: Option<Duration>) -> Duration {
    round_trip.unwrap_or(USUAL_ROUND_TRIP).clamp(ROUND_TRIPS[0], ROUND_TRIPS[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Codec, Frame, NtpTime};
    use crate::packetise::packetise;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn frame(bytes: usize) -> Arc<PacketisedFrame> {
        Arc::new(packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
            ticks: 0,
            captured: NtpTime(0),
            keyframe: false,
            discontinuity: false,
            units: vec![vec![0x41; bytes].into()],
        }))
    }

    #[test]
    fn the_ring_is_bounded_in_time_and_bytes() {
        let (mut ring, start) = (FrameRing::default(), epoch());
        let frames: Vec<_> = (0..200).map(|_| frame(1_000)).collect();
        for (index, frame) in frames.iter().enumerate() {
            ring.push(frame, start + Duration::from_millis(100) * index as u32);
        }
        assert_eq!(ring.frames.len(), 21, "two seconds with both ends");
        assert_eq!(ring.oldest(), Some(frames[179].serial()));
        assert!(ring.find(frames[178].serial()).is_none());
        assert_eq!(ring.find(frames[190].serial()).unwrap().serial(), frames[190].serial());

        let end = start + Duration::from_millis(19_900);
        for _ in 0..6 {
            ring.push(&frame(RING_BYTES / 4), end);
            assert!(ring.bytes <= RING_BYTES, "{}", ring.bytes);
        }
        assert_eq!(ring.frames.len(), 3);
        ring.push(&frame(2 * RING_BYTES), end);
        assert_eq!((ring.frames.len(), ring.bytes), (0, 0));
    }

    #[test]
    fn a_packet_is_repeated_so_often_and_not_within_a_round_trip() {
        let (mut limit, start) = (RepairLimit::default(), epoch());
        let round_trip = Some(Duration::from_millis(40));
        let mut repeats = 0;
        for millis in 0..2_000 {
            let now = start + Duration::from_millis(millis);
            repeats += u32::from(limit.judge(7, round_trip, now) == Verdict::Repeat);
            assert!(repeats <= 1 + millis as u32 / 30, "{repeats} after {millis} ms");
        }
        assert_eq!(repeats, u32::from(MAX_REPEATS));
        assert!(!limit.is_repairing(round_trip, start + Duration::from_secs(2)));
    }

    #[test]
    fn a_flood_of_wishes_gets_what_was_sent_and_no_more() {
        let (mut limit, now) = (RepairLimit::default(), epoch());
        let asked = |limit: &mut RepairLimit, first: u64| {
            let granted = (first..first + 10_000)
                .filter(|index| limit.judge(*index, None, now) == Verdict::Repeat);
            granted.count() as u32
        };
        assert_eq!(asked(&mut limit, 0), MAX_CREDIT);
        assert_eq!(asked(&mut limit, 10_000), 0);
        limit.handle_sent(21);
        assert_eq!(asked(&mut limit, 20_000), 10);
        limit.handle_sent(u32::MAX);
        assert_eq!(asked(&mut limit, 30_000), MAX_CREDIT);
        assert!(limit.repeated.len() <= MAX_COUNTED);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Every packet of the record is found by its sequence number, whatever was skipped in
        /// between and wherever the number wraps; nothing outside of it is.
        #[test]
        fn what_was_sent_is_found_and_nothing_else(
            first in prop_oneof![0u64..10, 65_500u64..65_540, (1u64 << 47)..(1 << 47) + 70_000],
            runs in prop::collection::vec((1u32..40, 0u64..3, 0u32..5), 1..80),
        ) {
            let mut record = SentRecord::default();
            let mut index = first;
            let mut expected = std::collections::HashMap::new();
            for (serial, (count, gap, payload)) in runs.into_iter().enumerate() {
                index += gap;
                let run = Run {
                    serial: serial as u64,
                    index,
                    timestamp: serial as u32,
                    payload,
                    count,
                    extension: 0,
                };
                record.push(run);
                for offset in 0..count {
                    expected.insert((index + u64::from(offset)) as u16, Sent { run, offset });
                }
                index += u64::from(count);
            }
            for sequence in 0..=u16::MAX {
                let found = record.find(sequence);
                prop_assert_eq!(found, expected.get(&sequence).copied());
                prop_assert!(found.is_none_or(|sent| sent.index() as u16 == sequence));
            }
            record.forget_before(3);
            for sent in expected.values() {
                let found = record.find(sent.index() as u16);
                prop_assert!(found.is_none_or(|found| found == *sent && sent.run.serial >= 3));
            }
        }

        #[test]
        fn the_record_is_bounded(runs in 1u64..3 * MAX_RUNS as u64) {
            let mut record = SentRecord::default();
            for index in 0..runs {
                let (serial, timestamp) = (index, index as u32);
                record.push(Run { serial, index, timestamp, payload: 0, count: 1, extension: 0 });
            }
            prop_assert!(record.runs.len() <= MAX_RUNS);
            let oldest = runs.saturating_sub(MAX_RUNS as u64);
            prop_assert!(record.find(oldest as u16).is_some());
            prop_assert!(oldest == 0 || record.find(oldest as u16 - 1).is_none());
            record.forget_before(runs);
            prop_assert!(record.runs.is_empty() && record.runs.capacity() <= 256);
        }
    }
}
