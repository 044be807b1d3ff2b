//! Limits of sources that people change while the server runs. With a store of leases they live there;
//! without one they are kept in the database, and set again at the next start.

use std::sync::Arc;

use control::Usage;
use redb::{ReadableTable, TableDefinition};
use tokio::sync::Mutex;

use crate::app::{App, LimitError};
use crate::database::{Database, DatabaseError};
use crate::ledger::LedgerPlace;

/// Limits by sources' ids; no more of them than there are, or ever were, sources.
const LIMITS: TableDefinition<'_, &str, u32> = TableDefinition::new("limits of sources");

/// Sets limits and keeps them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits {
    place: Place,
    /// One after the other, so that what is kept is what was set last.
    turn: Arc<Mutex<()>>,
}

#[derive(Clone)]
enum Place {
    Database(Database),
    /// Where the leases are.
    Store,
}

impl Limits {
    pub(crate) fn new(ledger: &LedgerPlace, database: Database) -> Self {
        let place = match ledger {
            LedgerPlace::Memory => Place::Database(database),
            LedgerPlace::Store { .. } => Place::Store,
        };
        Self { place, turn: Arc::default() }
    }

    /// Sets the limit of a source for good; `None`: the configured one again. Who watches goes on
    /// watching. It holds until the server ends where it cannot be kept, and the log says so.
    pub(crate) async fn set(
        &self,
        app: &App,
        source: &str,
        limit: Option<u32>,
    ) -> Result<Usage, LimitError> {
        let _turn = self.turn.lock().await;
        let usage = app.set_limit(source, limit).await?;
        if let Place::Database(database) = &self.place
            && let Err(error) = keep(database, source, limit).await
        {
            tracing::warn!(%error, source, "a limit holds until the server ends only");
        }
        Ok(usage)
    }

    /// Sets again what was kept. Limits of sources that are no longer configured stay as they are.
    pub(crate) async fn restore(&self, app: &App) -> Result<(), DatabaseError> {
        let Place::Database(database) = &self.place else { return Ok(()) };
        for (source, limit) in kept(database).await? {
            if let Err(error) = app.set_limit(&source, Some(limit)).await {
                tracing::warn!(%error, source, limit, "a limit that was kept is not set");
            }
        }
        Ok(())
    }
}

async fn keep(database: &Database, source: &str, limit: Option<u32>) -> Result<(), DatabaseError> {
    if limit.is_none() && kept(database).await?.iter().all(|(known, _)| known != source) {
        return Ok(());
    }
    let source = source.to_owned();
    let kept = database.write(move |transaction| {
        let mut table = transaction.open_table(LIMITS)?;
        match limit {
            Some(limit) => table.insert(source.as_str(), limit)?,
            None => table.remove(source.as_str())?,
        };
        Ok(())
    });
    kept.await
}

async fn kept(database: &Database) -> Result<Vec<(String, u32)>, DatabaseError> {
    let found = database.read(|transaction| {
        let mut limits = Vec::new();
        for row in transaction.open_table(LIMITS)?.iter()? {
            let (source, limit) = row?;
            limits.push((source.value().to_owned(), limit.value()));
        }
        Ok(limits)
    });
    Ok(found.await?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::tests::Temporary;

    #[tokio::test]
    async fn limits_are_kept_until_the_configured_one_is_asked_for() {
        let Temporary(place) = &Temporary::new();
        let database = Database::new(place.clone());
        keep(&database, "METRO", None).await.unwrap();
        assert!(!place.path("manifold.redb").exists(), "nothing to keep makes no file");

        keep(&database, "METRO", Some(40)).await.unwrap();
        keep(&database, "TAXI", Some(0)).await.unwrap();
        keep(&database, "METRO", Some(7)).await.unwrap();
        drop(database);

        let again = Database::new(place.clone());
        let limits = [("METRO".to_owned(), 7), ("TAXI".to_owned(), 0)];
        assert_eq!(kept(&again).await.unwrap(), limits);
        keep(&again, "METRO", None).await.unwrap();
        assert_eq!(kept(&again).await.unwrap(), limits[1..]);
    }
}
