//! One listener: a voice up to its end, or always the newest one and silence between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::{Live, LiveVoice};
use super::figures::{Presence, Present};
use super::frames::frames_within;
use super::line::Line;
use super::ring::{BURST_FRAMES, RingReader};
use super::{ListenError, Mp3};

/// Plays for one client. Dropping it ends that, and the encoder if nobody else listens.
pub(crate) struct Listener {
    mp3: Mp3,
    live: Live,
    wanted: Wanted,
    /// What is played: a voice, or silence.
    voice: Option<LiveVoice>,
    /// When the newest voice began that was played, or could not be: it is not gone to again.
    tried: Option<std::time::Instant>,
    reader: RingReader,
    /// Keeps the encoder running.
    line: Arc<Line>,
    account: Account,
    _seat: OwnedSemaphorePermit,
    _presence: Presence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The voice that is played, until it ends.
    ThisVoice,
    /// The newest voice of all, for ever.
    Newest,
}

/// What a client gets next: whole frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Whose voice that is; `None` is silence.
    pub(crate) voice: Option<String>,
}

impl Listener {
    pub(super) fn new(
        mp3: Mp3,
        live: Live,
        wanted: Wanted,
        voice: Option<LiveVoice>,
        seat: OwnedSemaphorePermit,
    ) -> Result<Self, ListenError> {
        let line = mp3.line(voice.as_ref())?;
        let reader = line.ring.read(BURST_FRAMES);
        let presence = Presence::new(Arc::clone(mp3.counters()), Present::Listener);
        let (account, tried) = (Account::new(), voice.as_ref().map(|voice| voice.began));
        Ok(Self {
            mp3,
            live,
            wanted,
            voice,
            tried,
            reader,
            line,
            account,
            _seat: seat,
            _presence: presence,
        })
    }

    /// Waits for what comes next; `None` when it is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        loop {
            let taken = match self.wanted {
                Wanted::ThisVoice => self.reader.next().await,
                Wanted::Newest => {
                    self.follow();
                    tokio::select! {
                        biased;
                        // Closed: the server ends.
                        changed = self.live.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return None,
                        },
                        taken = self.reader.next() => taken,
                    }
                }
            };
            let Some(taken) = taken else {
                match self.wanted {
                    Wanted::ThisVoice => return None,
                    Wanted::Newest => self.go_on(),
                }
                continue;
            };
            if taken.is_after_drop {
                self.mp3.counters().drops_to_live.add(1);
                self.account = Account::new();
            }
            self.account.sent += taken.frames;
            self.mp3.counters().bytes_sent.add(taken.bytes.len() as u64);
            let voice = self.voice.as_ref().map(|voice| voice.id.clone());
            return Some(Piece { bytes: taken.bytes, voice });
        }
    }

    /// Goes to a voice that began after all that were played.
    fn follow(&mut self) {
        let newest = self.live.borrow_and_update().last().cloned();
        let newest = newest.filter(|newest| self.tried.is_none_or(|tried| newest.began > tried));
        if newest.is_some() {
            self.switch(newest);
        }
    }

    /// The voice that was played is over: on with the newest of the others, or with silence.
    fn go_on(&mut self) {
        let over = self.voice.as_ref().map(|voice| voice.stream);
        // Still there, but its encoder failed: silence, until another one speaks.
        let newest = self.mp3.newest();
        let next = newest.filter(|newest| Some(newest.stream) != over);
        self.switch(next);
    }

    /// If there is no encoder for it, silence is all that is left.
    fn switch(&mut self, voice: Option<LiveVoice>) {
        self.tried = self.tried.max(voice.as_ref().map(|voice| voice.began));
        let (voice, line) = match self.mp3.line(voice.as_ref()) {
            Ok(line) => (voice, line),
            Err(error) => {
                tracing::warn!(%error, "a voice cannot be followed as MP3");
                let Ok(silence) = self.mp3.line(None) else { return };
                (voice, silence)
            }
        };
        self.reader = line.ring.read(self.account.owed());
        (self.voice, self.line) = (voice, line);
    }
}

/// How much a client should have got by now, so that what it has in hand stays the same when it is
/// switched from one stream to another.
#[derive(Debug)]
struct Account {
    begun: Instant,
    sent: u64,
}

impl Account {
    fn new() -> Self {
        Self { begun: Instant::now(), sent: 0 }
    }

    /// Frames of the past with which another stream should begin.
    fn owed(&self) -> u64 {
        self.owed_after(self.begun.elapsed())
    }

    fn owed_after(&self, elapsed: Duration) -> u64 {
        (frames_within(elapsed) + BURST_FRAMES).saturating_sub(self.sent).min(BURST_FRAMES)
    }
}
