//! The media plane's sockets: one UDP port, one worker a core, handshakes beside them.
//!
//! ```text
//! sources --frame, packetised once--> worker 0..n  --sendmmsg of GSO runs--> viewers
//! viewers --STUN, DTLS--> worker --> handshake threads --keys--> worker
//! viewers --SRTCP------> worker
//! ```
//! The logic is in the `media` crate, sans-IO; this module owns threads, sockets and the clock.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use media::estimate::LineState;
use media::packetise::packetise;
use media::peer::PeerFactory;
use media::peer::publisher::PublisherFactory;
use media::srtp::GcmBackend;
use media::{CodecSet, Frame, StreamId, ViewerId};
use tokio::sync::mpsc;

mod handshakes;
mod publishers;
mod sys;
mod taps;
mod worker;

pub(crate) use media::peer::OfferError;
pub(crate) use media::peers::CloseReason;
pub(crate) use publishers::{PublishError, PublisherEnd, PublisherHandle, PublisherId};
pub(crate) use sys::{Offload, Segment, Segments, Taken, UdpPort, open_receiver, thread_cpu_time};
pub(crate) use taps::{Tap, Tapped};

use handshakes::{HandshakeThread, Handshakes};
use publishers::{PublisherThread, Publishers};
use worker::{Worker, WorkerHandle, WorkerInput};

/// How long viewers may take to be told that the server ends.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Where the media port is bound and what is announced of it.
#[derive(Debug, Clone)]
pub(crate) struct MediaConfig {
    /// Port 0 takes any free one.
    pub(crate) udp: SocketAddr,
    /// Addresses to announce instead of the interfaces' own, when behind NAT.
    pub(crate) advertise: Vec<IpAddr>,
    /// Worker threads; one a core by default.
    pub(crate) workers: Option<usize>,
}

/// What the media plane tells of viewers and streams.
#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// DTLS finished, media flows from here on.
    Connected { viewer: ViewerId, handshake_ms: u32 },
    /// An authenticated packet (STUN check, SRTCP) came from the viewer; about once a second.
    Alive { viewer: ViewerId, at: Instant },
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

/// The answer to a viewer's offer.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) answer_sdp: String,
    /// The ICE user fragment of the answer: names the ICE session (the WHEP ETag).
    pub(crate) ice_ufrag: String,
    /// What the viewer takes.
    pub(crate) codecs: CodecSet,
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
    /// Publishers whose connection stands.
    pub(crate) publishers_connected: u64,
    /// Packets of media that publishers sent and somebody wanted.
    pub(crate) publisher_packets: u64,
    /// Packets of publishers that never came, however often they were asked for again.
    pub(crate) publisher_packets_lost: u64,
    /// Pictures of publishers that were not passed on: broken, or before a keyframe.
    pub(crate) publisher_frames_withheld: u64,
    /// Keyframes that publishers were asked for.
    pub(crate) publisher_keyframes_asked: u64,
    /// Datagrams and frames of publishers for which a queue had no room.
    pub(crate) publisher_overflows: u64,
    /// Of these, those whose line is too thin for their stream.
    pub(crate) viewers_limited: u64,
}

/// Where events go, and the one count that belongs to no worker.
#[derive(Clone)]
pub(crate) struct EventSink {
    events: mpsc::UnboundedSender<MediaEvent>,
    rejected: Arc<AtomicU64>,
}

impl EventSink {
    fn send(&self, event: MediaEvent) {
        // Nobody listens any more only while the program ends.
        let _ = self.events.send(event);
    }

    fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
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
    rejected: Arc<AtomicU64>,
    frames_in: Arc<AtomicU64>,
    frames_not_cut: Arc<AtomicU64>,
    tap_frames_skipped: Arc<AtomicU64>,
}

