//! The audit trail: who watched what, from when to when, how many bytes and why it ended; and who changed
//! what. Rows are only ever added, and each carries a hash of the one before it.
//!
//! Whoever has something to tell puts it into a queue and goes on; a thread of its own writes what waits in
//! one transaction. It decides nothing: a disk that is full or slow costs rows, which are counted, and the
//! loss is a row itself. What is read and checked is in `store`, what a row is in `row`.

mod row;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use control::{ReservationId, Timestamp};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{error, info, warn};

use crate::database::{Database, DatabaseError};

pub(crate) use row::{Kind, Row, RowStep, hex};
pub(crate) use store::{Answer, Found, Link, Query, Verdict};

/// Rows that may wait to be written: 1.6 seconds of 10,000 reservations a second, each of which is a row at its
/// begin and one at its end. At 2 KiB a row they take 64 MiB, while the disk stands still.
const MAX_WAITING: usize = 32_768;

/// Rows that are collected for one transaction: 8 MiB at most, so that others who write to the database wait
/// some tens of milliseconds. Each transaction writes the index of lives anew wherever one of its rows
/// belongs, so that few large ones cost less than many small.
const BATCH_ROWS: usize = 4_096;

/// How long a row waits for others before it is written. So much is lost, at most, when the process is
/// killed; each batch costs one flush of the disk.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// How often it is looked for more rows meanwhile, and for the end of the program. At 20,000 rows a second 200
/// come between two looks, and [`MAX_WAITING`] find room.
const NAP_TIME: Duration = Duration::from_millis(10);

/// After a failed write.
const RETRY_TIME: Duration = Duration::from_secs(2);

/// How often old rows are looked for.
const PRUNE_TIME: Duration = Duration::from_secs(60 * 60);

/// Rows that are removed in one transaction: others who write to the database wait milliseconds.
const PRUNE_ROWS: u64 = 1_024;

/// Most rows that are kept, however young: 10 GB at 2 KiB. 1,000 viewers who change their camera each
/// 10 minutes around the clock make 25 million in 90 days, most of them shorter; so that this bounds the
/// disk only where somebody asks in a loop.
const ROWS_MAX: u64 = 5_000_000;

/// How long the end of the program waits for the last batch.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// Handle to the audit trail; cheap to clone.
#[derive(Clone)]
pub(crate) struct Audit(Option<Arc<Inner>>);

struct Inner {
    queue: Sender<Entry>,
    database: Database,
    figures: Arc<Figures>,
}

/// Counters since the start; both rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AuditFigures {
    /// Rows that are on the disk.
    pub(crate) written: u64,
    /// Rows that found no place in the queue.
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
struct Figures {
    /// Not told to the trail yet.
    lost: AtomicU64,
    lost_ever: AtomicU64,
    written: AtomicU64,
}

enum Entry {
    Row(Box<Row>),
    /// What one change has done, in one transaction: a park of 10,000 cameras that is imported at once is
    /// 3 MB of rows, and the next import waits for its own place in the database.
    Rows(Vec<Row>),
    /// The program ends; answered when all before it is written, or cannot be.
    Finish(Sender<()>),
}

/// What somebody changed. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    /// Who.
    pub(crate) actor: &'a str,
    /// What he did, a word such as `camera_changed`.
    pub(crate) action: &'a str,
    /// The id of what was changed.
    pub(crate) object: &'a str,
    /// Whose it is, so that its operators read of it; empty: nobody's.
    pub(crate) source: &'a str,
    /// What is different, in words.
    pub(crate) detail: String,
}

impl Change<'_> {
    /// As it is kept.
    pub(crate) fn into_row(self) -> Row {
        let source = self.source.to_owned();
        Row { source, reason: self.detail, ..Row::changed(self.actor, self.action, self.object) }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Audit" } else { "Audit(off)" })
    }
}

impl Audit {
    /// None is kept.
    pub(crate) const fn off() -> Self {
        Self(None)
    }

