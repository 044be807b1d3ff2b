//! The HTTP surface.

pub(crate) mod wire;