impl MediaPlane {
    /// Binds the port and starts workers and handshake threads.
    pub(crate) fn start(
        config: &MediaConfig,
        events: mpsc::UnboundedSender<MediaEvent>,
    ) -> io::Result<Self> {
        calibrate_gcm();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = config.workers.unwrap_or(cores).max(1);
        let (ports, local) = bind_all(config.udp, count)?;
        let candidates = candidates(local, &config.advertise);
        tracing::info!(address = %local, workers = count, ?candidates, "media port is open");
        let rejected = Arc::new(AtomicU64::new(0));
        let events = EventSink { events, rejected: Arc::clone(&rejected) };
        let (handshakes, shard_inputs) = Handshakes::new(cores);
        let (publishers, publisher_inputs) = Publishers::new(cores);
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
                events: events.clone(),
            };
            let alarm = Alarm(events.clone());
            thread::Builder::new().name(format!("media-{index}")).spawn(move || {
                let _alarm = alarm;
                worker.run();
            })?;
        }
        for (index, inputs) in shard_inputs.into_iter().enumerate() {
            let factory = PeerFactory::new(candidates.clone())
                .ok_or_else(|| io::Error::other("no DTLS certificate could be made"))?;
            let thread =
                HandshakeThread::new(index, inputs, factory, workers.clone(), events.clone());
            let alarm = Alarm(events.clone());
            thread::Builder::new().name(format!("handshake-{index}")).spawn(move || {
                let _alarm = alarm;
                thread.run();
            })?;
        }
        let no_certificate = || io::Error::other("no DTLS certificate could be made");
        for (index, inputs) in publisher_inputs.into_iter().enumerate() {
            let factory = PublisherFactory::new(candidates.clone()).ok_or_else(no_certificate)?;
            let (workers, sink) = (workers.clone(), events.clone());
            let thread = PublisherThread::new(index, inputs, factory, workers, sink, &publishers);
            let alarm = Alarm(events.clone());
            thread::Builder::new().name(format!("publisher-{index}")).spawn(move || {
                let _alarm = alarm;
                thread.run();
            })?;
        }
        Ok(Self {
            workers,
            handshakes,
            publishers,
            local,
            rejected,
            frames_in: Arc::default(),
            frames_not_cut: Arc::default(),
            tap_frames_skipped: Arc::default(),
        })
    }

    /// Where the port is bound.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Answers a viewer's offer and attaches it to the stream as soon as its DTLS is done.
    pub(crate) async fn accept(
        &self,
        viewer: ViewerId,
        stream: StreamId,
        offer_sdp: String,
    ) -> Result<Accepted, OfferError> {
        let stopped = || OfferError::Malformed("the server is shutting down".to_owned());
        let answer =
            self.handshakes.offer(viewer, stream, offer_sdp).await.ok_or_else(stopped)??;
        let codecs = answer.negotiated.codecs();
        Ok(Accepted { ice_ufrag: answer.ufrag, answer_sdp: answer.sdp, codecs })
    }

    /// Answers a publisher's offer. Its media is taken from the handle's [`PublisherHandle::attach`].
    pub(crate) async fn accept_publisher(
        &self,
        offer_sdp: String,
    ) -> Result<(PublisherHandle, Accepted), PublishError> {
        let stopped = || OfferError::Malformed("the server is shutting down".to_owned());
        self.publishers.offer(offer_sdp).await.unwrap_or_else(|| Err(stopped().into()))
    }

    /// Trickle (RFC 8840 fragment). A lite agent with a public port needs no remote candidates:
    /// checks bring their source address with them.
    pub(crate) fn trickle(&self, viewer: ViewerId, fragment: String) {
        tracing::debug!(viewer = viewer.0, bytes = fragment.len(), "candidates trickled");
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
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        let packets = Arc::new(packetise(&frame));
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
            datagrams_dropped: self.rejected.load(Ordering::Relaxed),
            frames_not_cut: self.frames_not_cut.load(Ordering::Relaxed),
            tap_frames_skipped: self.tap_frames_skipped.load(Ordering::Relaxed),
            ..MediaFigures::default()
        };
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
            sum.keyframe_requests += figures.fanout.keyframe_requests;
            sum.packets_lost_reported += figures.fanout.packets_lost;
            sum.viewers_connected += figures.fanout.viewers;
            sum.viewers_limited += figures.fanout.viewers_limited;
        }
        let (publishers, dropped) = self.publishers.figures();
        sum.publishers_connected = publishers.connected;
        sum.publisher_packets = publishers.publishers.tracks.packets;
        sum.publisher_packets_lost = publishers.publishers.tracks.lost;
        sum.publisher_frames_withheld = publishers.publishers.tracks.withheld;
        sum.publisher_keyframes_asked = publishers.publishers.keyframes_asked;
        sum.publisher_overflows = publishers.overflows + dropped;
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
                return;
            }
        }
    }
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

/// The addresses under which viewers are told to reach the port.
fn candidates(local: SocketAddr, advertise: &[IpAddr]) -> Vec<SocketAddr> {
    let addresses: Vec<IpAddr> = if !advertise.is_empty() {
        advertise.to_vec()
    } else if local.ip().is_unspecified() {
        interface_addresses(local)
    } else {
        vec![local.ip()]
    };
    addresses.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
}

/// What other machines can reach of a port that is bound to all addresses of `local`'s family; an IPv6
/// socket takes IPv4 as well. Loopback only where there is nothing else.
fn interface_addresses(local: SocketAddr) -> Vec<IpAddr> {
    let all: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| !interface.is_link_local())
        .map(|interface| interface.ip())
        .filter(|ip| ip.is_ipv4() || local.is_ipv6())
        .collect();
    let reachable: Vec<IpAddr> = all.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    if reachable.is_empty() { all } else { reachable }
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
        let sink = EventSink { events, rejected: Arc::default() };
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
