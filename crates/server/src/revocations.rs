//! Tokens that were taken back before they expired: kept in memory, in the database, and in the store.
//!
//! The database lets them outlive a restart. In a store all servers share one list; each reads what is new in
//! it twice a second, ends the viewers whose tokens were revoked elsewhere, and puts back what it knows where
//! the list was lost. What a token allows, and who may take it back, is not known here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::ReservationId;
use redb::{ReadableTable, TableDefinition};
use redis::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::database::{Database, DatabaseError};
use crate::ledger::connection::{Script, Store, StoreError};

/// Reservations and tokens that may be taken back at once. A token lives an hour, so that this is one
/// viewer sent away a second for 18 hours; those beyond push out the next to expire.
const REVOKED_MAX: usize = 65_536;

/// How often the list of the store is read. Operators are promised that who is sent away is refused by all nodes
/// within a second, of which a busy machine takes a part.
const SHARE_INTERVAL: Duration = Duration::from_millis(500);

/// Entries that are put into the store's list in one call. Each takes it some 5 µs, so that others wait five
/// milliseconds for it.
const ENTRIES_A_CALL: usize = 1_000;

/// How much longer than its last entry the store's list is kept.
const LIST_KEPT: Duration = Duration::from_secs(60);

/// Until when, in seconds since the Unix epoch, by name.
const REVOKED: TableDefinition<'_, &str, u64> = TableDefinition::new("revoked");

/// What was taken back; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Revocations(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    database: OnceLock<Database>,
    added: Notify,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("known", &self.known).finish_non_exhaustive()
    }
}

/// What was taken back before it expired, and when it does (seconds since the Unix epoch). What stands
/// here is the `sub` of viewers' tokens, or the `jti` of others.
#[derive(Debug, Default)]
struct Known {
    until: HashMap<String, u64>,
    /// The same, the next to expire first.
    due: BTreeSet<(u64, String)>,
    /// Names that the database does not have yet.
    unsaved: Vec<String>,
    /// Rises with each change.
    version: u64,
}

impl Known {
    /// Whether it was not known before.
    fn insert(&mut self, name: String, until: u64, now: u64) -> bool {
        let earlier = self.until.remove(&name);
        if let Some(earlier) = earlier {
            self.due.remove(&(earlier, name.clone()));
        }
        let is_over = |due: &BTreeSet<(u64, String)>| due.first().is_some_and(|(at, _)| *at <= now);
        while self.due.len() >= REVOKED_MAX || is_over(&self.due) {
            let Some((_, oldest)) = self.due.pop_first() else { break };
            self.until.remove(&oldest);
        }
        let until = until.max(earlier.unwrap_or_default());
        self.until.insert(name.clone(), until);
        if earlier != Some(until) {
            self.unsaved.push(name.clone());
            self.version += 1;
        }
        self.due.insert((until, name));
        earlier.is_none()
    }

    fn contains(&self, name: &str) -> bool {
        !name.is_empty() && self.until.contains_key(name)
    }
}

impl Revocations {
    /// Takes back what is called `name` until it expires.
    pub(crate) fn insert(&self, name: String, until: SystemTime, now: SystemTime) {
        self.known().insert(name, seconds(until), seconds(now));
        self.0.added.notify_one();
    }

