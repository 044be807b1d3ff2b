//! Saved walls: which cameras stand where, under a name. Kept in the database, read from it each time:
//! people save a wall now and then.
//!
//! A wall is its owner's. Cameras on it need not be there: parks change, and so may come back what is gone.

use std::time::{Duration, SystemTime};

use control::CameraId;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::config::{StoredLayout, StoredTile};
use crate::database::{Database, DatabaseError};

/// Walls by their ids.
const LAYOUTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layouts");

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
pub(crate) struct Layouts(Database);

impl Whose {
    fn includes(&self, layout: &Layout) -> bool {
        match self {
            Self::Everybodys => true,
            Self::Owner(owner) => *owner == layout.owner,
        }
    }
}

impl Layouts {
    pub(crate) fn new(database: Database) -> Self {
        Self(database)
    }

    /// By name.
    pub(crate) async fn all(&self, whose: Whose) -> Result<Vec<Layout>, DatabaseError> {
        let found = self.0.read(move |transaction| {
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
        let found = self.0.read(move |transaction| {
            let bytes = transaction.open_table(LAYOUTS)?.get(wanted.as_str())?;
            Ok(bytes.and_then(|bytes| layout(&wanted, bytes.value())))
        });
        let found = found.await?.flatten().filter(|layout| whose.includes(layout));
        found.ok_or(LayoutError::Unknown(id))
    }

    /// Saves a wall, under its id.
    pub(crate) async fn save(&self, layout: Layout) -> Result<(), LayoutError> {
        let saved = self.0.write(move |transaction| {
            let mut table = transaction.open_table(LAYOUTS)?;
            let is_new = table.get(layout.id.as_str())?.is_none();
            if is_new && table.len()? >= LAYOUTS_MAX {
                return Ok(false);
            }
            table.insert(layout.id.as_str(), stored(&layout).to_bytes().as_slice())?;
            Ok(true)
        });
        if saved.await? { Ok(()) } else { Err(LayoutError::Full) }
    }

    /// Forgets a wall that is of `whose`, and returns it.
    pub(crate) async fn remove(&self, id: String, whose: Whose) -> Result<Layout, LayoutError> {
        let layout = self.find(id.clone(), whose).await?;
        let removed = self.0.write(move |transaction| {
            transaction.open_table(LAYOUTS)?.remove(id.as_str())?;
            Ok(())
        });
        removed.await?;
        Ok(layout)
    }
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
