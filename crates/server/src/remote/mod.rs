//! Other servers, as their client sees them: HTTP requests, and the sessions that WHEP and WHIP
//! open with an offer. For the tools that watch or publish; the server itself asks nobody.

mod http;
mod session;

pub(crate) use http::{HttpClient, RemoteError};
pub(crate) use session::{Session, own_address, reserve};
