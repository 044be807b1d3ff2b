//! The media plane's sockets: one UDP port, one worker a core, handshakes beside them, and the same
//! port by TCP for who has no UDP.
//!
//! ```text
//! sources --frame, packetised once--> worker 0..n  --sendmmsg of GSO runs--> viewers
//! viewers --STUN, DTLS--> worker --> handshake threads --keys--> worker
//! viewers --SRTCP------> worker       --queues--> connections --> viewers without UDP
//! ```
//! The logic is in the `media` crate, sans-IO; this module owns threads, sockets and the clock.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use media::batch::Route;
use media::estimate::LineState;
use media::packetise::packetise;
use media::peer::PeerFactory;
use media::peer::publisher::PublisherFactory;
use media::publishers::GroupFigures;
use media::srtp::GcmBackend;
use media::viewer::TrackFigures;
use media::{Codec, CodecSet, Frame, StreamId, ViewerId, g711};
use tokio::sync::mpsc;

mod addresses;
mod handshakes;
mod publishers;
mod sys;
mod taps;
mod tcp;
mod urgency;
mod worker;

pub(crate) use addresses::{Announced, opened_at};
pub(crate) use handshakes::Restarted;
pub(crate) use media::peer::publisher::SoundWishes;
pub(crate) use media::peer::{AnswerError, IceCredentials, OfferError};
pub(crate) use media::peers::CloseReason;
pub(crate) use publishers::{PublishError, PublisherEnd, PublisherHandle, PublisherId, Sink};
pub(crate) use sys::{
    Offload, Segment, Segments, Taken, UdpPort, open_receiver, raise_descriptor_limit,
    thread_cpu_time,
};
pub(crate) use taps::{Tap, Tapped};
pub(crate) use urgency::Priority;

use handshakes::{HandshakeThread, Handshakes, Surroundings};
use publishers::{PublisherThread, Publishers};
use tcp::{Connections, Patience, TcpFigures, TcpPort};
use worker::{Worker, WorkerHandle, WorkerInput};

/// How long viewers may take to be told that the server ends.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Where the media port is bound and what is announced of it.
#[derive(Debug, Clone)]
pub(crate) struct MediaConfig {
    /// Port 0 takes any free one.
    pub(crate) udp: SocketAddr,
    /// Where connections for media are taken (ICE-TCP).
    pub(crate) tcp: MediaTcp,
    /// Addresses to announce instead of the interfaces' own, when behind NAT.
    pub(crate) advertise: Vec<IpAddr>,
    /// Worker threads; one a core by default.
    pub(crate) workers: Option<usize>,
    /// How workers and publisher threads are scheduled.
    pub(crate) priority: Priority,
}

/// Where the media port is bound by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaTcp {
    /// At the address and the number that it has by UDP.
    LikeUdp,
    /// Elsewhere.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// Why the media plane could not start.
#[derive(Debug)]
pub(crate) struct StartError {
    /// The setting that it is about.
    pub(crate) key: &'static str,
    /// What could not be bound.
    pub(crate) address: SocketAddr,
    /// The system's reason.
    pub(crate) reason: io::Error,
}

/// What the media plane tells of viewers and streams.
#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// A viewer's check came along this path, before its DTLS finished; about once a second.
    Reached { viewer: ViewerId, route: Route },
    /// DTLS finished, media flows from here on.
    Connected { viewer: ViewerId, handshake_ms: u32, route: Route },
    /// An authenticated packet (STUN check, SRTCP) came from the viewer; about once a second. SRTCP tells
    /// what the viewer was sent so far.
    Alive { viewer: ViewerId, at: Instant, sent: Option<TrackFigures> },
    /// The viewer's media goes along another path.
    Moved { viewer: ViewerId, route: Route },
    /// The viewer gets no more media. Comes once for each that was connected.
    Detached { viewer: ViewerId, sent: TrackFigures },
    /// The viewer's session is over, whoever ended it. Sent exactly once a viewer.
    Closed { viewer: ViewerId, reason: CloseReason },
    /// Viewers of the stream cannot decode: the source should send a keyframe, if it can.
    KeyframeWanted { stream: StreamId },
    /// The first packet of media left for this viewer.
    FirstMedia { viewer: ViewerId },
    /// The viewer plays the stream that it was last told to go to.
    Switched { viewer: ViewerId, stream: StreamId },
    /// The stream that the viewer was told to go to brought nothing in time; it stays where it is.
    SwitchFailed { viewer: ViewerId, stream: StreamId },
    /// How the viewer's line does, where that changed; at most once a second.
    Line { viewer: ViewerId, line: LineState, stream: StreamId },
    /// A publisher's DTLS finished: it may be asked for media.
    PublisherConnected { publisher: PublisherId },
    /// A publisher's session is over, whoever ended it. Sent exactly once a publisher.
    PublisherClosed { publisher: PublisherId, reason: PublisherEnd },
    /// A thread of the media plane panicked. Its viewers are lost, and it does not come back.
    Failed,
}

