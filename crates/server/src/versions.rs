//! Which write of a record is the last one, for records that several nodes change and pass on to each other.
//!
//! Each write has a stamp: a counter that is higher than every one its node had seen, the node's name, and
//! its process. The greatest stamp holds, at all nodes alike, whatever order writes arrive in; no clock takes
//! part. What is deleted leaves a stamp as well, so that a node that was away does not bring it back.
//!
//! A node numbers what it learns in the order it learned it. Others remember up to which number they have
//! read it, and ask for what follows.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::config::{StoredStamp, StoredVersion};
use crate::database::{Database, DatabaseError};

/// Where versions are kept, by their records' names.
pub(crate) type VersionTable = TableDefinition<'static, &'static str, &'static [u8]>;

/// Stamps in one answer: 100 KB.
const CHANGES_A_PAGE: usize = 1_000;

/// How long it is remembered that something was deleted, by each node's own clock. A node that was away for
/// longer brings back what it has.
const GONE_KEPT_SECONDS: u64 = 90 * 24 * 3600;

/// Deleted records that are remembered: the largest park, twice. Those written first are forgotten first.
const GONE_MAX: usize = 20_000;

/// Records that are known, deleted ones among them: what two halves of a cluster may have added at most while
/// they did not see each other, and what was deleted.
const RECORDS_MAX: usize = 2 * engine::MAX_CAMERAS + GONE_MAX;

/// Highest counter that is believed: a write a microsecond for 285 years. Nothing counts past it.
const COUNTER_MAX: u64 = 1 << 53;

/// Longest name of a record, node or process.
const NAME_LENGTH_MAX: usize = 128;

/// The last write of each record that is known here.
pub(crate) struct Versions {
    node: String,
    /// Tells writes of this process from those of earlier ones, which another disk may have had.
    process: String,
    /// The highest counter that was seen.
    counter: u64,
    /// The last number that was given.
    number: u64,
    /// At most [`RECORDS_MAX`].
    records: HashMap<String, Numbered>,
    /// Records by their numbers.
    order: BTreeMap<u64, String>,
}

struct Numbered {
    version: StoredVersion,
    number: u64,
}

/// What was written at a node after a place in its order.
pub(crate) struct Changes {
    /// The process to whose order the place belongs.
    pub(crate) epoch: String,
    /// Where the next question goes on.
    pub(crate) place: u64,
    /// Empty: there is no more.
    pub(crate) stamps: Vec<(String, StoredStamp)>,
}

impl Versions {
    /// Of a node that knows nothing yet; a server that is alone has no name.
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            process: uuid::Uuid::new_v4().simple().to_string(),
            counter: 0,
            number: 0,
            records: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// Takes a record that was kept before there were versions, as this node's first write.
    pub(crate) fn note_old(&mut self, id: &str) {
        if !self.records.contains_key(id) {
            let node = self.node.clone();
            let stamp = StoredStamp { counter: 1, node, process: String::new() };
            self.note(id, StoredVersion { stamp, gone_at: None, covers: None });
        }
    }

    /// The stamp of a write at this node.
    pub(crate) fn next(&self) -> StoredStamp {
        StoredStamp {
            counter: self.counter.saturating_add(1),
            node: self.node.clone(),
            process: self.process.clone(),
        }
    }

    /// Whether a write of another node is later than what is known, and may be taken.
    pub(crate) fn is_news(&self, id: &str, stamp: &StoredStamp) -> bool {
        let names = [id, &stamp.node, &stamp.process];
        if stamp.counter > COUNTER_MAX || names.iter().any(|name| name.len() > NAME_LENGTH_MAX) {
            return false;
        }
        match self.records.get(id) {
            Some(known) => *stamp > known.version.stamp,
            None => self.records.len() < RECORDS_MAX,
        }
    }

    /// Takes a write that was kept.
    pub(crate) fn note(&mut self, id: &str, version: StoredVersion) {
        self.counter = self.counter.max(version.stamp.counter);
        self.number += 1;
        let numbered = Numbered { version, number: self.number };
        if let Some(before) = self.records.insert(id.to_owned(), numbered) {
            self.order.remove(&before.number);
        }
        self.order.insert(self.number, id.to_owned());
    }

    /// The last write of a record.
    pub(crate) fn get(&self, id: &str) -> Option<&StoredVersion> {
        self.records.get(id).map(|known| &known.version)
    }

    /// What came after `place` of `epoch`; all of it where that was another process.
    pub(crate) fn after(&self, epoch: &str, place: u64) -> Changes {
        let from = if epoch == self.process { place } else { 0 };
        let numbers = self.order.range(from.saturating_add(1)..).take(CHANGES_A_PAGE);
        let mut changes = Changes { epoch: self.process.clone(), place: from, stamps: Vec::new() };
        for (number, id) in numbers {
            changes.place = *number;
            changes.stamps.extend(self.get(id).map(|known| (id.clone(), known.stamp.clone())));
        }
        changes
    }

