//! The account in the store, as one node keeps it: operations become calls of scripts, answers become
//! outcomes.
//!
//! What this node granted is remembered here too ([`Book::own`]), so that it can be put back where the
//! store lost it, and stand in for the store while it is away. Calls are made one after the other;
//! when to make them is `keeper`'s matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use control::ledger::{Snapshot, SourceUsage};
use control::{
    Answer, EndCause, EndedLease, Exceeded, Lease, LedgerOp, Outcome, Policy, Quota, Reservation,
    ReservationId, Scope, SourceId, Timestamp, Unit, Usage,
};
use redis::Value;
use tracing::warn;

use super::connection::{Call, Script, Store, StoreError};
use super::offset::Offset;
use super::operations::Operations;
use super::reply::{Each, Reply, Told, Values};
use super::scripts::SCRIPTS;
use super::status::{Repair, StoreStatus};
use super::words::Words;

/// Operations that one call of a script does, or packets that it tells of. Each takes the store some
/// 10 µs, so that others wait a millisecond for it.
const OPERATIONS_A_CALL: usize = 100;

/// A lease that its node believes to live longer than this was not ended by its time: the store's clock
/// jumped. Answers are under way for less.
pub(super) const CLOCK_JUMP: Duration = Duration::from_secs(1);

/// Reads the node's clock.
pub(crate) type NodeClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// An operation and who asked for it.
#[derive(Debug)]
pub(super) struct Asked<T> {
    /// Comes back with the outcome.
    pub(super) ticket: T,
    pub(super) op: LedgerOp,
    /// Of `Reserve`: the camera's name, for people who look into the store.
    pub(super) name: String,
}

/// What operations came to.
#[derive(Debug)]
pub(super) struct Executed<T> {
    /// Outcomes in the order in which the store made them.
    pub(super) done: Vec<(T, Outcome)>,
    /// Those that the store did not answer: whether it did them is not known.
    pub(super) left: Vec<Asked<T>>,
    /// Why.
    pub(super) error: Option<StoreError>,
}

/// A lease of this node.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) lease: Lease,
    /// Its camera's name.
    pub(super) name: String,
}

/// See the module's documentation. The maps are bounded by [`control::MAX_LEASES`] and by the sources.
pub(super) struct Book {
    pub(super) store: Store,
    /// This process among all that use the store.
    pub(super) node: String,
    pub(super) quota: Quota,
    pub(super) policy: Policy,
    pub(super) clock: NodeClock,
    /// Tells the store the time, instead of asking it for its own.
    pub(super) sets_time: bool,
    pub(super) offset: Offset,
    pub(super) epoch: String,
    /// The last entry of what other nodes ended that was read.
    pub(super) cursor: String,
    pub(super) own: HashMap<ReservationId, Own>,
    /// Limits as last heard.
    pub(super) limits: HashMap<SourceId, u32>,
    /// What stands in the place of limits and is none.
    pub(super) wrong_limits: HashMap<SourceId, String>,
    /// Own leases that ended, not told yet.
    pub(super) ended: Vec<EndedLease>,
    /// Reservations whose keys are to be deleted.
    pub(super) trash: Vec<ReservationId>,
    /// Something does not add up.
    pub(super) wants_census: bool,
    pub(super) status: Arc<StoreStatus>,
}

impl Book {
    pub(super) fn new(
        store: Store,
        quota: Quota,
        policy: Policy,
        clock: NodeClock,
        status: Arc<StoreStatus>,
    ) -> Self {
        Self {
            store,
            node: uuid::Uuid::new_v4().to_string(),
            quota,
            policy,
            clock,
            sets_time: false,
            offset: Offset::default(),
            epoch: String::new(),
            cursor: String::new(),
            own: HashMap::new(),
            limits: HashMap::new(),
            wrong_limits: HashMap::new(),
            ended: Vec::new(),
            trash: Vec::new(),
            wants_census: true,
            status,
        }
    }

