//! The audit trail's tables: rows are added at one end, read, checked, and removed at the other.
//!
//! | table | what |
//! |---|---|
//! | `audit_rows` | number of the row → its hash and body |
//! | `audit_state` | `head`: the newest row; `base`: the newest one that was removed. Number and hash |
//! | `audit_open` | reservation → the row of its begin, while it lives |
//! | `audit_lives` | reservation → the row that tells its whole life |

use std::collections::{BTreeMap, HashMap};

use control::Timestamp;
use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use super::row::{HASH_BYTES, Hash, Kind, Row, genesis, hash, hex};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit_rows");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("audit_state");
const OPEN: TableDefinition<'_, &str, u64> = TableDefinition::new("audit_open");
const LIVES: TableDefinition<'_, &str, u64> = TableDefinition::new("audit_lives");

const HEAD: &str = "head";
const BASE: &str = "base";

/// Rows that are looked at for one answer, at most: some tenths of a second. Who asks for more goes on
/// where the answer ended.
const ROWS_LOOKED_AT_MAX: usize = 200_000;

/// A place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The row's number, from 1.
    pub(crate) number: u64,
    pub(crate) hash: Hash,
}

impl Link {
    /// Before the first row.
    fn origin() -> Self {
        Self { number: 0, hash: genesis() }
    }

    fn to_bytes(self) -> Vec<u8> {
        [&self.number.to_le_bytes()[..], &self.hash].concat()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, hash) = bytes.split_first_chunk::<8>()?;
        Some(Self { number: u64::from_le_bytes(*number), hash: hash.try_into().ok()? })
    }
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u64,
    pub(crate) hash: Hash,
    pub(crate) row: Row,
}

/// Which rows are asked for. Empty texts and no times mean all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) camera: String,
    pub(crate) user: String,
    /// One of these; empty: of whatever source, and of none.
    pub(crate) sources: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    /// What happened then or later.
    pub(crate) from: Option<Timestamp>,
    /// What happened before.
    pub(crate) to: Option<Timestamp>,
    /// Rows of higher numbers.
    pub(crate) after: u64,
    /// Rows in the answer, at most.
    pub(crate) limit: usize,
}

impl Query {
    fn admits(&self, row: &Row) -> bool {
        let (from, to) = row.span();
        (self.camera.is_empty() || row.camera == self.camera || row.object == self.camera)
            && (self.user.is_empty() || row.actor == self.user)
            && (self.sources.is_empty() || self.sources.contains(&row.source))
            && (self.kinds.is_empty() || self.kinds.contains(&row.kind))
            && self.from.is_none_or(|begin| to >= begin)
            && self.to.is_none_or(|end| from < end)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// In the order of their numbers.
    pub(crate) rows: Vec<Found>,
    /// There may be more: ask again for those after this one.
    pub(crate) next: Option<u64>,
}

/// Whether the trail is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Whole {
        /// Rows that are there.
        rows: u64,
        /// Rows that were removed since they were too old.
        removed: u64,
        /// The newest; note it elsewhere, and no later change of what is before it can be hidden.
        head: Link,
    },
    /// It is not.
    Broken {
        /// The first row that is not as it was written.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Adds rows in one go; each is given a time that is not before the one before it. Returns the newest.
pub(crate) fn append<'r>(
    transaction: &WriteTransaction,
    rows: impl IntoIterator<Item = &'r Row>,
    now: Timestamp,
) -> Result<Link, redb::Error> {
    let mut table = transaction.open_table(ROWS)?;
    let mut state = transaction.open_table(STATE)?;
    let mut head = link(&state, HEAD)?;
    let mut at = now.max(time_of(&table, head.number)?);
    let mut index = Index::default();
    for row in rows {
        at = at.max(row.at);
        let body = row.to_body_at(at);
        let number = head.number + 1;
        head = Link { number, hash: hash(&head.hash, number, &body) };
        table.insert(number, [&head.hash[..], &body].concat().as_slice())?;
        index.note(row, number);
    }
    state.insert(HEAD, head.to_bytes().as_slice())?;
    index.write(transaction)?;
    Ok(head)
}

