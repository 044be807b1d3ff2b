//! The database: one file in the data directory, for what is added while the server runs and must outlive it.
//!
//! It is opened once and by one process. Nothing is written, and no file made, before something is kept
//! in it. Calls block on the disk: async code takes [`Database::read`] and [`Database::write`], which
//! leave the runtime's threads alone; commands take [`Database::read_now`] and [`Database::write_now`].
//! What is in which table is known to those who keep it, not here.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::data_dir::{DataDir, DataError};

/// The file's name in the data directory.
const FILE: &str = "manifold.redb";

/// Memory for pages that were read. The whole park of 10,000 cameras is 5 MiB; it is read once, at the
/// start, and what the audit trail is asked for is read from one end to the other.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Handle to the database; cheap to clone.
#[derive(Clone)]
pub(crate) struct Database(Arc<Inner>);

struct Inner {
    place: DataDir,
    /// `None` before the first use, and after a failure of the disk.
    opened: Mutex<Option<Arc<redb::Database>>>,
    /// Why the server goes without it, where it does.
    given_up: OnceLock<String>,
}

/// Why something cannot be kept, or found again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// The file or its directory cannot be made.
    #[error(transparent)]
    Place(#[from] DataError),
    /// Another process has it open.
    #[error(
        "the database {} is in use by another process; end the other server, or give each a `store.data_dir` of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is in it is not what was written.
    #[error(
        "the database {} is damaged: {detail}; put back a copy of it, or move it away to begin with an empty one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The disk, or the file's permissions.
    #[error("the database {} cannot be used: {detail}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's or the library's reason.
        detail: String,
    },
}

/// Whether a file that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Make,
    Leave,
}

impl Database {
    /// The database of a data directory; nothing is opened.
    pub(crate) fn new(place: DataDir) -> Self {
        Self(Arc::new(Inner { place, opened: Mutex::default(), given_up: OnceLock::new() }))
    }

    /// The data directory, for what is kept beside the database.
    pub(crate) fn place(&self) -> &DataDir {
        &self.0.place
    }

    /// Opens the file if it is there, so that one that is of no use is told at the start.
    pub(crate) fn check(&self) -> Result<(), DatabaseError> {
        self.open(Absent::Leave).map(drop)
    }

    /// From here on nothing is found in it, and keeping something fails for this reason: for a server that
    /// was not told where to keep things, and goes without.
    pub(crate) fn give_up(&self, reason: &DatabaseError) {
        // The first reason is as good as a later one.
        let _ = self.0.given_up.set(format!("the server runs without it, because {reason}"));
    }

