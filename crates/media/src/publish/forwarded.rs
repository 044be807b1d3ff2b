//! A voice's track: each packet of sound is passed on as it comes, at once and by itself.
//!
//! Nothing waits and nothing is put into order: receivers conceal, repair and reorder by themselves,
//! for which each packet keeps its number. What came twice is dropped, since two packets of one number
//! are an attack to a receiver (RFC 3711 §3.3.2). Packets of padding alone, by which senders find out what
//! their line carries, leave no gap: nobody would ask for them with success. A source that takes another one's place goes on where
//! that one ended, with numbers that rise and ticks that follow the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Incoming, Published, SenderReport, Ticks, TrackFigures, TrackOutput};
use crate::frame::{Codec, Forwarded, MAX_CUT_PAYLOAD, MediaKind};
use crate::red;

/// How long a source must be silent before another one takes its place: longer than any packet is
/// (120 ms, RFC 7587 §4.2), so that two who send at a time do not take turns.
const SOURCE_SILENCE: Duration = Duration::from_millis(150);

/// A step of numbers further than this is a new beginning and no loss (RFC 3550 §A.1, `MAX_DROPOUT`).
const DROPOUT_MAX: u64 = 3_000;

/// How far back numbers are remembered, which is how late a packet may come: 1.3 s of packets of 10 ms.
const WINDOW: u64 = u128::BITS as u64;

/// Most bytes of payload a second: Opus has 510 kbit/s at most (RFC 6716 §2.1.1), redundancy doubles
/// that, and a quarter is for headers of blocks. What is above would go out to every receiver.
const RATE_MAX: u64 = 160_000;

/// Most packets a second: the shortest have 2.5 ms (RFC 6716 §2.1.4), and a tenth more of padding.
const PACKETS_MAX: u64 = 440;

/// One voice. See the module's documentation.
#[derive(Debug, Default)]
pub struct ForwardedTrack {
    source: Option<Source>,
    allowance: Allowance,
    figures: TrackFigures,
    outputs: VecDeque<TrackOutput>,
}

/// Who sends, and how his numbers become ours.
#[derive(Debug)]
struct Source {
    ssrc: u32,
    heard: Instant,
    numbering: Numbering,
    seen: Seen,
    ticks: Ticks,
    /// Added to his ticks.
    tick_offset: i64,
    report: Option<SenderReport>,
}

impl ForwardedTrack {
    /// A packet arrived.
    pub fn handle_packet(&mut self, packet: Incoming, now: Instant) {
        self.follow(&packet, now);
        let Some(source) = self.source.as_mut().filter(|source| source.ssrc == packet.ssrc) else {
            self.figures.late += 1;
            return;
        };
        source.heard = now;
        self.figures.packets += 1;
        let Some(lost) = source.seen.insert(packet.number) else {
            self.figures.late += 1;
            return;
        };
        if lost > 0 {
            self.figures.lost += lost;
            self.outputs.push_back(TrackOutput::Lost(lost));
        }
        let ticks = source.ticks.extend(packet.timestamp).saturating_add(source.tick_offset);
        let report = source.next_report(packet.report);
        if packet.payload.is_empty() {
            source.numbering.leave_out(packet.number, source.seen.newest);
            self.outputs.extend(report);
            return;
        }
        let number = source.numbering.number(packet.number);
        let admitted = Some(packet.payload).filter(|payload| self.allowance.admits(payload, now));
        let unwrapped = admitted.and_then(|payload| unwrapped(payload, packet.red));
        if let Some((unit, red)) = unwrapped {
            self.figures.frames += 1;
            self.outputs.push_back(TrackOutput::Frame(Published {
                codec: packet.codec,
                ticks,
                arrived: now,
                keyframe: true,
                reordered: false,
                size: None,
                units: vec![unit],
                forwarded: Some(Forwarded { number, marker: packet.marker, red }),
                level: packet.level,
            }));
        } else {
            self.figures.withheld += 1;
        }
        self.outputs.extend(report);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<TrackOutput> {
        self.outputs.pop_front()
    }

    /// The SSRC that it listens to.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.ssrc)
    }

