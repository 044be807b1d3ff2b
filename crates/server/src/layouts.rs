//! Saved walls: which cameras stand where, under a name. Kept in the database, read from it each time:
//! people save a wall now and then.
//!
//! A wall is its owner's. Cameras on it need not be there: parks change, and so may come back what is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::CameraId;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::config::{Carried, StoredLayout, StoredStamp, StoredTile, StoredVersion};
use crate::database::{Database, DatabaseError};
use crate::versions::{self, Changes, VersionTable, Versions};

/// Walls by their ids.
const LAYOUTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layouts");

/// The last write of each of them, and of those that were deleted.
const VERSIONS: VersionTable = TableDefinition::new("layout versions");

/// Most walls that are learned from others: two halves of a cluster may have saved as many as they may while
/// they did not see each other.
const LEARNED_MAX: u64 = 2 * LAYOUTS_MAX;

/// Most walls: several for each of the people at a park of 500 cameras.
pub(crate) const LAYOUTS_MAX: u64 = 1_000;

/// Most cameras on a wall. A page shows 16; walls of several screens show more.
pub(crate) const TILES_MAX: usize = 64;

/// Most columns and rows of a wall.
pub(crate) const GRID_MAX: u16 = 64;

/// Longest name, in bytes, as of cameras.
pub(crate) const NAME_LENGTH_MAX: usize = 200;

/// A saved wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The identity of who saved it.
    pub(crate) owner: String,
    /// In the order of the wall.
    pub(crate) tiles: Vec<Tile>,
    pub(crate) changed_at: SystemTime,
}

/// A camera on a wall, in cells of the wall's grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) camera: CameraId,
    /// Of the left column, from 0.
    pub(crate) x: u16,
    /// Of the top row, from 0.
    pub(crate) y: u16,
    /// At least 1.
    pub(crate) width: u16,
    /// At least 1.
    pub(crate) height: u16,
}

/// Whose walls are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    Everybodys,
    /// Of this identity.
    Owner(String),
}

/// Why a wall is not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("there is no layout {0}")]
    Unknown(String),
    #[error("there are {LAYOUTS_MAX} layouts already; delete one first")]
    Full,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Keeps walls; cheap to clone.
#[derive(Clone)]
pub(crate) struct Layouts {
    database: Database,
    versions: Arc<Mutex<Versions>>,
    /// One write after the other, so that no two have the same stamp.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Whose {
    fn includes(&self, layout: &Layout) -> bool {
        match self {
            Self::Everybodys => true,
            Self::Owner(owner) => *owner == layout.owner,
        }
    }
}