/// What rows change of the tables by reservation, before it is written: of each reservation once, however
/// many of its rows come together, and in the order of the tables, so that what is side by side there is
/// written in one go. Most who watch for a moment never come into `audit_open`.
#[derive(Default)]
struct Index<'r> {
    /// Where they lead: the row of a begin, or `None` for those that ended.
    open: BTreeMap<&'r str, Option<u64>>,
    lives: BTreeMap<&'r str, u64>,
}

impl<'r> Index<'r> {
    fn note(&mut self, row: &'r Row, number: u64) {
        let reservation = row.reservation.as_str();
        if reservation.is_empty() {
            return;
        }
        match row.kind {
            Kind::Begun => {
                self.open.insert(reservation, Some(number));
            }
            Kind::Ended | Kind::Refused | Kind::Cut => {
                self.open.insert(reservation, None);
                self.lives.insert(reservation, number);
            }
            Kind::Changed | Kind::Started | Kind::Stopped | Kind::Lost | Kind::Checkpoint => {}
        }
    }

    fn write(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut open = transaction.open_table(OPEN)?;
        let mut lives = transaction.open_table(LIVES)?;
        for (reservation, begun) in self.open {
            match begun {
                Some(number) => open.insert(reservation, number)?,
                None => open.remove(reservation)?,
            };
        }
        for (reservation, number) in self.lives {
            lives.insert(reservation, number)?;
        }
        Ok(())
    }
}

/// The begins of those who watched when the server was killed, as rows that say so.
pub(crate) fn cut(transaction: &WriteTransaction) -> Result<Vec<Row>, redb::Error> {
    let table = transaction.open_table(ROWS)?;
    let open = transaction.open_table(OPEN)?;
    let mut rows = Vec::new();
    for entry in open.iter()? {
        let (_, number) = entry?;
        let Some(begun) = row_of(&table, number.value())? else { continue };
        rows.push(Row {
            at: Timestamp::ZERO,
            from: Some(begun.row.at),
            reason: "the server ended without a word; until when he watched is not known"
                .to_owned(),
            ..Row { kind: Kind::Cut, ..begun.row }
        });
    }
    Ok(rows)
}

/// Removes the oldest rows, those before `before` and those beyond `rows_max`, `at_once` at most, and adds a
/// row that vouches for it. Returns how many went.
pub(crate) fn prune(
    transaction: &WriteTransaction,
    before: Option<Timestamp>,
    rows_max: u64,
    at_once: u64,
    now: Timestamp,
) -> Result<u64, redb::Error> {
    let (count, base) = remove_oldest(transaction, before, rows_max, at_once)?;
    if count > 0 {
        transaction.open_table(STATE)?.insert(BASE, base.to_bytes().as_slice())?;
        let removed = Some((base.number, base.hash));
        let checkpoint = Row { count, removed, ..Row::new(Kind::Checkpoint) };
        append(transaction, &[checkpoint], now)?;
    }
    Ok(count)
}

fn remove_oldest(
    transaction: &WriteTransaction,
    before: Option<Timestamp>,
    rows_max: u64,
    at_once: u64,
) -> Result<(u64, Link), redb::Error> {
    let mut table = transaction.open_table(ROWS)?;
    let mut lives = transaction.open_table(LIVES)?;
    let mut open = transaction.open_table(OPEN)?;
    let mut base = link(&transaction.open_table(STATE)?, BASE)?;
    let surplus = table.len()?.saturating_sub(rows_max);
    let mut count = 0;
    while count < at_once {
        let Some(oldest) = table.first()?.map(|(number, _)| number.value()) else { break };
        // A row that cannot be read is as old as those around it.
        let Some((found_hash, row)) = stored(&table, oldest)? else { break };
        let is_old = before.is_some_and(|before| row.as_ref().is_none_or(|row| row.at < before));
        if !is_old && count >= surplus {
            break;
        }
        table.remove(oldest)?;
        if let Some(row) = row.filter(|row| !row.reservation.is_empty()) {
            forget(&mut lives, &row.reservation, oldest)?;
            forget(&mut open, &row.reservation, oldest)?;
        }
        base = Link { number: oldest, hash: found_hash };
        count += 1;
    }
    Ok((count, base))
}

