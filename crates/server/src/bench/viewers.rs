//! Viewers that reserve, join and watch as browsers do: over HTTP and a UDP socket each.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use media::MediaKind;
use media::peer::client::{Client, ClientFactory, ClientOutput};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::request::Request;

/// Longest datagram that a server sends.
const DATAGRAM_BYTES: usize = 2048;

/// One viewer that watches until it leaves.
pub(super) struct Watching {
    server: SocketAddr,
    /// The path of its WHEP session.
    session: String,
    pictures: Arc<AtomicU64>,
    watching: JoinHandle<()>,
}

impl Watching {
    /// Reserves, posts the offer and begins to watch.
    pub(super) async fn join(
        server: SocketAddr,
        camera: &str,
        clients: &ClientFactory,
    ) -> anyhow::Result<Self> {
        let body = json!({ "camera_id": camera, "user_id": "bench" }).to_string();
        let reserve = Request {
            method: "POST",
            path: "/api/v1/stream/reserve",
            content_type: "application/json",
            token: None,
            body: &body,
        };
        let reserved = reserve.send(server).await?.json()?;
        let token = reserved["token"].as_str().context("the reservation has no token")?;

        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (mut client, offer) = clients.offer(socket.local_addr()?, Instant::now())?;
        let post = Request {
            method: "POST",
            path: &format!("/whep/{camera}"),
            content_type: "application/sdp",
            token: Some(token),
            body: &offer,
        };
        let answer = post.send(server).await?;
        let session = answer.header("location").context("the session has no address")?.to_owned();
        client.handle_answer(&answer.body)?;
        let pictures = Arc::new(AtomicU64::new(0));
        let watching = tokio::spawn(watch(client, socket, Arc::clone(&pictures)));
        Ok(Self { server, session, pictures, watching })
    }

    /// Whole pictures received so far.
    pub(super) fn pictures(&self) -> u64 {
        self.pictures.load(Ordering::Relaxed)
    }

    /// Ends the session; returns when the server has said that it is over.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        let delete = Request {
            method: "DELETE",
            path: &self.session,
            content_type: "text/plain",
            token: None,
            body: "",
        };
        delete.send(self.server).await?;
        self.watching.abort();
        Ok(())
    }
}

/// Runs a client on its socket until it is closed.
async fn watch(mut client: Client, socket: UdpSocket, pictures: Arc<AtomicU64>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let timeout = match client.poll_output() {
            ClientOutput::Transmit { destination, contents } => {
                // A datagram may be lost at any time; this one is lost at once.
                let _ = socket.send_to(&contents, destination).await;
                continue;
            }
            ClientOutput::Media { kind: MediaKind::Video, .. } => {
                pictures.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            ClientOutput::Media { kind: MediaKind::Audio, .. } | ClientOutput::Connected => {
                continue;
            }
            ClientOutput::Closed => return,
            ClientOutput::Timeout(at) => at,
        };
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                if let Ok((len, source)) = received {
                    client.handle_datagram(source, &buffer[..len], Instant::now());
                }
            }
            () = tokio::time::sleep_until(timeout.into()) => client.handle_timeout(Instant::now()),
        }
    }
}
