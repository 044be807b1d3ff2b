//! The ledger in a real redis-server (`cargo xtask setup` installs it): as the model answers, and with
//! everything done to the keys that people do.

mod model;
pub(crate) mod server;
mod trouble;

use std::sync::{Arc, Mutex};

use control::testing::{START, Setup};
use control::{LedgerOp, Outcome, Policy, Timestamp};

use super::book::{Asked, Book};
use super::connection::Store;
use super::status::StoreStatus;
use server::Server;

/// A book whose time the test sets.
struct Timed {
    book: Book,
    now: Arc<Mutex<Timestamp>>,
}

impl Timed {
    async fn new(server: &Server, setup: Setup) -> Self {
        let now = Arc::new(Mutex::new(START));
        let read = Arc::clone(&now);
        let store = Store::new(server.address(), String::new());
        let status = Arc::new(StoreStatus::new(store.place()));
        let clock = Arc::new(move || *read.lock().unwrap());
        let mut book = Book::new(store, setup.quota(), Policy::default(), clock, status);
        book.sets_time = true;
        book.take_census().await.unwrap();
        Self { book, now }
    }

    async fn apply(&mut self, op: LedgerOp, now: Timestamp) -> Outcome {
        let [(_, outcome)] = self.apply_all(vec![op], now).await.try_into().unwrap();
        outcome
    }

    /// In one go: the outcomes in the order in which the store made them, each with the place of its
    /// operation.
    async fn apply_all(&mut self, ops: Vec<LedgerOp>, now: Timestamp) -> Vec<(usize, Outcome)> {
        *self.now.lock().unwrap() = now;
        let places = ops.into_iter().enumerate();
        let asked = places.map(|(ticket, op)| Asked { ticket, op, name: String::new() });
        let executed = self.book.execute(asked.collect()).await;
        assert!(executed.error.is_none(), "{:?}", executed.error);
        executed.done
    }
}