    /// Executes operations in their order. Where the store turns out to have lost something, it is
    /// put back first.
    pub(super) async fn execute<T>(&mut self, asked: Vec<Asked<T>>) -> Executed<T> {
        let mut slots: Vec<Option<Asked<T>>> = asked.into_iter().map(Some).collect();
        let mut done = Vec::with_capacity(slots.len());
        let mut error = None;
        for is_last in [false, true] {
            let open: Vec<usize> =
                (0..slots.len()).filter(|place| slots[*place].is_some()).collect();
            if open.is_empty() {
                break;
            }
            let (finished, again) = match self.round(&slots, &open, is_last).await {
                Ok(round) => round,
                Err(failed) => {
                    error = Some(failed);
                    break;
                }
            };
            for (place, outcome) in finished {
                if let Some(asked) = slots[place].take() {
                    done.push((asked.ticket, outcome));
                }
            }
            error = again;
            if error.is_some() {
                break;
            }
            if slots.iter().any(Option::is_some)
                && let Err(failed) = self.take_census().await
            {
                error = Some(failed);
                break;
            }
        }
        self.empty_trash().await;
        let left: Vec<Asked<T>> = slots.into_iter().flatten().collect();
        if error.is_none() && !left.is_empty() {
            error = Some(self.store.garbled("operations without an answer"));
        }
        Executed { done, left, error }
    }

    /// Asks for the operations at `open` once.
    async fn round<T>(
        &mut self,
        slots: &[Option<Asked<T>>],
        open: &[usize],
        is_last: bool,
    ) -> Result<(Vec<(usize, Outcome)>, Option<StoreError>), StoreError> {
        let ops: Vec<(usize, &Asked<T>)> =
            open.iter().filter_map(|place| Some((*place, slots.get(*place)?.as_ref()?))).collect();
        let mut jobs: Vec<Vec<(usize, &Asked<T>)>> = Vec::new();
        for (place, asked) in ops {
            match jobs.last_mut() {
                Some(job)
                    if job.len() < OPERATIONS_A_CALL
                        && job.last().is_some_and(|(_, last)| go_together(&last.op, &asked.op)) =>
                {
                    job.push((place, asked));
                }
                Some(_) | None => jobs.push(vec![(place, asked)]),
            }
        }
        let calls: Vec<Call<'static>> = jobs.iter().map(|job| self.call(job)).collect();
        let asked_at = (self.clock)();
        let answers = self.store.eval_all(&calls).await?;
        let mut finished = Vec::with_capacity(open.len());
        let mut error = None;
        for (job, answer) in answers {
            let Some(job) = jobs.get(job) else { continue };
            let result = match answer {
                Ok(value) => self.judge(job, value, asked_at, is_last, &mut finished),
                Err(StoreError::Foreign { .. }) if !is_last => Ok(()),
                Err(error) => Err(error),
            };
            error = result.err().or(error);
        }
        Ok((finished, error))
    }

