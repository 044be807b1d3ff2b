//! Why an address could not be bound, in one line that names the address, the setting and the way out.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) struct BindError {
    /// As configured.
    pub(crate) address: SocketAddr,
    /// The setting that holds it, as in `media.udp`.
    pub(crate) key: &'static str,
    /// Its position, where the setting is a list.
    pub(crate) index: Option<usize>,
    /// The file that the setting can be changed in.
    pub(crate) settings: String,
    /// The system's reason.
    pub(crate) reason: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, key, settings, reason, .. } = self;
        let place = self.index.map_or_else(|| (*key).to_owned(), |index| format!("{key}[{index}]"));
        let change = format!("change `{key}` in {settings}");
        // A foreign enum that may grow: compared, not matched.
        let is = |kind| reason.kind() == kind;
        if is(io::ErrorKind::AddrInUse) {
            write!(f, "port {address} ({place}) is in use; stop the other program or {change}")
        } else if is(io::ErrorKind::PermissionDenied) {
            write!(f, "port {address} ({place}) needs a privilege; take one above 1023: {change}")
        } else if is(io::ErrorKind::AddrNotAvailable) {
            write!(f, "{address} ({place}) is no address of this machine; {change}")
        } else {
            write!(f, "cannot bind {address} ({place}): {reason}; {change}")
        }
    }
}
