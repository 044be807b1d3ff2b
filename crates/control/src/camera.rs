//! Cameras, as far as the question goes who may watch them.

use crate::ids::{CameraId, SourceId};

/// What a camera is to people. How it is reached (addresses, passwords) is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// `cam-001-sheikh-zayed`.
    pub id: CameraId,
    /// The name that people read, in English.
    pub name: String,
    /// The same in Arabic; may be empty.
    pub name_ar: String,
    /// Where it hangs, in words; may be empty.
    pub location: String,
    /// The agency that owns it and whose quota its viewers use.
    pub source: SourceId,
    /// It has a second, smaller rendition for `quality = "low"`.
    pub has_sub: bool,
}
