//! Places a camera's RTP timestamps on this server's wall clock.
//!
//! A camera's sender reports (RFC 3550 §6.4.1) tie each track's RTP clock to the camera's own clock.
//! One offset a session, shared by all tracks, ties that clock to ours, so that picture and sound
//! stay together however wrong the camera's clock is. A track without believable reports is placed
//! by the arrival of its frames.
//!
//! This module reads no clock: it is told the time. All times are microseconds in `i64`; ours count
//! from the Unix epoch, the camera's from wherever it says.

use media::{MediaKind, NtpTime};

/// How long the smallest delay is remembered at least; twice as long at most. Long enough to see
/// one frame that the network did not delay, short enough that a clock 100 ppm off gathers 2 ms.
const WINDOW: i64 = 10_000_000;

/// A sender report this far from the previous one says that the camera's clock was set. Honest
/// reports differ by the camera's scheduling, tens of milliseconds.
const REPORT_JUMP_MIN: i64 = 200_000;

/// Delays further apart do not belong to one clock: a track's reports contradict the other
/// track's, or its timestamps have jumped. A stalled network delays less.
const DELAY_SPREAD_MAX: i64 = 10_000_000;

/// A report further from the newest frame speaks of another timeline. Reports come every few
/// seconds (RFC 3550 §6.2), rarely every minute.
const REPORT_DISTANCE_MAX: i64 = 3_600_000_000;

/// Placement errors up to this are corrected by slewing, larger ones at once.
const SLEW_ERROR_MAX: i64 = 1_000_000;

/// One part in this many of the time that passes may go into correction: 5 %, which hides
/// the usual 50 ms of a first keyframe within a second.
const SLEW_PARTS: i64 = 20;

/// Keeps sums of a few times far from overflow, whatever a camera sends.
const TIME_MAX: i128 = 1 << 60;

/// The clocks of one session with a camera.
#[derive(Debug)]
pub(crate) struct SourceClock {
    video: Track,
    audio: Track,
    /// Our clock minus the camera's.
    camera: SmallestDelay,
    /// How far the camera's clock was set in this session.
    shift: i64,
}

#[derive(Debug)]
struct Track {
    /// RTP ticks a second.
    rate: u32,
    report: Option<Report>,
    /// Our clock minus the time that the ticks alone say.
    arrival: SmallestDelay,
    last: Option<Placed>,
}

/// What a sender report says.
#[derive(Debug, Clone, Copy)]
struct Report {
    /// The camera's time, less `shift`.
    camera: i64,
    ticks: i64,
    /// How far the camera's clock was set since the session began.
    shift: i64,
}

/// A frame that was placed.
#[derive(Debug, Clone, Copy)]
struct Placed {
    ticks: i64,
    captured: i64,
}

impl SourceClock {
    /// A session whose tracks count `video_rate` and `audio_rate` ticks a second, both above 0.
    pub(crate) fn new(video_rate: u32, audio_rate: u32) -> Self {
        Self {
            video: Track::new(video_rate),
            audio: Track::new(audio_rate),
            camera: SmallestDelay::default(),
            shift: 0,
        }
    }

    /// A sender report: `ticks` (extended as the frames' are) were at `ntp` on the camera's clock.
    pub(crate) fn handle_sender_report(&mut self, kind: MediaKind, ntp: u64, ticks: i64) {
        // RFC 3550 §6.4.1: zero from a sender that has no notion of wall clock.
        if ntp == 0 {
            return;
        }
        let shift = self.shift;
        let track = self.track(kind);
        if let Some(report) = track.next_report(micros_of_ntp(ntp), ticks, shift) {
            track.report = Some(report);
            self.shift = report.shift;
        }
    }

    /// When the frame at `ticks` was captured, for a frame that arrived at `arrival`. Never goes
    /// back on one track, and never runs more than 5 % fast or slow unless a timeline breaks.
    pub(crate) fn captured(&mut self, kind: MediaKind, ticks: i64, arrival: i64) -> NtpTime {
        let track = match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        };
        let by_ticks = micros_of_ticks(ticks, track.rate);
        if track.arrival.observe(arrival - by_ticks, arrival) == Observed::Elsewhere {
            track.arrival = SmallestDelay::starting(arrival - by_ticks, arrival);
            track.report = None;
        }
        let mut target = by_ticks + track.arrival.smallest();
        if let Some(report) = track.report {
            let camera = report.camera_time(ticks, track.rate);
            if self.camera.observe(arrival - camera, arrival) == Observed::Near {
                target = camera + self.camera.smallest();
            }
        }
        let captured = track.place(ticks, target);
        NtpTime::from_unix_micros(u64::try_from(captured).unwrap_or(0))
    }

    fn track(&mut self, kind: MediaKind) -> &mut Track {
        match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        }
    }
}

