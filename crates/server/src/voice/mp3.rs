//! Voices as endless MP3, for speakers that know no WebRTC.
//!
//! | module | what |
//! |---|---|
//! | `packets` | Opus packets to sound; what is lost is made up |
//! | `playout` | sound that never stops, at 44.1 kHz |
//! | `encoder`, `frames` | LAME, and where a frame ends |
//! | `line` | the task and the thread of a stream that somebody listens to |
//! | `ring` | the last frames, shared by all listeners |
//! | `listener` | one client: a voice, or the newest |
//! | `figures` | what is counted |
//!
//! A voice is decoded and encoded once however many listen, and not at all when nobody does. HTTP is
//! `http::mp3`'s.

mod encoder;
mod figures;
mod frames;
mod line;
mod listener;
mod packets;
mod playout;
mod ring;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use media::StreamId;
use tokio::sync::Semaphore;

use super::{Live, LiveVoice};
use crate::net::MediaPlane;
use encoder::Encoder;
use figures::Counters;
use frames::{CHANNELS, FRAME_SAMPLES};
use line::{Line, Source};
use listener::Wanted;

pub(crate) use encoder::EncoderError;
pub(crate) use figures::Mp3Figures;
pub(crate) use listener::Listener;

/// Clients at once. Each costs some 100 KiB of buffers, and 100 together a hundredth of a core.
const LISTENERS_MAX: usize = 1_000;

/// Voices at once that are encoded. Each takes about a fiftieth of a core; who lists all voices and
/// plays each of them shall not take all of it.
const ENCODERS_MAX: usize = 32;

/// Frames that an encoder is given until it has settled on how silence is written.
const SETTLING_FRAMES: usize = 8;

/// Why somebody cannot listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListenError {
    /// No such voice. In the words of the voice relay's protocol.
    #[error("Stream not found")]
    NotFound,
    /// See [`LISTENERS_MAX`].
    #[error("{LISTENERS_MAX} players listen already, which is the most; try again later")]
    TooManyListeners,
    /// See [`ENCODERS_MAX`].
    #[error(
        "{ENCODERS_MAX} voices are played as MP3 already, which is the most; listen to one of \
         them, or try again later"
    )]
    TooManyEncoders,
    /// See [`EncoderError`].
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// All voices as MP3; cheap to clone.
#[derive(Clone)]
pub(crate) struct Mp3(Arc<Inner>);

struct Inner {
    media: MediaPlane,
    live: Live,
    lines: Mutex<Lines>,
    listeners: Arc<Semaphore>,
    encoders: Arc<Semaphore>,
    silent: OnceLock<Result<Bytes, EncoderError>>,
    counters: Arc<Counters>,
}

/// The streams that somebody listens to. Those of nobody are forgotten when another begins.
#[derive(Default)]
struct Lines {
    silence: Weak<Line>,
    voices: HashMap<StreamId, Weak<Line>>,
}

impl Mp3 {
    /// Of the voices of `live`, which are found in `media`.
    pub(crate) fn new(media: MediaPlane, live: Live) -> Self {
        Self(Arc::new(Inner {
            media,
            live,
            lines: Mutex::new(Lines::default()),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            encoders: Arc::new(Semaphore::new(ENCODERS_MAX)),
            silent: OnceLock::new(),
            counters: Arc::default(),
        }))
    }

    /// Plays the voice of this id until it ends.
    pub(crate) fn listen(&self, id: &str) -> Result<Listener, ListenError> {
        let voice = self.voice(id).ok_or(ListenError::NotFound)?;
        self.seat(Wanted::ThisVoice, Some(voice))
    }

    /// Plays the newest voice, whoever that is from time to time, and silence where there is none.
    pub(crate) fn listen_to_newest(&self) -> Result<Listener, ListenError> {
        self.seat(Wanted::Newest, self.newest())
    }

    /// The voice of this id.
    pub(crate) fn voice(&self, id: &str) -> Option<LiveVoice> {
        self.0.live.borrow().iter().find(|voice| voice.id == id).cloned()
    }

    /// The voice that began last.
    pub(crate) fn newest(&self) -> Option<LiveVoice> {
        self.0.live.borrow().last().cloned()
    }

    /// Whether there can be MP3 at all.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        self.silent().map(drop)
    }

    /// What was counted until now.
    pub(crate) fn figures(&self) -> Mp3Figures {
        self.0.counters.figures()
    }

    fn seat(&self, wanted: Wanted, voice: Option<LiveVoice>) -> Result<Listener, ListenError> {
        let seats = Arc::clone(&self.0.listeners);
        let seat = seats.try_acquire_owned().map_err(|_| ListenError::TooManyListeners)?;
        Listener::new(self.clone(), self.0.live.clone(), wanted, voice, seat)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// The line of a voice, or of silence. It begins if nobody listens to it yet.
    fn line(&self, voice: Option<&LiveVoice>) -> Result<Arc<Line>, ListenError> {
        let silent = self.silent()?;
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(voice) = voice else {
            return Ok(lines.silence.upgrade().unwrap_or_else(|| {
                let line = Line::of_silence(&silent);
                lines.silence = Arc::downgrade(&line);
                line
            }));
        };
        if let Some(line) = lines.voices.get(&voice.stream).and_then(Weak::upgrade) {
            return Ok(line);
        }
        lines.voices.retain(|_, line| line.strong_count() > 0);
        let encoders = Arc::clone(&self.0.encoders);
        let permit = encoders.try_acquire_owned().map_err(|_| ListenError::TooManyEncoders)?;
        let source = Source {
            stream: voice.stream,
            tap: self.0.media.tap(voice.stream),
            live: self.0.live.clone(),
            permit,
            counters: Arc::clone(&self.0.counters),
        };
        let line = Line::of_voice(source, &silent)?;
        lines.voices.insert(voice.stream, Arc::downgrade(&line));
        Ok(line)
    }

    /// A frame of silence, made once.
    fn silent(&self) -> Result<Bytes, EncoderError> {
        self.0.silent.get_or_init(silent_frame).clone()
    }
}

fn silent_frame() -> Result<Bytes, EncoderError> {
    let mut encoder = Encoder::new()?;
    let mut last = None;
    for _ in 0..SETTLING_FRAMES {
        last = encoder.encode(&[0.0; FRAME_SAMPLES * CHANNELS])?.pop().or(last);
    }
    last.ok_or(EncoderError::Failed)
}
