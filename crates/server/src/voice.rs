//! The voice relay: who speaks, and who hears it.
//!
//! [`Voice`] is a handle; behind it one task (`actor`) owns [`engine::voice::Relay`] and does what it asks
//! for with the media plane. Packets do not pass through that task. Nothing of HTTP or JSON is known here.

mod actor;
mod level;
mod live;
pub(crate) mod mp3;
mod sender;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::voice::{
    BadMessage, ClientMessage, ConnectionId, Figures, Limits, Residue, ServerMessage,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::net::{MediaPlane, SoundWishes};

use actor::{Actor, Command};
use mp3::{Mp3, Mp3Figures};

pub(crate) use live::{Live, LiveVoice};
pub(crate) use sender::LevelMode;

/// How far below the loudest possible a voice is silent, in dB. A quiet room through an open microphone is
/// at about 60.
const SILENT_BELOW_FULL: u8 = 70;

/// Calls that wait for the actor. A call takes it microseconds; all clients of a large installation at
/// once are fewer. Those behind wait in their WebSockets, each with one message.
const MAX_WAITING_COMMANDS: usize = 1_024;

/// Shortest queue to a client. Its answer to a start, the offer, and the coming and going of a dozen
/// voices must fit in between two turns of its task.
const QUEUE_LENGTH_MIN: usize = 32;

/// What the relay runs with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VoiceConfig {
    pub(crate) limits: Limits,
    /// Messages that may wait for a client.
    pub(crate) queue_length: usize,
    pub(crate) wishes: SoundWishes,
    pub(crate) levels: LevelMode,
}

/// Why a WebSocket is closed by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It floods.
    Policy,
    /// All places are taken.
    TryAgainLater,
    /// It does not take what it is told.
    TooSlow,
    /// The server ends.
    GoingAway,
}

/// What anybody may ask for, as it is right now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) residue: Residue,
    pub(crate) figures: Figures,
    pub(crate) delivery: Delivery,
    /// Bytes of sound that came from senders since the start.
    pub(crate) audio_bytes: u64,
    pub(crate) mp3: Mp3Figures,
    /// Oldest first.
    pub(crate) voices: Vec<String>,
    /// Of those whose level is known.
    pub(crate) levels: Vec<VoiceLevel>,
}

/// How loud a voice is, as far as its sender tells or it is measured.
#[derive(Debug, Clone)]
pub(crate) struct VoiceLevel {
    /// `stream_<connection id>`.
    pub(crate) voice: String,
    /// The newest, in dB below full scale: 0 to -127 (silence).
    pub(crate) dbov: i16,
    /// When it was last louder than silence, or its first level came.
    pub(crate) sounded: Instant,
}

/// How messages reach clients.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delivery {
    /// Levels left out for clients that are slow.
    pub(crate) levels_dropped: u64,
    /// Clients closed since they did not take what they were told.
    pub(crate) too_slow: u64,
}

/// The running relay; cheap to clone.
#[derive(Clone)]
pub(crate) struct Voice {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    audio_bytes: Arc<AtomicU64>,
    mp3: Mp3,
}

impl Voice {
    /// Starts the task. It ends with the last handle.
    pub(crate) fn start(config: VoiceConfig, media: MediaPlane) -> Self {
        let (commands, commands_in) = mpsc::channel(MAX_WAITING_COMMANDS);
        let (live_out, live) = watch::channel(Arc::from([]));
        let (status_out, status) = watch::channel(Status::default());
        let audio_bytes = Arc::<AtomicU64>::default();
        // Before anything can happen of which it tells.
        let media_events = media.voice_events();
        let mp3 = Mp3::new(media.clone(), live);
        let actor = Actor::new(config, media, live_out, status_out, Arc::clone(&audio_bytes));
        tokio::spawn(actor.run(commands_in, media_events));
        Self { commands, status, audio_bytes, mp3 }
    }

    /// A new WebSocket. `None` when the relay has ended.
    pub(crate) async fn connect(&self, address: IpAddr) -> Option<Client> {
        let id = ConnectionId(uuid::Uuid::new_v4().as_u128());
        let (reply, joined) = oneshot::channel();
        self.commands.send(Command::Connect { id, address, reply }).await.ok()?;
        let messages = joined.await.ok()?;
        Some(Client { id, commands: self.commands.clone(), messages })
    }

    /// The voices, for speakers.
    pub(crate) fn mp3(&self) -> &Mp3 {
        &self.mp3
    }

