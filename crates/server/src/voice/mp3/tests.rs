//! A voice of Opus packets in real time through the media plane, and what a speaker hears of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use media::{Codec, Forwarded, Frame, NtpTime};
use symphonia_bundle_mp3::MpaDecoder;
use symphonia_core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia_core::packet::PacketRef;
use symphonia_core::units;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frames::{FrameCutter, SAMPLE_RATE};
use super::*;
use crate::ingest::opus::OpusEncoder;
use crate::ingest::opus::tests::{power, tone};
use crate::net::{FIRST_VOICE, MediaConfig, MediaTcp, Priority};

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Voices that are made up, and the server's part that plays them.
pub(crate) struct Studio {
    pub(crate) mp3: Mp3,
    media: MediaPlane,
    voices: watch::Sender<Arc<[LiveVoice]>>,
}

/// Somebody who speaks: a tone, in packets of 20 ms. Dropping it cuts the line and leaves the voice.
pub(crate) struct Speaker {
    id: String,
    task: JoinHandle<()>,
    /// Of so many packets, one is lost; 0 loses none.
    lost: Arc<AtomicU64>,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Studio {
    pub(crate) fn open() -> Self {
        let (events, _) = mpsc::unbounded_channel();
        let udp = "127.0.0.1:0".parse().unwrap();
        let config = MediaConfig {
            udp,
            tcp: MediaTcp::Off,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let media = MediaPlane::start(&config, events).unwrap();
        let (voices, live) = watch::channel(Arc::from([]));
        let mp3 = Mp3::new(media.clone(), live);
        Self { mp3, media, voices }
    }

    /// `stream_<number>` begins, with a tone of this many Hz.
    pub(crate) fn speak(&self, number: u32, hertz: f64) -> Speaker {
        let stream = StreamId(FIRST_VOICE.0 + number);
        let id = format!("stream_{number}");
        let voice = LiveVoice { id: id.clone(), stream, began: std::time::Instant::now() };
        self.voices.send_modify(|voices| {
            *voices = voices.iter().cloned().chain([voice]).collect();
        });
        let lost = Arc::<AtomicU64>::default();
        let task = tokio::spawn(talk(self.media.clone(), stream, hertz, Arc::clone(&lost)));
        Speaker { id, task, lost }
    }

    pub(crate) fn end(&self, speaker: Speaker) {
        self.voices.send_modify(|voices| {
            *voices = voices.iter().filter(|voice| voice.id != speaker.id).cloned().collect();
        });
    }
}

async fn talk(media: MediaPlane, stream: StreamId, hertz: f64, lost: Arc<AtomicU64>) {
    let mut encoder = OpusEncoder::new(48_000, 1).unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0_u64.. {
        ticks.tick().await;
        let payload = encoder.encode(&tone(hertz, 48_000, 1, number as usize, 960)).unwrap();
        let one_of = lost.load(Ordering::Relaxed);
        if one_of > 0 && number % one_of == 0 {
            continue;
        }
        let frame = Frame {
            codec: Codec::Opus,
            ticks: number * 960,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: vec![payload],
            forwarded: Some(Forwarded { number, marker: false, red: None }),
        };
        media.publish(stream, frame);
    }
}

/// A player: decodes what it gets, as it comes.
pub(crate) struct Player {
    decoder: MpaDecoder,
    cutter: FrameCutter,
    /// The left channel.
    pub(crate) heard: Vec<i16>,
}

impl Player {
    pub(crate) fn new() -> Self {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(CODEC_ID_MP3).with_sample_rate(SAMPLE_RATE as u32);
        let decoder = MpaDecoder::try_new(&parameters, &AudioDecoderOptions::default()).unwrap();
        Self { decoder, cutter: FrameCutter::default(), heard: Vec::new() }
    }

    /// Every frame must be one that can be decoded, whatever came before.
    pub(crate) fn play(&mut self, bytes: &[u8]) {
        for frame in self.cutter.cut(bytes) {
            let (from, length) = (units::Timestamp::ZERO, units::Duration::from(1_152_u64));
            let packet = PacketRef::new(0, from, length, &frame);
            let sound = self.decoder.decode_ref(&packet).unwrap();
            assert_eq!((sound.spec().rate(), sound.num_planes()), (SAMPLE_RATE as u32, 2));
            let mut samples: Vec<i16> = Vec::new();
            sound.copy_to_vec_interleaved(&mut samples);
            self.heard.extend(samples.iter().step_by(2));
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.heard.len() as f64 / SAMPLE_RATE as f64
    }

    /// What was heard last, in seconds.
    pub(crate) fn last(&self, seconds: f64) -> &[i16] {
        let length = (seconds * SAMPLE_RATE as f64) as usize;
        &self.heard[self.heard.len().saturating_sub(length)..]
    }
}

/// Whether this tone, and next to nothing else, is to be heard.
pub(crate) fn has_tone(samples: &[i16], hertz: f64) -> bool {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let number = samples.len() as f64;
    // A pure tone has all of it.
    let share = power(samples, hertz, SAMPLE_RATE as u32) / (energy * number / 2.0);
    share > 0.8 && energy / number > 1e6
}

pub(crate) fn is_silent(samples: &[i16]) -> bool {
    samples.iter().all(|sample| sample.abs() < 4)
}

/// Listens until `enough`, and returns whose voices those were.
async fn hear(
    listener: &mut Listener,
    player: &mut Player,
    enough: impl Fn(&Player) -> bool,
) -> Vec<Option<String>> {
    let mut voices = Vec::new();
    let listening = async {
        while !enough(player) {
            let piece = listener.next().await.expect("it goes on");
            player.play(&piece.bytes);
            if voices.last() != Some(&piece.voice) {
                voices.push(piece.voice);
            }
        }
    };
    timeout(PATIENCE, listening).await.expect("it is heard in time");
    voices
}

#[tokio::test]
async fn a_voice_is_heard_as_it_was_spoken() {
    let studio = Studio::open();
    let _speaker = studio.speak(1, 440.0);
    let mut listener = studio.mp3.listen("stream_1").unwrap();
    let mut player = Player::new();
    hear(&mut listener, &mut player, |player| player.seconds() > 2.5).await;
    for part in player.last(1.5).chunks(SAMPLE_RATE / 4) {
        assert!(has_tone(part, 440.0));
    }
    assert_eq!(studio.mp3.figures().packets_lost, 0);
}

#[tokio::test]
async fn a_lossy_line_is_heard_too() {
    let studio = Studio::open();
    let speaker = studio.speak(1, 440.0);
    speaker.lost.store(5, Ordering::Relaxed);
    let mut listener = studio.mp3.listen("stream_1").unwrap();
    let mut player = Player::new();
    hear(&mut listener, &mut player, |player| player.seconds() > 2.5).await;
    let samples = player.last(1.5);
    // What is made up is not in step with what follows, so a short part at a time.
    let parts = samples.chunks(SAMPLE_RATE / 20);
    let clear = parts.clone().filter(|part| has_tone(part, 440.0)).count();
    assert!(clear * 3 > parts.len() * 2, "{clear} of {} parts are clear", parts.len());
    let gaps = samples.chunks(441).filter(|part| is_silent(part)).count();
    assert_eq!(gaps, 0, "every lost packet was made up");
    assert!(studio.mp3.figures().packets_lost > 15);
}

#[tokio::test]
async fn the_first_frames_are_there_at_once() {
    let studio = Studio::open();
    let _speaker = studio.speak(1, 440.0);
    let mut first = studio.mp3.listen("stream_1").unwrap();
    let mut player = Player::new();
    hear(&mut first, &mut player, |player| has_tone(player.last(0.2), 440.0)).await;

    let begun = Instant::now();
    let mut late = studio.mp3.listen("stream_1").unwrap();
    let piece = late.next().await.unwrap();
    let mut player = Player::new();
    player.play(&piece.bytes);
    // Nothing of it had to be waited for: more sound than time.
    assert!(player.seconds() > 0.3 && begun.elapsed().as_secs_f64() < player.seconds());
    hear(&mut late, &mut player, |player| has_tone(player.last(0.2), 440.0)).await;
}

#[tokio::test]
async fn a_voice_that_ends_is_played_to_its_end_and_one_encoder_served_all() {
    let studio = Studio::open();
    let speaker = studio.speak(1, 440.0);
    let mut listeners: Vec<Listener> =
        (0..20).map(|_| studio.mp3.listen("stream_1").unwrap()).collect();
    let mut player = Player::new();
    hear(&mut listeners[0], &mut player, |player| has_tone(player.last(0.5), 440.0)).await;
    let count = || (studio.mp3.figures().listeners, studio.mp3.figures().encoders);
    assert_eq!(count(), (20, 1));

    studio.end(speaker);

    let rest = async {
        for listener in &mut listeners {
            while listener.next().await.is_some() {}
        }
    };
    timeout(PATIENCE, rest).await.expect("all of them end");
    assert_eq!(studio.mp3.listen("stream_1").err(), Some(ListenError::NotFound));
    drop(listeners);
    no_encoder_is_left(&studio).await;
}

#[tokio::test]
async fn nothing_is_encoded_when_nobody_listens() {
    let studio = Studio::open();
    let _speakers = [studio.speak(1, 440.0), studio.speak(2, 550.0)];
    assert_eq!(studio.mp3.figures().encoders, 0);
    let listeners = [studio.mp3.listen("stream_1"), studio.mp3.listen_to_newest()];
    assert!(listeners.iter().all(Result::is_ok));
    assert_eq!(studio.mp3.figures().encoders, 2);
    drop(listeners);
    no_encoder_is_left(&studio).await;
    assert_eq!(studio.mp3.figures().listeners, 0);
    assert_eq!(studio.mp3.0.encoders.available_permits(), ENCODERS_MAX);
}

async fn no_encoder_is_left(studio: &Studio) {
    let gone = async {
        while studio.mp3.figures().encoders > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the encoders end");
}

#[tokio::test]
async fn the_newest_is_followed_with_silence_between() {
    let studio = Studio::open();
    let mut listener = studio.mp3.listen_to_newest().unwrap();
    let mut player = Player::new();
    let voices = hear(&mut listener, &mut player, |player| player.seconds() > 0.5).await;
    assert!(voices == [None] && is_silent(&player.heard));

    let first = studio.speak(1, 440.0);
    hear(&mut listener, &mut player, |player| has_tone(player.last(0.3), 440.0)).await;
    let second = studio.speak(2, 660.0);
    hear(&mut listener, &mut player, |player| has_tone(player.last(0.3), 660.0)).await;
    studio.end(second);
    let voices = hear(&mut listener, &mut player, |player| has_tone(player.last(0.3), 440.0)).await;
    assert_eq!(voices, [Some("stream_2".to_owned()), Some("stream_1".to_owned())]);
    studio.end(first);
    hear(&mut listener, &mut player, |player| is_silent(player.last(0.5))).await;
    assert_eq!(studio.mp3.figures().listeners, 1);
    no_encoder_is_left(&studio).await;
}

#[tokio::test]
async fn a_speaker_that_pauses_is_silence_in_real_time() {
    let studio = Studio::open();
    let speaker = studio.speak(1, 440.0);
    let mut listener = studio.mp3.listen("stream_1").unwrap();
    let mut player = Player::new();
    hear(&mut listener, &mut player, |player| has_tone(player.last(0.3), 440.0)).await;
    // The line is cut, and nobody knows yet that it will not come back.
    speaker.task.abort();
    let begun = (Instant::now(), player.seconds());
    hear(&mut listener, &mut player, |player| player.seconds() > begun.1 + 2.0).await;
    assert!(is_silent(player.last(1.0)));
    assert!(begun.0.elapsed() > Duration::from_millis(1_700), "not faster than time goes");
    assert_eq!(studio.mp3.figures().pauses, 1);
}

#[tokio::test]
async fn who_takes_nothing_is_put_back_to_live() {
    let studio = Studio::open();
    let first = studio.speak(1, 440.0);
    let (mut slow, mut quick) =
        (studio.mp3.listen_to_newest().unwrap(), studio.mp3.listen("stream_1").unwrap());
    let mut player = Player::new();
    hear(&mut slow, &mut player, |player| has_tone(player.last(0.3), 440.0)).await;
    let mut other = Player::new();
    let heard = hear(&mut quick, &mut other, |player| player.seconds() > 3.5);
    assert_eq!(heard.await, [Some("stream_1".to_owned())]);
    assert_eq!(studio.mp3.figures().drops_to_live, 0);

    let before = player.seconds();
    let piece = slow.next().await.unwrap();
    player.play(&piece.bytes);

    assert_eq!(studio.mp3.figures().drops_to_live, 1);
    assert!(player.seconds() - before < 0.5, "the past is not played");
    hear(&mut slow, &mut player, |player| has_tone(player.last(0.3), 440.0)).await;
    drop(first);
}

#[tokio::test]
async fn what_players_may_cost_is_bounded() {
    let studio = Studio::open();
    let numbers = 0..=ENCODERS_MAX as u32;
    let _speakers: Vec<Speaker> = numbers.map(|number| studio.speak(number, 440.0)).collect();
    let listen = |number: usize| studio.mp3.listen(&format!("stream_{number}"));
    let some: Vec<Listener> = (0..ENCODERS_MAX).map(|number| listen(number).unwrap()).collect();
    assert_eq!(listen(ENCODERS_MAX).err(), Some(ListenError::TooManyEncoders));
    let more: Vec<Listener> = (some.len()..LISTENERS_MAX).map(|_| listen(0).unwrap()).collect();
    assert_eq!(listen(0).err(), Some(ListenError::TooManyListeners));
    drop((some, more));
    no_encoder_is_left(&studio).await;
    assert!(listen(ENCODERS_MAX).is_ok());
}

#[tokio::test]
async fn all_ends_with_the_server() {
    let Studio { mp3, voices, .. } = Studio::open();
    let mut listener = mp3.listen_to_newest().unwrap();
    assert!(listener.next().await.is_some());
    drop(voices);
    assert!(timeout(PATIENCE, listener.next()).await.unwrap().is_none());
}
