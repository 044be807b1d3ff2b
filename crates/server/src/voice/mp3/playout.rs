//! From packets that come when they come to sound that never stops: silence where nothing is there,
//! and the speaker's clock followed by resampling a little faster or slower. No clock of its own: who
//! pulls keeps time.
//!
//! ```text
//! push: 48 kHz, as packets come -> waiting -> resampled by 0.91875 ± 0.5 % -> pull: frames of 44.1 kHz
//! ```

use std::collections::VecDeque;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler, ResamplerConstructionError, SincInterpolationParameters,
    SincInterpolationType, WindowFunction,
};

use super::frames::{CHANNELS, FRAME_SAMPLES, SAMPLE_RATE};
use super::packets::DECODED_RATE;

/// Samples a channel in a millisecond of what waits.
const MILLISECOND: usize = DECODED_RATE / 1000;

/// What waits beyond the newest packet before a voice is heard: packets that are late by this much,
/// and by the 26 ms between two pulls, are not missed.
const HEAD_START: usize = 40 * MILLISECOND;

/// What should be left when the least waits.
const RESERVE: usize = 20 * MILLISECOND;

/// More than this above the reserve is left out as soon as nobody would hear that.
const SURPLUS: usize = 60 * MILLISECOND;

/// Most that waits. A sender whose line was held up sends all at once; more than this of it is not
/// worth the delay.
const WAITING_MAX: usize = 1000 * MILLISECOND;

/// Pulls between two looks at how the clocks differ: one second.
const LOOK_PULLS: u32 = 38;

/// An error of the reserve is made good within so many seconds.
const CORRECTION_SECONDS: f64 = 10.0;

/// Nobody hears half a percent of pitch; clocks differ by a hundredth of that.
const CORRECTION_MAX: f64 = 0.005;

/// Pulls after which even less than the head start is heard, so that a single packet does not wait for
/// the next word: 78 ms.
const PATIENCE_PULLS: u32 = 3;

/// How long sound takes to its full loudness, and to fade when it breaks off: 2.5 ms.
const RAMP: usize = 120;

/// Amplitude below which it does not matter whether sound is heard: -50 dB.
const QUIET: f32 = 0.003;

/// Turns one voice into frames for the encoder.
pub(super) struct Playout {
    /// Left and right in turn.
    waiting: VecDeque<f32>,
    state: State,
    /// Samples a channel of the newest packet.
    packet: usize,
    look: Look,
    resampler: Async<f32>,
    /// What goes into the resampler, kept for its allocation; and what comes out.
    input: Vec<f32>,
    output: Vec<f32>,
    tally: Tally,
}

/// What happened since it was asked last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How often the voice broke off or paused, and silence was put in.
    pub(super) pauses: u64,
    /// How often something was left out to catch up.
    pub(super) skips: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Silence, until enough waits. So many pulls since something does.
    Filling {
        pulls: u32,
    },
    Playing,
}

/// The least that waited after a pull, since the last look.
#[derive(Debug, Clone, Copy)]
struct Look {
    pulls: u32,
    least: usize,
    /// That of the look before.
    surplus: usize,
}

impl Look {
    const NEW: Self = Self { pulls: 0, least: usize::MAX, surplus: 0 };
}

impl Playout {
    pub(super) fn new() -> Result<Self, ResamplerConstructionError> {
        // 64 points: aliases are 60 dB down and all below 19 kHz is kept, where LAME cuts off at 17.
        let filter = SincInterpolationParameters::new(64, WindowFunction::Hann2)
            .interpolation(SincInterpolationType::Linear)
            .oversampling_factor(256);
        let ratio = SAMPLE_RATE as f64 / DECODED_RATE as f64;
        let resampler = Async::new_sinc(
            ratio,
            1.0 + 2.0 * CORRECTION_MAX,
            &filter,
            FRAME_SAMPLES,
            CHANNELS,
            FixedAsync::Output,
        )?;
        Ok(Self {
            waiting: VecDeque::new(),
            state: State::Filling { pulls: 0 },
            packet: 0,
            look: Look::NEW,
            resampler,
            input: Vec::new(),
            output: vec![0.0; FRAME_SAMPLES * CHANNELS],
            tally: Tally::default(),
        })
    }

    /// Sound of a packet: left and right in turn, at [`DECODED_RATE`].
    pub(super) fn push(&mut self, sound: &[f32]) {
        self.packet = sound.len() / CHANNELS;
        self.waiting.extend(sound);
        if self.waiting_samples() > WAITING_MAX {
            let kept = self.head_start().min(WAITING_MAX);
            self.skip(self.waiting_samples() - kept);
        }
    }

