//! Limits that change while the server runs, and leases that are not there.

use std::fmt;

use control::{MAX_LEASES, SourceId, Usage};
use engine::{EndReason, LeaseRefusal, Request};
use tokio::sync::oneshot;

use super::App;
use super::actor::{Actor, Command, Waiting};

/// A reservation that is over, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over(pub(crate) Option<EndReason>);

impl Over {
    /// As programs tell it from others; `None` where nothing is known of it.
    pub(crate) fn code(self) -> Option<&'static str> {
        self.0.map(EndReason::code)
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(EndReason::Preempted) => {
                f.write_str("a reservation of a higher class took its place")
            }
            Some(reason) => {
                write!(f, "the reservation has ended: {}; reserve again", reason.as_str())
            }
            None => f.write_str("there is no such reservation, or it has ended; reserve again"),
        }
    }
}

/// Why nothing was done to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseError {
    /// 404.
    #[error("{0}")]
    Over(Over),
    /// 503. The lease stays as it is.
    #[error("{STORE_LOST}")]
    StoreLost,
}

/// Why no limit was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    /// 404.
    #[error("there is no such source; sources are set in the configuration")]
    UnknownSource,
    /// 400.
    #[error("limit must be 0 to {MAX_LEASES}, or null for the configured one")]
    TooHigh,
    /// 503.
    #[error("{STORE_LOST}")]
    StoreLost,
    /// 503.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// What whoever needs the store is told while it cannot be asked.
pub(super) const STORE_LOST: &str = "the store of reservations does not answer; who watches goes on watching, try again in a moment";

/// A call of [`App::set_limit`].
pub(super) struct LimitCommand {
    source: SourceId,
    limit: Option<u32>,
    reply: oneshot::Sender<Result<Usage, LimitError>>,
}

impl App {
    /// Sets the limit of a source, in memory until the server ends; `None`: the configured one again. Who watches
    /// goes on watching.
    pub(crate) async fn set_limit(
        &self,
        source: &str,
        limit: Option<u32>,
    ) -> Result<Usage, LimitError> {
        let source = SourceId::parse(source).map_err(|_| LimitError::UnknownSource)?;
        if limit.is_some_and(|limit| limit > MAX_LEASES) {
            return Err(LimitError::TooHigh);
        }
        let make = |reply| Command::Limit(LimitCommand { source, limit, reply });
        self.ask(make).await.unwrap_or(Err(LimitError::ShuttingDown))
    }
}

impl Actor {
    pub(super) fn handle_limit_command(&mut self, command: LimitCommand) {
        let LimitCommand { source, limit, reply } = command;
        if !self.sources.iter().any(|known| known.id == source) {
            // Who asked may have hung up.
            let _ = reply.send(Err(LimitError::UnknownSource));
            return;
        }
        tracing::info!(%source, ?limit, "the limit of a source is changed");
        self.ask(Request::SetLimit { source, limit }, Waiting::Limit(reply));
    }

    /// The error of a lease called `name`.
    pub(super) fn lease_error(&self, name: &str, refusal: LeaseRefusal) -> LeaseError {
        match refusal {
            LeaseRefusal::NotFound => LeaseError::Over(Over(self.endings.of(name))),
            LeaseRefusal::Unavailable => LeaseError::StoreLost,
        }
    }
}
