//! One worker: a thread, a socket, and the fan-out of the viewers whose packets land on it.
//!
//! It waits for its socket or for inputs, hands both to the sans-IO [`Fanout`], and sends what
//! comes out. Nothing here blocks: handshakes are elsewhere, and the socket never waits.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use media::batch::{Batch, ConnectionId, Remote, Route, Run, Transport};
use media::fanout::{Fanout, FanoutEvent, FanoutFigures};
use media::peers::Attach;
use media::viewer::BURST_INTERVAL;
use media::{MediaKind, PacketisedFrame, StreamId, ViewerId};

use super::handshakes::Handshakes;
use super::publishers::{Claim, PublisherRoutes, Publishers};
use super::sys::{Inbox, UdpPort, Waker, wait};
use super::taps::{TapSender, Taps};
use super::tcp::{Connection, Connections, Delivery};
use super::urgency::{Priority, Urgency};
use super::{EventSink, MediaEvent};

/// Frames that may wait for a worker: 500 cameras at 30 frames a second for a third of a second.
/// A worker that is later than that drops frames, and viewers go on at the next keyframe.
const MAX_WAITING_FRAMES: usize = 5_000;
/// Feedback that may wait after it landed on another worker. Anybody can send what looks like it,
/// so it takes no room from frames; browsers send theirs again within a second.
const MAX_WAITING_FEEDBACK: usize = 500;
/// How long inputs are taken before datagrams and pacing get their turn, however many wait: one
/// burst interval of viewers that catch up.
const INPUT_TIME_A_TURN: Duration = BURST_INTERVAL;
/// Datagrams taken before frames get their turn again: 8 calls of 32.
const RECEIVES_A_TURN: usize = 8;

/// What a worker is told.
pub(crate) enum WorkerInput {
    /// A source's next frame.
    Frame(StreamId, Arc<PacketisedFrame>),
    /// The source is gone or restarts.
    Interrupt(StreamId),
    /// The stream is over.
    Remove(StreamId),
    /// Somebody wants the stream's frames inside this process.
    Tap(StreamId, Box<TapSender>),
    /// A viewer is ready for media; the number seeds its sequence numbers and timestamps.
    Attach(Box<Attach>, u64),
    /// A viewer's check came along this path.
    PathProven(ViewerId, Route),
    /// It does not count any more.
    PathForgotten(ViewerId, Route),
    /// A viewer's path changed.
    Move(ViewerId, Route),
    /// A connection that was congested has room again.
    Drained(Remote),
    /// A viewer leaves; with a reason it is told by BYE.
    Detach(ViewerId, Option<&'static str>),
    /// A viewer goes to another stream. Told to all workers: the one that serves it knows it.
    Switch(ViewerId, StreamId),
    /// SRTCP that landed elsewhere.
    Feedback(Route, Vec<u8>),
    /// What comes from an address is for this publisher thread, or no more.
    PublisherAddress(Remote, Claim, usize),
    /// The end. Says when everything before it is done.
    Stop(Sender<()>),
}

/// The way to one worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    inputs: Sender<WorkerInput>,
    shared: Arc<Shared>,
}

/// What a worker's thread shows to others.
pub(crate) struct Shared {
    pub(crate) port: UdpPort,
    waker: Waker,
    waiting_frames: AtomicUsize,
    waiting_feedback: AtomicUsize,
    frames_dropped: AtomicU64,
    /// Streams of which a frame was dropped and no keyframe came since. Bounded by the cameras.
    broken: Mutex<HashSet<StreamId>>,
    figures: Mutex<WorkerFigures>,
}