    /// The next frame of sound at [`SAMPLE_RATE`], left and right in turn; [`FRAME_SAMPLES`] of each.
    pub(super) fn pull(&mut self) -> &[f32] {
        if self.look.pulls >= LOOK_PULLS {
            self.follow_clock();
        }
        let wanted = self.resampler.input_frames_next();
        self.input.clear();
        match self.state {
            State::Playing => self.play(wanted),
            State::Filling { pulls } => self.fill(wanted, pulls),
        }
        self.input.resize(wanted * CHANNELS, 0.0);
        self.resample(wanted);
        &self.output
    }

    /// Whether nothing waits to be heard.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What happened since the last call.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Samples a channel that wait.
    fn waiting_samples(&self) -> usize {
        self.waiting.len() / CHANNELS
    }

    fn head_start(&self) -> usize {
        HEAD_START + self.packet
    }

    fn fill(&mut self, wanted: usize, pulls: u32) {
        let is_ready = self.waiting_samples() >= self.head_start() || pulls >= PATIENCE_PULLS;
        if self.waiting.is_empty() || !is_ready {
            let pulls = if self.waiting.is_empty() { 0 } else { pulls + 1 };
            self.state = State::Filling { pulls };
            return;
        }
        self.state = State::Playing;
        self.look = Look { surplus: self.look.surplus, ..Look::NEW };
        for (index, sample) in self.waiting.iter_mut().take(RAMP * CHANNELS).enumerate() {
            *sample *= (index / CHANNELS) as f32 / RAMP as f32;
        }
        self.play(wanted);
    }

    fn play(&mut self, wanted: usize) {
        if self.look.surplus > SURPLUS && self.is_next_quiet(wanted) {
            self.skip(wanted);
            self.look.surplus = self.look.surplus.saturating_sub(wanted);
        }
        if self.waiting_samples() < wanted {
            self.input.extend(self.waiting.drain(..));
            self.break_off();
        } else {
            self.input.extend(self.waiting.drain(..wanted * CHANNELS));
            self.look.least = self.look.least.min(self.waiting_samples());
            self.look.pulls += 1;
        }
    }

    /// Silence follows what `input` has, without a click.
    fn break_off(&mut self) {
        self.tally.pauses += 1;
        self.state = State::Filling { pulls: 0 };
        let start = self.input.len().saturating_sub(RAMP * CHANNELS);
        let ramp = self.input.get_mut(start..).unwrap_or_default();
        let length = ramp.len().max(1) as f32;
        for (index, sample) in ramp.iter_mut().enumerate() {
            *sample *= 1.0 - index as f32 / length;
        }
    }

    /// Once a second: are we slower than the speaker, or faster?
    fn follow_clock(&mut self) {
        let error = (self.look.least as f64 - RESERVE as f64) / DECODED_RATE as f64;
        let correction = (error / CORRECTION_SECONDS).clamp(-CORRECTION_MAX, CORRECTION_MAX);
        if let Some(resampler) = self.resampler.as_adjustable() {
            // Within the bounds that it was made for.
            let _ = resampler.set_resample_ratio_relative(1.0 - correction, true);
        }
        self.look = Look { surplus: self.look.least.saturating_sub(RESERVE), ..Look::NEW };
    }

    fn is_next_quiet(&self, samples: usize) -> bool {
        self.waiting_samples() > samples + RESERVE
            && self.waiting.iter().take(samples * CHANNELS).all(|sample| sample.abs() < QUIET)
    }

    fn skip(&mut self, samples: usize) {
        self.tally.skips += 1;
        self.waiting.drain(..(samples * CHANNELS).min(self.waiting.len()));
    }

