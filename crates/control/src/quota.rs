//! Quotas: how many units of each source, and of all together, may be used at once.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::SourceId;
use crate::source::Source;

/// What one unit of a quota is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// Every viewer counts 1.
    #[default]
    Viewer,
    /// Every camera that is watched counts 1, however many watch it.
    Camera,
}

/// The limits of all sources and of the whole server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    unit: Unit,
    total: u32,
    sources: BTreeMap<SourceId, u32>,
}

impl Quota {
    /// Limits a source, and `total` for all sources together.
    pub fn new<'a>(unit: Unit, total: u32, sources: impl IntoIterator<Item = &'a Source>) -> Self {
        let sources = sources.into_iter().map(|source| (source.id.clone(), source.limit)).collect();
        Self { unit, total, sources }
    }

    /// What is counted.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The limit of all sources together.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// The sources that have a limit, in the order of ids.
    pub fn sources(&self) -> impl Iterator<Item = &SourceId> {
        self.sources.keys()
    }

    /// The limit of one source; 0 for a source that is not configured.
    pub fn limit(&self, source: &SourceId) -> u32 {
        self.sources.get(source).copied().unwrap_or(0)
    }
}

/// How much of a limit is used, in the quota's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Units in use.
    pub current: u32,
    /// Units that may be in use.
    pub limit: u32,
}

/// What a limit is a limit of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One source's quota.
    Source(SourceId),
    /// The quota of all sources together.
    Total,
}

/// The source's id, or `TOTAL`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(id) => id.fmt(f),
            Self::Total => f.write_str("TOTAL"),
        }
    }
}

/// A limit is reached; nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the quota of {scope} is used up: {} of {}", usage.current, usage.limit)]
pub struct Exceeded {
    /// Which limit. A source's own limit is named before the total.
    pub scope: Scope,
    /// How far it is used.
    pub usage: Usage,
}