    /// Costs the actor nothing.
    pub(crate) fn status(&self) -> Status {
        let audio_bytes = self.audio_bytes.load(Ordering::Relaxed);
        Status { audio_bytes, mp3: self.mp3.figures(), ..self.status.borrow().clone() }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Returns when it has ended, which it does by itself only if it failed.
    pub(crate) async fn failed(&self) {
        self.commands.closed().await;
    }

    /// Says goodbye to everybody; returns when all is closed, or after `limit`.
    pub(crate) async fn shutdown(&self, limit: Duration) {
        let (reply, done) = oneshot::channel();
        let all = async {
            if self.commands.send(Command::Shutdown { reply }).await.is_ok() {
                let _ = done.await;
            }
        };
        // What is left then ends with the process.
        let _ = tokio::time::timeout(limit, all).await;
    }
}

/// The relay's side of one WebSocket.
pub(crate) struct Client {
    id: ConnectionId,
    commands: mpsc::Sender<Command>,
    messages: Messages,
}

/// What a client is told.
pub(crate) struct Messages {
    queue: mpsc::Receiver<Arc<ServerMessage>>,
    closed: watch::Receiver<Option<Closed>>,
}

/// The next thing that a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    Message(Arc<ServerMessage>),
    /// The last.
    Closed(Closed),
}

impl Client {
    /// Both directions, for who reads and writes at once.
    pub(crate) fn split(self) -> (Speaking, Messages) {
        (Speaking { id: self.id, commands: self.commands }, self.messages)
    }
}

/// The direction from a client to the relay. Who drops it has hung up.
pub(crate) struct Speaking {
    id: ConnectionId,
    commands: mpsc::Sender<Command>,
}

impl Speaking {
    /// Which client it is.
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// A message of so many bytes came. False when the relay has ended.
    pub(crate) async fn say(
        &self,
        message: Result<ClientMessage, BadMessage>,
        bytes: usize,
    ) -> bool {
        self.commands.send(Command::Message { id: self.id, message, bytes }).await.is_ok()
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        let goodbye = Command::Disconnect { id: self.id };
        if let Err(mpsc::error::TrySendError::Full(goodbye)) = self.commands.try_send(goodbye) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(goodbye).await });
        }
    }
}

impl Messages {
    /// Waits for the next. Whatever was said before the end is told before it, unless the client is
    /// too slow.
    pub(crate) async fn next(&mut self) -> Told {
        let message = tokio::select! {
            biased;
            Ok(_) = self.closed.wait_for(|closed| *closed == Some(Closed::TooSlow)) => None,
            message = self.queue.recv() => message,
        };
        match message {
            Some(message) => Told::Message(message),
            None => Told::Closed(self.closed.borrow().unwrap_or(Closed::GoingAway)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use engine::voice::ServerTrouble;

    use super::*;
    use crate::net::{MediaConfig, MediaTcp, Priority};

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn start(max_connections: u32) -> Voice {
        let media = MediaConfig {
            udp: "127.0.0.1:0".parse().unwrap(),
            tcp: MediaTcp::Off,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let (events, _) = mpsc::unbounded_channel();
        let plane = MediaPlane::start(&media, events).unwrap();
        let mut settings = crate::config::from_toml("").voice;
        settings.max_connections = max_connections;
        settings.queue_size = 1;
        Voice::start(settings.relay(), plane)
    }

    async fn ping(client: &Speaking) {
        assert!(client.say(Ok(ClientMessage::Ping), 15).await);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_closed_and_delays_nobody() {
        let voice = start(50);
        let (deaf, mut unread) = voice.connect(HOME).await.unwrap().split();
        let (other, mut messages) = voice.connect(HOME).await.unwrap().split();
        for _ in 0..=QUEUE_LENGTH_MIN {
            ping(&deaf).await;
        }
        ping(&other).await;
        for wanted in [ServerMessage::AvailableStreams(Vec::new()), ServerMessage::Pong] {
            let Told::Message(told) = messages.next().await else { panic!("it is closed") };
            assert_eq!(*told, wanted);
        }
        // Without a look at what waits: it would not take it.
        let Told::Closed(reason) = unread.next().await else { panic!("it is not closed") };
        assert_eq!(reason, Closed::TooSlow);
        let status = voice.status();
        assert_eq!((status.delivery.too_slow, status.residue.connections), (1, 1));
    }

    #[tokio::test]
    async fn who_finds_no_place_reads_why_before_the_end() {
        let voice = start(1);
        let _first = voice.connect(HOME).await.unwrap();
        let (_, mut messages) = voice.connect(HOME).await.unwrap().split();
        let Told::Message(told) = messages.next().await else { panic!("it is not told") };
        assert_eq!(*told, ServerMessage::Error(ServerTrouble::Full(1).into()));
        let Told::Closed(reason) = messages.next().await else { panic!("it is not closed") };
        assert_eq!(reason, Closed::TryAgainLater);
    }

    #[tokio::test]
    async fn who_hangs_up_is_forgotten_and_the_end_is_told() {
        let voice = start(50);
        let (gone, _unread) = voice.connect(HOME).await.unwrap().split();
        let (_here, mut messages) = voice.connect(HOME).await.unwrap().split();
        drop(gone);
        voice.shutdown(Duration::from_secs(10)).await;
        assert_eq!(voice.status().residue, Residue::default());
        assert!(matches!(messages.next().await, Told::Message(_)));
        let Told::Closed(reason) = messages.next().await else { panic!("it is not closed") };
        assert_eq!(reason, Closed::GoingAway);
    }
}