    /// Deleted records that need not be remembered any more, at `now` in seconds since the Unix epoch.
    pub(crate) fn forgettable(&self, now: u64) -> Vec<String> {
        let gone = self.records.iter().filter_map(|(id, known)| {
            known.version.gone_at.map(|at| (known.version.stamp.counter, at, id))
        });
        let mut gone: Vec<(u64, u64, &String)> = gone.collect();
        gone.sort_unstable();
        let excess = gone.len().saturating_sub(GONE_MAX);
        let is_old = |at: u64| now.saturating_sub(at) > GONE_KEPT_SECONDS;
        let old = gone.iter().enumerate().filter(|(n, (_, at, _))| *n < excess || is_old(*at));
        old.map(|(_, (_, _, id))| (*id).clone()).collect()
    }

    /// Forgets what was deleted.
    pub(crate) fn forget(&mut self, ids: &[String]) {
        for id in ids {
            if let Some(known) = self.records.remove(id) {
                self.order.remove(&known.number);
            }
        }
    }
}

impl Versions {
    /// Takes what was kept.
    pub(crate) fn read(
        &mut self,
        database: &Database,
        table: VersionTable,
    ) -> Result<(), DatabaseError> {
        let rows = database.read_now(|transaction| {
            let rows = transaction.open_table(table)?;
            let rows = rows.iter()?.map(|row| {
                let (id, bytes) = row?;
                Ok((id.value().to_owned(), StoredVersion::from_bytes(bytes.value())))
            });
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        for (id, version) in rows.unwrap_or_default() {
            // Only versions are written.
            if let Some(version) = version {
                self.note(&id, version);
            }
        }
        Ok(())
    }
}

/// Keeps versions beside what they are of, and takes out those of `forgotten` records.
pub(crate) fn keep<'a>(
    transaction: &WriteTransaction,
    table: VersionTable,
    versions: impl Iterator<Item = (&'a str, &'a StoredVersion)>,
    forgotten: &[String],
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(table)?;
    for (id, version) in versions {
        table.insert(id, version.to_bytes().as_slice())?;
    }
    for id in forgotten {
        table.remove(id.as_str())?;
    }
    Ok(())
}

/// Rows of a table that may not be there yet, as they were at one instant with others of `transaction`.
pub(crate) fn rows(
    transaction: &ReadTransaction,
    table: VersionTable,
    ids: &[String],
) -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
    let table = match transaction.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(vec![None; ids.len()]),
        table => table?,
    };
    let row = |id: &String| Ok(table.get(id.as_str())?.map(|bytes| bytes.value().to_vec()));
    ids.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(versions: &mut Versions, id: &str, gone_at: Option<u64>) -> StoredStamp {
        let stamp = versions.next();
        versions.note(id, StoredVersion { stamp: stamp.clone(), gone_at, covers: None });
        stamp
    }

    /// Reads all that `from` has to tell, page by page.
    fn exchange(to: &mut Versions, from: &Versions) {
        let (mut epoch, mut place) = (String::new(), 0);
        loop {
            let changes = from.after(&epoch, place);
            if changes.stamps.is_empty() {
                return;
            }
            for (id, stamp) in changes.stamps {
                if to.is_news(&id, &stamp) {
                    to.note(&id, from.get(&id).unwrap().clone());
                }
            }
            (epoch, place) = (changes.epoch, changes.place);
        }
    }

    /// A process that comes back with what its disk has.
    fn restarted(before: &Versions, node: &str) -> Versions {
        let mut versions = Versions::new(node);
        for (id, known) in &before.records {
            versions.note(id, known.version.clone());
        }
        versions
    }

    fn all(versions: &Versions) -> BTreeMap<&str, &StoredVersion> {
        versions.records.iter().map(|(id, known)| (id.as_str(), &known.version)).collect()
    }

    #[derive(Debug, Clone)]
    enum Act {
        Put(usize, u8),
        Delete(usize, u8),
        Exchange(usize, usize),
        Restart(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let node = 0..3_usize;
        prop_oneof![
            (node.clone(), 0..4_u8).prop_map(|(node, id)| Act::Put(node, id)),
            (node.clone(), 0..4_u8).prop_map(|(node, id)| Act::Delete(node, id)),
            (node.clone(), node.clone()).prop_map(|(to, from)| Act::Exchange(to, from)),
            node.prop_map(Act::Restart),
        ]
    }

    proptest! {
        #[test]
        fn any_order_of_exchanges_ends_with_the_same_at_all_nodes(
            acts in prop::collection::vec(act(), 0..60)
        ) {
            let names = ["n1", "n2", "n3"];
            let mut nodes = names.map(Versions::new);
            let mut last: BTreeMap<u8, StoredStamp> = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Put(node, id) | Act::Delete(node, id) => {
                        let gone_at = matches!(act, Act::Delete(..)).then_some(1);
                        let stamp = put(&mut nodes[node], &id.to_string(), gone_at);
                        let greatest = last.entry(id).or_insert_with(|| stamp.clone());
                        *greatest = stamp.max(greatest.clone());
                    }
                    Act::Exchange(to, from) if to != from => {
                        let from = restarted(&nodes[from], "copy");
                        exchange(&mut nodes[to], &from);
                    }
                    Act::Exchange(..) => {}
                    Act::Restart(node) => nodes[node] = restarted(&nodes[node], names[node]),
                }
            }
            // In a line, there and back: each hears of each only by way of the middle.
            for (to, from) in [(1, 0), (2, 1), (1, 2), (0, 1)] {
                let from = restarted(&nodes[from], "copy");
                exchange(&mut nodes[to], &from);
            }
            for node in &nodes {
                prop_assert_eq!(all(node), all(&nodes[0]));
                for (id, stamp) in &last {
                    prop_assert_eq!(&node.get(&id.to_string()).unwrap().stamp, stamp);
                }
            }
        }
    }

    #[test]
    fn a_write_is_later_than_all_that_its_node_had_seen() {
        let (mut one, mut other) = (Versions::new("n9"), Versions::new("n1"));
        for _ in 0..5 {
            put(&mut one, "cam", None);
        }
        exchange(&mut other, &one);
        let deleted = put(&mut other, "cam", Some(0));
        exchange(&mut one, &other);
        assert_eq!(one.get("cam").unwrap().stamp, deleted);
    }

    #[test]
    fn what_comes_after_a_place_is_told_once_and_all_after_a_restart() {
        let mut versions = Versions::new("n1");
        for n in 0..=CHANGES_A_PAGE {
            put(&mut versions, &n.to_string(), None);
        }
        let first = versions.after("", 0);
        assert_eq!(first.stamps.len(), CHANGES_A_PAGE);
        let second = versions.after(&first.epoch, first.place);
        assert_eq!(second.stamps.len(), 1);
        assert!(versions.after(&second.epoch, second.place).stamps.is_empty());
        put(&mut versions, "0", None);
        let third = versions.after(&second.epoch, second.place);
        assert_eq!(third.stamps[0].0, "0");
        assert_eq!(restarted(&versions, "n1").after(&third.epoch, 0).stamps.len(), CHANGES_A_PAGE);
    }

    #[test]
    fn what_was_deleted_is_remembered_within_bounds() {
        let mut versions = Versions::new("n1");
        for n in 0..GONE_MAX + 2 {
            put(&mut versions, &n.to_string(), Some(1_000));
        }
        put(&mut versions, "there", None);
        assert_eq!(versions.forgettable(1_000), ["0", "1"]);
        versions.forget(&versions.forgettable(1_000));
        assert!(versions.forgettable(1_000 + GONE_KEPT_SECONDS).is_empty());
        assert_eq!(versions.forgettable(1_001 + GONE_KEPT_SECONDS).len(), GONE_MAX);
        assert!(versions.get("there").is_some());
    }

    #[test]
    fn what_cannot_be_a_stamp_is_not_taken() {
        let versions = Versions::new("n1");
        let stamp = |counter, node: &str| StoredStamp {
            counter,
            node: node.to_owned(),
            process: String::new(),
        };
        assert!(versions.is_news("cam", &stamp(COUNTER_MAX, "n2")));
        assert!(!versions.is_news("cam", &stamp(COUNTER_MAX + 1, "n2")));
        assert!(!versions.is_news("cam", &stamp(1, &"n".repeat(NAME_LENGTH_MAX + 1))));
        assert!(!versions.is_news(&"c".repeat(NAME_LENGTH_MAX + 1), &stamp(1, "n2")));
    }

    #[test]
    fn a_record_from_before_there_were_versions_gives_way_to_a_later_write() {
        let (mut one, mut other) = (Versions::new("n1"), Versions::new("n2"));
        one.note_old("cam");
        other.note_old("cam");
        exchange(&mut one, &other);
        exchange(&mut other, &one);
        assert_eq!(one.get("cam"), other.get("cam"));
        let stamp = put(&mut one, "cam", None);
        one.note_old("cam");
        exchange(&mut other, &one);
        assert_eq!(other.get("cam").unwrap().stamp, stamp);
    }
}
