//! What runs while somebody listens to one stream: a task that keeps time and collects packets, and a
//! thread that decodes and encodes them, so that no request waits for an encoder.
//!
//! ```text
//! tap -> task: every 26.1 ms, what came -> thread: decode, playout, encode -> ring -> listeners
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use media::{PacketisedFrame, StreamId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::Live;
use super::encoder::{Encoder, EncoderError};
use super::figures::{Counters, Presence, Present};
use super::frames::frame_time;
use super::packets::{Heard, PacketDecoder};
use super::playout::Playout;
use super::ring::{Ring, RingWriter, ring};
use crate::net::{Tap, Tapped};

/// Turns that may wait for the encoder: half a second. It needs a hundredth of the time that it has;
/// when it is this late, the machine has no time for it at all.
const TURNS_MAX: usize = 20;

/// After a longer sleep of the whole machine nobody wants what was missed.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Turns in which what still waits is played when a voice has ended: more than the playout keeps.
const LAST_TURNS: usize = 48;

/// Turns after that until the encoder has let go of everything.
const FLUSH_TURNS: usize = 3;

/// One stream that somebody listens to. It ends when nobody holds this any more.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) ring: Ring,
    _end: DropGuard,
}

/// What came since the last turn.
type Packets = Vec<Arc<PacketisedFrame>>;

/// What a line of a voice is made of.
pub(super) struct Source {
    pub(super) stream: StreamId,
    pub(super) tap: Tap,
    pub(super) live: Live,
    /// One of the encoders that may run.
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) counters: Arc<Counters>,
}

impl Line {
    /// Starts to encode a voice.
    pub(super) fn of_voice(source: Source, silent: &Bytes) -> Result<Arc<Self>, EncoderError> {
        let Source { stream, tap, live, permit, counters } = source;
        let station = Station::new(Arc::clone(&counters))?;
        let running = Presence::new(Arc::clone(&counters), Present::Encoder);
        let (writer, ring) = ring(silent);
        let (turns, inbox) = sync_channel(TURNS_MAX);
        let worker = move || {
            station.run(&inbox, &writer);
            drop((running, permit));
        };
        let spawned = thread::Builder::new().name("mp3".to_owned()).spawn(worker);
        spawned.map_err(|_| EncoderError::Setup)?;
        let token = CancellationToken::new();
        let collector = Collector { stream, tap, live, turns, counters };
        tokio::spawn(token.clone().run_until_cancelled_owned(collector.run()));
        Ok(Arc::new(Self { ring, _end: token.drop_guard() }))
    }

    /// The same silent frame for ever.
    pub(super) fn of_silence(silent: &Bytes) -> Arc<Self> {
        let (writer, ring) = ring(silent);
        let token = CancellationToken::new();
        let silent = silent.clone();
        let run = async move {
            let mut pace = Pace::new();
            loop {
                pace.next().await;
                writer.push(silent.clone());
            }
        };
        tokio::spawn(token.clone().run_until_cancelled_owned(run));
        Arc::new(Self { ring, _end: token.drop_guard() })
    }
}

/// When frames are due. What sleeping too long costs is made good by the next ones.
struct Pace {
    origin: Instant,
    number: u64,
}

impl Pace {
    fn new() -> Self {
        Self { origin: Instant::now(), number: 0 }
    }

    async fn next(&mut self) {
        self.number += 1;
        let due = self.origin + frame_time(self.number);
        sleep_until(due).await;
        if due.elapsed() > LATE_MAX {
            *self = Self::new();
        }
    }
}

/// Keeps time for a voice, and ends when the voice does.
struct Collector {
    stream: StreamId,
    tap: Tap,
    live: Live,
    turns: SyncSender<Packets>,
    counters: Arc<Counters>,
}

impl Collector {
    async fn run(mut self) {
        let mut pace = Pace::new();
        let mut is_live = true;
        while is_live {
            pace.next().await;
            // Looked at before the packets, so that the last ones are taken.
            is_live = self.is_live();
            let Some(packets) = self.collect() else { return };
            match self.turns.try_send(packets) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => self.counters.frames_missed.add(1),
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    fn is_live(&self) -> bool {
        // Closed: the server ends.
        self.live.has_changed().is_ok()
            && self.live.borrow().iter().any(|voice| voice.stream == self.stream)
    }

    /// What waits in the tap, which is bounded. `None`: the media plane has ended.
    fn collect(&mut self) -> Option<Packets> {
        let mut packets = Packets::new();
        while let Some(next) = self.tap.next().now_or_never() {
            match next? {
                // Only pictures are kept.
                Tapped::Group { .. } => {}
                Tapped::Frame(frame) => packets.push(frame),
            }
        }
        Some(packets)
    }
}

/// Decodes and encodes one voice.
struct Station {
    decoder: PacketDecoder,
    playout: Playout,
    encoder: Encoder,
    counters: Arc<Counters>,
}

impl Station {
    fn new(counters: Arc<Counters>) -> Result<Self, EncoderError> {
        Ok(Self {
            encoder: Encoder::new()?,
            decoder: PacketDecoder::new().map_err(|_| EncoderError::Setup)?,
            playout: Playout::new().map_err(|_| EncoderError::Setup)?,
            counters,
        })
    }

    fn run(mut self, inbox: &Receiver<Packets>, writer: &RingWriter) {
        let outcome = inbox.iter().try_for_each(|packets| {
            for packet in &packets {
                self.handle_packet(packet);
            }
            self.encode_frame(writer)
        });
        if let Err(error) = outcome.and_then(|()| self.finish(writer)) {
            tracing::error!(%error, "a voice is not heard as MP3 any more");
        }
    }

    fn handle_packet(&mut self, packet: &PacketisedFrame) {
        let playout = &mut self.playout;
        match self.decoder.handle_packet(packet, |sound| playout.push(sound)) {
            Heard::Whole => {}
            Heard::AfterLoss(lost) => self.counters.packets_lost.add(lost),
            Heard::Late => self.counters.packets_late.add(1),
            Heard::Broken => self.counters.packets_broken.add(1),
        }
    }

    /// One turn, one frame; the encoder keeps the first of them back.
    fn encode_frame(&mut self, writer: &RingWriter) -> Result<(), EncoderError> {
        for frame in self.encoder.encode(self.playout.pull())? {
            writer.push(frame);
        }
        let tally = self.playout.take_tally();
        self.counters.pauses.add(tally.pauses);
        self.counters.skips.add(tally.skips);
        Ok(())
    }

    /// What was said last is heard too.
    fn finish(&mut self, writer: &RingWriter) -> Result<(), EncoderError> {
        for _ in 0..LAST_TURNS {
            if self.playout.is_empty() {
                break;
            }
            self.encode_frame(writer)?;
        }
        (0..FLUSH_TURNS).try_for_each(|_| self.encode_frame(writer))
    }
}
