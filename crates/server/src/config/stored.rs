//! How cameras and layouts are written into the database. Fields that a later version adds must have a
//! default, so that what an earlier one wrote is still read.

use serde::{Deserialize, Serialize};

/// A camera as it is kept. Nothing in it is secret: what is, is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredCamera {
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) location: String,
    pub(crate) source: String,
    pub(crate) url: StoredUrl,
    #[serde(default)]
    pub(crate) sub_url: Option<StoredUrl>,
    /// `tcp` or `udp`.
    pub(crate) transport: String,
    pub(crate) on_demand: bool,
    pub(crate) close_after_ms: u64,
    /// The camera of the settings file whose place it has taken, by its fingerprint.
    #[serde(default)]
    pub(crate) covers: Option<Vec<u8>>,
}

/// An address as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredUrl {
    /// As it is shown to people.
    pub(crate) shown: String,
    /// All of it under seal, where what is shown is not all.
    #[serde(default)]
    pub(crate) sealed: Option<Vec<u8>>,
}

/// A wall as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLayout {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) tiles: Vec<StoredTile>,
    /// Milliseconds since the Unix epoch.
    pub(crate) changed_at_ms: u64,
}

/// A camera on a wall, in units of the wall's own grid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredTile {
    pub(crate) camera: String,
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) width: u16,
    pub(crate) height: u16,
}

/// Which write of a record it is: of two the greater one holds. The fields are compared in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StoredStamp {
    /// Higher than every one that its node had seen.
    pub(crate) counter: u64,
    /// Where it was written; empty at a server that was alone.
    pub(crate) node: String,
    /// Of that node.
    pub(crate) process: String,
}

/// The last write of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredVersion {
    pub(crate) stamp: StoredStamp,
    /// It was deleted; when this node learned that, in seconds since the Unix epoch.
    #[serde(default)]
    pub(crate) gone_at: Option<u64>,
    /// The whole camera of a settings file whose place it has taken, under seal.
    #[serde(default)]
    pub(crate) covers: Option<Vec<u8>>,
}

/// A record on its way to another node. No `Debug`, for passwords of cameras are in it: it is never sent as it
/// is, but sealed.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) id: String,
    pub(crate) stamp: StoredStamp,
    /// The whole camera of a settings file whose place it has taken.
    #[serde(default)]
    pub(crate) covers: Option<String>,
    /// What it is; deleted without any.
    #[serde(default)]
    pub(crate) camera: Option<CarriedCamera>,
    #[serde(default)]
    pub(crate) layout: Option<StoredLayout>,
}

/// Records on their way.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CarriedRecords(pub(crate) Vec<Carried>);

/// A camera on its way, with its passwords.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CarriedCamera {
    pub(crate) name: String,
    pub(crate) name_ar: String,
    pub(crate) location: String,
    pub(crate) source: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) sub_url: Option<String>,
    /// `tcp` or `udp`.
    pub(crate) transport: String,
    pub(crate) on_demand: bool,
    pub(crate) close_after_ms: u64,
}

macro_rules! bytes {
    ($($stored:ty),*) => {$(
        impl $stored {
            /// As it is kept.
            pub(crate) fn to_bytes(&self) -> Vec<u8> {
                serde_json::to_vec(self).unwrap_or_default()
            }

            /// `None`: it was not written by [`Self::to_bytes`].
            pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
                serde_json::from_slice(bytes).ok()
            }
        }
    )*};
}

bytes!(StoredCamera, StoredLayout, StoredVersion, CarriedRecords);