impl Track {
    fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), report: None, arrival: SmallestDelay::default(), last: None }
    }

    /// The newest report, moved so that it continues the one before when the camera's clock was set.
    /// `None` when it speaks of another timeline than the frames.
    fn next_report(&self, camera: i64, ticks: i64, session_shift: i64) -> Option<Report> {
        let distance = self.last.map_or(0, |last| ticks.saturating_sub(last.ticks));
        if micros_of_ticks(distance, self.rate).abs() > REPORT_DISTANCE_MAX {
            return None;
        }
        let (Some(before), Some(_)) = (self.report, self.last) else {
            return Some(Report { camera: camera - session_shift, ticks, shift: session_shift });
        };
        let error = camera - before.shift - before.camera_time(ticks, self.rate);
        let shift = if error.abs() > REPORT_JUMP_MIN { before.shift + error } else { before.shift };
        Some(Report { camera: camera - shift, ticks, shift })
    }

    /// Moves from the last frame towards `target` as fast as slewing allows.
    fn place(&mut self, ticks: i64, target: i64) -> i64 {
        let captured = match self.last {
            None => target,
            Some(last) => {
                let passed = micros_of_ticks(ticks.saturating_sub(last.ticks), self.rate);
                let error = target - (last.captured + passed);
                if passed <= 0 || error.abs() > SLEW_ERROR_MAX {
                    target.max(last.captured + 1)
                } else {
                    let room = passed / SLEW_PARTS;
                    last.captured + passed + error.clamp(-room, room)
                }
            }
        };
        self.last = Some(Placed { ticks, captured });
        captured
    }
}

impl Report {
    fn camera_time(&self, ticks: i64, rate: u32) -> i64 {
        self.camera + micros_of_ticks(ticks.saturating_sub(self.ticks), rate)
    }
}

/// The smallest of the newest delays. What the network adds varies, what the clocks differ by does
/// not, so the smallest one is nearest to the clocks' difference.
#[derive(Debug, Default)]
struct SmallestDelay {
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: i64,
    current: i64,
    previous: i64,
    /// When the last delay was taken in.
    latest: i64,
}

/// Whether a delay belongs to those seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observed {
    Near,
    /// Too far off, and not taken in.
    Elsewhere,
}

impl SmallestDelay {
    fn starting(delay: i64, now: i64) -> Self {
        Self { window: Some(Window { since: now, current: delay, previous: delay, latest: now }) }
    }

    fn observe(&mut self, delay: i64, now: i64) -> Observed {
        let Some(window) = &mut self.window else {
            *self = Self::starting(delay, now);
            return Observed::Near;
        };
        if (delay - window.smallest()).abs() > DELAY_SPREAD_MAX {
            // Nobody has confirmed the old delays for long, so this one is as good.
            if now - window.latest > 2 * WINDOW {
                *self = Self::starting(delay, now);
                return Observed::Near;
            }
            return Observed::Elsewhere;
        }
        if now - window.since >= WINDOW {
            window.since = now;
            window.previous = window.current;
            window.current = delay;
        }
        window.current = window.current.min(delay);
        window.latest = now;
        Observed::Near
    }

    /// 0 when there is none.
    fn smallest(&self) -> i64 {
        self.window.map_or(0, |window| window.smallest())
    }
}

impl Window {
    fn smallest(&self) -> i64 {
        self.current.min(self.previous)
    }
}

fn micros_of_ticks(ticks: i64, rate: u32) -> i64 {
    let micros = i128::from(ticks) * 1_000_000 / i128::from(rate);
    i64::try_from(micros.clamp(-TIME_MAX, TIME_MAX)).unwrap_or(0)
}

