//! What is looked at once a second, and whenever something does not add up: counts for people, limits,
//! what other nodes ended, what operators deleted, and what the store lost.

use std::collections::HashSet;
use std::time::Duration;

use control::{EndCause, EndedLease, ReservationId, SourceId};
use tracing::{info, warn};

use super::book::{Book, millis};
use super::connection::{Call, StoreError};
use super::record::Record;
use super::reply::{Reply, Values, cause};
use super::scripts::SCRIPTS;
use super::status::Repair;
use super::words::Words;

/// Leases that one call of a script restores or looks for. Each takes the store some 20 µs, so that
/// others wait two milliseconds for it.
const LEASES_A_CALL: usize = 100;

/// How much longer than by the policy a lease may live before that is put right: clocks of nodes
/// and store are told apart to less.
const LIFE_TOLERANCE: Duration = Duration::from_secs(5);

/// The least that a lease lives on that is put back: its viewer's next packet is told within a second.
const LIFE_RESTORED_MIN: Duration = Duration::from_secs(5);

/// How long a process may take no census until the others end what it granted.
///
/// A node that dies took its last one before, and each other node takes one a second later at most: its leases
/// are back, and counts for people right, within 14 s. That is a second less than promised, and longer than a
/// node may be stopped or cut off (10 s) and find its leases as they were.
const PROCESS_SILENCE_MAX: Duration = Duration::from_secs(13);

/// What the store told of itself.
struct Census {
    epoch: String,
    /// The epoch began with this census: the store was new, or had been emptied.
    is_new_epoch: bool,
    /// What was put right.
    repairs: Vec<(String, String)>,
    /// Leases of this node that others ended: id, cause, for whom.
    ended: Vec<(String, String, String)>,
    cursor: String,
    limits: Vec<u32>,
    wrong_limits: Vec<String>,
    /// Leases of this node.
    own: HashSet<ReservationId>,
}

impl Book {
    /// Compares the store with what this node knows, and puts right what differs.
    pub(super) async fn take_census(&mut self) -> Result<(), StoreError> {
        self.wants_census = false;
        let census = self.ask_census().await?;
        self.heed_limits(&census);
        for (kind, detail) in &census.repairs {
            let repair = Repair::ALL.into_iter().find(|repair| repair.as_str() == kind);
            self.status.repaired(repair.unwrap_or(Repair::Foreign), 1);
            warn!(repair = kind, detail, "something in the store was put right");
        }
        let was_known = !self.epoch.is_empty();
        self.epoch = census.epoch;
        self.cursor = census.cursor;
        for (id, word, by) in census.ended {
            if let (Ok(id), Some(cause)) = (ReservationId::parse(&id), cause(&word, &by)) {
                self.ended_elsewhere(&id, cause, &census.own);
            }
        }
        if was_known && census.is_new_epoch {
            warn!("the store was emptied");
        }
        self.restore(&census.own).await?;
        self.end_ghosts(&census.own).await?;
        self.audit(&census.own).await?;
        self.empty_trash().await;
        Ok(())
    }

    async fn ask_census(&mut self) -> Result<Census, StoreError> {
        let longest = self.policy.initial.max(self.policy.heartbeat).max(self.policy.media_silence);
        let mut keys = Words::from_iter([self.good_limits_key(), self.store.key("stream:heard")]);
        let epoch = uuid::Uuid::new_v4().to_string();
        // Where a test sets the time it leaps, and silence says nothing.
        let silence = if self.sets_time { String::new() } else { millis(PROCESS_SILENCE_MAX) };
        let life = millis(longest + LIFE_TOLERANCE);
        let mut args = Words::from_iter([&epoch, &self.cursor, &life, &silence]);
        for source in self.quota.sources() {
            keys.extend([self.count_key(source), self.limit_key(source)]);
            args.extend([source.as_str(), &self.configured(source)]);
        }
        let call = self.script(&SCRIPTS.census, &keys, &args);
        let (word, mut rest) = self.ask(call).await?;
        let census = read_census(&mut rest).filter(|_| word == "census");
        census.ok_or_else(|| self.store.garbled("not an answer to a census"))
    }

    /// Asks one call and heeds what all answers tell.
    async fn ask(&mut self, call: Call<'static>) -> Result<(String, Values), StoreError> {
        let asked_at = (self.clock)();
        let value = self.store.eval_one(call).await?;
        let Some(reply) = Reply::read(value) else {
            return Err(self.store.garbled("not the form of an answer"));
        };
        self.hear(&reply, asked_at);
        let Reply { told, word, rest, .. } = reply;
        let ended = self.take_told(told);
        self.ended.extend(ended);
        Ok((word, rest))
    }