impl Shared {
    /// Whether there is room for a frame. After one that found none its stream's pictures are of no
    /// use up to the next keyframe.
    fn admits_frame(&self, stream: StreamId, frame: &PacketisedFrame) -> bool {
        let has_room = self.waiting_frames.load(Ordering::Relaxed) < MAX_WAITING_FRAMES;
        let is_picture = frame.codec.kind() == MediaKind::Video;
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if has_room && is_picture && frame.keyframe {
            broken.remove(&stream);
        }
        if !has_room && is_picture {
            broken.insert(stream);
        }
        let is_admitted = has_room && !(is_picture && broken.contains(&stream));
        if is_admitted {
            self.waiting_frames.fetch_add(1, Ordering::Relaxed);
        } else {
            self.frames_dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_admitted
    }

    fn admits_feedback(&self) -> bool {
        let has_room = self.waiting_feedback.load(Ordering::Relaxed) < MAX_WAITING_FEEDBACK;
        if has_room {
            self.waiting_feedback.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    fn forget(&self, stream: StreamId) -> bool {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
        true
    }
}

/// What one worker counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerFigures {
    pub(crate) fanout: FanoutFigures,
    pub(crate) received: u64,
    pub(crate) dropped: u64,
    pub(crate) send_drops: u64,
}

impl WorkerHandle {
    /// A handle and the receiving end for the worker's thread.
    pub(crate) fn new(port: UdpPort) -> std::io::Result<(Self, Receiver<WorkerInput>)> {
        let (inputs, receiver) = unbounded();
        let shared = Shared {
            port,
            waker: Waker::new()?,
            waiting_frames: AtomicUsize::new(0),
            waiting_feedback: AtomicUsize::new(0),
            frames_dropped: AtomicU64::new(0),
            broken: Mutex::default(),
            figures: Mutex::default(),
        };
        Ok((Self { inputs, shared: Arc::new(shared) }, receiver))
    }

    /// Tells the worker something. Frames (counted) and feedback are dropped when it is far behind;
    /// everything else is bounded by the number of sessions.
    pub(crate) fn tell(&self, input: WorkerInput) {
        let is_admitted = match &input {
            WorkerInput::Frame(stream, frame) => self.shared.admits_frame(*stream, frame),
            WorkerInput::Feedback(..) => self.shared.admits_feedback(),
            WorkerInput::Remove(stream) => self.shared.forget(*stream),
            WorkerInput::Interrupt(_)
            | WorkerInput::Tap(..)
            | WorkerInput::Attach(..)
            | WorkerInput::PathProven(..)
            | WorkerInput::PathForgotten(..)
            | WorkerInput::Move(..)
            | WorkerInput::Drained(_)
            | WorkerInput::Detach(..)
            | WorkerInput::Switch(..)
            | WorkerInput::PublisherAddress(..)
            | WorkerInput::Stop(_) => true,
        };
        if !is_admitted {
            return;
        }
        // The receiving end goes only with the thread, after Stop.
        if self.inputs.send(input).is_ok() {
            self.shared.waker.wake();
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Counters as of the worker's last turn.
    pub(crate) fn figures(&self) -> WorkerFigures {
        let mut figures = *self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.send_drops += self.shared.frames_dropped.load(Ordering::Relaxed);
        figures
    }
}

/// The worker's thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) handle: WorkerHandle,
    pub(crate) inputs: Receiver<WorkerInput>,
    pub(crate) others: Vec<WorkerHandle>,
    pub(crate) handshakes: Handshakes,
    pub(crate) connections: Connections,
    pub(crate) publishers: Publishers,
    pub(crate) events: EventSink,
}

/// What the thread owns while it runs.
struct Turn {
    fanout: Fanout,
    taps: Taps,
    batch: Batch,
    inbox: Inbox,
    /// Connections that were sent to, so that they need not be looked up, which takes a lock. Those
    /// that are gone are forgotten when there is a new one.
    known: HashMap<ConnectionId, Arc<Connection>>,
    publisher_routes: PublisherRoutes,
    figures: WorkerFigures,
}

impl Turn {
    fn new() -> Self {
        Self {
            fanout: Fanout::new(),
            taps: Taps::default(),
            batch: Batch::default(),
            inbox: Inbox::new(),
            known: HashMap::new(),
            publisher_routes: PublisherRoutes::default(),
            figures: WorkerFigures::default(),
        }
    }
}

impl Worker {
    /// Runs until it is told to stop.
    pub(crate) fn run(self, priority: Priority) {
        let mut turn = Turn::new();
        let mut urgency = Urgency::begin(priority, Instant::now());
        loop {
            if !self.take_inputs(&mut turn) {
                return;
            }
            turn.fanout.handle_timeout(Instant::now());
            self.flush(&mut turn);
            for _ in 0..RECEIVES_A_TURN {
                if self.take_datagrams(&mut turn) == 0 {
                    break;
                }
            }
            self.flush(&mut turn);
            self.publish_figures(&mut turn);
            urgency.update(Instant::now());
            let timeout =
                turn.fanout.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            if self.inputs.is_empty() {
                wait(&self.handle.shared.port, &self.handle.shared.waker, timeout);
            }
        }
    }

    /// False when it is time to stop.
    fn take_inputs(&self, turn: &mut Turn) -> bool {
        let begun = Instant::now();
        while let Ok(input) = self.inputs.try_recv() {
            let now = Instant::now();
            match input {
                WorkerInput::Frame(stream, frame) => {
                    self.handle.shared.waiting_frames.fetch_sub(1, Ordering::Relaxed);
                    turn.taps.handle_frame(stream, &frame);
                    turn.fanout.handle_frame(stream, frame, now);
                }
                WorkerInput::Feedback(route, mut packet) => {
                    self.handle.shared.waiting_feedback.fetch_sub(1, Ordering::Relaxed);
                    let known = turn.fanout.handle_rtcp(route, &mut packet, now);
                    turn.figures.dropped += u64::from(!known);
                }
                WorkerInput::Interrupt(stream) => {
                    turn.taps.handle_interruption(stream);
                    turn.fanout.handle_interruption(stream);
                }
                WorkerInput::Remove(stream) => {
                    turn.taps.handle_interruption(stream);
                    turn.fanout.handle_stream_removed(stream);
                }
                WorkerInput::Tap(stream, sender) => {
                    let (group, age) = turn.fanout.group(stream, now);
                    turn.taps.handle_tap(stream, *sender, group, age);
                }
                WorkerInput::Attach(attach, seed) => turn.fanout.handle_attach(*attach, seed, now),
                WorkerInput::PathProven(viewer, route) => turn.fanout.handle_path(viewer, route),
                WorkerInput::PathForgotten(viewer, route) => {
                    turn.fanout.handle_path_forgotten(viewer, route);
                }
                WorkerInput::Move(viewer, route) => turn.fanout.handle_move(viewer, route, now),
                WorkerInput::Drained(remote) => turn.fanout.handle_drained(remote, now),
                WorkerInput::Detach(viewer, reason) => turn.fanout.handle_detach(viewer, reason),
                WorkerInput::Switch(viewer, stream) => {
                    turn.fanout.handle_switch(viewer, stream, now);
                }
                WorkerInput::PublisherAddress(address, claim, thread) => {
                    turn.publisher_routes.set(address, claim, thread);
                }
                WorkerInput::Stop(done) => {
                    // Who waits may have given up.
                    let _ = done.send(());
                    return false;
                }
            }
            self.flush(turn);
            if now.saturating_duration_since(begun) >= INPUT_TIME_A_TURN {
                break;
            }
        }
        true
    }

    /// Takes one batch of datagrams apart by RFC 7983. Returns how many there were.
    fn take_datagrams(&self, turn: &mut Turn) -> usize {
        let count = self.handle.shared.port.receive(&mut turn.inbox);
        let now = Instant::now();
        turn.figures.received += count as u64;
        for (source, local, packet) in turn.inbox.datagrams() {
            let route = Route::new(local, source);
            let owner = turn.publisher_routes.owner(&route.remote());
            if let Some(is_taken) = self.publishers.receive(owner, self.index, route, packet) {
                turn.figures.dropped += u64::from(!is_taken);
                continue;
            }
            let known = match Content::of(packet) {
                Content::Handshake => self.handshakes.receive(self.index, route, packet),
                Content::Feedback => {
                    if !turn.fanout.handle_rtcp(route, packet, now) {
                        self.ask_others(route, packet);
                    }
                    true
                }
                Content::Unknown => false,
            };
            turn.figures.dropped += u64::from(!known);
        }
        count
    }

    /// The viewer may have moved to an address whose packets land here, while another worker
    /// serves it. Rare: the kernel spreads by address, and a viewer is served where its came in.
    fn ask_others(&self, route: Route, packet: &[u8]) {
        for other in &self.others {
            other.tell(WorkerInput::Feedback(route, packet.to_vec()));
        }
    }

    fn flush(&self, turn: &mut Turn) {
        loop {
            turn.batch.clear();
            turn.fanout.poll_transmit(&mut turn.batch);
            if turn.batch.is_empty() {
                break;
            }
            self.send(turn);
        }
        while let Some(event) = turn.fanout.poll_event() {
            match event {
                FanoutEvent::FirstMedia { viewer } => {
                    self.events.send(MediaEvent::FirstMedia { viewer });
                }
                FanoutEvent::Alive { viewer, at, sent } => {
                    self.events.send(MediaEvent::Alive { viewer, at, sent: Some(sent) });
                }
                FanoutEvent::Detached { viewer, sent } => {
                    self.events.send(MediaEvent::Detached { viewer, sent });
                }
                FanoutEvent::Moved { viewer, route } => {
                    self.handshakes.moved(viewer, route);
                    self.events.send(MediaEvent::Moved { viewer, route });
                }
                FanoutEvent::Goodbye { viewer } => self.handshakes.goodbye(viewer),
                FanoutEvent::KeyframeWanted { stream } => {
                    self.events.send(MediaEvent::KeyframeWanted { stream });
                }
                FanoutEvent::Switched { viewer, stream } => {
                    self.events.send(MediaEvent::Switched { viewer, stream });
                }
                FanoutEvent::SwitchFailed { viewer, stream } => {
                    self.events.send(MediaEvent::SwitchFailed { viewer, stream });
                }
                FanoutEvent::Line { viewer, line, stream } => {
                    self.events.send(MediaEvent::Line { viewer, line, stream });
                }
            }
        }
    }

    fn send(&self, turn: &mut Turn) {
        let port = &self.handle.shared.port;
        if turn.batch.is_udp_only() {
            turn.figures.send_drops += port.send(&turn.batch).refused;
            return;
        }
        let Turn { fanout, batch, known, figures, .. } = turn;
        for runs in batch.runs().chunk_by(|a, b| a.route.transport == b.route.transport) {
            let Transport::Tcp(id) = runs[0].route.transport else {
                figures.send_drops += port.send_runs(batch.bytes(), runs).refused;
                continue;
            };
            for run in runs {
                match self.deliver(known, id, run, batch.bytes()) {
                    Delivery::Taken => {}
                    Delivery::Congested => {
                        fanout.handle_congestion(run.route.remote(), Instant::now());
                    }
                    Delivery::Refused => figures.send_drops += run.count as u64,
                }
            }
        }
    }

    /// A run for a connection. It may be gone, which the viewer's lease finds out.
    fn deliver(
        &self,
        known: &mut HashMap<ConnectionId, Arc<Connection>>,
        id: ConnectionId,
        run: &Run,
        bytes: &[u8],
    ) -> Delivery {
        if let Some(connection) = known.get(&id) {
            return connection.send_run(run, bytes);
        }
        known.retain(|_, connection| !connection.is_closed());
        let Some(connection) = self.connections.find(id) else { return Delivery::Refused };
        known.entry(id).or_insert(connection).send_run(run, bytes)
    }

    fn publish_figures(&self, turn: &mut Turn) {
        turn.figures.fanout = turn.fanout.figures();
        *self.handle.shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = turn.figures;
    }
}

/// What the first bytes of a datagram say it is (RFC 7983 §7, RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// STUN or DTLS.
    Handshake,
    /// RTCP, protected.
    Feedback,
    /// RTP, which viewers have no business to send, or noise.
    Unknown,
}

impl Content {
    pub(super) fn of(packet: &[u8]) -> Self {
        match packet {
            [0..=3 | 20..=63, ..] => Self::Handshake,
            [128..=191, 192..=223, ..] => Self::Feedback,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use media::packetise::packetise;
    use media::{Codec, Frame, NtpTime};

    fn handle() -> (WorkerHandle, Receiver<WorkerInput>) {
        let port = UdpPort::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        WorkerHandle::new(port).unwrap()
    }

    fn frame(codec: Codec, keyframe: bool) -> Arc<PacketisedFrame> {
        let units = vec![vec![0x41; 10].into()];
        let (ticks, captured) = (0, NtpTime(0));
        Arc::new(packetise(&Frame {
            forwarded: None,
            codec,
            ticks,
            captured,
            keyframe,
            discontinuity: false,
            units,
        }))
    }

    #[test]
    fn after_a_dropped_picture_the_stream_goes_on_at_a_keyframe() {
        let (handle, inputs) = handle();
        let tell = |stream, codec, keyframe| {
            let before = inputs.len();
            handle.tell(WorkerInput::Frame(StreamId(stream), frame(codec, keyframe)));
            inputs.len() > before
        };
        while tell(1, Codec::H264, false) {}
        assert_eq!(inputs.len(), MAX_WAITING_FRAMES);
        assert!(!tell(2, Codec::Opus, true), "sound is dropped alone");
        while inputs.try_recv().is_ok() {
            handle.shared.waiting_frames.fetch_sub(1, Ordering::Relaxed);
        }
        assert!(!tell(1, Codec::H264, false), "it refers to the one that was dropped");
        assert!(tell(1, Codec::Opus, true) && tell(2, Codec::H264, false), "others go on");
        assert!(tell(1, Codec::H264, true) && tell(1, Codec::H264, false));
        assert_eq!(handle.figures().send_drops, 3);
    }

    #[test]
    fn however_much_waits_datagrams_get_their_turn() {
        let (handle, inputs) = handle();
        for _ in 0..500_000 {
            handle.tell(WorkerInput::Interrupt(StreamId(1)));
        }
        let (events, _told) = tokio::sync::mpsc::unbounded_channel();
        let worker = Worker {
            index: 0,
            handle,
            inputs,
            others: Vec::new(),
            handshakes: Handshakes::new(1).0,
            publishers: Publishers::new(1).0,
            connections: Connections::new(),
            events: EventSink::new(events),
        };
        let mut turn = Turn::new();
        assert!(worker.take_inputs(&mut turn));
        let left = worker.inputs.len();
        assert!(left > 0 && left < 500_000, "{left} left");
    }

    #[test]
    fn feedback_of_strangers_takes_no_room_from_frames() {
        let (handle, inputs) = handle();
        for _ in 0..2 * MAX_WAITING_FRAMES {
            let anybody = SocketAddr::from(([10, 0, 0, 1], 1));
            let anybody = Route::new(anybody, anybody);
            handle.tell(WorkerInput::Feedback(anybody, vec![128, 200]));
        }
        assert_eq!(inputs.len(), MAX_WAITING_FEEDBACK);
        handle.tell(WorkerInput::Frame(StreamId(1), frame(Codec::H264, false)));
        assert_eq!(inputs.len(), MAX_WAITING_FEEDBACK + 1);
        assert_eq!(handle.figures().send_drops, 0);
    }
}
