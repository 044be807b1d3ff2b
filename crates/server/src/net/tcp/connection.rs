//! One viewer's connection: the queue of what is to be written to it, bounded in bytes, and what is known
//! of who is at its other end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use media::batch::{ConnectionId, Remote, Run, Transport};
use media::framing::put_frame;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// From here on a connection is congested: half a second more at 2 Mbit/s.
pub(super) const CONGESTED_BYTES: usize = 128 << 10;

/// And from here on it is not.
pub(super) const DRAINED_BYTES: usize = 32 << 10;

/// What would make the queue longer is dropped. A worker that is told of congestion has at most a
/// picture and a burst under way (60 and 30 packets), besides reports; this is three times that.
pub(super) const MAX_WAITING_BYTES: usize = CONGESTED_BYTES + (384 << 10);

/// One viewer's connection, as workers and handshake threads see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) queue: UnboundedSender<Vec<u8>>,
    pub(super) waiting_bytes: AtomicUsize,
    /// The worker was told that the queue is long, and not yet that it is short again.
    pub(super) congested: AtomicBool,
    /// An authentic check came. What the table says, for those who do not lock it.
    pub(super) proven: AtomicBool,
    /// When the newest one came, in milliseconds since the port was opened.
    pub(super) checked_ms: AtomicU64,
    /// The publisher thread whose publisher this is; [`NO_PUBLISHER`] for viewers.
    pub(super) publisher: AtomicUsize,
    pub(super) closing: CancellationToken,
}

/// No publisher thread has this number.
pub(super) const NO_PUBLISHER: usize = usize::MAX;

/// What became of packets for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// They are on their way.
    Taken,
    /// They are on their way, and nothing more should follow for now. `WorkerInput::Drained` tells
    /// when it may.
    Congested,
    /// There is no room, or the connection is gone.
    Refused,
}

impl Connection {
    /// Puts the datagrams of a run into the queue, all or none. Never blocks.
    pub(crate) fn send_run(&self, run: &Run, bytes: &[u8]) -> Delivery {
        let mut framed = Vec::with_capacity(run.len + 2 * run.count);
        for packet in bytes[run.start..run.start + run.len].chunks(run.segment) {
            put_frame(packet, &mut framed);
        }
        self.send(framed)
    }

    fn send(&self, framed: Vec<u8>) -> Delivery {
        let len = framed.len();
        let waiting = self.waiting_bytes.load(Ordering::Relaxed) + len;
        if waiting > MAX_WAITING_BYTES {
            return Delivery::Refused;
        }
        let is_congested = waiting > CONGESTED_BYTES;
        if is_congested {
            // Before the bytes go: whoever writes them looks at it afterwards.
            self.congested.store(true, Ordering::Release);
        }
        self.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        match self.queue.send(framed) {
            Err(_) => Delivery::Refused,
            Ok(()) if is_congested => Delivery::Congested,
            Ok(()) => Delivery::Taken,
        }
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(super) fn note_written(&self, bytes: usize) -> bool {
        let waiting = self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        waiting <= DRAINED_BYTES && self.congested.swap(false, Ordering::AcqRel)
    }

    pub(super) fn transport_remote(&self) -> Remote {
        Remote { address: self.remote, transport: Transport::Tcp(self.id) }
    }
}
