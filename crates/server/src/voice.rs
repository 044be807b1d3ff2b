//! The voice relay: who speaks, and who hears it.

mod level;
mod live;
pub(crate) mod mp3;

pub(crate) use live::{Live, LiveVoice};