/// Who is told of an event.
enum Audience {
    Cameras,
    Voice,
    /// The voice relay gets this copy. Each side knows its own publishers and passes over the others.
    Both(MediaEvent),
}

impl MediaEvent {
    fn audience(&self) -> Audience {
        match *self {
            Self::Reached { viewer, .. }
            | Self::Connected { viewer, .. }
            | Self::Alive { viewer, .. }
            | Self::Moved { viewer, .. }
            | Self::Detached { viewer, .. }
            | Self::Closed { viewer, .. }
            | Self::FirstMedia { viewer }
            | Self::Switched { viewer, .. }
            | Self::SwitchFailed { viewer, .. }
            | Self::Line { viewer, .. } => {
                if viewer < FIRST_RECEIVER {
                    Audience::Cameras
                } else {
                    Audience::Voice
                }
            }
            Self::PublisherConnected { publisher } => {
                Audience::Both(Self::PublisherConnected { publisher })
            }
            Self::PublisherClosed { publisher, reason } => {
                Audience::Both(Self::PublisherClosed { publisher, reason })
            }
            Self::KeyframeWanted { .. } | Self::Failed => Audience::Cameras,
        }
    }
}

/// The answer to a viewer's offer.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) answer_sdp: String,
    /// The ICE user fragment of the answer: names the ICE session (the WHEP ETag).
    pub(crate) ice_ufrag: String,
    /// What the viewer takes.
    pub(crate) codecs: CodecSet,
    /// That of the offer.
    pub(crate) their_ufrag: Option<String>,
}

/// Counters of the media plane since the start; all rise, except `viewers_connected`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MediaFigures {
    /// Frames that sources handed over.
    pub(crate) frames_in: u64,
    /// RTP and RTCP packets sent to viewers.
    pub(crate) packets_sent: u64,
    /// Bytes of them, with headers and tags.
    pub(crate) bytes_sent: u64,
    /// Datagrams that arrived at the media port.
    pub(crate) packets_received: u64,
    /// Datagrams on the media port that belong to nobody or are not authentic.
    pub(crate) datagrams_dropped: u64,
    /// Media packets not sent because the socket would not take them, or a worker was too late.
    pub(crate) send_drops: u64,
    /// Packets that viewers asked for again (NACK).
    pub(crate) nacks: u64,
    /// Of these, those that were sent again.
    pub(crate) repairs: u64,
    /// Of these, those that were refused: too often, too early, or too many.
    pub(crate) repairs_refused: u64,
    /// Of these, those that are not kept any more, or never were.
    pub(crate) repairs_missed: u64,
    /// Frames skipped for viewers that were too slow.
    pub(crate) frames_skipped: u64,
    /// Frames not sent to a viewer whose answer has no such codec.
    pub(crate) frames_not_taken: u64,
    /// Packets of voices not passed on to a receiver: they came twice, or too late for a number.
    pub(crate) packets_too_late: u64,
    /// Frames of which no packets could be made: empty, or cut larger than a packet may be.
    pub(crate) frames_not_cut: u64,
    /// Picture loss indications and full intra requests received.
    pub(crate) keyframe_requests: u64,
    /// Packets that viewers reported as lost.
    pub(crate) packets_lost_reported: u64,
    /// Frames skipped for taps that were too slow.
    pub(crate) tap_frames_skipped: u64,
    /// Viewers to whom media flows.
    pub(crate) viewers_connected: u64,
    /// Of these, those whose line is too thin for their stream.
    pub(crate) viewers_limited: u64,
    /// Publishers whose connection stands.
    pub(crate) publishers_connected: u64,
    /// Packets of media that publishers sent and somebody wanted.
    pub(crate) publisher_packets: u64,
    /// Packets of publishers that never came, however often they were asked for again.
    pub(crate) publisher_packets_lost: u64,
    /// Messages that asked publishers for lost packets.
    pub(crate) publisher_nacks: u64,
    /// Pictures of publishers that were not passed on: broken, or before a keyframe.
    pub(crate) publisher_frames_withheld: u64,
    /// Keyframes that publishers were asked for.
    pub(crate) publisher_keyframes_asked: u64,
    /// Datagrams and frames of publishers for which a queue had no room.
    pub(crate) publisher_overflows: u64,
    /// Those who speak.
    pub(crate) voices: GroupFigures,
    /// Viewers that moved to another address, or from UDP to TCP and back.
    pub(crate) moves: u64,
    /// Viewers that were let go since no authentic check came (RFC 7675).
    pub(crate) consents_expired: u64,
    /// Sessions of viewers and publishers that ended since something panicked.
    pub(crate) sessions_failed: u64,
    /// Connections of viewers that come by TCP.
    pub(crate) tcp: TcpFigures,
}