fn forget(
    index: &mut Table<'_, &str, u64>,
    reservation: &str,
    number: u64,
) -> Result<(), redb::Error> {
    let is_of_it = index.get(reservation)?.is_some_and(|found| found.value() == number);
    if is_of_it {
        index.remove(reservation)?;
    }
    Ok(())
}

/// The newest row.
pub(crate) fn head(transaction: &ReadTransaction) -> Result<Link, redb::Error> {
    link(&transaction.open_table(STATE)?, HEAD)
}

/// The row that tells the whole life of a reservation, or of its begin if it has not ended.
pub(crate) fn life(
    transaction: &ReadTransaction,
    reservation: &str,
) -> Result<Option<Found>, redb::Error> {
    let table = transaction.open_table(ROWS)?;
    let whole = transaction.open_table(LIVES)?.get(reservation)?.map(|number| number.value());
    let begun = transaction.open_table(OPEN)?.get(reservation)?.map(|number| number.value());
    whole.or(begun).map_or(Ok(None), |number| row_of(&table, number))
}

/// Rows that are asked for.
pub(crate) fn find(transaction: &ReadTransaction, query: &Query) -> Result<Answer, redb::Error> {
    let table = transaction.open_table(ROWS)?;
    // Times rise with numbers, and a row is written when what it tells of is over.
    let first = match query.from {
        Some(from) => first_since(&table, from)?,
        None => 0,
    };
    let mut answer = Answer::default();
    let begin = first.max(query.after.saturating_add(1));
    for (looked_at, entry) in table.range(begin..)?.enumerate() {
        let (number, value) = entry?;
        let number = number.value();
        if looked_at >= ROWS_LOOKED_AT_MAX {
            answer.next = Some(number - 1);
            break;
        }
        let Some((hash, Ok(row))) = parts(value.value()) else { continue };
        if !query.admits(&row) {
            continue;
        }
        if answer.rows.len() >= query.limit {
            answer.next = answer.rows.last().map(|last| last.number);
            break;
        }
        answer.rows.push(Found { number, hash, row });
    }
    Ok(answer)
}