    /// Reads what one call answered to the operations of `job`, in their order: outcomes are remembered,
    /// because a later one may end a lease that an earlier one granted, and go to `finished`. Operations
    /// are left out that are to be asked again after a census, because the store lost something.
    fn judge<T>(
        &mut self,
        job: &[(usize, &Asked<T>)],
        value: Value,
        asked_at: Timestamp,
        is_last: bool,
        finished: &mut Vec<(usize, Outcome)>,
    ) -> Result<(), StoreError> {
        let shown = if tracing::enabled!(tracing::Level::DEBUG) {
            format!("{value:?}")
        } else {
            String::new()
        };
        let Some(reply) = Reply::read(value) else {
            tracing::debug!(answer = shown, "an answer of the store is not understood");
            return Err(self.store.garbled("not the form of an answer"));
        };
        self.hear(&reply, asked_at);
        let next_expiry = reply.next_expiry_ms.map(|ms| self.due(ms));
        let mut ended = self.take_told(reply.told);
        for ((place, asked), each) in job.iter().zip(Each::of(reply.word, reply.rest)) {
            let Each { told, word, mut values } = each;
            ended.extend(self.take_told(told));
            if word == "flushed" {
                self.ended.append(&mut ended);
                if is_last {
                    let reason = "somebody empties it again and again".to_owned();
                    return Err(StoreError::Refused { store: self.store.place(), reason });
                }
                continue;
            }
            let Some(answer) = self.answer(&asked.op, &word, &mut values) else {
                self.ended.append(&mut ended);
                tracing::debug!(answer = shown, op = ?asked.op, "an answer of the store is not understood");
                let reason = format!("not an answer to {:?}", std::mem::discriminant(&asked.op));
                return Err(self.store.garbled(reason));
            };
            if answer == Answer::NotFound && !is_last && self.is_missed(&asked.op, &ended) {
                self.ended.append(&mut ended);
                continue;
            }
            let outcome = Outcome { answer, ended: std::mem::take(&mut ended), next_expiry };
            self.remember(asked, &outcome);
            finished.push((*place, outcome));
        }
        Ok(())
    }

    /// Whether this node holds the lease that the store does not know.
    fn is_missed(&self, op: &LedgerOp, ended: &[EndedLease]) -> bool {
        let id = match op {
            LedgerOp::Release(id)
            | LedgerOp::Heartbeat { id, .. }
            | LedgerOp::MediaSeen { id, .. } => id,
            LedgerOp::Reserve(_)
            | LedgerOp::Expire
            | LedgerOp::Count(_)
            | LedgerOp::SetLimit { .. }
            | LedgerOp::Snapshot => return false,
        };
        self.own.contains_key(id) && ended.iter().all(|ended| ended.lease.id() != id)
    }

    /// Learns the store's time.
    pub(super) fn hear(&mut self, reply: &Reply, asked_at: Timestamp) {
        if !self.sets_time {
            self.offset.learn(reply.now_ms, asked_at, (self.clock)());
        }
    }

    /// Rounded up, so that the lease has run out by then.
    fn due(&self, expires_ms: u64) -> Timestamp {
        let due = self.offset.to_node(expires_ms);
        if self.sets_time { due } else { due + Duration::from_millis(1) }
    }

    /// Own leases that ended. Those that were ended by a clock that jumped are kept, and put back.
    pub(super) fn take_told(&mut self, told: Vec<Told>) -> Vec<EndedLease> {
        let mut ended = Vec::new();
        for Told { id, cause, expires_ms, record } in told {
            let is_own = record.node == self.node;
            if is_own && cause == EndCause::Expired && self.lives_on(&id) {
                self.wants_census = true;
                continue;
            }
            self.trash.push(id.clone());
            if is_own {
                if cause == EndCause::Deleted {
                    self.status.repaired(Repair::Deleted, 1);
                    warn!(repair = "deleted", reservation_id = %id, "a reservation was deleted in the store, its viewer is ended");
                }
                self.own.remove(&id);
                let lease = record.into_lease(id, expires_ms, &self.offset);
                ended.push(EndedLease { lease, cause });
            }
        }
        ended
    }

    /// Whether by this node's clock a lease of it has time left.
    pub(super) fn lives_on(&self, id: &ReservationId) -> bool {
        let limit = (self.clock)() + CLOCK_JUMP;
        !self.sets_time && self.own.get(id).is_some_and(|own| own.lease.is_live(limit))
    }