/// Receivers of voices have ids from here on; below it they are viewers of cameras.
pub(crate) const FIRST_RECEIVER: ViewerId = ViewerId(1 << 63);

/// Voices have ids from here on; below it they are streams of cameras.
pub(crate) const FIRST_VOICE: StreamId = StreamId(1 << 31);

/// Where events go, and the counts that belong to no worker.
#[derive(Clone)]
pub(crate) struct EventSink {
    events: mpsc::UnboundedSender<MediaEvent>,
    /// Those of receivers, and a second copy of those of publishers.
    voice: Arc<OnceLock<mpsc::UnboundedSender<MediaEvent>>>,
    rejected: Arc<AtomicU64>,
    consents_expired: Arc<AtomicU64>,
    sessions_failed: Arc<AtomicU64>,
}

impl EventSink {
    fn new(events: mpsc::UnboundedSender<MediaEvent>) -> Self {
        let (voice, rejected, consents_expired, sessions_failed) = Default::default();
        Self { events, voice, rejected, consents_expired, sessions_failed }
    }

    fn send(&self, event: MediaEvent) {
        // Nobody listens any more only while the program ends.
        let _ = match (self.voice.get(), event.audience()) {
            (Some(voice), Audience::Voice) => voice.send(event),
            (Some(voice), Audience::Both(copy)) => {
                voice.send(copy).and_then(|()| self.events.send(event))
            }
            (Some(_), Audience::Cameras) | (None, _) => self.events.send(event),
        };
    }

    fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn count_expired_consent(&self) {
        self.consents_expired.fetch_add(1, Ordering::Relaxed);
    }

    fn count_failed_session(&self) {
        self.sessions_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells that its thread panicked.
struct Alarm(EventSink);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(MediaEvent::Failed);
        }
    }
}

/// Handle to the running media plane; cheap to clone.
#[derive(Clone)]
pub(crate) struct MediaPlane {
    workers: Vec<WorkerHandle>,
    handshakes: Handshakes,
    publishers: Publishers,
    local: SocketAddr,
    tcp: Option<SocketAddr>,
    connections: Connections,
    tcp_ended: Option<crossbeam_channel::Receiver<()>>,
    events: EventSink,
    frames_in: Arc<AtomicU64>,
    frames_not_cut: Arc<AtomicU64>,
    tap_frames_skipped: Arc<AtomicU64>,
}

impl MediaPlane {
    /// Binds the port and starts workers and handshake threads.
    pub(crate) fn start(
        config: &MediaConfig,
        events: mpsc::UnboundedSender<MediaEvent>,
    ) -> Result<Self, StartError> {
        calibrate_gcm();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = config.workers.unwrap_or(cores).max(1);
        let bound = Bound::new(config, count)?;
        let refused = |reason| StartError { key: "media.udp", address: config.udp, reason };
        Self::run(bound, config, cores, events).map_err(refused)
    }