    /// Counters. A packet counts as lost once it is too late for it.
    pub fn figures(&self) -> TrackFigures {
        self.figures
    }

    /// Lets the packet's source begin, or begin anew, if it is its turn.
    fn follow(&mut self, packet: &Incoming, now: Instant) {
        let Some(source) = &self.source else {
            self.source = Some(Source::first(packet, now));
            return;
        };
        let has_turn = if source.ssrc == packet.ssrc {
            let step = packet.number.wrapping_sub(source.seen.newest);
            step.min(step.wrapping_neg()) > DROPOUT_MAX
        } else {
            now >= source.heard + SOURCE_SILENCE
        };
        if has_turn {
            self.source = Some(Source::after(source, packet, now));
        }
    }
}

/// What a voice may still send: a second's worth at once, and no more than that each second.
#[derive(Debug)]
struct Allowance {
    /// In thousandths, so that each millisecond brings whole ones.
    bytes: u64,
    /// In thousandths.
    packets: u64,
    /// Up to when it has grown.
    since: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { bytes: RATE_MAX * 1_000, packets: PACKETS_MAX * 1_000, since: None }
    }
}

impl Allowance {
    fn admits(&mut self, payload: &Bytes, now: Instant) -> bool {
        let since = self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(*since).as_millis() as u64;
        *since += Duration::from_millis(passed);
        let grown = |left: u64, rate: u64| (left + rate * passed.min(1_000)).min(rate * 1_000);
        self.bytes = grown(self.bytes, RATE_MAX);
        self.packets = grown(self.packets, PACKETS_MAX);
        let bytes = payload.len() as u64 * 1_000;
        let is_admitted = self.packets >= 1_000 && self.bytes >= bytes;
        if is_admitted {
            self.packets -= 1_000;
            self.bytes -= bytes;
        }
        is_admitted
    }
}

/// The packet's own payload, and the whole one if that is redundant and small enough to be passed on.
/// `None`: neither can be.
fn unwrapped(payload: Bytes, red: Option<u8>) -> Option<(Bytes, Option<Bytes>)> {
    let fits = |payload: &Bytes| !payload.is_empty() && payload.len() <= MAX_CUT_PAYLOAD;
    let Some(payload_type) = red else { return fits(&payload).then_some((payload, None)) };
    let newest = red::newest(&payload).ok()?;
    let is_ours = newest.payload_type == payload_type && fits(&newest.data);
    is_ours.then(|| (newest.data, Some(payload).filter(fits)))
}

impl Source {
    fn first(packet: &Incoming, now: Instant) -> Self {
        Self {
            ssrc: packet.ssrc,
            heard: now,
            numbering: Numbering::beginning(packet.number, packet.number),
            seen: Seen::before(packet.number),
            ticks: Ticks::default(),
            tick_offset: 0,
            report: None,
        }
    }

    /// Goes on with the number after `before`'s newest, as much later as time has passed.
    fn after(before: &Self, packet: &Incoming, now: Instant) -> Self {
        let next = before.numbering.next;
        let pause = now.saturating_duration_since(before.heard).as_secs_f64();
        let passed = (pause * f64::from(Codec::Opus.clock_rate())) as i64;
        let last = before.ticks.last.unwrap_or_default().saturating_add(before.tick_offset);
        let ticks = last.saturating_add(passed.max(1));
        Self {
            numbering: Numbering::beginning(packet.number, next),
            tick_offset: ticks.saturating_sub(i64::from(packet.timestamp)),
            ..Self::first(packet, now)
        }
    }

    /// A report that was not told before.
    fn next_report(&mut self, report: Option<SenderReport>) -> Option<TrackOutput> {
        let report = report?;
        if self.report.replace(report) == Some(report) {
            return None;
        }
        let ticks = self.ticks.place(report.timestamp).saturating_add(self.tick_offset);
        Some(TrackOutput::Report { kind: MediaKind::Audio, ntp: report.ntp, ticks })
    }
}

/// How a source's numbers become ours.
#[derive(Debug)]
struct Numbering {
    /// Added to his numbers, but for what is left out; wraps.
    offset: u64,
    /// His numbers that get none of ours, oldest first: those that a late packet may have to know of.
    left_out: VecDeque<u64>,
    /// Above all that were given.
    next: u64,
}