    fn remember<T>(&mut self, asked: &Asked<T>, outcome: &Outcome) {
        match &outcome.answer {
            Answer::Reserved { lease, .. } => {
                // The id of one that ended is used again.
                self.trash.retain(|id| id != lease.id());
                let own = Own { lease: lease.clone(), name: asked.name.clone() };
                self.own.insert(lease.id().clone(), own);
            }
            Answer::Renewed { lease, .. } => {
                if let Some(own) = self.own.get_mut(lease.id()) {
                    own.lease = lease.clone();
                }
            }
            Answer::Released { lease, .. } => {
                self.own.remove(lease.id());
            }
            Answer::QuotaExceeded(_)
            | Answer::IdTaken
            | Answer::NotFound
            | Answer::Swept
            | Answer::Counted(_)
            | Answer::Snapshot(_)
            | Answer::Unavailable => {}
        }
        if let (
            LedgerOp::Release(id) | LedgerOp::Heartbeat { id, .. } | LedgerOp::MediaSeen { id, .. },
            Answer::NotFound,
        ) = (&asked.op, &outcome.answer)
        {
            self.own.remove(id);
        }
    }

    /// Deletes what people read of leases that ended. What is left by a failure ends by its time.
    pub(super) async fn empty_trash(&mut self) {
        if self.trash.is_empty() {
            return;
        }
        let trash = std::mem::take(&mut self.trash);
        let commands = trash.iter().map(|id| {
            let mut keys = Words::default();
            self.add_lease_keys(&mut keys, id);
            let mut command = redis::cmd("UNLINK");
            keys.iter().for_each(|key| {
                command.arg(key);
            });
            command
        });
        if let Err(error) = self.store.commands(commands.collect()).await {
            tracing::debug!(%error, "keys of leases that ended were left");
        }
    }
}