    fn run(
        bound: Bound,
        config: &MediaConfig,
        cores: usize,
        events: mpsc::UnboundedSender<MediaEvent>,
    ) -> io::Result<Self> {
        let Bound { ports, udp, listener } = bound;
        let tcp = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let tcp_address = tcp.map_or_else(|| "off".to_owned(), |tcp| tcp.to_string());
        tracing::info!(address = %udp, tcp = %tcp_address, workers = ports.len(), "media port is open");
        let events = EventSink::new(events);
        let (handshakes, shard_inputs) = Handshakes::new(cores);
        let (publishers, publisher_inputs) = Publishers::new(cores);
        let connections = Connections::new();
        let neighbours = (&handshakes, &publishers, &connections);
        let workers = start_workers(ports, neighbours, config.priority, &events)?;
        let mut announced = Announced::new(udp, tcp, config.advertise.clone());
        let candidates = announced.refresh(Instant::now()).unwrap_or_default();
        let surroundings = Surroundings {
            workers: workers.clone(),
            connections: connections.clone(),
            announced,
            events: events.clone(),
        };
        let no_certificate = || io::Error::other("no DTLS certificate could be made");
        for (index, inputs) in shard_inputs.into_iter().enumerate() {
            let mut factory = PeerFactory::new(Vec::new()).ok_or_else(no_certificate)?;
            factory.set_candidates(candidates.clone());
            let thread = HandshakeThread::new(index, inputs, factory, surroundings.clone());
            spawn(format!("handshake-{index}"), &events, move || thread.run())?;
        }
        for (index, inputs) in publisher_inputs.into_iter().enumerate() {
            let mut factory = PublisherFactory::new(Vec::new()).ok_or_else(no_certificate)?;
            factory.set_candidates(candidates.clone());
            let net = surroundings.clone();
            let thread = PublisherThread::new(index, inputs, factory, net, &publishers);
            let priority = config.priority;
            spawn(format!("publisher-{index}"), &events, move || thread.run(priority))?;
        }
        let port = TcpPort {
            connections: connections.clone(),
            handshakes: handshakes.clone(),
            publishers: publishers.clone(),
            workers: workers.clone(),
            patience: Patience::default(),
        };
        let alarm = Alarm(events.clone());
        let tcp_ended = listener.map(|listener| port.start(vec![listener], alarm)).transpose()?;
        Ok(Self {
            workers,
            handshakes,
            publishers,
            local: udp,
            tcp,
            connections,
            tcp_ended,
            events,
            frames_in: Arc::default(),
            frames_not_cut: Arc::default(),
            tap_frames_skipped: Arc::default(),
        })
    }

    /// Where the port is bound.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Where connections are taken, if they are.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Answers a viewer's offer and attaches it to the stream as soon as its DTLS is done.
    pub(crate) async fn accept(
        &self,
        viewer: ViewerId,
        stream: StreamId,
        offer_sdp: String,
    ) -> Result<Accepted, OfferError> {
        let stopped = || OfferError::Malformed("the server is shutting down".to_owned());
        let their_ufrag = offer_sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        let their_ufrag = their_ufrag.map(|ufrag| ufrag.trim().to_owned());
        let answer =
            self.handshakes.offer(viewer, stream, offer_sdp).await.ok_or_else(stopped)??;
        let codecs = answer.negotiated.codecs();
        Ok(Accepted { ice_ufrag: answer.ufrag, answer_sdp: answer.sdp, their_ufrag, codecs })
    }

    /// Answers a publisher's offer. Its media is taken from the handle's [`PublisherHandle::attach`].
    pub(crate) async fn accept_publisher(
        &self,
        offer_sdp: String,
    ) -> Result<(PublisherHandle, Accepted), PublishError> {
        let stopped = || OfferError::Malformed("the server is shutting down".to_owned());
        self.publishers.offer(offer_sdp).await.unwrap_or_else(|| Err(stopped().into()))
    }

