//! Where packets come from and go to: addresses, and by which transport.

use std::net::SocketAddr;

/// A TCP connection of the media port. Numbers are never used twice in the life of a process, so
/// that what is meant for a connection that is gone reaches no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One datagram a packet.
    Udp,
    /// Framed by RFC 4571 on a connection that the peer opened (ICE-TCP, RFC 6544).
    Tcp(ConnectionId),
}

/// A peer's end of a path. Two peers behind one NAT differ in the port; the same port by UDP and
/// by TCP belongs to different peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    /// The peer's address as we see it.
    pub address: SocketAddr,
    /// How it is reached there.
    pub transport: Transport,
}

impl From<SocketAddr> for Remote {
    /// A peer that is reached by UDP.
    fn from(address: SocketAddr) -> Self {
        Self { address, transport: Transport::Udp }
    }
}

/// The two ends of a peer's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Our address that the peer talks to.
    pub source: SocketAddr,
    /// The peer's address.
    pub destination: SocketAddr,
    /// What carries packets between both.
    pub transport: Transport,
}

impl Route {
    /// The path from our address `source` to `remote`.
    pub fn new(source: SocketAddr, remote: impl Into<Remote>) -> Self {
        let Remote { address: destination, transport } = remote.into();
        Self { source, destination, transport }
    }

    /// The peer's end.
    pub fn remote(&self) -> Remote {
        Remote { address: self.destination, transport: self.transport }
    }
}