/// Calls.
impl Book {
    fn call<T>(&self, job: &[(usize, &Asked<T>)]) -> Call<'static> {
        let Some((_, first)) = job.first() else {
            return self.script(&SCRIPTS.expire, &Words::default(), &Words::default());
        };
        match &first.op {
            LedgerOp::Reserve(_) | LedgerOp::Release(_) | LedgerOp::Heartbeat { .. } => {
                self.operate(job)
            }
            LedgerOp::MediaSeen { .. } => self.media_seen(job),
            LedgerOp::Expire => self.script(&SCRIPTS.expire, &Words::default(), &Words::default()),
            LedgerOp::Count(source) => self.count(source, "read", String::new()),
            LedgerOp::SetLimit { source, limit: Some(limit) } => {
                self.count(source, "set", limit.to_string())
            }
            LedgerOp::SetLimit { source, limit: None } => {
                self.count(source, "reset", String::new())
            }
            LedgerOp::Snapshot => {
                let mut keys = Words::from_iter([self.good_limits_key()]);
                let mut args = Words::default();
                for source in self.quota.sources() {
                    keys.push(self.limit_key(source));
                    args.extend([source.as_str(), &self.configured(source)]);
                }
                self.script(&SCRIPTS.snapshot, &keys, &args)
            }
        }
    }

    /// Reservations, releases and heartbeats.
    fn operate<T>(&self, job: &[(usize, &Asked<T>)]) -> Call<'static> {
        let mut operations = Operations::default();
        for (_, Asked { op, name, .. }) in job {
            match op {
                LedgerOp::Reserve(reservation) => operations.reserve(self, reservation, name),
                LedgerOp::Release(id) => operations.release(self, id),
                LedgerOp::Heartbeat { id, extend } => operations.heartbeat(self, id, *extend),
                // They are asked for in calls of their own.
                LedgerOp::MediaSeen { .. }
                | LedgerOp::Expire
                | LedgerOp::Count(_)
                | LedgerOp::SetLimit { .. }
                | LedgerOp::Snapshot => {}
            }
        }
        operations.into_call(self)
    }

    /// Ends leases.
    pub(super) fn release<'i>(
        &self,
        ids: impl Iterator<Item = &'i ReservationId>,
    ) -> Call<'static> {
        let mut operations = Operations::default();
        ids.for_each(|id| operations.release(self, id));
        operations.into_call(self)
    }

    fn media_seen<T>(&self, job: &[(usize, &Asked<T>)]) -> Call<'static> {
        let mut keys = Words::default();
        let mut args = Words::from_iter([millis(self.policy.media_silence)]);
        for (_, asked) in job {
            if let LedgerOp::MediaSeen { id, at } = &asked.op {
                self.add_lease_keys(&mut keys, id);
                args.push(id.as_str());
                args.write(format_args!("{}", self.offset.to_store(*at)));
            }
        }
        self.script(&SCRIPTS.media_seen, &keys, &args)
    }

    fn count(&self, source: &SourceId, what: &str, limit: String) -> Call<'static> {
        let keys = Words::from_iter([self.limit_key(source), self.good_limits_key()]);
        let args = Words::from_iter([source.as_str(), &self.configured(source), what, &limit]);
        self.script(&SCRIPTS.count, &keys, &args)
    }

    /// A call of `script`, with the keys and arguments that all have before its own.
    pub(super) fn script(
        &self,
        script: &'static Script,
        keys: &Words,
        args: &Words,
    ) -> Call<'static> {
        let prefix = self.store.prefix();
        let mut all_keys = Words::default();
        for name in ["leases", "records", "index", "ended", "epoch", "mirrors"] {
            all_keys.write(format_args!("{prefix}stream:{name}"));
        }
        all_keys.append(keys);
        let now =
            if self.sets_time { (self.clock)().as_millis().to_string() } else { String::new() };
        let unit = match self.quota.unit() {
            Unit::Viewer => "viewer",
            Unit::Camera => "camera",
        };
        let mut all_args = Words::from_iter([now.as_str(), &self.node, unit]);
        all_args.append(args);
        Call { script, keys: all_keys, args: all_args }
    }

    /// What people read of a lease, and of which scripts are told in this order.
    pub(super) fn add_lease_keys(&self, keys: &mut Words, id: &ReservationId) {
        let prefix = self.store.prefix();
        for kind in ["reservation", "metadata", "heartbeat"] {
            keys.write(format_args!("{prefix}stream:{kind}:{id}"));
        }
    }

    pub(super) fn reservation_key(&self, id: &ReservationId) -> String {
        self.store.key(&format!("stream:reservation:{id}"))
    }

    pub(super) fn count_key(&self, source: &SourceId) -> String {
        self.store.key(&format!("stream:count:{source}"))
    }

    pub(super) fn limit_key(&self, source: &SourceId) -> String {
        self.store.key(&format!("stream:limit:{source}"))
    }

    pub(super) fn good_limits_key(&self) -> String {
        self.store.key("stream:limits")
    }

    /// Empty for a source that is not configured.
    pub(super) fn configured(&self, source: &SourceId) -> String {
        let is_known = self.quota.sources().any(|known| known == source);
        if is_known { self.quota.limit(source).to_string() } else { String::new() }
    }
}

/// Answers.
impl Book {
    /// `None`: it is not understood.
    fn answer(&mut self, op: &LedgerOp, word: &str, values: &mut Values) -> Option<Answer> {
        match word {
            "reserved" => {
                let LedgerOp::Reserve(reservation) = op else { return None };
                let lease = self.lease(&reservation.id, values)?;
                let usage = Usage { current: values.number()?, limit: values.number()? };
                self.limits.insert(lease.reservation.source.clone(), usage.limit);
                Some(Answer::Reserved { lease, usage })
            }
            "full" => {
                let LedgerOp::Reserve(reservation) = op else { return None };
                self.exceeded(reservation, values).map(Answer::QuotaExceeded)
            }
            "taken" => Some(Answer::IdTaken),
            "released" => {
                let LedgerOp::Release(id) = op else { return None };
                let lease = self.lease(id, values)?;
                let usage = self.usage(&lease.reservation.source, values.number()?);
                Some(Answer::Released { lease, usage })
            }
            "renewed" => {
                let (LedgerOp::Heartbeat { id, .. } | LedgerOp::MediaSeen { id, .. }) = op else {
                    return None;
                };
                let lease = self.lease(id, values)?;
                let usage = self.usage(&lease.reservation.source, values.number()?);
                Some(Answer::Renewed { lease, usage })
            }
            "unknown" => Some(Answer::NotFound),
            "swept" => Some(Answer::Swept),
            "counted" => {
                let (LedgerOp::Count(source) | LedgerOp::SetLimit { source, .. }) = op else {
                    return None;
                };
                let usage = Usage { current: values.number()?, limit: values.number()? };
                self.limits.insert(source.clone(), usage.limit);
                Some(Answer::Counted(usage))
            }
            "snapshot" => self.snapshot(values).map(Answer::Snapshot),
            _ => None,
        }
    }