    /// Events of receivers, and those of publishers, go here from now on. Only the first call counts.
    pub(crate) fn voice_events(&self) -> mpsc::UnboundedReceiver<MediaEvent> {
        let (sender, events) = mpsc::unbounded_channel();
        // A second caller gets a channel that is closed.
        let _ = self.events.voice.set(sender);
        events
    }

    /// Offers a receiver the sound of a stream; `None` when the server ends. Its answer goes to
    /// [`Self::take_answer`]. `Closed` is reported if none comes in time.
    pub(crate) async fn offer_sound(&self, viewer: ViewerId, stream: StreamId) -> Option<String> {
        self.handshakes.offer_sound(viewer, stream).await
    }

    /// A receiver's answer to the offer that it was made.
    pub(crate) async fn take_answer(
        &self,
        viewer: ViewerId,
        answer_sdp: String,
    ) -> Result<(), AnswerError> {
        self.handshakes.take_answer(viewer, answer_sdp).await.unwrap_or(Err(AnswerError::Over))
    }

    /// Answers the offer of somebody who speaks: sound alone, passed on packet by packet.
    pub(crate) async fn accept_sender(
        &self,
        offer_sdp: String,
        wishes: SoundWishes,
    ) -> Result<(PublisherHandle, Accepted), PublishError> {
        let stopped = || OfferError::Malformed("the server is shutting down".to_owned());
        let accepted = self.publishers.offer_sound(offer_sdp, wishes).await;
        accepted.unwrap_or_else(|| Err(stopped().into()))
    }

    /// Trickle (RFC 8840 fragment). A lite agent with a public port needs no remote candidates:
    /// checks bring their source address with them.
    pub(crate) fn trickle(&self, viewer: ViewerId, fragment: String) {
        tracing::debug!(viewer = viewer.0, bytes = fragment.len(), "candidates trickled");
    }

    /// An ICE restart that the viewer asks for with its new credentials; DTLS and media go on. `None`
    /// when its session is over.
    pub(crate) async fn restart_ice(
        &self,
        viewer: ViewerId,
        theirs: IceCredentials,
    ) -> Option<Restarted> {
        self.handshakes.restart(viewer, theirs).await
    }

    /// Ends a viewer's session: BYE and DTLS close_notify are sent, then `Closed` is reported.
    pub(crate) fn close(&self, viewer: ViewerId) {
        self.handshakes.close(viewer);
    }

    /// Lets a viewer to whom media flows go to another stream, without a gap. `Switched` or
    /// `SwitchFailed` is told, unless the viewer goes before. The newest call counts.
    pub(crate) fn switch(&self, viewer: ViewerId, stream: StreamId) {
        for worker in &self.workers {
            worker.tell(WorkerInput::Switch(viewer, stream));
        }
    }

    /// Puts a source's frame before all viewers of the stream. Never blocks.
    pub(crate) fn publish(&self, stream: StreamId, frame: Frame) {
        match frame.codec {
            // Cameras put up to 256 ms into one packet.
            Codec::Pcmu | Codec::Pcma => {
                g711::split(&frame).iter().for_each(|part| self.put(stream, part));
            }
            Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus => {
                self.put(stream, &frame);
            }
        }
    }

