//! A server of its own on the store, and callers that keep their connections to it.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Caller, LEASES_MAX, PREFIX, SOURCES, camera, source};
use crate::bench::child::ServerProcess;

/// Longest head of an answer, and longest body, in bytes; ours take a few hundred.
const ANSWER_MAX: usize = 64 * 1024;

/// A server whose leases are in the store at `url`, with a camera of each source.
pub(super) async fn start(url: &str) -> anyhow::Result<ServerProcess> {
    let mut settings = format!(
        r#"listen = ["127.0.0.1:0"]
[media]
udp = "127.0.0.1:0"
[quota]
unit = "viewer"
total = {LEASES_MAX}
[log]
level = "warn"
[store]
url = "{url}"
prefix = "{PREFIX}"
"#
    );
    for number in 0..SOURCES {
        let id = source(number);
        write!(settings, "[[sources]]\nid = \"{id}\"\nname = \"{id}\"\nlimit = {LEASES_MAX}\n")?;
    }
    for number in 0..SOURCES {
        let (id, source) = (camera(number), source(number));
        // A camera plays as soon as it is reserved: no more of that than must be.
        let url = "test://?width=192&height=108&fps=1&gop=1";
        write!(settings, "[[cameras]]\nid = \"{id}\"\nname = \"{id}\"\n")?;
        write!(settings, "source = \"{source}\"\nurl = \"{url}\"\n")?;
    }
    ServerProcess::start(&settings).await
}

pub(super) async fn connect(server: SocketAddr, count: u32) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(Connection::new(server).await?);
    }
    Ok(connections)
}

/// Reservations that the server still tells of.
pub(super) async fn left(server: SocketAddr) -> anyhow::Result<u32> {
    let mut connection = Connection::new(server).await?;
    let (status, stats) = connection.ask("GET", "/api/v1/stream/stats", "").await?;
    ensure!(status == 200, "the server does not tell of its streams: {status} {stats}");
    let left = stats["active_streams"].as_u64().context("no number active_streams")?;
    Ok(u32::try_from(left)?)
}

/// As much of an HTTP/1.1 client (RFC 9112) as is needed to ask our own server again and again.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    server: SocketAddr,
}

impl Connection {
    async fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), server })
    }

    /// Status and body.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let (server, length) = (self.server, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let status = self.line().await?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        let mut length = 0;
        let mut head = 0;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            head += line.len();
            ensure!(head <= ANSWER_MAX, "the head of an answer does not end");
        }
        ensure!(length <= ANSWER_MAX, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((status, serde_json::from_slice(&body)?))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let limit = ANSWER_MAX as u64;
        let read = (&mut self.stream).take(limit).read_line(&mut line).await?;
        ensure!(read > 0, "the server closed the connection");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Caller for Connection {
    /// The reservation's id.
    type Place = String;

    async fn reserve(&mut self, number: u32) -> Option<String> {
        let body = json!({"camera_id": camera(number % SOURCES), "user_id": "bench"}).to_string();
        let (status, answer) = self.ask("POST", "/api/v1/stream/reserve", &body).await.ok()?;
        let id = answer["reservation_id"].as_str().filter(|_| status == 200)?;
        Some(id.to_owned())
    }

    async fn release(&mut self, id: String) -> bool {
        let path = format!("/api/v1/stream/release/{id}");
        matches!(self.ask("DELETE", &path, "").await, Ok((200, _)))
    }
}
