//! Quotas: how many units of each source, and of all together, may be used at once.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::SourceId;
use crate::source::Source;
use crate::time::Timestamp;

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
    /// Units of one user over all sources; `None`: as many as he likes.
    per_user: Option<u32>,
    sources: BTreeMap<SourceId, u32>,
    /// Limits that were set while the server runs.
    changed: BTreeMap<SourceId, u32>,
}

impl Quota {
    /// Limits a source, and `total` for all sources together.
    pub fn new<'a>(unit: Unit, total: u32, sources: impl IntoIterator<Item = &'a Source>) -> Self {
        let sources = sources.into_iter().map(|source| (source.id.clone(), source.limit)).collect();
        Self { unit, total, per_user: None, sources, changed: BTreeMap::new() }
    }

    /// What is counted.
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// The limit of all sources together.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// The same with a limit of units that one user may use over all sources.
    #[must_use]
    pub fn per_user(self, limit: Option<u32>) -> Self {
        Self { per_user: limit, ..self }
    }

    /// Units that one user may use over all sources.
    pub const fn user_limit(&self) -> Option<u32> {
        self.per_user
    }

    /// Changes the limit of a source, or takes the configured one again. A source that is not configured
    /// gets no limit.
    pub(crate) fn set_limit(&mut self, source: SourceId, limit: Option<u32>) {
        match limit {
            Some(limit) if self.sources.contains_key(&source) => {
                self.changed.insert(source, limit);
            }
            Some(_) | None => {
                self.changed.remove(&source);
            }
        }
    }

    /// The sources that have a limit, in the order of ids.
    pub fn sources(&self) -> impl Iterator<Item = &SourceId> {
        self.sources.keys()
    }

    /// The limit of one source; 0 for a source that is not configured.
    pub fn limit(&self, source: &SourceId) -> u32 {
        let limit = self.changed.get(source).or_else(|| self.sources.get(source));
        limit.copied().unwrap_or(0)
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
    /// What one user may use, over all sources.
    User(String),
}

/// The source's id, `TOTAL` or `USER`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(id) => id.fmt(f),
            Self::Total => f.write_str("TOTAL"),
            Self::User(_) => f.write_str("USER"),
        }
    }
}

/// A limit is reached; nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the quota of {scope} is used up: {} of {}", usage.current, usage.limit)]
pub struct Exceeded {
    /// Which limit: the user's is named before the source's, and that before the total.
    pub scope: Scope,
    /// How far it is used.
    pub usage: Usage,
    /// When one unit of it is free again if no lease that counts against it is renewed: with `limit`
    /// units in use the end of the first of them, with more that of a later one. `None`: its limit is
    /// 0, so that none will be.
    pub free_at: Option<Timestamp>,
}
