//! Where media and control meet: sessions, streams and timers, sans-IO.
//!
//! [`Engine`] is told what happens and when (`handle_*`), and is drained of what shall be done
//! ([`Engine::poll_action`]). It owns no socket, no clock and no ledger: the caller executes the
//! actions and hands their results back. Each camera's stream lives by its own transition table and
//! its own timers, so that a broken camera never delays another. [`voice::Relay`] is the same for the
//! voice relay, which shares no state with cameras.

pub mod failure;
pub mod voice;

mod adapt;
mod backoff;
mod engine;
mod io;
mod note;
mod revocation;
mod session;
mod stream;
mod timers;

pub use adapt::SwitchReason;
pub use engine::{
    CameraView, Engine, HOLD_TIME_MAX, KEYFRAME_INTERVAL_MIN, MAX_CAMERAS, MAX_FEEDS, MAX_HOLDS,
    Residue, STOPPED, SessionView, StreamView, SwitchFigures,
};
pub use failure::{CodecMismatch, Retry, SourceFailure};
pub use io::{
    Action, CameraSpec, CloseCause, Grant, HoldId, HoldRefusal, LeaseRefusal, OpId, Reader,
    Released, Reply, Request, RequestId, ReserveRefusal, Reset, SourceEvent, ViewerEvent,
    WatchRefusal, Watching,
};
pub use note::{EndReason, Note};
pub use revocation::Revocation;
pub use session::SessionState;
pub use stream::{Condition, Rendition};