    /// What `act` finds; `None` where nothing was ever kept: there is no file, or not the table that
    /// `act` opens.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<Option<T>, DatabaseError> {
        let database = self.clone();
        self.apart(move || database.read_now(act)).await
    }

    /// Keeps what `act` puts into the transaction: all of it, or nothing where it or the disk fails. It is
    /// on the disk when this returns.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let database = self.clone();
        self.apart(move || database.write_now(act)).await
    }

    /// [`Self::read`] on this thread.
    pub(crate) fn read_now<T>(
        &self,
        act: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, DatabaseError> {
        let Some(opened) = self.open(Absent::Leave)? else { return Ok(None) };
        let found = guarded(|| act(&opened.begin_read()?));
        match found {
            Err(redb::Error::TableDoesNotExist(_)) => Ok(None),
            found => found.map(Some).map_err(|error| self.failed(error)),
        }
    }

    /// [`Self::write`] on this thread.
    pub(crate) fn write_now<T>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DatabaseError> {
        // `Absent::Make` leaves no other case.
        let Some(opened) = self.open(Absent::Make)? else {
            return Err(self.unusable("it was not made".to_owned()));
        };
        let kept = guarded(|| {
            let transaction = opened.begin_write()?;
            let kept = act(&transaction)?;
            transaction.commit()?;
            Ok(kept)
        });
        kept.map_err(|error| self.failed(error))
    }

    async fn apart<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let done = tokio::task::spawn_blocking(act).await;
        done.unwrap_or_else(|_| Err(self.unusable("the server is ending".to_owned())))
    }

    fn open(&self, absent: Absent) -> Result<Option<Arc<redb::Database>>, DatabaseError> {
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(Some(Arc::clone(opened)));
        }
        if let Some(reason) = self.0.given_up.get() {
            return match absent {
                Absent::Make => Err(self.unusable(reason.clone())),
                Absent::Leave => Ok(None),
            };
        }
        let path = match absent {
            Absent::Make => self.0.place.private_file(FILE)?,
            Absent::Leave => self.path(),
        };
        if absent == Absent::Leave && !path.exists() {
            return Ok(None);
        }
        // Every page is read once: without that, the library may meet damage only while it serves, and
        // take it for a bug of its own.
        let open = || {
            let mut builder = redb::Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(builder.create(&path)?)
        };
        let database = Arc::new(guarded(open).map_err(|error| self.failed_to_open(error))?);
        *opened = Some(Arc::clone(&database));
        Ok(Some(database))
    }

    fn failed_to_open(&self, error: redb::Error) -> DatabaseError {
        let path = self.path();
        if let redb::Error::UpgradeRequired(version) = error {
            let detail = format!("it is of version {version}, which this program does not read");
            return DatabaseError::Damaged { path, detail };
        }
        if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            return DatabaseError::InUse { path };
        }
        told(path, error)
    }

    /// A handle that saw the disk fail refuses everything from then on; the next call opens anew.
    fn failed(&self, error: redb::Error) -> DatabaseError {
        let is_spoilt = matches!(
            error,
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Corrupted(_)
        );
        if is_spoilt {
            *self.0.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        told(self.path(), error)
    }

    fn unusable(&self, detail: String) -> DatabaseError {
        DatabaseError::Unusable { path: self.path(), detail }
    }

    fn path(&self) -> PathBuf {
        self.0.place.path(FILE)
    }
}

/// The library trusts the file; where it finds that it must not, it may panic.
fn guarded<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let done = catch_unwind(AssertUnwindSafe(act));
    done.unwrap_or_else(|_| Err(redb::Error::Corrupted("it contradicts itself".to_owned())))
}

