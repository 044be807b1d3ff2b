//! The task that owns the relay's state: calls, events and time in, actions out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use control::Timestamp;
use engine::voice::{
    Action, BadMessage, ClientMessage, CloseCode, ConnectionId, LogLine, ReceiverEvent, Relay,
    SenderEvent as SenderNews, ServerMessage,
};
use media::publishers::PublisherEnd;
use media::{AudioLevel, StreamId, ViewerId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::live::LiveVoice;
use super::mp3::Mp3Figures;
use super::sender::{self, SenderEvent};
use super::{
    Closed, Delivery, Messages, QUEUE_LENGTH_MIN, SILENT_BELOW_FULL, Status, VoiceConfig,
    VoiceLevel,
};
use crate::net::{
    Accepted, AnswerError, FIRST_RECEIVER, FIRST_VOICE, MediaEvent, MediaPlane, PublishError,
    PublisherHandle, PublisherId,
};

/// Events of media that are taken in one go, so that calls and time get their turn in a storm.
const EVENT_BATCH: usize = 256;

/// What the handle and the WebSockets ask for.
pub(super) enum Command {
    Connect { id: ConnectionId, address: IpAddr, reply: oneshot::Sender<Messages> },
    Message { id: ConnectionId, message: Result<ClientMessage, BadMessage>, bytes: usize },
    Disconnect { id: ConnectionId },
    Shutdown { reply: oneshot::Sender<()> },
}

/// What the actor's own tasks tell it: one outcome an offer or answer of a client, of which the relay lets
/// each client have a few at once.
enum Outcome {
    SenderAnswered(StreamId, Result<(PublisherHandle, Accepted), PublishError>),
    OfferMade(ViewerId, Option<String>),
    AnswerTaken(ViewerId, Result<(), AnswerError>),
}

/// Where a client's messages go.
struct Outlet {
    queue: mpsc::Sender<Arc<ServerMessage>>,
    closed: watch::Sender<Option<Closed>>,
}

/// A sender whose offer was answered, until its last packet is through.
struct Publisher {
    id: PublisherId,
    handle: PublisherHandle,
    /// When its first packet came.
    began: Option<Instant>,
    /// Its newest level, and when it was last louder than silence.
    level: Option<(AudioLevel, Instant)>,
}

impl Publisher {
    fn note_level(&mut self, level: AudioLevel) {
        let now = Instant::now();
        let before = self.level.map_or(now, |(_, sounded)| sounded);
        let sounded = if level.below_full < SILENT_BELOW_FULL { now } else { before };
        self.level = Some((level, sounded));
    }
}

/// See the module's documentation. The maps are bounded by the relay's.
pub(super) struct Actor {
    config: VoiceConfig,
    relay: Relay,
    media: MediaPlane,
    epoch: (Instant, Timestamp),
    outlets: HashMap<ConnectionId, Outlet>,
    publishers: HashMap<StreamId, Publisher>,
    streams: HashMap<PublisherId, StreamId>,
    /// Clients that did not take what they were told, to be forgotten after the action at hand.
    slow: Vec<ConnectionId>,
    delivery: Delivery,
    live: watch::Sender<Arc<[LiveVoice]>>,
    status: watch::Sender<Status>,
    audio_bytes: Arc<AtomicU64>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    outcomes_in: mpsc::UnboundedReceiver<Outcome>,
    senders: mpsc::UnboundedSender<SenderEvent>,
    senders_in: mpsc::UnboundedReceiver<SenderEvent>,
}

impl Actor {
    pub(super) fn new(
        config: VoiceConfig,
        media: MediaPlane,
        live: watch::Sender<Arc<[LiveVoice]>>,
        status: watch::Sender<Status>,
        audio_bytes: Arc<AtomicU64>,
    ) -> Self {
        let (outcomes, outcomes_in) = mpsc::unbounded_channel();
        let (senders, senders_in) = mpsc::unbounded_channel();
        let now = unix_time(SystemTime::now());
        Self {
            config,
            relay: Relay::new(config.limits, FIRST_VOICE, FIRST_RECEIVER),
            media,
            epoch: (Instant::now(), now),
            outlets: HashMap::new(),
            publishers: HashMap::new(),
            streams: HashMap::new(),
            slow: Vec::new(),
            delivery: Delivery::default(),
            live,
            status,
            audio_bytes,
            outcomes,
            outcomes_in,
            senders,
            senders_in,
        }
    }

    /// Runs until all handles are dropped.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut media_events: mpsc::UnboundedReceiver<MediaEvent>,
    ) {
        let mut events = Vec::with_capacity(EVENT_BATCH);
        loop {
            let wake = self.relay.next_timeout().map(|due| self.instant(due).into());
            // What media tells comes before what it is asked for, so that what ended is known.
            tokio::select! {
                biased;
                count = media_events.recv_many(&mut events, EVENT_BATCH), if !media_events.is_closed() || !media_events.is_empty() => {
                    if count > 0 {
                        events.drain(..).for_each(|event| self.handle_media(&event));
                    }
                }
                Some(outcome) = self.outcomes_in.recv() => self.handle_outcome(outcome),
                Some(event) = self.senders_in.recv() => self.handle_sender(event),
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                () = sleep_until(wake) => {}
            }
            let now = self.now();
            self.relay.handle_timeout(now);
            self.run_actions();
            self.publish_status();
        }
        self.end_all();
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Connect { id, address, reply } => {
                let (queue, messages) = mpsc::channel(self.queue_length());
                let (closed, closed_in) = watch::channel(None);
                let messages = Messages { queue: messages, closed: closed_in };
                if reply.send(messages).is_ok() {
                    self.outlets.insert(id, Outlet { queue, closed });
                    self.relay.handle_connect(id, address, now);
                }
            }
            Command::Message { id, message, bytes } => {
                self.relay.handle_message(id, message, bytes, now);
            }
            Command::Disconnect { id } => {
                self.outlets.remove(&id);
                self.relay.handle_disconnect(id);
            }
            Command::Shutdown { reply } => {
                self.end_all();
                // Who asked waits no longer once it is dropped.
                let _ = reply.send(());
            }
        }
    }

    fn handle_media(&mut self, event: &MediaEvent) {
        let now = self.now();
        match *event {
            MediaEvent::Connected { viewer, .. } => {
                self.relay.handle_receiver(viewer, ReceiverEvent::Connected, now);
            }
            MediaEvent::Closed { viewer, reason } => {
                self.relay.handle_receiver(viewer, ReceiverEvent::Closed(reason), now);
            }
            MediaEvent::PublisherConnected { publisher } => {
                if let Some(stream) = self.streams.get(&publisher) {
                    self.relay.handle_sender(*stream, SenderNews::Connected, now);
                }
            }
            MediaEvent::PublisherClosed { publisher, reason } => {
                if let Some(stream) = self.streams.remove(&publisher) {
                    self.relay.handle_sender(stream, SenderNews::Ended(reason), now);
                }
            }
            // Nothing in the relay depends on them.
            MediaEvent::Reached { .. }
            | MediaEvent::Alive { .. }
            | MediaEvent::Moved { .. }
            | MediaEvent::Detached { .. }
            | MediaEvent::FirstMedia { .. }
            | MediaEvent::Switched { .. }
            | MediaEvent::SwitchFailed { .. }
            | MediaEvent::Line { .. }
            | MediaEvent::KeyframeWanted { .. }
            | MediaEvent::Failed => {}
        }
        // A batch may hold what causes many actions; they are not let pile up.
        self.run_actions();
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::SenderAnswered(stream, Ok((handle, accepted))) => {
                self.begin_sender(stream, handle);
                let event = SenderNews::Accepted { sdp: accepted.answer_sdp };
                self.relay.handle_sender(stream, event, now);
            }
            Outcome::SenderAnswered(stream, Err(error)) => {
                self.relay.handle_sender(stream, SenderNews::Refused(error.to_string()), now);
            }
            Outcome::OfferMade(viewer, offer) => {
                let event = match offer {
                    Some(sdp) => ReceiverEvent::Offered { sdp },
                    None => ReceiverEvent::NotOffered,
                };
                self.relay.handle_receiver(viewer, event, now);
            }
            Outcome::AnswerTaken(viewer, result) => {
                let event = match result {
                    Ok(()) => ReceiverEvent::Answered,
                    Err(error) => ReceiverEvent::Refused(error.to_string()),
                };
                self.relay.handle_receiver(viewer, event, now);
            }
        }
    }

    fn begin_sender(&mut self, stream: StreamId, handle: PublisherHandle) {
        let id = handle.id();
        self.streams.insert(id, stream);
        let events = self.senders.clone();
        let (media, levels) = (self.media.clone(), self.config.levels);
        let bytes = Arc::clone(&self.audio_bytes);
        sender::spawn(&handle, stream, media, levels, events, bytes, stream.0.into());
        self.publishers.insert(stream, Publisher { id, handle, began: None, level: None });
    }

    fn handle_sender(&mut self, event: SenderEvent) {
        let now = self.now();
        match event {
            SenderEvent::Began { key } => {
                let Some(stream) = self.stream_of(key) else { return };
                if let Some(publisher) = self.publishers.get_mut(&stream) {
                    publisher.began = Some(Instant::now());
                }
                self.relay.handle_sender(stream, SenderNews::Began, now);
            }
            SenderEvent::Level { key, level, at } => {
                let Some(stream) = self.stream_of(key) else { return };
                if let Some(publisher) = self.publishers.get_mut(&stream) {
                    publisher.note_level(level);
                }
                let event = SenderNews::Level { level, at: unix_time(at) };
                self.relay.handle_sender(stream, event, now);
            }
            SenderEvent::Ended { key } => {
                let Some(stream) = self.stream_of(key) else { return };
                self.end_publisher(stream);
            }
        }
    }

    /// Its last packet is through, so that its stream can be freed. The relay is told why it ended by
    /// the media plane, or here where that cannot be known.
    fn end_publisher(&mut self, stream: StreamId) {
        let Some(publisher) = self.publishers.remove(&stream) else { return };
        publisher.handle.close();
        self.media.remove_stream(stream);
        if !self.streams.contains_key(&publisher.id) {
            let event = SenderNews::Ended(PublisherEnd::Peer);
            self.relay.handle_sender(stream, event, self.now());
        }
    }

    fn stream_of(&self, key: u64) -> Option<StreamId> {
        let stream = StreamId(u32::try_from(key).ok()?);
        self.publishers.contains_key(&stream).then_some(stream)
    }

    fn run_actions(&mut self) {
        while let Some(action) = self.relay.poll_action() {
            self.run_action(action);
            for id in std::mem::take(&mut self.slow) {
                self.outlets.remove(&id);
                self.relay.handle_disconnect(id);
            }
        }
    }

    fn run_action(&mut self, action: Action) {
        match action {
            Action::Tell(id, message) => self.tell(id, &Arc::new(message)),
            Action::TellAll(message) => {
                let message = Arc::new(message);
                let clients: Vec<ConnectionId> = self.outlets.keys().copied().collect();
                clients.into_iter().for_each(|id| self.tell(id, &message));
            }
            Action::AcceptSender { stream, offer } => self.accept_sender(stream, offer),
            Action::CloseSender { stream } => {
                // Its task ends with it, and tells.
                if let Some(publisher) = self.publishers.get(&stream) {
                    publisher.handle.close();
                }
            }
            Action::MakeOffer { viewer, stream } => {
                let (media, outcomes) = (self.media.clone(), self.outcomes.clone());
                tokio::spawn(async move {
                    let offer = media.offer_sound(viewer, stream).await;
                    // Nobody listens any more only while the program ends.
                    let _ = outcomes.send(Outcome::OfferMade(viewer, offer));
                });
            }
            Action::TakeAnswer { viewer, answer } => {
                let (media, outcomes) = (self.media.clone(), self.outcomes.clone());
                tokio::spawn(async move {
                    let result = media.take_answer(viewer, answer).await;
                    let _ = outcomes.send(Outcome::AnswerTaken(viewer, result));
                });
            }
            Action::CloseReceiver { viewer } => self.media.close(viewer),
            Action::VoicesChanged => self.publish_live(),
            Action::CloseSocket(id, code) => {
                let closed = match code {
                    CloseCode::Policy => Closed::Policy,
                    CloseCode::TryAgainLater => Closed::TryAgainLater,
                };
                self.close(id, closed);
            }
            Action::Log(line) => write(line),
        }
    }

    fn accept_sender(&self, stream: StreamId, offer: String) {
        let (media, outcomes) = (self.media.clone(), self.outcomes.clone());
        let wishes = self.config.wishes;
        tokio::spawn(async move {
            let result = media.accept_sender(offer, wishes).await;
            // Nobody listens any more only while the program ends.
            let _ = outcomes.send(Outcome::SenderAnswered(stream, result));
        });
    }

    /// Waits for nobody: who takes nothing any more loses levels first, and its connection then.
    fn tell(&mut self, id: ConnectionId, message: &Arc<ServerMessage>) {
        let Some(outlet) = self.outlets.get(&id) else { return };
        let waiting = outlet.queue.max_capacity() - outlet.queue.capacity();
        if matches!(**message, ServerMessage::Level { .. })
            && waiting >= self.config.queue_length.div_ceil(2)
        {
            self.delivery.levels_dropped += 1;
            return;
        }
        match outlet.queue.try_send(Arc::clone(message)) {
            Ok(()) => {}
            // It has hung up, which is told in its turn.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!(connection = %id, "closing a connection that does not take its messages");
                self.delivery.too_slow += 1;
                self.close(id, Closed::TooSlow);
                self.slow.push(id);
            }
        }
    }

    fn close(&mut self, id: ConnectionId, reason: Closed) {
        if let Some(outlet) = self.outlets.remove(&id) {
            // Nobody listens where it has hung up.
            let _ = outlet.closed.send(Some(reason));
        }
    }

    fn end_all(&mut self) {
        let clients: Vec<ConnectionId> = self.outlets.keys().copied().collect();
        for id in clients {
            self.close(id, Closed::GoingAway);
            self.relay.handle_disconnect(id);
        }
        self.run_actions();
    }

    fn publish_live(&self) {
        let began = |stream| self.publishers.get(&stream).and_then(|publisher| publisher.began);
        let voice = |live: &engine::voice::LiveVoice| LiveVoice {
            id: live.voice.to_string(),
            stream: live.stream,
            began: began(live.stream).unwrap_or_else(Instant::now),
        };
        self.live.send_replace(self.relay.live().iter().map(voice).collect());
    }

    fn publish_status(&self) {
        let voices = self.relay.live().iter().map(|live| live.voice.to_string()).collect();
        // Both are counted elsewhere, and read when they are asked for.
        let (audio_bytes, mp3) = (0, Mp3Figures::default());
        self.status.send_replace(Status {
            audio_bytes,
            mp3,
            residue: self.relay.residue(),
            figures: self.relay.figures(),
            delivery: self.delivery,
            voices,
            levels: self.levels(),
        });
    }

    fn levels(&self) -> Vec<VoiceLevel> {
        let live = self.relay.live().iter();
        live.filter_map(|live| {
            let (level, sounded) = self.publishers.get(&live.stream)?.level?;
            let dbov = -i16::from(level.below_full);
            Some(VoiceLevel { voice: live.voice.to_string(), dbov, sounded })
        })
        .collect()
    }

    fn queue_length(&self) -> usize {
        self.config.queue_length.max(QUEUE_LENGTH_MIN)
    }

    fn now(&self) -> Timestamp {
        self.epoch.1 + self.epoch.0.elapsed()
    }

    /// The first instant at which [`Self::now`] is `timestamp`.
    fn instant(&self, timestamp: Timestamp) -> Instant {
        self.epoch.0 + timestamp.saturating_since(self.epoch.1)
    }
}

/// Whole milliseconds since the Unix epoch.
fn unix_time(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn write(line: LogLine) {
    if line.is_warning() { warn!("{line}") } else { info!("{line}") }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
