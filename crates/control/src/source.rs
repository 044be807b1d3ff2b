//! Sources: the agencies that own cameras and share the server under quotas.

use crate::ids::SourceId;

/// An agency that owns cameras.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `DUBAI_POLICE`.
    pub id: SourceId,
    /// The name that people read, in English.
    pub name: String,
    /// The same in Arabic; may be empty.
    pub name_ar: String,
    /// How many units (see [`crate::Unit`]) of it may be used at once. 0 closes the source.
    pub limit: u32,
}
