//! The names by which people and programs refer to things. A value of these types is well formed.

/// `cam-001-sheikh-zayed`: letters, digits, `-`, `_` and `.`, not starting with `.`; at most 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CameraId(String);

/// `DUBAI_POLICE`: `[A-Z0-9_]+`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(String);

/// A reservation's id: a random UUID in its hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(String);