/// Microseconds since 1900, or since the era's begin after 2036.
fn micros_of_ntp(ntp: u64) -> i64 {
    let micros = (u128::from(ntp) * 1_000_000) >> 32;
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO_RATE: u32 = 90_000;
    const AUDIO_RATE: u32 = 48_000;
    /// 2025-01-01, in microseconds since the Unix epoch.
    const NOW: i64 = 1_735_689_600_000_000;

    fn micros(time: NtpTime) -> i64 {
        i64::try_from(time.unix_micros()).expect("is a time of ours")
    }

    fn ntp(micros_since_1900: i64) -> u64 {
        let micros = u128::try_from(micros_since_1900).expect("is after 1900");
        u64::try_from((micros << 32) / 1_000_000).expect("is before 2036")
    }

    /// A camera that captures picture and sound at the same moments, `second` after `second`.
    struct Camera {
        clock: SourceClock,
        /// The camera's clock at `NOW`, in microseconds since 1900.
        camera_time: i64,
        audio_network: i64,
    }

    impl Camera {
        fn new(camera_time: i64) -> Self {
            let clock = SourceClock::new(VIDEO_RATE, AUDIO_RATE);
            Self { clock, camera_time, audio_network: 300_000 }
        }

        /// One second of 25 pictures, each with sound; true capture time, placed picture and sound.
        fn second(&mut self, second: i64, jitter: &[i64]) -> Vec<(i64, i64, i64)> {
            (0..25)
                .map(|index| {
                    let elapsed = second * 1_000_000 + index * 40_000;
                    let late = jitter[usize::try_from(index).expect("small") % jitter.len()];
                    let video_ticks = 7_000 + elapsed * i64::from(VIDEO_RATE) / 1_000_000;
                    let audio_ticks = 900_000 + elapsed * i64::from(AUDIO_RATE) / 1_000_000;
                    let at = NOW + elapsed;
                    let video = self.clock.captured(MediaKind::Video, video_ticks, at + late);
                    let arrival = at + self.audio_network + late / 2;
                    let audio = self.clock.captured(MediaKind::Audio, audio_ticks, arrival);
                    (at, micros(video), micros(audio))
                })
                .collect()
        }

        fn reports(&mut self, second: i64) {
            let elapsed = second * 1_000_000;
            let camera = ntp(self.camera_time + elapsed);
            let video_ticks = 7_000 + elapsed * i64::from(VIDEO_RATE) / 1_000_000;
            let audio_ticks = 900_000 + elapsed * i64::from(AUDIO_RATE) / 1_000_000;
            self.clock.handle_sender_report(MediaKind::Video, camera, video_ticks);
            self.clock.handle_sender_report(MediaKind::Audio, camera, audio_ticks);
        }
    }

    #[test]
    fn without_reports_frames_lie_where_the_least_delayed_arrived() {
        let mut camera = Camera::new(0);
        for second in 0..5 {
            for (at, video, audio) in camera.second(second, &[0, 20_000, 60_000, 5_000]) {
                assert!((video - at).abs() <= 1_000, "picture is {} us off", video - at);
                assert!((audio - at - 300_000).abs() <= 1_000, "sound is {} us off", audio - at);
            }
        }
    }

    #[test]
    fn reports_bring_picture_and_sound_together_even_from_1970() {
        // 1970 on the camera's clock is 70 years after 1900.
        let mut camera = Camera::new(70 * 31_557_600 * 1_000_000);
        for second in 0..20 {
            camera.reports(second);
            for (at, video, audio) in camera.second(second, &[30_000, 0, 10_000]) {
                assert!((video - audio).abs() <= 1_000 || second < 8, "{}", video - audio);
                assert!((video - at).abs() <= 35_000, "picture is {} us off", video - at);
            }
        }
    }

    #[test]
    fn a_camera_clock_that_is_set_moves_nothing() {
        let mut camera = Camera::new(70 * 31_557_600 * 1_000_000);
        for second in 0..30 {
            if second == 10 {
                camera.camera_time += 55 * 31_557_600 * 1_000_000;
            }
            if second == 20 {
                camera.camera_time -= 3_600_000_000;
            }
            camera.reports(second);
            for (at, video, audio) in camera.second(second, &[0, 15_000]) {
                assert!((video - audio).abs() <= 1_000 || second < 8, "{}", video - audio);
                assert!((video - at).abs() <= 20_000, "picture is {} us off", video - at);
            }
        }
    }

    #[test]
    fn a_track_whose_own_clock_is_wrong_is_placed_by_arrival() {
        let mut camera = Camera::new(70 * 31_557_600 * 1_000_000);
        for second in 0..10 {
            let ticks = 7_000 + second * i64::from(VIDEO_RATE);
            camera.clock.handle_sender_report(MediaKind::Video, ntp(1_000_000), ticks);
            let camera_time = ntp(camera.camera_time + second * 1_000_000);
            let ticks = 900_000 + second * i64::from(AUDIO_RATE);
            camera.clock.handle_sender_report(MediaKind::Audio, camera_time, ticks);
            for (at, video, audio) in camera.second(second, &[0]) {
                assert!((video - at).abs() <= 500_000, "picture is {} us off", video - at);
                assert!((audio - at).abs() <= 500_000, "sound is {} us off", audio - at);
            }
        }
    }

    #[test]
    fn a_timeline_that_restarts_is_found_again_by_arrival() {
        let mut clock = SourceClock::new(VIDEO_RATE, AUDIO_RATE);
        for (frame, base) in [(0, 0), (1, 0), (2, 0), (3, 900_000_000), (4, 900_000_000)] {
            let arrival = NOW + frame * 40_000;
            let captured = clock.captured(MediaKind::Video, base + frame * 3_600, arrival);
            assert!((micros(captured) - arrival).abs() < 1_000, "{frame}");
        }
    }

    #[test]
    fn a_slow_camera_clock_is_followed() {
        let mut clock = SourceClock::new(VIDEO_RATE, AUDIO_RATE);
        // 100 ppm slow over an hour are 360 ms.
        for second in 0..3_600_i64 {
            let ticks = second * i64::from(VIDEO_RATE) - second * 9;
            clock.handle_sender_report(MediaKind::Video, ntp(1 + second * 999_900), ticks);
            let arrival = NOW + second * 1_000_000;
            let captured = micros(clock.captured(MediaKind::Video, ticks, arrival));
            assert!((captured - arrival).abs() <= 3_000, "{}", captured - arrival);
        }
    }

    /// What a hostile camera can do between two frames.
    #[derive(Debug, Clone)]
    struct Event {
        kind: MediaKind,
        ticks: i64,
        late: i64,
        report: Option<(u64, i64)>,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let kind = prop_oneof![Just(MediaKind::Video), Just(MediaKind::Audio)];
        let ticks = prop_oneof![9 => 0..10_000_i64, 1 => any::<i32>().prop_map(i64::from)];
        let report = proptest::option::of((any::<u64>(), any::<i64>()));
        (kind, ticks, 0..2_000_000_i64, report).prop_map(|(kind, ticks, late, report)| Event {
            kind,
            ticks,
            late,
            report,
        })
    }

    proptest! {
        #[test]
        fn captured_never_goes_back(events in proptest::collection::vec(any_event(), 1..200)) {
            let mut clock = SourceClock::new(VIDEO_RATE, AUDIO_RATE);
            let (mut ticks, mut last) = ([0_i64; 2], [0_i64; 2]);
            for (step, event) in (0_i64..).zip(&events) {
                let track = usize::from(event.kind == MediaKind::Audio);
                if let Some((ntp, at)) = event.report {
                    clock.handle_sender_report(event.kind, ntp, at);
                }
                ticks[track] += event.ticks;
                let arrival = NOW + step * 40_000 + event.late;
                let captured = micros(clock.captured(event.kind, ticks[track], arrival));
                prop_assert!(captured >= last[track], "{captured} after {}", last[track]);
                last[track] = captured;
            }
        }

        #[test]
        fn time_runs_at_most_five_percent_fast_or_slow(
            jitter in proptest::collection::vec(0..150_000_i64, 25),
            jumps in proptest::collection::vec(-100_000_000_000_i64..100_000_000_000, 30),
        ) {
            let mut camera = Camera::new(2_000_000_000_000_000);
            let mut last: Option<(i64, i64)> = None;
            for (second, jump) in (0_i64..).zip(&jumps) {
                camera.camera_time += jump;
                camera.reports(second);
                for (_, video, audio) in camera.second(second, &jitter) {
                    if let Some((video_before, audio_before)) = last {
                        prop_assert!((video - video_before - 40_000).abs() <= 2_001);
                        prop_assert!((audio - audio_before - 40_000).abs() <= 2_001);
                    }
                    last = Some((video, audio));
                }
            }
        }
    }
}
