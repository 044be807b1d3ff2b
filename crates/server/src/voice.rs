//! The voice relay: who speaks, and who hears it.

mod live;
mod sender;