    fn resample(&mut self, wanted: usize) {
        let input = InterleavedSlice::new(&self.input, CHANNELS, wanted);
        let output = InterleavedSlice::new_mut(&mut self.output, CHANNELS, FRAME_SAMPLES);
        let (Ok(input), Ok(mut output)) = (input, output) else { return };
        let resampled = self.resampler.process_into_buffer(&input, &mut output, None);
        debug_assert!(resampled.is_ok(), "both buffers have the lengths that were asked for");
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::ingest::opus::tests::power;

    /// A speaker, whose packets of 20 ms come by a clock of its own, and a playout that is pulled by
    /// ours.
    struct World {
        playout: Playout,
        /// Samples that the speaker has made by its clock.
        spoken: usize,
        pulled: u64,
        /// The speaker's second in ours.
        rate: f64,
        loudness: f32,
    }

    impl World {
        fn new(rate: f64) -> Self {
            let playout = Playout::new().unwrap();
            Self { playout, spoken: 0, pulled: 0, rate, loudness: 0.25 }
        }

        fn packet(&mut self) -> Vec<f32> {
            let from = self.spoken;
            self.spoken += 960;
            let time = |sample: usize| sample as f64 / DECODED_RATE as f64;
            (from..from + 960)
                .flat_map(|sample| {
                    let value = (TAU * 440.0 * time(sample)).sin() as f32 * self.loudness;
                    [value, value]
                })
                .collect()
        }

        /// Both go on; the left channel of what is heard.
        fn run(&mut self, seconds: f64) -> Vec<i16> {
            let mut heard = Vec::new();
            let pulls = (seconds * SAMPLE_RATE as f64 / FRAME_SAMPLES as f64) as u64;
            for _ in 0..pulls {
                self.pulled += 1;
                let now = self.pulled as f64 * FRAME_SAMPLES as f64 / SAMPLE_RATE as f64;
                while (self.spoken + 960) as f64 <= now * DECODED_RATE as f64 * self.rate {
                    let packet = self.packet();
                    self.playout.push(&packet);
                }
                heard.extend(self.pull());
            }
            heard
        }

        fn pull(&mut self) -> Vec<i16> {
            let sound = self.playout.pull();
            sound.iter().step_by(2).map(|sample| (sample * 32_767.0) as i16).collect()
        }
    }

    fn assert_tone(samples: &[i16]) {
        let rate = SAMPLE_RATE as u32;
        let (at_tone, beside) = (power(samples, 440.0, rate), power(samples, 1310.0, rate));
        assert!(at_tone > 1e4 * beside, "{at_tone} at the tone, {beside} beside");
    }

    #[test]
    fn a_voice_is_heard_soon_and_without_a_break() {
        let mut world = World::new(1.0);
        let heard = world.run(5.0);
        let onset = heard.iter().position(|sample| sample.abs() > 1_000).unwrap();
        assert!(onset < SAMPLE_RATE / 10, "heard after {onset} samples");
        assert_tone(&heard[SAMPLE_RATE..3 * SAMPLE_RATE]);
        assert_eq!(world.playout.take_tally(), Tally::default());
    }

    #[test]
    fn clocks_that_differ_are_followed_without_a_break() {
        for rate in [0.9995, 1.0005] {
            let mut world = World::new(rate);
            world.run(120.0);
            assert_eq!(world.playout.take_tally(), Tally::default(), "at {rate}");
            let waiting = world.playout.waiting_samples() / MILLISECOND;
            assert!((10..90).contains(&waiting), "{waiting} ms wait at {rate}");
        }
    }

    #[test]
    fn a_pause_is_silence_and_the_voice_comes_back() {
        let mut world = World::new(1.0);
        world.run(2.0);
        let silence: Vec<i16> = (0..100).flat_map(|_| world.pull()).collect();
        assert!(silence[FRAME_SAMPLES * 6..].iter().all(|sample| *sample == 0));
        world.pulled = 77;
        let back = world.run(2.0);
        assert_tone(&back[SAMPLE_RATE / 2..]);
        assert_eq!(world.playout.take_tally(), Tally { pauses: 1, skips: 0 });
    }

    #[test]
    fn nothing_clicks_where_a_voice_breaks_off() {
        let mut world = World::new(1.0);
        let heard: Vec<i16> =
            world.run(1.0).into_iter().chain((0..10).flat_map(|_| world.pull())).collect();
        let steps = heard.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        // The steepest step of the tone itself is 513.
        let steepest = steps.max().unwrap();
        assert!(steepest < 1_000, "a step of {steepest}");
    }

    #[test]
    fn a_single_packet_is_heard_too() {
        let mut world = World::new(1.0);
        let packet = world.packet();
        world.playout.push(&packet);
        let heard: Vec<i16> = (0..6).flat_map(|_| world.pull()).collect();
        assert!(heard.iter().any(|sample| sample.abs() > 1_000));
        assert!(world.playout.is_empty());
    }

    #[test]
    fn what_was_held_up_is_made_good_in_the_next_pause() {
        let mut world = World::new(1.0);
        world.run(3.0);
        for _ in 0..20 {
            let packet = world.packet();
            world.playout.push(&packet);
        }
        world.spoken -= 20 * 960;
        world.run(4.0);
        assert!(world.playout.waiting_samples() > 300 * MILLISECOND);
        world.loudness = 0.0;
        world.run(3.0);
        let waiting = world.playout.waiting_samples() / MILLISECOND;
        assert!(waiting < 150, "{waiting} ms still wait");
        let tally = world.playout.take_tally();
        assert!(tally.pauses == 0 && tally.skips > 0, "{tally:?}");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut world = World::new(1.0);
        for _ in 0..1_000 {
            let packet = world.packet();
            world.playout.push(&packet);
            assert!(world.playout.waiting_samples() <= WAITING_MAX);
        }
        assert!(world.playout.take_tally().skips > 0);
    }
}