    /// Begins to keep one in `database`; rows that are older than `keep` are removed, none without it.
    pub(crate) fn start(database: Database, keep: Option<Duration>) -> Self {
        let (queue, waiting) = bounded(MAX_WAITING);
        let figures = Arc::<Figures>::default();
        let writer = Writer {
            database: database.clone(),
            waiting,
            figures: Arc::clone(&figures),
            keep,
            has_begun: false,
            is_failing: false,
            prune_at: Instant::now(),
        };
        let spawned = thread::Builder::new().name("audit".to_owned()).spawn(|| writer.run());
        if let Err(reason) = spawned {
            error!(%reason, "no audit trail is kept: its thread could not be started");
            return Self::off();
        }
        Self(Some(Arc::new(Inner { queue, database, figures })))
    }

    /// Adds a row, soon.
    pub(crate) fn add(&self, row: Row) {
        self.put(Entry::Row(Box::new(row)), 1);
    }

    /// Adds the rows of one change, soon: all of them or none.
    pub(crate) fn add_all(&self, rows: Vec<Row>) {
        let count = rows.len() as u64;
        if count > 0 {
            self.put(Entry::Rows(rows), count);
        }
    }

    fn put(&self, entry: Entry, count: u64) {
        let Some(inner) = &self.0 else { return };
        if inner.queue.try_send(entry).is_err() {
            inner.figures.lost.fetch_add(count, Ordering::Relaxed);
            inner.figures.lost_ever.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Somebody changed something: `actor` is who, `action` a word such as `camera_changed`, `object` the id
    /// of what was changed. No secrets.
    pub(crate) fn note(&self, actor: &str, action: &str, object: &str) {
        self.tell(Change { actor, action, object, source: "", detail: String::new() });
    }

    /// [`Self::note`], and more of it.
    pub(crate) fn tell(&self, change: Change<'_>) {
        let Change { actor, action, object, source, detail } = &change;
        info!(actor, action, object, source, detail, "changed");
        self.add(change.into_row());
    }

    /// What was counted so far.
    pub(crate) fn figures(&self) -> AuditFigures {
        let Some(inner) = &self.0 else { return AuditFigures::default() };
        let Figures { lost_ever, written, .. } = &*inner.figures;
        let (written, lost) = (written.load(Ordering::Relaxed), lost_ever.load(Ordering::Relaxed));
        AuditFigures { written, lost }
    }

    /// Rows that are asked for.
    pub(crate) async fn find(&self, query: Query) -> Result<Answer, DatabaseError> {
        let found = self.read(move |transaction| store::find(transaction, &query)).await?;
        Ok(found.unwrap_or_default())
    }

    /// The row that tells most of a reservation.
    pub(crate) async fn life(&self, id: &ReservationId) -> Result<Option<Found>, DatabaseError> {
        let id = id.clone();
        let found = self.read(move |transaction| store::life(transaction, id.as_str())).await?;
        Ok(found.flatten())
    }

    /// Whether the trail is what was written; `None`: there is none.
    pub(crate) async fn verify(
        &self,
        noted: Option<Link>,
    ) -> Result<Option<Verdict>, DatabaseError> {
        self.read(move |transaction| store::verify(transaction, noted)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<Option<T>, DatabaseError> {
        match &self.0 {
            Some(inner) => inner.database.read(act).await,
            None => Ok(None),
        }
    }

    /// Writes what waits, and that the server ended as it should. Blocks for a second at most.
    pub(crate) fn finish(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, written) = bounded(1);
        if inner.queue.send_timeout(Entry::Finish(done), FINISH_TIME).is_err()
            || written.recv_timeout(FINISH_TIME).is_err()
        {
            warn!("the last rows of the audit trail were not written in time");
        }
    }
}

/// [`Audit::verify`] of a database that no server has open.
pub(crate) fn verify_now(
    database: &Database,
    noted: Option<Link>,
) -> Result<Option<Verdict>, DatabaseError> {
    database.read_now(|transaction| store::verify(transaction, noted))
}

/// The thread that writes.
struct Writer {
    database: Database,
    waiting: Receiver<Entry>,
    figures: Arc<Figures>,
    keep: Option<Duration>,
    /// The trail knows that the server runs.
    has_begun: bool,
    is_failing: bool,
    prune_at: Instant,
}

impl Writer {
    fn run(mut self) {
        // Those whom the last server left open are told of at once; a trail that was never begun is begun
        // with the first row.
        if matches!(self.database.read_now(store::head), Ok(Some(head)) if head.number > 0) {
            self.write(&[]);
        }
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        loop {
            let finishing = match self.collect(&mut batch) {
                Collected::Rows => None,
                Collected::Finish(done) => Some(done),
                Collected::NoMore => return,
            };
            if finishing.is_some() && (self.has_begun || !batch.is_empty()) {
                batch.push(Row::new(Kind::Stopped));
            }
            while !batch.is_empty() && !self.write(&batch) && finishing.is_none() {
                thread::sleep(RETRY_TIME);
            }
            batch.clear();
            if let Some(done) = finishing {
                // Who waits may have given up.
                let _ = done.send(());
            }
            self.prune();
        }
    }

    /// Waits for a row, and for more of them for a moment. Who has a row for us finds us asleep and goes on:
    /// to be woken for each would cost him more than the row does.
    fn collect(&self, batch: &mut Vec<Row>) -> Collected {
        let mut next = match self.waiting.recv_deadline(self.prune_at) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => return Collected::Rows,
            Err(RecvTimeoutError::Disconnected) => return Collected::NoMore,
        };
        let deadline = Instant::now() + BATCH_TIME;
        loop {
            while let Some(entry) = next {
                match entry {
                    Entry::Row(row) => batch.push(*row),
                    Entry::Rows(rows) => batch.extend(rows),
                    Entry::Finish(done) => return Collected::Finish(done),
                }
                if batch.len() >= BATCH_ROWS {
                    return Collected::Rows;
                }
                next = self.waiting.try_recv().ok();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Collected::Rows;
            }
            thread::sleep(left.min(NAP_TIME));
            next = self.waiting.try_recv().ok();
        }
    }

    /// False where it could not be written.
    fn write(&mut self, batch: &[Row]) -> bool {
        let lost = self.figures.lost.swap(0, Ordering::Relaxed);
        let is_first = !self.has_begun;
        let written = self.database.write_now(|transaction| {
            let mut rows = Vec::new();
            if is_first {
                rows.push(Row::new(Kind::Started));
                rows.extend(store::cut(transaction)?);
            }
            if lost > 0 {
                rows.push(Row { count: lost, ..Row::new(Kind::Lost) });
            }
            let count = rows.len() + batch.len();
            store::append(transaction, rows.iter().chain(batch), now()).map(|head| (head, count))
        });
        match written {
            Ok((head, count)) => {
                self.figures.written.fetch_add(count as u64, Ordering::Relaxed);
                self.wrote(head, lost);
                true
            }
            Err(reason) => {
                self.figures.lost.fetch_add(lost, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    error!(%reason, "the audit trail cannot be written; it is tried again");
                }
                false
            }
        }
    }

    fn wrote(&mut self, head: Link, lost: u64) {
        if lost > 0 {
            warn!(lost, "rows of the audit trail were lost: more came than the disk took");
        }
        if std::mem::take(&mut self.is_failing) {
            info!("the audit trail is written again");
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            info!(%head, "the audit trail goes on");
        }
    }

    /// Removes what is too old, now and then, and notes in the log where the chain stands.
    fn prune(&mut self) {
        if Instant::now() < self.prune_at {
            return;
        }
        self.prune_at = Instant::now() + PRUNE_TIME;
        let Ok(Some(head)) = self.database.read_now(store::head) else { return };
        info!(%head, "the newest row of the audit trail");
        let before = self.keep.map(|keep| {
            Timestamp::from_millis(now().as_millis().saturating_sub(keep.as_millis() as u64))
        });
        let mut all = 0;
        loop {
            let pruned = self.database.write_now(|transaction| {
                store::prune(transaction, before, ROWS_MAX, PRUNE_ROWS, now())
            });
            match pruned {
                Ok(count) => all += count,
                Err(reason) => return warn!(%reason, "old rows of the audit trail stay"),
            }
            if pruned.is_ok_and(|count| count < PRUNE_ROWS) {
                break;
            }
        }
        if all > 0 {
            info!(rows = all, "old rows of the audit trail were removed");
        }
    }
}

enum Collected {
    Rows,
    Finish(Sender<()>),
    NoMore,
}

fn now() -> Timestamp {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO + wall
}

#[cfg(test)]
mod tests;