    /// Whether it was taken back.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.known().contains(name)
    }

    /// Takes what an earlier process left in the database, and keeps in it what is added from here on.
    pub(crate) fn load(&self, database: &Database, now: SystemTime) -> Result<(), DatabaseError> {
        let rows = database.read_now(|transaction| {
            let table = transaction.open_table(REVOKED)?;
            let rows = table.iter()?.map(|row| {
                let (name, until) = row?;
                Ok((name.value().to_owned(), until.value()))
            });
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let mut known = self.known();
        for (name, until) in rows.unwrap_or_default() {
            if until > seconds(now) {
                known.insert(name, until, seconds(now));
            }
        }
        known.unsaved.clear();
        // It is loaded once.
        let _ = self.0.database.set(database.clone());
        Ok(())
    }

    /// Writes what is new into the database, and takes out what has expired. Where that fails, it is
    /// known until the process ends.
    pub(crate) async fn save(&self) {
        let Some(database) = self.0.database.get() else { return };
        let unsaved: Vec<(String, u64)> = {
            let mut known = self.known();
            let names = std::mem::take(&mut known.unsaved);
            names
                .into_iter()
                .filter_map(|name| Some((name.clone(), *known.until.get(&name)?)))
                .collect()
        };
        if unsaved.is_empty() {
            return;
        }
        let now = seconds(SystemTime::now());
        let saved = database.write(move |transaction| {
            let mut table = transaction.open_table(REVOKED)?;
            table.retain(|_, until| until > now)?;
            for (name, until) in &unsaved {
                table.insert(name.as_str(), until)?;
            }
            Ok(())
        });
        if let Err(error) = saved.await {
            warn!(%error, "a token that was revoked is good again after a restart");
        }
    }

    /// Shares the list with all who use `store`, until `closing`.
    pub(crate) async fn share(self, store: Store, app: App, closing: CancellationToken) {
        let mut share = Share::new(store);
        let mut interval = tokio::time::interval(SHARE_INTERVAL);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = interval.tick() => {}
                () = self.0.added.notified() => {}
            }
            let learned = match share.exchange(&self).await {
                Ok(learned) => learned,
                Err(error) => {
                    debug!(%error, "revoked tokens are not shared at the moment");
                    continue;
                }
            };
            self.save().await;
            for id in learned.iter().filter_map(|name| reservation_of(name)) {
                if app.holder_of(id.clone()).await.is_some() {
                    info!(reservation_id = %id, "viewer sent away at another server");
                    app.remove_viewer(id).await;
                }
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this server knows of the store's list.
struct Share {
    store: Store,
    script: Script,
    epoch: String,
    /// The last number that was read.
    cursor: u64,
    /// Entries that are in it. Bounded by [`REVOKED_MAX`] and what was pushed out since the epoch began.
    there: HashSet<String>,
    /// Of what is known here, when all of it was in the list.
    version: u64,
}

impl Share {
    fn new(store: Store) -> Self {
        Self {
            store,
            script: Script::new(include_str!("revocations.lua")),
            epoch: String::new(),
            cursor: 0,
            there: HashSet::new(),
            version: 0,
        }
    }

    /// Reads what is new in the list, and puts in what is not there. Returns the names that were not known.
    async fn exchange(&mut self, ours: &Revocations) -> Result<Vec<String>, StoreError> {
        let before = self.epoch.clone();
        let mut learned = self.call(ours, &[]).await?;
        let (version, missing) = self.missing(ours);
        for entries in missing.chunks(ENTRIES_A_CALL) {
            learned.extend(self.call(ours, entries).await?);
        }
        let was_lost = !before.is_empty() && before != self.epoch;
        if was_lost && !missing.is_empty() {
            let entries = missing.len();
            warn!(
                repair = "revoked",
                entries, "revoked tokens that the store had lost were put back"
            );
        }
        self.version = version;
        Ok(learned)
    }

    /// What is known here and is not in the list.
    fn missing(&self, ours: &Revocations) -> (u64, Vec<String>) {
        let known = ours.known();
        if known.version == self.version {
            return (known.version, Vec::new());
        }
        let now = seconds(SystemTime::now());
        let live = known.due.iter().filter(|(until, _)| *until > now);
        let entries = live.map(|(until, name)| format!("{until}|{name}"));
        (known.version, entries.filter(|entry| !self.there.contains(entry)).collect())
    }

    async fn call(
        &mut self,
        ours: &Revocations,
        entries: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let now = SystemTime::now();
        let last = ours.known().due.last().map_or(0, |(until, _)| *until);
        let kept = Duration::from_secs(last.saturating_sub(seconds(now))) + LIST_KEPT;
        let mut args = vec![
            self.epoch.clone(),
            self.cursor.to_string(),
            uuid::Uuid::new_v4().to_string(),
            REVOKED_MAX.to_string(),
            kept.as_millis().to_string(),
        ];
        args.extend_from_slice(entries);
        let args = args.into_iter().map(String::into_bytes).collect();
        let keys = vec![self.store.key("stream:revoked")];
        let answer = self.store.eval(&self.script, keys, args).await?;
        let Some((epoch, cursor, read)) = read(answer) else {
            return Err(self.store.garbled("not the list of revoked tokens"));
        };
        if epoch != self.epoch {
            self.epoch = epoch;
            self.there.clear();
            // What is known here may not be there.
            self.version = 0;
        }
        self.cursor = cursor;
        let mut known = ours.known();
        let mut learned = Vec::new();
        for entry in read {
            if let Some((until, name)) = parse(&entry)
                && until > seconds(now)
                && known.insert(name.to_owned(), until, seconds(now))
            {
                learned.push(name.to_owned());
            }
            self.there.insert(entry);
        }
        Ok(learned)
    }
}

/// `second|name` of a viewer. `None` for what we did not put there.
fn parse(entry: &str) -> Option<(u64, &str)> {
    let (until, name) = entry.split_once('|')?;
    reservation_of(name)?;
    Some((until.parse().ok()?, name))
}

fn reservation_of(name: &str) -> Option<ReservationId> {
    ReservationId::parse(name.strip_prefix("viewer_")?).ok()
}

fn read(answer: Value) -> Option<(String, u64, Vec<String>)> {
    let Value::Array(parts) = answer else { return None };
    let [epoch, cursor, Value::Array(entries)] = <[Value; 3]>::try_from(parts).ok()? else {
        return None;
    };
    let entries = entries.iter().filter_map(text).collect();
    Some((text(&epoch)?, text(&cursor)?.parse().ok()?, entries))
}

fn text(value: &Value) -> Option<String> {
    if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_is_bounded_and_forgotten_in_time() {
        let mut known = Known::default();
        for n in 0..=REVOKED_MAX as u64 {
            known.insert(n.to_string(), 1_000 + n, 0);
        }
        assert_eq!((known.until.len(), known.due.len()), (REVOKED_MAX, REVOKED_MAX));
        assert!(!known.contains("0") && known.contains("1"));
        known.insert("1".to_owned(), 10, 0);
        assert!(known.due.contains(&(1_001, "1".to_owned())), "never earlier");
        known.insert("late".to_owned(), u64::MAX, 2_000_000);
        assert_eq!((known.until.len(), known.due.len()), (1, 1));
        assert!(known.contains("late") && !known.contains(""));
    }

    #[tokio::test]
    async fn it_outlives_the_process_until_it_would_have_expired() {
        let folder = std::env::temp_dir().join(format!("manifold-{}", uuid::Uuid::new_v4()));
        let database = Database::new(crate::data_dir::DataDir::of_process(Some(&folder)));
        let (now, later) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(60));
        let before = Revocations::default();
        before.load(&database, now).unwrap();
        before.insert("viewer_1".to_owned(), later, now);
        before.insert("viewer_2".to_owned(), now + Duration::from_secs(30), now);
        before.save().await;

        let after = Revocations::default();
        after.load(&database, now + Duration::from_secs(40)).unwrap();
        assert!(after.contains("viewer_1") && !after.contains("viewer_2"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_others_put_into_the_list_is_passed_over() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let name = format!("viewer_{id}");
        assert_eq!(parse(&format!("1800000000|{name}")), Some((1_800_000_000, name.as_str())));
        for entry in ["", "|", "1|x", &format!("x|{name}"), &format!("-1|{name}"), "1|viewer_x"] {
            assert_eq!(parse(entry), None, "{entry}");
        }
    }
}
