//! Addresses on loopback that take datagrams and throw them away.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::net::raise_descriptor_limit;
use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

/// Bound sockets that nobody reads. Their receive buffers hold next to nothing, so that the kernel
/// drops what arrives at the last step of its way.
pub(super) struct Sinks {
    addresses: Vec<SocketAddr>,
    _sockets: Vec<UdpSocket>,
}

impl Sinks {
    pub(super) fn open(count: usize) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let sockets = (0..count)
            .map(|_| one())
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(|| format!("cannot open {count} sockets for {count} viewers"))?;
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
        Ok(Self { addresses, _sockets: sockets })
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

fn one() -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel raises it to its minimum, about one datagram.
    socket.set_recv_buffer_size(1)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket.into())
}
