//! The ledger as callers ask it that are in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use control::{
    Answer, CameraId, Class, LedgerOp, Outcome, Policy, Quality, Quota, Reservation, ReservationId,
    Source, SourceId, Timestamp, Unit,
};
use tokio::sync::oneshot;

use super::{Caller, LEASES_MAX, SOURCES, camera, source};
use crate::ledger::{Ledger, LedgerPlace, News};

type Ticket = oneshot::Sender<Outcome>;

/// A ledger that several callers ask.
#[derive(Clone)]
pub(super) struct Desk {
    ledger: Arc<Mutex<Ledger<Ticket>>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Desk {
    async fn ask(&self, op: LedgerOp) -> anyhow::Result<Outcome> {
        let (ticket, outcome) = oneshot::channel();
        let at_once = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.apply(ticket, op, (self.clock)(), ToString::to_string)
        };
        match at_once {
            Some((_, outcome)) => Ok(outcome),
            None => outcome.await.context("the ledger ended"),
        }
    }

    /// Leases, and units that are still counted.
    pub(super) async fn left(&self) -> anyhow::Result<u32> {
        let Answer::Snapshot(snapshot) = self.ask(LedgerOp::Snapshot).await?.answer else {
            bail!("the store could not be asked for what is left");
        };
        let mut left = u32::try_from(snapshot.leases.len()).unwrap_or(u32::MAX);
        for source in snapshot.sources {
            let counted = self.ask(LedgerOp::Count(source.source)).await?.answer;
            if let Answer::Counted(usage) = counted {
                left += usage.current;
            }
        }
        Ok(left)
    }
}

/// On the current runtime.
pub(super) fn start(place: LedgerPlace) -> anyhow::Result<Desk> {
    let sources: Result<Vec<Source>, _> = (0..SOURCES)
        .map(|number| {
            let (name, name_ar) = (String::new(), String::new());
            anyhow::Ok(Source {
                id: SourceId::parse(&source(number))?,
                name,
                name_ar,
                limit: LEASES_MAX,
            })
        })
        .collect();
    let quota = Quota::new(Unit::Viewer, LEASES_MAX, &sources?);
    let (began, wall) = (Instant::now(), SystemTime::now());
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> =
        Arc::new(move || Timestamp::ZERO + since_epoch + began.elapsed());
    let tell = |news| {
        if let News::Outcome(ticket, outcome) = news {
            // The caller gave up: the measurement has failed.
            let _: Result<(), Outcome> = Ticket::send(ticket, outcome);
        }
    };
    let ledger = Ledger::start(place, quota, Policy::default(), Arc::clone(&clock), Box::new(tell));
    Ok(Desk { ledger: Arc::new(Mutex::new(ledger)), clock })
}

impl Caller for Desk {
    type Place = ReservationId;

    async fn reserve(&mut self, camera: u32) -> Option<ReservationId> {
        let reservation = reservation(camera)?;
        let answer = self.ask(LedgerOp::Reserve(reservation)).await.ok()?.answer;
        let Answer::Reserved { lease, .. } = answer else { return None };
        Some(lease.reservation.id)
    }

    async fn release(&mut self, id: ReservationId) -> bool {
        let outcome = self.ask(LedgerOp::Release(id)).await;
        outcome.is_ok_and(|outcome| matches!(outcome.answer, Answer::Released { .. }))
    }
}

fn reservation(number: u32) -> Option<Reservation> {
    Some(Reservation {
        id: ReservationId::parse(&uuid::Uuid::new_v4().to_string()).ok()?,
        camera: CameraId::parse(&camera(number)).ok()?,
        source: SourceId::parse(&source(number)).ok()?,
        user: "bench".to_owned(),
        quality: Quality::Auto,
        class: Class::LOWEST,
    })
}
