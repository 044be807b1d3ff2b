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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use media::packetise::packetise;
use media::peer::PeerFactory;
use media::peer::publisher::PublisherFactory;
use media::srtp::GcmBackend;
use media::{Codec, CodecSet, Frame, StreamId, ViewerId, g711};
use tokio::sync::mpsc;

mod addresses;
mod events;
mod handshakes;
mod publishers;
mod sys;
mod taps;
mod tcp;
mod urgency;
mod worker;

pub(crate) use addresses::{Announced, opened_at};
pub(crate) use events::{EventSink, FIRST_RECEIVER, FIRST_VOICE, MediaEvent, MediaFigures};
pub(crate) use handshakes::{GOODBYE, Restarted};
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

use events::Alarm;
use handshakes::{HandshakeThread, Handshakes, Surroundings};
use publishers::{PublisherThread, Publishers};
use tcp::{Connections, Patience, TcpPort};
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

    /// Ends a viewer's session: BYE, which says why, and DTLS close_notify are sent, then `Closed` is
    /// reported.
    pub(crate) fn close(&self, viewer: ViewerId, why: &'static str) {
        self.handshakes.close(viewer, why);
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
