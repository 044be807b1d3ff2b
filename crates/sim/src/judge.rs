//! Judges what a viewer was given: whole frames as the camera sent them, in order, in time.
//!
//! Knows nothing of packets: both kinds of viewers hand in frames.

use std::collections::VecDeque;

use media::{MediaKind, StreamId};

use crate::clock::SimTime;
use crate::picture::{Log, Published, read_mark};

/// Ticks a second of pictures.
const VIDEO_CLOCK: i64 = 90_000;
/// How far a viewer's timestamps may run away from the time that passed.
const DRIFT_MAX: i64 = VIDEO_CLOCK;
/// What pacing, rounding and the steps of the event loop may add to the network's delay.
const SLACK_US: u64 = 30_000;
/// 30 packets in 2 ms are paced out.
const PACED_PACKET_US: u64 = 2_000 / 30 + 1;

/// After a move, or a request for the picture, pictures come again in this time: the server hears of a
/// new address at the next check of a viewer's, 2.5 s apart for light ones and browsers alike.
const RECOVERY_US: u64 = 8_000_000;

/// How much of what was sent has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Every picture from the first one on, in time.
    All,
    /// Whole groups may be missing: the camera sends more than a viewer is paced.
    Groups,
    /// Its path loses nothing, but it was interrupted or served anew: later keyframes have to come.
    Keyframes,
    /// Its path loses packets.
    Nothing,
}

/// What a viewer got, complete.
pub(crate) struct Received<'a> {
    pub(crate) units: &'a [&'a [u8]],
    /// Extended over wrap-around.
    pub(crate) timestamp: u64,
}

/// A picture that has to arrive.
struct Expected {
    number: usize,
    due: SimTime,
}

/// The newest frame of a track.
#[derive(Debug, Clone, Copy)]
struct Newest {
    number: usize,
    timestamp: u64,
}

/// One viewer's judge.
pub(crate) struct Judge {
    stream: StreamId,
    /// Streams that it played before, of which frames may be under way.
    past: Vec<StreamId>,
    /// Of the newest picture, whichever stream it was of.
    timestamp: Option<u64>,
    demand: Demand,
    delay_us_max: u64,
    attached_at: Option<SimTime>,
    is_attached: bool,
    /// The server sends it pictures: it has had a keyframe since the last interruption.
    playing: bool,
    expected: VecDeque<Expected>,
    expected_packets: u64,
    picture: Option<Newest>,
    sound: Option<Newest>,
    /// Timestamp and capture time of the first picture that was not cached.
    first_live: Option<(u64, i64)>,
    /// When it last asked for the picture again.
    asked_at: Option<SimTime>,
    pub(crate) pictures: u64,
    pub(crate) sounds: u64,
}

impl Judge {
    pub(crate) fn new(stream: StreamId, demand: Demand, delay_us_max: u64) -> Self {
        Self {
            stream,
            past: Vec::new(),
            timestamp: None,
            demand,
            delay_us_max,
            attached_at: None,
            is_attached: false,
            playing: false,
            expected: VecDeque::new(),
            expected_packets: 0,
            picture: None,
            sound: None,
            first_live: None,
            asked_at: None,
            pictures: 0,
            sounds: 0,
        }
    }

    pub(crate) const fn is_strict(&self) -> bool {
        matches!(self.demand, Demand::All | Demand::Groups)
    }

    /// It moves, or wants to be served anew.
    pub(crate) fn relax(&mut self) {
        if self.is_strict() {
            self.demand = Demand::Keyframes;
        }
        self.expected.clear();
    }

    /// The server has its keys and gives it what is cached.
    pub(crate) fn handle_attached(&mut self, log: &Log, now: SimTime) {
        self.attached_at = Some(now);
        self.is_attached = true;
        self.playing = !log.cached().is_empty();
        for number in log.cached() {
            self.expect(number, &log.of(MediaKind::Video)[number], now);
        }
    }

    /// The server was handed the stream's newest picture.
    pub(crate) fn handle_published(&mut self, log: &Log, now: SimTime) {
        let pictures = log.of(MediaKind::Video);
        let Some(newest) = pictures.last().filter(|_| self.is_attached) else { return };
        if is_first_of_epoch(pictures, pictures.len() - 1) {
            self.handle_interruption();
        }
        self.playing |= newest.keyframe;
        if self.playing {
            self.expect(pictures.len() - 1, newest, now);
        }
    }

    /// The server let it go.
    pub(crate) fn handle_detached(&mut self) {
        self.is_attached = false;
        self.handle_interruption();
    }