    /// A record and its expiry.
    fn lease(&self, id: &ReservationId, values: &mut Values) -> Option<Lease> {
        let record = values.record()?;
        Some(record.into_lease(id.clone(), values.number()?, &self.offset))
    }

    /// With the limit as last heard, which is a second old at most.
    fn usage(&self, source: &SourceId, current: u32) -> Usage {
        let limit = self.limits.get(source).copied();
        Usage { current, limit: limit.unwrap_or_else(|| self.quota.limit(source)) }
    }

    fn exceeded(&self, reservation: &Reservation, values: &mut Values) -> Option<Exceeded> {
        let scope = match values.text()?.as_str() {
            "user" => Scope::User(reservation.user.clone()),
            "source" => Scope::Source(reservation.source.clone()),
            "total" => Scope::Total,
            _ => return None,
        };
        let usage = Usage { current: values.number()?, limit: values.number()? };
        let free_at = values.maybe_number()?.map(|ms| self.offset.to_node(ms));
        Some(Exceeded { scope, usage, free_at })
    }

    /// Counted from the leases themselves.
    fn snapshot(&mut self, values: &mut Values) -> Option<Snapshot> {
        let lists = values.lists()?;
        let limits: Vec<u32> = values.numbers()?;
        self.limits.extend(self.quota.sources().cloned().zip(limits));
        let mut leases = Vec::with_capacity(lists.len());
        for mut one in lists {
            let (id, expires_ms) = (one.id()?, one.number()?);
            leases.push(one.record()?.into_lease(id, expires_ms, &self.offset));
        }
        let mut by_source: BTreeMap<SourceId, (u32, HashSet<_>)> =
            self.quota.sources().map(|source| (source.clone(), Default::default())).collect();
        for Lease { reservation, .. } in &leases {
            let (viewers, cameras) = by_source.entry(reservation.source.clone()).or_default();
            *viewers += 1;
            cameras.insert(&reservation.camera);
        }
        let sources: Vec<SourceUsage> = by_source
            .into_iter()
            .map(|(source, (viewers, cameras))| {
                let active_cameras = u32::try_from(cameras.len()).unwrap_or(u32::MAX);
                let current = match self.quota.unit() {
                    Unit::Viewer => viewers,
                    Unit::Camera => active_cameras,
                };
                SourceUsage { usage: self.usage(&source, current), source, active_cameras }
            })
            .collect();
        let current = sources.iter().map(|source| source.usage.current).sum();
        let total = Usage { current, limit: self.quota.total() };
        Some(Snapshot { leases, sources, total })
    }
}

/// Whether one call of a script does an operation and the one that was asked for next.
fn go_together(first: &LedgerOp, next: &LedgerOp) -> bool {
    let is_operation = |op: &LedgerOp| {
        matches!(op, LedgerOp::Reserve(_) | LedgerOp::Release(_) | LedgerOp::Heartbeat { .. })
    };
    let is_packet = |op: &LedgerOp| matches!(op, LedgerOp::MediaSeen { .. });
    (is_operation(first) && is_operation(next)) || (is_packet(first) && is_packet(next))
}

pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}