    fn put(&self, stream: StreamId, frame: &Frame) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        let packets = Arc::new(packetise(frame));
        if packets.packet_count() == 0 {
            self.frames_not_cut.fetch_add(1, Ordering::Relaxed);
        }
        for worker in &self.workers {
            worker.tell(WorkerInput::Frame(stream, Arc::clone(&packets)));
        }
    }

    /// The frames of a stream for a consumer that is no WebRTC viewer, beginning with the cached
    /// group. One worker hands them over, so that a frame of a stream without taps costs nothing.
    pub(crate) fn tap(&self, stream: StreamId) -> Tap {
        let (sender, tap) = taps::channel(Arc::clone(&self.tap_frames_skipped));
        let worker = stream.0 as usize % self.workers.len();
        self.workers[worker].tell(WorkerInput::Tap(stream, Box::new(sender)));
        tap
    }

    /// The source is gone or restarts: the cached picture is dropped, viewers stay and wait.
    pub(crate) fn interrupt(&self, stream: StreamId) {
        for worker in &self.workers {
            worker.tell(WorkerInput::Interrupt(stream));
        }
    }

    /// The stream has no source any more: everything of it is freed, but for viewers who wait.
    pub(crate) fn remove_stream(&self, stream: StreamId) {
        for worker in &self.workers {
            worker.tell(WorkerInput::Remove(stream));
        }
    }

    /// Sum over all workers since the start.
    pub(crate) fn figures(&self) -> MediaFigures {
        let mut sum = MediaFigures {
            frames_in: self.frames_in.load(Ordering::Relaxed),
            datagrams_dropped: self.events.rejected.load(Ordering::Relaxed),
            consents_expired: self.events.consents_expired.load(Ordering::Relaxed),
            sessions_failed: self.events.sessions_failed.load(Ordering::Relaxed),
            tcp: self.connections.figures(),
            frames_not_cut: self.frames_not_cut.load(Ordering::Relaxed),
            tap_frames_skipped: self.tap_frames_skipped.load(Ordering::Relaxed),
            ..MediaFigures::default()
        };
        sum.packets_received += sum.tcp.received;
        sum.datagrams_dropped += sum.tcp.dropped;
        for figures in self.workers.iter().map(WorkerHandle::figures) {
            sum.packets_sent += figures.fanout.packets_sent;
            sum.bytes_sent += figures.fanout.bytes_sent;
            sum.packets_received += figures.received;
            sum.datagrams_dropped += figures.dropped + figures.fanout.rejected;
            sum.send_drops += figures.send_drops;
            sum.nacks += figures.fanout.nacks;
            sum.repairs += figures.fanout.repairs;
            sum.repairs_refused += figures.fanout.repairs_refused;
            sum.repairs_missed += figures.fanout.repairs_missed;
            sum.frames_skipped += figures.fanout.frames_skipped;
            sum.frames_not_taken += figures.fanout.frames_not_taken;
            sum.packets_too_late += figures.fanout.packets_too_late;
            sum.keyframe_requests += figures.fanout.keyframe_requests;
            sum.packets_lost_reported += figures.fanout.packets_lost;
            sum.viewers_connected += figures.fanout.viewers;
            sum.viewers_limited += figures.fanout.viewers_limited;
            sum.moves += figures.fanout.moves;
        }
        let (publishers, dropped) = self.publishers.figures();
        let cameras = publishers.table.cameras;
        sum.publishers_connected = cameras.connected;
        sum.publisher_packets = cameras.sum.tracks.packets;
        sum.publisher_packets_lost = cameras.sum.tracks.lost;
        sum.publisher_nacks = cameras.sum.nacks;
        sum.publisher_frames_withheld = cameras.sum.tracks.withheld;
        sum.publisher_keyframes_asked = cameras.sum.keyframes_asked;
        sum.publisher_overflows = publishers.overflows + dropped;
        sum.voices = publishers.table.voices;
        sum
    }

    /// Ends all sessions (BYE, close_notify) and the threads; returns when all are told, or after
    /// [`GOODBYE_LIMIT`].
    pub(crate) async fn shutdown(&self) {
        let plane = self.clone();
        // Ending is best effort: a panic in there must not keep the program from ending.
        let _ = tokio::task::spawn_blocking(move || plane.end()).await;
    }

    fn end(&self) {
        self.publishers.close_all(GOODBYE_LIMIT);
        self.publishers.stop();
        self.handshakes.close_all(GOODBYE_LIMIT);
        self.handshakes.stop();
        let (done, all_done) = crossbeam_channel::bounded(self.workers.len());
        for worker in &self.workers {
            worker.tell(WorkerInput::Stop(done.clone()));
        }
        drop(done);
        // Their last goodbyes are under way until then.
        let deadline = Instant::now() + GOODBYE_LIMIT;
        for _ in &self.workers {
            if all_done.recv_deadline(deadline).is_err() {
                break;
            }
        }
        self.connections.end();
        if let Some(ended) = &self.tcp_ended {
            // Nothing is ever sent: it is closed when the thread has ended.
            let _ = ended.recv_deadline(deadline);
        }
    }
}

