//! As much of the voice relay's WebSocket (RFC 6455) as a benchmark needs: text in, text out.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// How long a message may take that was asked for, while many ask at a time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest head of an answer to the upgrade.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// Any 16 bytes in base64: they keep caches away that are not there.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// One client of the relay.
pub(super) struct Signalling(WebSocketStream<TcpStream>);

impl Signalling {
    pub(super) async fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {server}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        // Byte by byte: what follows is the WebSocket's.
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < HEAD_BYTES_MAX, "the answer to the upgrade has no end");
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101 "), "no WebSocket: {head}");
        Ok(Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await))
    }

    pub(super) async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(message.to_string())).await?)
    }

    /// The next message of this type; others are passed over, but for errors.
    pub(super) async fn wait_for(&mut self, kind: &str) -> anyhow::Result<Value> {
        let wanted = async {
            loop {
                let message = self.next().await?;
                match message["type"].as_str() {
                    Some(found) if found == kind => return Ok(message),
                    Some("error") => bail!("instead of {kind} came {}", message["message"]),
                    Some(_) | None => {}
                }
            }
        };
        let late = || format!("no {kind} within {PATIENCE:?}");
        timeout(PATIENCE, wanted).await.with_context(late)?
    }

    /// The next message, whichever. Pings are answered on the way.
    pub(super) async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let message = self.0.next().await.context("the WebSocket ended")??;
            if let Message::Text(text) = message {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }

    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        self.0.close(None).await?;
        // The server's own farewell says that ours was read.
        while let Some(Ok(_)) = self.0.next().await {}
        Ok(())
    }
}
