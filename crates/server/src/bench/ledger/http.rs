//! A server of its own on the store, and callers that keep their connections to it.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Caller, LEASES_MAX, PREFIX, SOURCES, camera, source};
use crate::bench::child::ServerProcess;

/// Longest answer in bytes. Stats of all cameras have a few hundred.
const ANSWER_MAX: usize = 64 * 1024;
/// An answer to reserve, of which the token is the half, comes in one read.
const ANSWER_USUAL: usize = 4 * 1024;

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
    let (status, stats) = connection.ask("GET", &["/api/v1/stream/stats"], &[]).await?;
    ensure!(status == 200, "the server does not tell of its streams: {status} {stats}");
    let stats: Value = serde_json::from_str(stats)?;
    let left = stats["active_streams"].as_u64().context("no number active_streams")?;
    Ok(u32::try_from(left)?)
}

/// As much of an HTTP/1.1 client (RFC 9112) as is needed to ask our own server again and again. It shares
/// the machine's cores with what is measured, so it does no more than it must: a request is one write, its
/// answer a read, in buffers that stay.
pub(super) struct Connection {
    stream: TcpStream,
    /// The end of each head: who is asked, and for what.
    host: String,
    request: Vec<u8>,
    /// As far as it has come, head and body.
    answer: Vec<u8>,
}

impl Connection {
    async fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let host = format!(" HTTP/1.1\r\nhost: {server}\r\n");
        let (request, answer) = (Vec::new(), Vec::with_capacity(ANSWER_USUAL));
        Ok(Self { stream, host, request, answer })
    }

    /// Status and body. A body that is not empty is JSON.
    async fn ask(
        &mut self,
        method: &str,
        path: &[&str],
        body: &[&str],
    ) -> anyhow::Result<(u16, &str)> {
        self.request.clear();
        self.request.extend_from_slice(method.as_bytes());
        self.request.push(b' ');
        path.iter().for_each(|part| self.request.extend_from_slice(part.as_bytes()));
        self.request.extend_from_slice(self.host.as_bytes());
        let length: usize = body.iter().map(|part| part.len()).sum();
        if length > 0 {
            std::io::Write::write_fmt(
                &mut self.request,
                format_args!("content-type: application/json\r\ncontent-length: {length}\r\n"),
            )?;
        }
        self.request.extend_from_slice(b"\r\n");
        body.iter().for_each(|part| self.request.extend_from_slice(part.as_bytes()));
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed the connection");
            if let Some((status, body)) = whole(&self.answer)? {
                return Ok((status, str::from_utf8(&self.answer[body..])?));
            }
            ensure!(self.answer.len() <= ANSWER_MAX, "an answer does not end");
        }
    }
}

/// The status of an answer and where its body begins, once all of it is there.
fn whole(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = str::from_utf8(&answer[..end])?.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let body = end + 4;
    Ok((answer.len() >= body + length).then_some((status.parse()?, body)))
}

impl Caller for Connection {
    /// The reservation's id.
    type Place = String;

    async fn reserve(&mut self, number: u32) -> Option<String> {
        let camera = camera(number % SOURCES);
        let body = ["{\"camera_id\":\"", &camera, "\",\"user_id\":\"bench\"}"];
        let asked = self.ask("POST", &["/api/v1/stream/reserve"], &body).await;
        let (_, answer) = asked.ok().filter(|(status, _)| *status == 200)?;
        // Ids need no escapes, and the server writes no spaces.
        let (_, behind) = answer.split_once("\"reservation_id\":\"")?;
        behind.split_once('"').map(|(id, _)| id.to_owned())
    }

    async fn release(&mut self, id: String) -> bool {
        let asked = self.ask("DELETE", &["/api/v1/stream/release/", &id], &[]).await;
        matches!(asked, Ok((200, _)))
    }
}
