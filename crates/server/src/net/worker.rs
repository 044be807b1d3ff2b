//! One worker: a thread, a socket, and the fan-out of the viewers whose packets land on it.
//!
//! It waits for its socket or for inputs, hands both to the sans-IO [`Fanout`], and sends what
//! comes out. Nothing here blocks: handshakes are elsewhere, and the socket never waits.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use media::batch::{Batch, Route};
use media::fanout::{Fanout, FanoutEvent, FanoutFigures};
use media::peers::Attach;
use media::{PacketisedFrame, StreamId, ViewerId};

use super::handshakes::Handshakes;
use super::sys::{Inbox, UdpPort, Waker, wait};
use super::{EventSink, MediaEvent};

/// Frames that may wait for a worker: 500 cameras at 30 frames a second for a third of a second.
/// A worker that is later than that drops frames, and viewers go on at the next keyframe.
const MAX_WAITING_FRAMES: usize = 5_000;
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
    /// A viewer is ready for media; the number seeds its sequence numbers and timestamps.
    Attach(Box<Attach>, u64),
    /// A viewer's path changed.
    Move(ViewerId, Route),
    /// A viewer leaves; with a reason it is told by BYE.
    Detach(ViewerId, Option<&'static str>),
    /// SRTCP that landed on another worker.
    Feedback(SocketAddr, Vec<u8>),
    /// The end.
    Stop,
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
    frames_dropped: AtomicU64,
    figures: Mutex<WorkerFigures>,
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
            frames_dropped: AtomicU64::new(0),
            figures: Mutex::default(),
        };
        Ok((Self { inputs, shared: Arc::new(shared) }, receiver))
    }

    /// Tells the worker something. Frames and feedback are dropped and counted when it is far
    /// behind; everything else is bounded by the number of sessions.
    pub(crate) fn tell(&self, input: WorkerInput) {
        if matches!(input, WorkerInput::Frame(..) | WorkerInput::Feedback(..)) {
            if self.shared.waiting_frames.load(Ordering::Relaxed) >= MAX_WAITING_FRAMES {
                self.shared.frames_dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.shared.waiting_frames.fetch_add(1, Ordering::Relaxed);
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
    pub(crate) events: EventSink,
}

/// What the thread owns while it runs.
struct Turn {
    fanout: Fanout,
    batch: Batch,
    inbox: Inbox,
    figures: WorkerFigures,
}

impl Worker {
    /// Runs until it is told to stop.
    pub(crate) fn run(self) {
        let mut turn = Turn {
            fanout: Fanout::new(),
            batch: Batch::default(),
            inbox: Inbox::new(),
            figures: WorkerFigures::default(),
        };
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
            let timeout =
                turn.fanout.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            if self.inputs.is_empty() {
                wait(&self.handle.shared.port, &self.handle.shared.waker, timeout);
            }
        }
    }

    /// False when it is time to stop.
    fn take_inputs(&self, turn: &mut Turn) -> bool {
        while let Ok(input) = self.inputs.try_recv() {
            let now = Instant::now();
            match input {
                WorkerInput::Frame(stream, frame) => {
                    self.handle.shared.waiting_frames.fetch_sub(1, Ordering::Relaxed);
                    turn.fanout.handle_frame(stream, frame, now);
                }
                WorkerInput::Feedback(source, mut packet) => {
                    self.handle.shared.waiting_frames.fetch_sub(1, Ordering::Relaxed);
                    let known = turn.fanout.handle_rtcp(source, &mut packet, now);
                    turn.figures.dropped += u64::from(!known);
                }
                WorkerInput::Interrupt(stream) => turn.fanout.handle_interruption(stream),
                WorkerInput::Remove(stream) => turn.fanout.handle_stream_removed(stream),
                WorkerInput::Attach(attach, seed) => turn.fanout.handle_attach(*attach, seed, now),
                WorkerInput::Move(viewer, route) => turn.fanout.handle_move(viewer, route),
                WorkerInput::Detach(viewer, reason) => turn.fanout.handle_detach(viewer, reason),
                WorkerInput::Stop => return false,
            }
            self.flush(turn);
        }
        true
    }

    /// Takes one batch of datagrams apart by RFC 7983. Returns how many there were.
    fn take_datagrams(&self, turn: &mut Turn) -> usize {
        let count = self.handle.shared.port.receive(&mut turn.inbox);
        let now = Instant::now();
        turn.figures.received += count as u64;
        for (source, local, packet) in turn.inbox.datagrams() {
            let known = match Content::of(packet) {
                Content::Handshake => self.handshakes.receive(self.index, source, local, packet),
                Content::Feedback => {
                    if !turn.fanout.handle_rtcp(source, packet, now) {
                        self.ask_others(source, packet);
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
    fn ask_others(&self, source: SocketAddr, packet: &[u8]) {
        for other in &self.others {
            other.tell(WorkerInput::Feedback(source, packet.to_vec()));
        }
    }

    fn flush(&self, turn: &mut Turn) {
        loop {
            turn.batch.clear();
            turn.fanout.poll_transmit(&mut turn.batch);
            if turn.batch.is_empty() {
                break;
            }
            turn.figures.send_drops += self.handle.shared.port.send(&turn.batch).refused;
        }
        while let Some(event) = turn.fanout.poll_event() {
            match event {
                FanoutEvent::FirstMedia { viewer } => {
                    self.events.send(MediaEvent::FirstMedia { viewer });
                }
                FanoutEvent::Alive { viewer, at } => {
                    self.events.send(MediaEvent::Alive { viewer, at });
                }
                FanoutEvent::Goodbye { viewer } => self.handshakes.goodbye(viewer),
                FanoutEvent::KeyframeWanted { stream } => {
                    self.events.send(MediaEvent::KeyframeWanted { stream });
                }
            }
        }
    }

    fn publish_figures(&self, turn: &mut Turn) {
        turn.figures.fanout = turn.fanout.figures();
        *self.handle.shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = turn.figures;
    }
}

/// What the first bytes of a datagram say it is (RFC 7983 §7, RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// STUN or DTLS.
    Handshake,
    /// RTCP, protected.
    Feedback,
    /// RTP, which viewers have no business to send, or noise.
    Unknown,
}

impl Content {
    fn of(packet: &[u8]) -> Self {
        match packet {
            [0..=3 | 20..=63, ..] => Self::Handshake,
            [128..=191, 192..=223, ..] => Self::Feedback,
            _ => Self::Unknown,
        }
    }
}
