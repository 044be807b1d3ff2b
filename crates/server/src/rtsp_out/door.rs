//! Who is let in: connections that keep their place, and strangers who give it up.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::message::{Answer, Status};
use crate::admission::{Admission, Admitted, Full, Limits, PlaceId};

/// When those who are turned away may try again: strangers have gone by then.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// All places; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Door(Arc<Mutex<Admission<Ticket>>>);

/// What is kept of a connection.
#[derive(Debug, Clone)]
struct Ticket {
    id: PlaceId,
    evicted: CancellationToken,
}

/// A connection with a place, which it leaves when it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    door: Door,
    ticket: Ticket,
    ip: IpAddr,
}

impl Door {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Admission::new(limits))))
    }

    /// A place, for which a stranger may have to go.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Guest, Full> {
        let make = |id| Ticket { id, evicted: CancellationToken::new() };
        let Admitted { guest: ticket, evicted } = self.lock().admit(peer.ip(), make)?;
        if let Some(evicted) = evicted {
            evicted.evicted.cancel();
        }
        Ok(Guest { door: self.clone(), ticket, ip: peer.ip() })
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Ticket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// From where it came.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// It is no stranger from here on.
    pub(super) fn prove(&self) {
        self.door.lock().prove(self.ticket.id);
    }

    /// Returns when it has to give way.
    pub(super) async fn evicted(&self) {
        self.ticket.evicted.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.lock().leave(self.ticket.id);
    }
}

/// Tells a client why there is no place for it, if its socket takes that at once.
pub(super) fn turn_away(stream: &TcpStream, full: Full) {
    let sentence = match full {
        Full::Address => "your address has all the connections that it gets; try again later",
        Full::All => "there are too many connections; try again later",
    };
    let answer = Answer::sentence(Status::ServiceUnavailable, sentence)
        .with("Retry-After", RETRY_AFTER.as_secs().to_string());
    let mut bytes = Vec::new();
    // Nothing was asked yet, so that there is no number to repeat.
    answer.write(None, &mut bytes);
    let _ = SockRef::from(stream).send(&bytes);
}