fn told(path: PathBuf, error: redb::Error) -> DatabaseError {
    if let redb::Error::Corrupted(detail) = error {
        return DatabaseError::Damaged { path, detail };
    }
    let detail = error.to_string();
    let is_no_database = matches!(
        error,
        redb::Error::Io(error)
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
    );
    if is_no_database {
        DatabaseError::Damaged { path, detail }
    } else {
        DatabaseError::Unusable { path, detail }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use redb::TableDefinition;

    use super::*;
    use crate::data_dir::tests::Temporary;

    const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("of the test");

    fn keep(database: &Database, value: &'static str) -> Result<(), DatabaseError> {
        database.write_now(|transaction| {
            transaction.open_table(TABLE)?.insert("key", value)?;
            Ok(())
        })
    }

    fn kept(database: &Database) -> Result<Option<String>, DatabaseError> {
        let found = database.read_now(|transaction| {
            let found = transaction.open_table(TABLE)?.get("key")?;
            Ok(found.map(|value| value.value().to_owned()))
        });
        found.map(Option::flatten)
    }

    #[test]
    fn reading_makes_no_file_and_what_is_kept_outlives_the_handle() {
        let Temporary(place) = &Temporary::new();
        let database = Database::new(place.clone());
        database.check().unwrap();
        assert_eq!(kept(&database).unwrap(), None);
        assert!(!place.path(FILE).exists());

        keep(&database, "value").unwrap();
        assert_eq!(kept(&database.clone()).unwrap().as_deref(), Some("value"));
        drop(database);

        let mode = std::fs::metadata(place.path(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(kept(&Database::new(place.clone())).unwrap().as_deref(), Some("value"));
    }

    #[test]
    fn a_transaction_that_fails_keeps_nothing() {
        let Temporary(place) = &Temporary::new();
        let database = Database::new(place.clone());
        keep(&database, "first").unwrap();
        let failed = database.write_now(|transaction| {
            transaction.open_table(TABLE)?.insert("key", "second")?;
            Err::<(), _>(redb::Error::ValueTooLarge(1))
        });
        assert!(failed.is_err());
        assert_eq!(kept(&database).unwrap().as_deref(), Some("first"));
    }

    #[test]
    fn a_second_process_is_told_whose_file_it_is() {
        let Temporary(place) = &Temporary::new();
        let (one, other) = (Database::new(place.clone()), Database::new(place.clone()));
        keep(&one, "value").unwrap();

        let sentence = other.check().unwrap_err().to_string();

        assert!(sentence.contains("in use by another process"), "{sentence}");
        assert!(sentence.contains("`store.data_dir`"), "{sentence}");
        drop(one);
        other.check().unwrap();
    }

    #[test]
    fn who_goes_without_finds_nothing_and_is_told_why_nothing_is_kept() {
        let Temporary(place) = &Temporary::new();
        let (one, other) = (Database::new(place.clone()), Database::new(place.clone()));
        keep(&one, "value").unwrap();
        other.give_up(&other.check().unwrap_err());
        assert_eq!(kept(&other).unwrap(), None);
        let sentence = keep(&other, "second").unwrap_err().to_string();
        assert!(sentence.contains("in use by another process"), "{sentence}");
    }

    #[test]
    fn a_file_that_is_no_database_is_told_and_left_alone() {
        let Temporary(place) = &Temporary::new();
        place.write(FILE, &"not a database ".repeat(1000)).unwrap();
        let database = Database::new(place.clone());

        for sentence in [
            database.check().unwrap_err().to_string(),
            keep(&database, "value").unwrap_err().to_string(),
        ] {
            assert!(sentence.contains("is damaged: "), "{sentence}");
            assert!(sentence.contains(&place.path(FILE).display().to_string()), "{sentence}");
        }
        let bytes = std::fs::read(place.path(FILE)).unwrap();
        assert!(bytes.starts_with(b"not a database "));
    }

    #[test]
    fn a_flipped_byte_or_a_lost_end_is_damage_and_no_panic() {
        let Temporary(place) = &Temporary::new();
        keep(&Database::new(place.clone()), "a value that is long enough to be found").unwrap();
        let path = place.path(FILE);
        let whole = std::fs::read(&path).unwrap();
        let value = whole.windows(7).position(|bytes| bytes == b"a value").unwrap();

        let mut flipped = whole.clone();
        flipped[value] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let database = Database::new(place.clone());
        assert!(matches!(database.check(), Err(DatabaseError::Damaged { .. })));

        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = database.check().unwrap_err();
        assert!(matches!(error, DatabaseError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_with_the_setting() {
        let Temporary(place) = &Temporary::new();
        place.write("file", "").unwrap();
        let below = Database::new(DataDir::of_process(Some(&place.path("file"))));

        let sentence = keep(&below, "value").unwrap_err().to_string();

        assert!(sentence.contains("`store.data_dir`"), "{sentence}");
    }

    #[tokio::test]
    async fn async_calls_reach_the_same_file() {
        let Temporary(place) = &Temporary::new();
        let database = Database::new(place.clone());
        let written = database.write(|transaction| {
            transaction.open_table(TABLE)?.insert("key", "async")?;
            Ok(7)
        });
        assert_eq!(written.await.unwrap(), 7);
        let read =
            database.read(|transaction| Ok(transaction.open_table(TABLE)?.get("key")?.is_some()));
        assert_eq!(read.await.unwrap(), Some(true));
    }
}