/// The first row whose time is not before `from`, by halving.
fn first_since(
    table: &impl ReadableTable<u64, &'static [u8]>,
    from: Timestamp,
) -> Result<u64, redb::Error> {
    let (Some((first, _)), Some((last, _))) = (table.first()?, table.last()?) else { return Ok(0) };
    let (mut low, mut high) = (first.value(), last.value() + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if time_of(table, middle)? < from {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Goes over the whole chain. `noted` is a place that somebody wrote down before.
pub(crate) fn verify(
    transaction: &ReadTransaction,
    noted: Option<Link>,
) -> Result<Verdict, redb::Error> {
    let state = transaction.open_table(STATE)?;
    let table = transaction.open_table(ROWS)?;
    let (base, head) = (link(&state, BASE)?, link(&state, HEAD)?);
    let mut chain = Chain { base, at: base, noted, attested: HashMap::new() };
    for entry in table.iter()? {
        let (number, value) = entry?;
        if let Err(why) = chain.follow(number.value(), value.value()) {
            return Ok(Verdict::Broken { number: chain.at.number + 1, why });
        }
    }
    Ok(chain.end(head))
}

/// Where the check of a chain stands.
struct Chain {
    base: Link,
    at: Link,
    noted: Option<Link>,
    /// Removals that rows vouch for.
    attested: HashMap<u64, Hash>,
}

impl Chain {
    fn follow(&mut self, number: u64, value: &[u8]) -> Result<(), String> {
        let expected = self.at.number + 1;
        if number < expected {
            return Err(format!("row {number} stands before it, and was removed once"));
        }
        if number == expected + 1 {
            return Err(format!("row {expected} is missing"));
        }
        if number > expected {
            return Err(format!("rows {expected} to {} are missing", number - 1));
        }
        let Some((stored, body)) = value.split_first_chunk::<HASH_BYTES>() else {
            return Err(format!("row {number} is cut"));
        };
        if hash(&self.at.hash, number, body) != *stored {
            return Err(format!("row {number} is not what was written, or not in its place"));
        }
        let row = Row::of_body(body).map_err(|error| format!("row {number}: {error}"))?;
        if let Some((row, hash)) = row.removed.filter(|_| row.kind == Kind::Checkpoint) {
            self.attested.insert(row, hash);
        }
        if self.noted.is_some_and(|noted| noted.number == number && noted.hash != *stored) {
            return Err(format!("row {number} is another one than was noted"));
        }
        self.at = Link { number, hash: *stored };
        Ok(())
    }

    /// All rows that are there were followed.
    fn end(self, head: Link) -> Verdict {
        let Self { base, at, noted, attested } = self;
        let broken = |number, why| Verdict::Broken { number, why };
        if base.number > 0 && attested.get(&base.number) != Some(&base.hash) {
            let why = format!(
                "rows up to {} are gone, and no row vouches for their removal",
                base.number
            );
            return broken(1, why);
        }
        let end = at.number + 1;
        if at.number < head.number {
            return broken(end, format!("rows {end} to {} are missing at the end", head.number));
        }
        if at != head {
            return broken(end, "there are rows that were not added by the server".to_owned());
        }
        match noted.filter(|noted| noted.number > at.number || noted.number <= base.number) {
            Some(noted) if noted.number > at.number => {
                broken(end, format!("row {}, which was noted, is missing", noted.number))
            }
            Some(noted) if noted.number == base.number && noted.hash != base.hash => {
                broken(noted.number, "it is another one than was noted".to_owned())
            }
            Some(_) | None => {
                Verdict::Whole { rows: at.number - base.number, removed: base.number, head: at }
            }
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, hex(&self.hash))
    }
}

impl std::str::FromStr for Link {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str =
            "it must be a row's number and its hash, like 1234:0f3a…, as `verify` prints it";
        let (number, digits) = text.trim().split_once(':').ok_or(WANTED)?;
        let number = number.parse().map_err(|_| WANTED)?;
        let mut hash = [0; HASH_BYTES];
        if digits.len() != 2 * HASH_BYTES || !digits.is_ascii() {
            return Err(WANTED);
        }
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| WANTED)?;
        }
        Ok(Self { number, hash })
    }
}

/// A place that is kept; what comes before the first row, where none is.
fn link(
    state: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Link, redb::Error> {
    let kept = state.get(name)?;
    Ok(kept.and_then(|bytes| Link::of_bytes(bytes.value())).unwrap_or_else(Link::origin))
}

fn row_of(
    table: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<Found>, redb::Error> {
    let found = stored(table, number)?;
    Ok(found.and_then(|(hash, row)| Some(Found { number, hash, row: row? })))
}

/// A row's hash, and the row where it can be read.
fn stored(
    table: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<(Hash, Option<Row>)>, redb::Error> {
    let value = table.get(number)?;
    Ok(value.and_then(|value| parts(value.value()).map(|(hash, row)| (hash, row.ok()))))
}

fn parts(value: &[u8]) -> Option<(Hash, Result<Row, super::row::RowError>)> {
    let (hash, body) = value.split_first_chunk::<HASH_BYTES>()?;
    Some((*hash, Row::of_body(body)))
}

/// The time of a row; the beginning of time for one that is not there.
fn time_of(
    table: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Timestamp, redb::Error> {
    let row = row_of(table, number)?;
    Ok(row.map_or(Timestamp::ZERO, |found| found.row.at))
}

#[cfg(test)]
mod tests;