impl Numbering {
    /// His number `first` becomes our number `ours`.
    fn beginning(first: u64, ours: u64) -> Self {
        Self { offset: ours.wrapping_sub(first), left_out: VecDeque::new(), next: ours }
    }

    /// His number gets none of ours, so that those behind it follow those before it. Not so where one
    /// behind it was numbered already.
    fn leave_out(&mut self, theirs: u64, newest: u64) {
        if theirs == newest {
            self.left_out.push_back(theirs);
        }
        // Nothing from before them comes any more.
        while self.left_out.front().is_some_and(|oldest| oldest.wrapping_add(WINDOW) < newest) {
            self.left_out.pop_front();
            self.offset = self.offset.wrapping_sub(1);
        }
    }

    fn number(&mut self, theirs: u64) -> u64 {
        let before = self.left_out.iter().filter(|left_out| **left_out < theirs).count();
        let number = theirs.wrapping_add(self.offset).wrapping_sub(before as u64);
        self.next = self.next.max(number.wrapping_add(1));
        number
    }
}

/// Which of the newest numbers came.
#[derive(Debug)]
struct Seen {
    newest: u64,
    /// Bit n: the number n below the newest one came, or is none that is waited for.
    bits: u128,
}

impl Seen {
    /// Nothing before `first` is waited for.
    fn before(first: u64) -> Self {
        Self { newest: first.wrapping_sub(1), bits: u128::MAX }
    }

    /// How many numbers it is too late for from here on. `None`: this one came before, or is itself
    /// too late.
    fn insert(&mut self, number: u64) -> Option<u64> {
        let step = number.wrapping_sub(self.newest);
        if step == 0 || step > u64::MAX / 2 {
            let back = self.newest.wrapping_sub(number);
            let bit = 1_u128.checked_shl(u32::try_from(back).ok()?)?;
            let is_new = self.bits & bit == 0;
            self.bits |= bit;
            return is_new.then_some(0);
        }
        let leaving = step.min(WINDOW) as u32;
        let kept = self.bits.checked_shl(leaving).unwrap_or(0);
        let came = self.bits.count_ones() - kept.count_ones();
        self.newest = number;
        self.bits = kept | 1;
        Some(u64::from(leaving - came) + step.saturating_sub(WINDOW))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::AudioLevel;

    const PACKET: Duration = Duration::from_millis(20);

    fn packet(ssrc: u32, number: u64) -> Incoming {
        Incoming {
            ssrc,
            codec: Codec::Opus,
            number,
            timestamp: (number as u32).wrapping_mul(960),
            marker: false,
            payload: Bytes::from(vec![0x78, number as u8]),
            red: None,
            level: None,
            report: None,
        }
    }

    fn drain(track: &mut ForwardedTrack) -> Vec<TrackOutput> {
        std::iter::from_fn(|| track.poll_output()).collect()
    }

    /// Numbers and ticks of what left.
    fn sent(track: &mut ForwardedTrack) -> Vec<(u64, i64)> {
        let outputs = drain(track).into_iter();
        let frames = outputs.filter_map(|output| match output {
            TrackOutput::Frame(frame) => Some((frame.forwarded.unwrap().number, frame.ticks)),
            TrackOutput::Report { .. } | TrackOutput::Lost(_) | TrackOutput::KeyframeWanted => None,
        });
        frames.collect()
    }

    #[test]
    fn the_most_that_opus_can_be_is_passed_on_and_a_flood_is_not() {
        let mut now = Instant::now();
        let mut track = ForwardedTrack::default();
        let mut passed = |interval: Duration, size: usize, count: u64, from: u64| {
            for number in from..from + count {
                let payload = Bytes::from(vec![0x78; size]);
                track.handle_packet(Incoming { payload, ..packet(1, number) }, now);
                now += interval;
            }
            sent(&mut track).len() as u64
        };
        // 510 kbit/s in packets of 2.5 ms, with redundancy.
        assert_eq!(passed(Duration::from_micros(2_500), 318, 4_000, 0), 4_000);
        assert_eq!(passed(Duration::from_millis(20), 1_390, 1_000, 4_000), 1_000);
        let flood = passed(Duration::from_micros(100), 1_390, 50_000, 5_000);
        assert!((5 * 115..=6 * 120).contains(&flood), "{flood} of 5 s");
        let many = passed(Duration::from_micros(100), 2, 50_000, 55_000);
        assert!((5 * 430..=6 * 440).contains(&many), "{many} of 5 s");
    }

    #[test]
    fn packets_leave_at_once_in_the_order_of_their_coming_and_only_once() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        let mut left = Vec::new();
        for number in [500, 501, 504, 502, 501, 504, 505] {
            track.handle_packet(packet(1, number), now);
            left.extend(sent(&mut track).iter().map(|(number, _)| *number));
        }
        assert_eq!(left, [500, 501, 504, 502, 505]);
        let figures = track.figures();
        assert_eq!((figures.packets, figures.late, figures.frames, figures.lost), (7, 2, 5, 0));
    }