    fn heed_limits(&mut self, census: &Census) {
        let sources: Vec<SourceId> = self.quota.sources().cloned().collect();
        for (place, source) in sources.into_iter().enumerate() {
            let limit = census.limits.get(place).copied();
            if let Some(limit) = limit {
                let before = self.limits.insert(source.clone(), limit);
                if before.is_some_and(|before| before != limit) {
                    info!(%source, limit, "the limit of a source changed");
                }
            }
            let wrong = census.wrong_limits.get(place).filter(|wrong| !wrong.is_empty());
            let Some(wrong) = wrong else {
                self.wrong_limits.remove(&source);
                continue;
            };
            if self.wrong_limits.get(&source) != Some(wrong) {
                self.status.repaired(Repair::Limit, 1);
                warn!(repair = "limit", %source, found = ?wrong, limit, "a limit in the store is no number from 0 to 4294967295; the last good one holds");
                self.wrong_limits.insert(source, wrong.clone());
            }
        }
    }

    fn ended_elsewhere(
        &mut self,
        id: &ReservationId,
        cause: EndCause,
        in_store: &HashSet<ReservationId>,
    ) {
        // Restored since, or ended by a clock that jumped or a line that was cut: it is put back.
        let is_live = cause == EndCause::Expired && self.lives_on(id);
        if in_store.contains(id) || is_live {
            return;
        }
        if let Some(own) = self.own.remove(id) {
            self.ended.push(EndedLease { lease: own.lease, cause });
        }
    }

    /// Puts back what the store lost.
    async fn restore(&mut self, in_store: &HashSet<ReservationId>) -> Result<(), StoreError> {
        let lost: Vec<ReservationId> =
            self.own.keys().filter(|id| !in_store.contains(*id)).cloned().collect();
        for ids in lost.chunks(LEASES_A_CALL) {
            let mut keys = Words::default();
            // Where a test sets the time nothing is late.
            let least = if self.sets_time { Duration::ZERO } else { LIFE_RESTORED_MIN };
            let mut args = Words::from_iter([millis(least)]);
            for own in ids.iter().filter_map(|id| self.own.get(id)) {
                let id = own.lease.id();
                self.add_lease_keys(&mut keys, id);
                let record = Record::of_lease(&own.lease, &self.node, &self.offset);
                let expires_ms = self.offset.to_store(own.lease.expires_at);
                args.extend([id.as_str(), &record.pack(), &expires_ms.to_string(), &own.name]);
            }
            let call = self.script(&SCRIPTS.restore, &keys, &args);
            self.ask(call).await?;
        }
        if !lost.is_empty() {
            self.status.repaired(Repair::Restored, lost.len());
            warn!(
                repair = "restored",
                leases = lost.len(),
                "leases that the store had lost were put back"
            );
        }
        Ok(())
    }

    /// Ends leases in this node's name that it does not hold: an older state of the store came back,
    /// or it did late what was given up.
    async fn end_ghosts(&mut self, in_store: &HashSet<ReservationId>) -> Result<(), StoreError> {
        let ghosts: Vec<ReservationId> =
            in_store.iter().filter(|id| !self.own.contains_key(*id)).cloned().collect();
        let calls: Vec<Call<'static>> =
            ghosts.chunks(LEASES_A_CALL).map(|ids| self.release(ids.iter())).collect();
        for call in calls {
            self.ask(call).await?;
        }
        if !ghosts.is_empty() {
            self.status.repaired(Repair::Ghost, ghosts.len());
            warn!(
                repair = "ghost",
                leases = ghosts.len(),
                "leases in the store that nobody holds were ended"
            );
        }
        Ok(())
    }

    /// Finds reservations that an operator deleted or changed and that are not renewed meanwhile.
    async fn audit(&mut self, in_store: &HashSet<ReservationId>) -> Result<(), StoreError> {
        let ids: Vec<&ReservationId> = in_store.iter().collect();
        let calls: Vec<Call<'static>> = ids
            .chunks(LEASES_A_CALL)
            .map(|ids| {
                let keys = ids.iter().map(|id| self.reservation_key(id)).collect();
                let args = ids.iter().map(|id| id.as_str()).collect();
                self.script(&SCRIPTS.audit, &keys, &args)
            })
            .collect();
        for call in calls {
            let (_, mut rest) = self.ask(call).await?;
            self.tell_changed(&rest.texts().unwrap_or_default());
        }
        Ok(())
    }

    fn tell_changed(&self, ids: &[String]) {
        let Some(first) = ids.first() else { return };
        self.status.repaired(Repair::Changed, ids.len());
        warn!(
            repair = Repair::Changed.as_str(),
            reservations = ids.len(),
            reservation_id = first,
            "reservations that somebody changed in the store were written anew"
        );
    }
}

fn read_census(values: &mut Values) -> Option<Census> {
    let epoch = values.text()?;
    let is_new_epoch = values.number::<u8>()? == 1;
    let pairs = values.lists()?.into_iter().map(|mut pair| Some((pair.text()?, pair.text()?)));
    let repairs: Option<Vec<_>> = pairs.collect();
    let triples =
        values.lists()?.into_iter().map(|mut one| Some((one.text()?, one.text()?, one.text()?)));
    let ended: Option<Vec<_>> = triples.collect();
    Some(Census {
        epoch,
        is_new_epoch,
        repairs: repairs?,
        ended: ended?,
        cursor: values.text()?,
        limits: values.numbers()?,
        wrong_limits: values.texts()?,
        own: values.texts()?.iter().filter_map(|id| ReservationId::parse(id).ok()).collect(),
    })
}