    /// Whether the server sends to it.
    pub(crate) const fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// What waits for it at the server is dropped.
    pub(crate) fn handle_interruption(&mut self) {
        self.playing = false;
        self.expected.clear();
        self.expected_packets = 0;
    }

    /// It plays another stream from here on, without a gap. Its pictures begin with a keyframe, or a
    /// cached group of which it is not known here how much is given.
    pub(crate) fn handle_switched(&mut self, stream: StreamId, now: SimTime) {
        self.past.push(std::mem::replace(&mut self.stream, stream));
        (self.picture, self.sound, self.first_live) = (None, None, None);
        self.attached_at = Some(now);
        self.playing = false;
        self.handle_asked(now);
    }

    /// Whether a frame is of the stream that it played before, and was under way when it switched.
    fn was_under_way(&self, kind: MediaKind, got: &Received<'_>) -> bool {
        let newest = match kind {
            MediaKind::Video => self.picture,
            MediaKind::Audio => self.sound,
        };
        let mark = got.units.last().and_then(|unit| read_mark(kind, unit));
        let is_past =
            mark.is_some_and(|(stream, _)| stream != self.stream && self.past.contains(&stream));
        is_past && (newest.is_none() || self.past.len() > 1)
    }

    /// Timestamps rise whatever stream a picture is of.
    fn check_rise(&mut self, timestamp: u64) -> Result<(), String> {
        match self.timestamp.replace(timestamp) {
            Some(before) if timestamp <= before => {
                Err(format!("timestamp {timestamp} does not rise above {before}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// It tells the server that it lost its picture.
    pub(crate) fn handle_asked(&mut self, now: SimTime) {
        self.asked_at = Some(now);
        self.relax();
    }

    fn expect(&mut self, number: usize, picture: &Published, now: SimTime) {
        self.expected_packets += picture.packets;
        let paced = self.expected_packets * PACED_PACKET_US;
        let due = match self.demand {
            Demand::All => now + self.delay_us_max + SLACK_US + paced,
            Demand::Keyframes if picture.keyframe => now + RECOVERY_US,
            Demand::Keyframes | Demand::Groups | Demand::Nothing => return,
        };
        self.expected.push_back(Expected { number, due });
    }

    /// Nothing may be overdue.
    pub(crate) fn check(&self, now: SimTime) -> Result<(), String> {
        let Some(first) = self.expected.front().filter(|first| first.due < now) else {
            return Ok(());
        };
        let (number, due, newest) = (first.number, first.due.0, self.picture.map(|at| at.number));
        Err(format!(
            "picture {number} was due at {due} us over a path without loss, the newest is {newest:?}"
        ))
    }

    /// A complete picture arrived.
    pub(crate) fn handle_picture(&mut self, got: &Received<'_>, log: &Log) -> Result<(), String> {
        self.check_rise(got.timestamp)?;
        if self.was_under_way(MediaKind::Video, got) {
            return Ok(());
        }
        let number = self.identify(MediaKind::Video, got, log)?;
        let pictures = log.of(MediaKind::Video);
        self.check_order(number, pictures)?;
        self.check_pace(number, got.timestamp, pictures)?;
        while self.expected.front().is_some_and(|first| first.number <= number) {
            self.expected.pop_front();
        }
        if self.expected.is_empty() {
            self.expected_packets = 0;
        }
        self.picture = Some(Newest { number, timestamp: got.timestamp });
        self.pictures += 1;
        Ok(())
    }

    /// A packet of sound arrived.
    pub(crate) fn handle_sound(&mut self, got: &Received<'_>, log: &Log) -> Result<(), String> {
        if self.was_under_way(MediaKind::Audio, got) {
            return Ok(());
        }
        let number = self.identify(MediaKind::Audio, got, log)?;
        if let Some(before) = self.sound {
            if number <= before.number {
                return Err(format!("sound {number} came behind sound {}", before.number));
            }
            if self.is_strict() && number != before.number + 1 {
                return Err(format!("no sound between {} and {number}", before.number));
            }
        }
        self.sound = Some(Newest { number, timestamp: got.timestamp });
        self.sounds += 1;
        Ok(())
    }

    /// A sender report: at `ntp_us` the track's clock shows `timestamp`. Judged where the newest frame
    /// is certain to be the one that the report was made after.
    pub(crate) fn handle_report(
        &self,
        kind: MediaKind,
        ntp_us: u64,
        timestamp: u32,
        log: &Log,
    ) -> Result<(), String> {
        let newest = match kind {
            MediaKind::Video => self.picture,
            MediaKind::Audio => self.sound,
        };
        let frames = log.of(kind);
        let Some(newest) =
            newest.filter(|newest| self.is_strict() && newest.number + 1 == frames.len())
        else {
            return Ok(());
        };
        let was_cached = self.attached_at.is_none_or(|at| at >= frames[newest.number].at);
        let is_first = is_first_of_epoch(frames, newest.number);
        if was_cached || is_first || !self.expected.is_empty() {
            return Ok(());
        }
        let clock_rate = frames[newest.number].clock_rate;
        let since = ntp_us as i64 - frames[newest.number].captured.unix_micros() as i64;
        let shown = (newest.timestamp as i64 + since * i64::from(clock_rate) / 1_000_000) as u32;
        let off = i64::from(shown.wrapping_sub(timestamp).cast_signed());
        if off.abs() > i64::from(clock_rate) / 200 {
            let number = newest.number;
            return Err(format!("a report puts {kind:?} {number} {off} ticks beside its capture"));
        }
        Ok(())
    }

    /// Whether these units are the end of a picture whose beginning is missing.
    pub(crate) fn is_torn(&self, units: &[&[u8]], log: &Log) -> bool {
        let mark = units.last().and_then(|unit| read_mark(MediaKind::Video, unit));
        let sent = mark.and_then(|(_, number)| log.of(MediaKind::Video).get(number));
        sent.is_some_and(|sent| {
            let missing = sent.units.len().saturating_sub(units.len());
            missing > 0 && units.iter().copied().eq(sent.units[missing..].iter().map(|u| &u[..]))
        })
    }

    /// Which frame it is: as the camera sent it, and of the stream that the viewer watches.
    fn identify(&self, kind: MediaKind, got: &Received<'_>, log: &Log) -> Result<usize, String> {
        let mark = got.units.last().and_then(|unit| read_mark(kind, unit));
        let Some((stream, number)) = mark else {
            return Err(format!("a frame of {kind:?} has no mark"));
        };
        if stream != self.stream {
            return Err(format!("a frame of stream {} came on {}", stream.0, self.stream.0));
        }
        let Some(sent) = log.of(kind).get(number) else {
            return Err(format!("{kind:?} {number} was never sent"));
        };
        if !got.units.iter().copied().eq(sent.units.iter().map(|unit| &unit[..])) {
            let lengths = |units: &mut dyn Iterator<Item = usize>| units.collect::<Vec<_>>();
            let sent = lengths(&mut sent.units.iter().map(|unit| unit.len()));
            let got = lengths(&mut got.units.iter().map(|unit| unit.len()));
            return Err(format!("{kind:?} {number} came as {got:?}, the camera sent {sent:?}"));
        }
        Ok(number)
    }

    fn check_order(&self, number: usize, pictures: &[Published]) -> Result<(), String> {
        let picture = &pictures[number];
        let Some(before) = self.picture else {
            if self.is_strict() && !picture.keyframe {
                return Err(format!("the first picture ({number}) is no keyframe"));
            }
            return Ok(());
        };
        let same_epoch = picture.epoch == pictures[before.number].epoch;
        if number == before.number + 1 && same_epoch {
            return Ok(());
        }
        if number <= before.number && self.asked_at.is_none() {
            return Err(format!("picture {number} came behind picture {}", before.number));
        }
        let may_skip = !same_epoch || self.demand == Demand::Groups;
        if self.is_strict() && !(may_skip && picture.keyframe) {
            return Err(format!("picture {number} came next to picture {}", before.number));
        }
        Ok(())
    }

    /// Timestamps follow the camera's clock, and over all interruptions the time that passes.
    fn check_pace(
        &mut self,
        number: usize,
        timestamp: u64,
        pictures: &[Published],
    ) -> Result<(), String> {
        let picture = &pictures[number];
        if let Some(before) = self.picture {
            if timestamp <= before.timestamp {
                let now = timestamp;
                return Err(format!("timestamp {now} of picture {number} does not rise"));
            }
            // The first live picture may come earlier by jitter than its timestamp may say.
            let second_before = before.number.checked_sub(1).map(|number| pictures[number].at);
            let both_live =
                second_before.is_some_and(|at| self.attached_at.is_some_and(|since| since < at));
            let in_step = number == before.number + 1
                && pictures[before.number].epoch == picture.epoch
                && self.asked_at.is_none();
            let ticks = picture.ticks.wrapping_sub(pictures[before.number].ticks);
            if both_live && in_step && timestamp - before.timestamp != ticks {
                let step = timestamp - before.timestamp;
                return Err(format!("picture {number} comes {step} ticks later, not {ticks}"));
            }
        }
        // What is sent again counts as cached: it was there when the request arrived.
        let cached_before = self.asked_at.map(|at| at + self.delay_us_max + SLACK_US);
        if self.attached_at.max(cached_before).is_none_or(|at| at >= picture.at) {
            return Ok(());
        }
        let captured_us = picture.captured.unix_micros() as i64;
        let (first, first_us) = *self.first_live.get_or_insert((timestamp, captured_us));
        let passed = (captured_us - first_us) * VIDEO_CLOCK / 1_000_000;
        let drift = (timestamp - first) as i64 - passed;
        if drift.abs() > DRIFT_MAX {
            return Err(format!("picture {number} is {drift} ticks off the time that passed"));
        }
        Ok(())
    }
}

fn is_first_of_epoch(frames: &[Published], number: usize) -> bool {
    number == 0 || frames[number - 1].epoch != frames[number].epoch
}

#[cfg(test)]
mod tests {
    use media::{Codec, Frame, NtpTime};

    use super::*;
    use crate::picture::{Sizes, units};
    use crate::random::Random;

    const STREAM: StreamId = StreamId(3);

    #[test]
    fn what_the_camera_sent_passes_and_nothing_else() {
        let log = log(4);
        let mut judge = judge(&log, Demand::All);
        assert_eq!(hand_in(&mut judge, &log, 0, 0), Ok(()));
        let sent = &log.of(MediaKind::Video)[1].units;
        let mut forged: Vec<Vec<u8>> = sent.iter().map(|unit| unit.to_vec()).collect();
        *forged[0].last_mut().unwrap() ^= 2;
        let forged: Vec<&[u8]> = forged.iter().map(|unit| &unit[..]).collect();
        let got = Received { units: &forged, timestamp: 90 };
        assert!(judge.handle_picture(&got, &log).unwrap_err().contains("the camera sent"));
    }

    #[test]
    fn a_picture_that_is_left_out_is_missed() {
        let log = log(4);
        let mut judge = judge(&log, Demand::All);
        hand_in(&mut judge, &log, 0, 0).unwrap();
        assert!(hand_in(&mut judge, &log, 2, 90).is_err());
        let mut lossy = self::judge(&log, Demand::Nothing);
        hand_in(&mut lossy, &log, 0, 0).unwrap();
        assert_eq!(hand_in(&mut lossy, &log, 2, 90), Ok(()));
        assert!(hand_in(&mut lossy, &log, 1, 180).is_err(), "none comes behind a later one");
    }

    #[test]
    fn what_does_not_come_in_time_is_missed() {
        let log = log(1);
        let mut judge = judge(&log, Demand::All);
        assert_eq!(judge.check(SimTime::from_ms(30)), Ok(()));
        assert!(judge.check(SimTime::from_ms(60)).is_err());
        hand_in(&mut judge, &log, 0, 0).unwrap();
        assert_eq!(judge.check(SimTime::from_ms(60)), Ok(()));
    }

    #[test]
    fn a_timestamp_that_does_not_rise_is_noticed() {
        let log = log(2);
        let mut judge = judge(&log, Demand::All);
        hand_in(&mut judge, &log, 0, 500).unwrap();
        assert!(hand_in(&mut judge, &log, 1, 500).unwrap_err().contains("does not rise"));
    }

    /// A keyframe and others, all cached before the viewer comes.
    fn log(pictures: usize) -> Log {
        let sizes = Sizes { keyframe: (100, 2_000), other: (10, 50), slices_max: 2 };
        let mut random = Random::new(1);
        let mut log = Log::default();
        for number in 0..pictures {
            let keyframe = number == 0;
            let frame = Frame {
                forwarded: None,
                codec: Codec::H264,
                ticks: number as u64 * 6_000,
                captured: NtpTime::from_unix_micros(number as u64 * 66_667),
                keyframe,
                discontinuity: keyframe,
                units: units(STREAM, number, keyframe, &sizes, &mut random),
            };
            let cut = media::packetise::packetise(&frame);
            log.publish(&frame, &cut, 1, SimTime::default());
        }
        log
    }

    fn judge(log: &Log, demand: Demand) -> Judge {
        let mut judge = Judge::new(STREAM, demand, 5_000);
        judge.handle_attached(log, SimTime::default());
        judge
    }

    fn hand_in(judge: &mut Judge, log: &Log, number: usize, timestamp: u64) -> Result<(), String> {
        let units = &log.of(MediaKind::Video)[number].units;
        let units: Vec<&[u8]> = units.iter().map(|unit| &unit[..]).collect();
        judge.handle_picture(&Received { units: &units, timestamp }, log)
    }
}