fn start_workers(
    ports: Vec<UdpPort>,
    (handshakes, publishers, connections): (&Handshakes, &Publishers, &Connections),
    priority: Priority,
    events: &EventSink,
) -> io::Result<Vec<WorkerHandle>> {
    let mut workers = Vec::new();
    let mut worker_inputs = Vec::new();
    for port in ports {
        let (handle, inputs) = WorkerHandle::new(port)?;
        workers.push(handle);
        worker_inputs.push(inputs);
    }
    for (index, inputs) in worker_inputs.into_iter().enumerate() {
        let mut others = workers.clone();
        let handle = others.remove(index);
        let worker = Worker {
            index,
            handle,
            inputs,
            others,
            handshakes: handshakes.clone(),
            publishers: publishers.clone(),
            connections: connections.clone(),
            events: events.clone(),
        };
        spawn(format!("media-{index}"), events, move || worker.run(priority))?;
    }
    Ok(workers)
}

/// A thread whose panic is told.
fn spawn(name: String, events: &EventSink, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let alarm = Alarm(events.clone());
    thread::Builder::new().name(name).spawn(move || {
        let _alarm = alarm;
        run();
    })?;
    Ok(())
}

/// Chooses the faster AES-GCM of the two that are built in (some 3 ms).
pub(crate) fn calibrate_gcm() -> GcmBackend {
    let backend = media::srtp::calibrate_gcm(|backend| {
        let start = Instant::now();
        media::srtp::calibration_round(backend);
        start.elapsed()
    });
    tracing::debug!(?backend, "AES-GCM calibrated");
    backend
}

/// The media port, bound.
struct Bound {
    /// One socket a worker.
    ports: Vec<UdpPort>,
    udp: SocketAddr,
    listener: Option<TcpListener>,
}

impl Bound {
    /// With port 0 both transports get the same free number: what one finds free may be taken for
    /// the other, or by another program meanwhile, so a few are tried.
    fn new(config: &MediaConfig, workers: usize) -> Result<Self, StartError> {
        const TRIES: usize = 10;
        let mut left = TRIES;
        loop {
            left -= 1;
            let again = config.udp.port() == 0 && left > 0;
            let (ports, udp) = match bind_all(config.udp, workers) {
                Ok(bound) => bound,
                Err(_) if again => continue,
                Err(reason) => {
                    return Err(StartError { key: "media.udp", address: config.udp, reason });
                }
            };
            let address = match config.tcp {
                MediaTcp::LikeUdp => udp,
                MediaTcp::At(address) => address,
                MediaTcp::Off => return Ok(Self { ports, udp, listener: None }),
            };
            match tcp::bind(address) {
                Ok(listener) => return Ok(Self { ports, udp, listener: Some(listener) }),
                Err(_) if again => {}
                Err(reason) => return Err(StartError { key: "media.tcp", address, reason }),
            }
        }
    }
}

/// Binds one socket a worker to the same port.
fn bind_all(address: SocketAddr, count: usize) -> io::Result<(Vec<UdpPort>, SocketAddr)> {
    // Sockets that share a port would also share it with another running server. One that does
    // not share finds out whether the port is free.
    let exclusive = UdpSocket::bind(address)?;
    let address = SocketAddr::new(address.ip(), exclusive.local_addr()?.port());
    drop(exclusive);
    let ports = (0..count).map(|_| UdpPort::bind(address)).collect::<io::Result<Vec<_>>>()?;
    let local = ports.first().map_or(address, UdpPort::local_address);
    Ok((ports, local))
}

/// A number nobody can guess.
fn random_u64() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    // The fixed bits of a version 4 UUID are the high nibble of byte 6 and two bits of byte 8.
    high.rotate_left(32) ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of_and_one_that_ends_is_not() {
        let (events, mut told) = mpsc::unbounded_channel();
        let sink = EventSink::new(events);
        let run = |panics: bool| {
            let alarm = Alarm(sink.clone());
            let thread = thread::spawn(move || {
                let _alarm = alarm;
                assert!(!panics, "this panic belongs to the test");
            });
            thread.join().is_err()
        };
        assert!(!run(false) && told.try_recv().is_err());
        assert!(run(true) && matches!(told.try_recv(), Ok(MediaEvent::Failed)));
    }
}
