//! All connections: who is let in, who gives way, and what is counted of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use media::batch::ConnectionId;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::End;
use super::connection::{Connection, NO_PUBLISHER};
use crate::admission::{Admission, Admitted, Crowd, Full, Limits, PlaceId, Standing};

/// Connections at once. A browser opens one for each address that is announced and closes all but
/// one; 1,000 viewers without UDP and as many that are just joining.
const MAX_CONNECTIONS: usize = 4_096;

/// Of them without an authentic check yet: 1,000 joins at once, and two addresses.
pub(super) const MAX_STRANGERS: usize = 2_048;

/// Of them from one address (of IPv6: one network of /64): an office behind NAT whose browsers all
/// join within one round trip.
pub(super) const MAX_STRANGERS_AN_ADDRESS: usize = 128;

/// Who proved himself is one of our viewers, wherever he is: only strangers are bounded by address.
/// A browser sends its check in the same round trip in which it connects, so that those who are there
/// need no more than the time to do so.
const LIMITS: Limits = Limits {
    all: MAX_CONNECTIONS,
    an_address: MAX_CONNECTIONS,
    strangers: MAX_STRANGERS,
    strangers_an_address: MAX_STRANGERS_AN_ADDRESS,
    crowd: Crowd::Refused,
};

/// What connections count. All rise, except `open`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TcpFigures {
    /// Connections at present.
    pub(crate) open: u64,
    /// Connections that were let in.
    pub(crate) accepted: u64,
    /// Connections that were closed at once, since there were too many.
    pub(crate) refused: u64,
    /// Connections that were dropped since no authentic check came.
    pub(crate) strangers: u64,
    /// Connections that were dropped before one came, since others needed the place.
    pub(crate) evicted: u64,
    /// Connections that were dropped since what came was not framed.
    pub(crate) framing_errors: u64,
    /// Packets that arrived.
    pub(crate) received: u64,
    /// Of them those that belong to nobody.
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) framing_errors: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All connections; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) opened_at: Instant,
    pub(super) table: Mutex<Admission<Arc<Connection>>>,
    pub(super) counters: Counters,
    pub(super) ending: CancellationToken,
}

impl Connections {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            opened_at: Instant::now(),
            table: Mutex::new(Admission::new(LIMITS)),
            counters: Counters::default(),
            ending: CancellationToken::new(),
        }))
    }

    /// The connection, while it lasts. Takes a lock: not for every packet.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.table().find(PlaceId(id.0)).cloned()
    }

    /// An authentic check came on it.
    pub(crate) fn note_check(&self, id: ConnectionId) {
        let place = PlaceId(id.0);
        let mut table = self.table();
        table.prove(place);
        if let Some(connection) = table.find(place) {
            connection.checked_ms.store(self.now_ms(), Ordering::Relaxed);
            connection.proven.store(true, Ordering::Relaxed);
        }
    }

    /// What comes on it is a publisher's.
    pub(crate) fn set_publisher(&self, id: ConnectionId, thread: usize) {
        if let Some(connection) = self.find(id) {
            connection.publisher.store(thread, Ordering::Relaxed);
        }
    }

    /// Closes a connection once what waits has left it.
    pub(crate) fn close(&self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.closing.cancel();
        }
    }

    /// Closes all of them, and takes no more.
    pub(crate) fn end(&self) {
        self.0.ending.cancel();
    }

    /// Counters so far.
    pub(crate) fn figures(&self) -> TcpFigures {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpFigures {
            open: self.table().len() as u64,
            accepted: read(&counters.accepted),
            refused: read(&counters.refused),
            strangers: read(&counters.strangers),
            evicted: read(&counters.evicted),
            framing_errors: read(&counters.framing_errors),
            received: read(&counters.received),
            dropped: read(&counters.dropped),
        }
    }

    fn table(&self) -> MutexGuard<'_, Admission<Arc<Connection>>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.opened_at.elapsed().as_millis() as u64
    }

    /// Lets a connection in, if there is room for it or a stranger to make some.
    pub(super) fn admit(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Result<(Arc<Connection>, UnboundedReceiver<Vec<u8>>), Full> {
        let (queue, queued) = unbounded_channel();
        let make = |id: PlaceId| {
            Arc::new(Connection {
                id: ConnectionId(id.0),
                remote,
                local,
                queue,
                waiting_bytes: AtomicUsize::new(0),
                congested: AtomicBool::new(false),
                proven: AtomicBool::new(false),
                checked_ms: AtomicU64::new(0),
                publisher: AtomicUsize::new(NO_PUBLISHER),
                closing: self.0.ending.child_token(),
            })
        };
        let counters = &self.0.counters;
        let admitted = self.table().admit(remote.ip(), make);
        let Admitted { guest, evicted } = admitted.inspect_err(|_| count(&counters.refused))?;
        count(&counters.accepted);
        if let Some(evicted) = evicted {
            count(&counters.evicted);
            evicted.closing.cancel();
        }
        Ok((guest, queued))
    }

    /// A connection has ended. One that was evicted has been counted, and has no place to leave.
    pub(super) fn forget(&self, connection: &Connection, end: End) {
        let left = self.table().leave(PlaceId(connection.id.0));
        let standing = left.map(|(_, standing)| standing);
        if standing == Some(Standing::Stranger) && end == End::Unchecked {
            count(&self.0.counters.strangers);
        }
        if end == End::Framing {
            count(&self.0.counters.framing_errors);
        }
    }
}
