//! The ledger of a running server: in this process's memory, or in a store that outlives it and that
//! several nodes share (Valkey or Redis).
//!
//! In memory an operation is answered at once. A store is asked by a task of its own, and what it
//! answers comes as [`News`], in the order in which it was answered.

mod address;
mod book;
mod census;
pub(crate) mod connection;
mod keeper;
mod lookup;
mod offset;
mod operations;
mod record;
mod reply;
mod scripts;
mod status;
mod words;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use control::{LedgerOp, MemoryLedger, Outcome, Policy, Quota, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use book::{Asked, Book};
use connection::{Store, StoreError};
use keeper::Keeper;

pub(crate) use address::{SentinelLogin, StoreAddress};
pub(crate) use book::NodeClock;
pub(crate) use keeper::{News, Tell};
pub(crate) use lookup::{Leaseholder, look_up};
pub(crate) use status::{Repair, StoreHealth, StoreStatus};

/// How long the store may take at the end to hear of leases that ended.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// What new viewers get while the store is away. Those who watch keep watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnStoreLoss {
    /// What this node's own view of the quota allows.
    #[default]
    Keep,
    /// 503.
    Refuse,
}

impl OnStoreLoss {
    /// As it is written in the settings.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Refuse => "refuse",
        }
    }
}

/// Where leases are kept.
#[derive(Debug, Clone, Default)]
pub(crate) enum LedgerPlace {
    /// In this process.
    #[default]
    Memory,
    /// In a store.
    Store {
        /// Which.
        store: Store,
        /// What happens while it is away.
        on_loss: OnStoreLoss,
    },
}

/// The ledger. `T` comes back with each outcome.
pub(crate) enum Ledger<T> {
    /// In this process.
    Memory(Box<MemoryLedger>, Arc<StoreStatus>),
    /// In a store.
    Store(StoreLedger<T>),
}

/// Asks the task that speaks with the store.
pub(crate) struct StoreLedger<T> {
    // Bounded by who asks: a call of HTTP waits for its answer, a viewer tells of its packets once a
    // second, and answers take 2 s at most.
    inbox: mpsc::UnboundedSender<Asked<T>>,
    task: JoinHandle<()>,
    status: Arc<StoreStatus>,
}

impl<T: Send + Sync + 'static> Ledger<T> {
    /// Starts it, for a store on the current tokio runtime. `clock` is the node's; `tell` takes what the
    /// store tells.
    pub(crate) fn start(
        place: LedgerPlace,
        quota: Quota,
        policy: Policy,
        clock: NodeClock,
        tell: Tell<T>,
    ) -> Self {
        match place {
            LedgerPlace::Memory => {
                let status = Arc::new(StoreStatus::new("memory".to_owned()));
                Self::Memory(Box::new(MemoryLedger::new(quota, policy)), status)
            }
            LedgerPlace::Store { store, on_loss } => {
                let status = Arc::new(StoreStatus::new(store.place()));
                let book = Book::new(store, quota, policy, clock, Arc::clone(&status));
                let (inbox, asked) = mpsc::unbounded_channel();
                let task = tokio::spawn(Keeper::new(book, on_loss, tell).run(asked));
                Self::Store(StoreLedger { inbox, task, status })
            }
        }
    }

    /// Executes an operation. `None`: its outcome comes as [`News::Outcome`] with `ticket`. `name` is
    /// asked for the name of a new lease's camera.
    pub(crate) fn apply(
        &mut self,
        ticket: T,
        op: LedgerOp,
        now: Timestamp,
        name: impl FnOnce(&control::CameraId) -> String,
    ) -> Option<(T, Outcome)> {
        match self {
            Self::Memory(ledger, _) => Some((ticket, ledger.apply(op, now))),
            Self::Store(ledger) => {
                let name = match &op {
                    LedgerOp::Reserve(reservation) => name(&reservation.camera),
                    LedgerOp::Release(_)
                    | LedgerOp::Heartbeat { .. }
                    | LedgerOp::MediaSeen { .. }
                    | LedgerOp::Expire
                    | LedgerOp::Count(_)
                    | LedgerOp::SetLimit { .. }
                    | LedgerOp::Snapshot => String::new(),
                };
                // It ends with this handle only.
                let _ = ledger.inbox.send(Asked { ticket, op, name });
                None
            }
        }
    }

    /// Whether outcomes come later than they are asked for.
    pub(crate) fn is_remote(&self) -> bool {
        match self {
            Self::Memory(..) => false,
            Self::Store(_) => true,
        }
    }

    /// How it is, at any time.
    pub(crate) fn status(&self) -> Arc<StoreStatus> {
        match self {
            Self::Memory(_, status) => Arc::clone(status),
            Self::Store(ledger) => Arc::clone(&ledger.status),
        }
    }

    /// Ends it, and leaves an empty one in this process. What it gives resolves when the store has
    /// heard of all that was asked, or does not answer.
    pub(crate) fn close(&mut self, quota: Quota) -> impl Future<Output = ()> + Send + 'static {
        let empty = MemoryLedger::new(quota, Policy::default());
        let ended = std::mem::replace(self, Self::Memory(Box::new(empty), self.status()));
        async move {
            if let Self::Store(StoreLedger { inbox, task, .. }) = ended {
                drop(inbox);
                if tokio::time::timeout(FAREWELL_TIME_MAX, task).await.is_err() {
                    tracing::warn!(
                        "the store did not hear of the end of all leases; they run out by themselves"
                    );
                }
            }
        }
    }
}

/// Whether a store lets us in, before the start: `Ok(Some)` is why it cannot be reached at the moment,
/// `Err` what no waiting helps against.
pub(crate) async fn try_store(store: &Store) -> Result<Option<StoreError>, StoreError> {
    match store.ping().await {
        Ok(()) => Ok(None),
        Err(
            error @ (StoreError::Forbidden { .. }
            | StoreError::Untrusted { .. }
            | StoreError::Authorities { .. }),
        ) => Err(error),
        Err(error) => Ok(Some(error)),
    }
}
