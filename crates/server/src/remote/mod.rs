//! Other servers, as their client sees them: HTTP requests, and the sessions that WHEP and WHIP
//! open with an offer. For the tools that watch or publish, for the commands that ask a running server,
//! and for cameras that are other servers'.

mod cameras;
mod http;
mod session;
mod trust;

pub(crate) use cameras::CameraPages;
pub(crate) use http::{Answer, Ask, HttpClient, RemoteError};
pub(crate) use session::{Redirects, Reservation, Session, own_address, reserve};
pub(crate) use trust::{GIVE_CA, NODE_GIVE_CA, Trust, TrustError, disbelief};