    #[test]
    fn a_packet_is_lost_when_it_is_too_late_for_it() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        for number in (10..300).filter(|number| *number != 20 && *number != 290) {
            track.handle_packet(packet(1, number), now);
        }
        assert_eq!(track.figures().lost, 1, "290 may yet come");
        sent(&mut track);
        track.handle_packet(packet(1, 20), now);
        assert_eq!(sent(&mut track), [], "too late");
        track.handle_packet(packet(1, 290), now);
        assert_eq!(sent(&mut track), [(290, 290 * 960)]);
        track.handle_packet(packet(1, 1_299), now);
        assert_eq!(
            track.figures().lost,
            1 + 999 - (WINDOW - 1),
            "of 300 to 1298 the newest may come"
        );
    }

    #[test]
    fn another_source_goes_on_where_the_first_ended() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        track.handle_packet(packet(1, 40_000), now);
        track.handle_packet(packet(2, 7), now + PACKET);
        assert_eq!(sent(&mut track).len(), 1, "the first one sends still");
        let later = now + Duration::from_millis(500);
        for number in [7, 9, 6] {
            track.handle_packet(packet(2, number), later);
        }
        let (ticks, behind) = (i64::from(40_000 * 960_u32), 24_000);
        let expected = [(40_001, ticks + behind), (40_003, ticks + behind + 2 * 960)];
        assert_eq!(sent(&mut track), expected, "6 would be 40000 again");
        track.handle_packet(packet(1, 40_001), later + PACKET);
        assert_eq!(sent(&mut track), [], "and the first one is over");
        assert_eq!(track.figures().lost, 0);
    }

    #[test]
    fn a_source_that_numbers_anew_loses_nothing() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        track.handle_packet(packet(1, 100), now);
        track.handle_packet(packet(1, 60_000), now + PACKET);
        track.handle_packet(packet(1, 60_001), now + PACKET * 2);
        let numbers: Vec<u64> = sent(&mut track).iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [100, 101, 102]);
        assert_eq!(track.figures().lost, 0);
    }

    #[test]
    fn padding_leaves_no_gap() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        let padding = |number| Incoming { payload: Bytes::new(), ..packet(1, number) };
        for number in 10..400 {
            let is_padding = number % 10 == 2;
            match number {
                // Overtaken: by a packet, then by padding.
                25 | 41 => {}
                26 | 42 => {
                    track.handle_packet(
                        if is_padding { padding(number) } else { packet(1, number) },
                        now,
                    );
                    track.handle_packet(packet(1, number - 1), now);
                }
                _ if is_padding => track.handle_packet(padding(number), now),
                _ => track.handle_packet(packet(1, number), now),
            }
        }
        let mut numbers = sent(&mut track);
        numbers.sort_unstable();
        let expected = (10..400).filter(|number| number % 10 != 2);
        let expected: Vec<_> = (10..).zip(expected.map(|number| number * 960)).collect();
        assert_eq!(numbers, expected);
        assert_eq!(track.figures().withheld, 0);
        let later = now + SOURCE_SILENCE;
        track.handle_packet(packet(2, 9_000), later);
        assert_eq!(sent(&mut track)[0].0, expected.last().unwrap().0 + 1);
    }

    #[test]
    fn silence_that_is_not_sent_ends_nothing() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        track.handle_packet(packet(1, 5), now);
        let next = Incoming { timestamp: 3_600 * 48_000, ..packet(1, 6) };
        track.handle_packet(next, now + Duration::from_secs(3_600));
        assert_eq!(sent(&mut track), [(5, 4_800), (6, 3_600 * 48_000)]);
    }

    #[test]
    fn redundancy_level_and_reports_come_along() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        let level = Some(AudioLevel { below_full: 30, voice: Some(true) });
        let report = Some(SenderReport { ntp: 99, timestamp: 480 });
        let whole = Bytes::from_static(&[0x80 | 111, 0x0f, 0, 1, 111, 9, 0x78, 1]);
        for number in 1..3 {
            let (payload, red) = (whole.clone(), Some(111));
            track.handle_packet(Incoming { payload, red, level, report, ..packet(1, number) }, now);
        }
        let outputs = drain(&mut track);
        assert_eq!(outputs.len(), 3, "the report is told once");
        let TrackOutput::Frame(frame) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!((frame.level, &frame.units[0][..]), (level, &[0x78, 1][..]));
        assert_eq!(frame.forwarded.as_ref().unwrap().red, Some(whole));
        let told = TrackOutput::Report { kind: MediaKind::Audio, ntp: 99, ticks: 480 };
        assert_eq!(outputs[1], told);
    }

    #[test]
    fn what_cannot_be_passed_on_is_counted() {
        let (mut track, now) = (ForwardedTrack::default(), Instant::now());
        let red = Some(111);
        let mut large = vec![0x78; MAX_CUT_PAYLOAD + 1];
        track.handle_packet(Incoming { payload: large.clone().into(), ..packet(1, 1) }, now);
        track.handle_packet(Incoming { payload: Bytes::new(), ..packet(1, 2) }, now);
        for (number, payload) in [(3, &[0x80 | 111, 0][..]), (4, &[111]), (5, &[96, 1])] {
            let payload = Bytes::copy_from_slice(payload);
            track.handle_packet(Incoming { payload, red, ..packet(1, number) }, now);
        }
        assert_eq!((drain(&mut track), track.figures().withheld), (vec![], 4));
        // A large packet before, a small one of its own.
        large[..5].copy_from_slice(&[0x80 | 111, 0x0f, 3, 0xff, 111]);
        track.handle_packet(Incoming { payload: large.into(), red, ..packet(1, 6) }, now);
        let outputs = drain(&mut track);
        let TrackOutput::Frame(frame) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(frame.units[0].len(), MAX_CUT_PAYLOAD + 1 - 5 - 1_023);
        assert_eq!(
            frame.forwarded,
            Some(Forwarded { number: 5, marker: false, red: None }),
            "2 was padding"
        );
    }

    proptest! {
        #[test]
        fn no_number_leaves_twice_and_what_is_not_passed_on_is_counted(
            steps in proptest::collection::vec(
                (0_u32..3, 0_u64..70_000, 0_u64..300, 0_u8..4),
                1..200,
            ),
        ) {
            let (mut track, mut now) = (ForwardedTrack::default(), Instant::now());
            let mut numbers = std::collections::HashSet::new();
            let (count, mut paddings) = (steps.len() as u64, 0);
            for (ssrc, number, pause, kind) in steps {
                now += Duration::from_millis(pause);
                // Mostly neighbours, now and then far away.
                let number = if number < 60_000 { number % 300 } else { number };
                let mut incoming = packet(ssrc, number);
                if kind == 0 {
                    incoming.payload = Bytes::new();
                }
                let late = track.figures().late;
                track.handle_packet(incoming, now);
                paddings += u64::from(kind == 0) * (late + 1 - track.figures().late);
                for (number, _) in sent(&mut track) {
                    prop_assert!(numbers.insert(number), "{number} came twice");
                }
            }
            let figures = track.figures();
            prop_assert_eq!(figures.frames, numbers.len() as u64);
            prop_assert_eq!(figures.frames + figures.late + paddings, count);
        }
    }
}