impl Layouts {
    /// Those of a node of this name; a server that is alone has none.
    pub(crate) fn new(database: Database, node: &str) -> Result<Self, DatabaseError> {
        let mut versions = Versions::new(node);
        versions.read(&database, VERSIONS)?;
        let ids = database.read_now(|transaction| {
            let table = transaction.open_table(LAYOUTS)?;
            let ids = table.iter()?.map(|row| Ok(row?.0.value().to_owned()));
            ids.collect::<Result<Vec<String>, redb::Error>>()
        })?;
        ids.unwrap_or_default().iter().for_each(|id| versions.note_old(id));
        let (versions, turn) = (Arc::new(Mutex::new(versions)), Arc::default());
        Ok(Self { database, versions, turn })
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By name.
    pub(crate) async fn all(&self, whose: Whose) -> Result<Vec<Layout>, DatabaseError> {
        let found = self.database.read(move |transaction| {
            let mut layouts = Vec::new();
            for row in transaction.open_table(LAYOUTS)?.iter()? {
                let (id, bytes) = row?;
                layouts.extend(layout(id.value(), bytes.value()).filter(|l| whose.includes(l)));
            }
            Ok(layouts)
        });
        let mut layouts = found.await?.unwrap_or_default();
        layouts.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Ok(layouts)
    }

    /// One that is of `whose`.
    pub(crate) async fn find(&self, id: String, whose: Whose) -> Result<Layout, LayoutError> {
        let wanted = id.clone();
        let found = self.database.read(move |transaction| {
            let bytes = transaction.open_table(LAYOUTS)?.get(wanted.as_str())?;
            Ok(bytes.and_then(|bytes| layout(&wanted, bytes.value())))
        });
        let found = found.await?.flatten().filter(|layout| whose.includes(layout));
        found.ok_or(LayoutError::Unknown(id))
    }

    /// Saves a wall, under its id.
    pub(crate) async fn save(&self, layout: Layout) -> Result<(), LayoutError> {
        let _turn = self.turn.lock().await;
        let version = StoredVersion { stamp: self.versions().next(), gone_at: None, covers: None };
        let write = Write { id: layout.id.clone(), version, layout: Some(stored(&layout)) };
        if self.write(vec![write], LAYOUTS_MAX).await? == 1 {
            Ok(())
        } else {
            Err(LayoutError::Full)
        }
    }

    /// Forgets a wall that is of `whose`, and returns it.
    pub(crate) async fn remove(&self, id: String, whose: Whose) -> Result<Layout, LayoutError> {
        let _turn = self.turn.lock().await;
        let layout = self.find(id.clone(), whose).await?;
        let gone_at = Some(now());
        let version = StoredVersion { stamp: self.versions().next(), gone_at, covers: None };
        self.write(vec![Write { id, version, layout: None }], LAYOUTS_MAX).await?;
        Ok(layout)
    }

    /// Writes all for which there is room, and says how many those are.
    async fn write(&self, writes: Vec<Write>, room: u64) -> Result<usize, DatabaseError> {
        let forgotten = self.versions().forgettable(now());
        let gone = forgotten.clone();
        let written = self.database.write(move |transaction| {
            let mut table = transaction.open_table(LAYOUTS)?;
            let mut written = Vec::with_capacity(writes.len());
            for write in writes {
                match &write.layout {
                    Some(_) if table.len()? >= room && table.get(write.id.as_str())?.is_none() => {
                        continue;
                    }
                    Some(layout) => {
                        table.insert(write.id.as_str(), layout.to_bytes().as_slice())?;
                    }
                    None => drop(table.remove(write.id.as_str())?),
                }
                written.push(write);
            }
            let kept = written.iter().map(|write| (write.id.as_str(), &write.version));
            versions::keep(transaction, VERSIONS, kept, &gone)?;
            Ok(written)
        });
        let written = written.await?;
        let mut versions = self.versions();
        versions.forget(&forgotten);
        written.iter().for_each(|write| versions.note(&write.id, write.version.clone()));
        Ok(written.len())
    }

    /// What was written after a place in this node's order.
    pub(crate) fn changes(&self, epoch: &str, place: u64) -> Changes {
        self.versions().after(epoch, place)
    }

    /// Those that were written later than what is known here.
    pub(crate) fn wanted(&self, stamps: Vec<(String, StoredStamp)>) -> Vec<String> {
        let versions = self.versions();
        let news = stamps.into_iter().filter(|(id, stamp)| versions.is_news(id, stamp));
        news.map(|(id, _)| id).collect()
    }

    /// The last writes of walls, for another node.
    pub(crate) async fn carried(&self, ids: Vec<String>) -> Result<Vec<Carried>, DatabaseError> {
        let asked = ids.clone();
        let found = self.database.read(move |transaction| {
            let layouts = versions::rows(transaction, LAYOUTS, &ids)?;
            Ok((layouts, versions::rows(transaction, VERSIONS, &ids)?))
        });
        let Some((layouts, kept)) = found.await? else { return Ok(Vec::new()) };
        let rows = asked.into_iter().zip(layouts).zip(kept);
        Ok(rows.filter_map(|((id, layout), kept)| self.carry(id, layout, kept)).collect())
    }

    fn carry(&self, id: String, layout: Option<Vec<u8>>, kept: Option<Vec<u8>>) -> Option<Carried> {
        let StoredVersion { stamp, .. } = match kept {
            Some(kept) => StoredVersion::from_bytes(&kept)?,
            None => self.versions().get(&id)?.clone(),
        };
        let layout = match layout {
            Some(bytes) => Some(StoredLayout::from_bytes(&bytes)?),
            None => None,
        };
        Some(Carried { id, stamp, covers: None, camera: None, layout })
    }

    /// Takes what another node wrote, and says how many of it were news.
    pub(crate) async fn learn(&self, carried: Vec<Carried>) -> Result<usize, DatabaseError> {
        let _turn = self.turn.lock().await;
        let news: Vec<Write> = {
            let versions = self.versions();
            let news = carried.into_iter().filter(|of| versions.is_news(&of.id, &of.stamp));
            news.map(Write::learned).collect()
        };
        if news.is_empty() { Ok(0) } else { self.write(news, LEARNED_MAX).await }
    }
}

/// A wall as it becomes; deleted without any.
struct Write {
    id: String,
    version: StoredVersion,
    layout: Option<StoredLayout>,
}

impl Write {
    fn learned(carried: Carried) -> Self {
        let Carried { id, stamp, layout, .. } = carried;
        let gone_at = layout.is_none().then(now);
        Self { id, version: StoredVersion { stamp, gone_at, covers: None }, layout }
    }
}

/// In seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn stored(layout: &Layout) -> StoredLayout {
    let since_epoch = layout.changed_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tile = |tile: &Tile| StoredTile {
        camera: tile.camera.to_string(),
        x: tile.x,
        y: tile.y,
        width: tile.width,
        height: tile.height,
    };
    StoredLayout {
        name: layout.name.clone(),
        owner: layout.owner.clone(),
        tiles: layout.tiles.iter().map(tile).collect(),
        changed_at_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
    }
}

/// `None`: it was written by no version that is known here.
fn layout(id: &str, bytes: &[u8]) -> Option<Layout> {
    let stored = StoredLayout::from_bytes(bytes)?;
    let tile = |tile: StoredTile| {
        let camera = CameraId::parse(&tile.camera).ok()?;
        Some(Tile { camera, x: tile.x, y: tile.y, width: tile.width, height: tile.height })
    };
    Some(Layout {
        id: id.to_owned(),
        name: stored.name,
        owner: stored.owner,
        tiles: stored.tiles.into_iter().filter_map(tile).collect(),
        changed_at: SystemTime::UNIX_EPOCH + Duration::from_millis(stored.changed_at_ms),
    })
}
