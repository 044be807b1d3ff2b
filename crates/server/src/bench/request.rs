//! As much of an HTTP/1.1 client (RFC 9112) as a benchmark needs to talk to our own server: one
//! request a connection, whole bodies.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Of the body.
    pub(super) content_type: &'a str,
    /// Goes with the request as its bearer token (RFC 6750).
    pub(super) token: Option<&'a str>,
    pub(super) body: &'a str,
}

/// What was answered, with a status of success.
#[derive(Debug)]
pub(super) struct Response {
    head: String,
    pub(super) body: String,
}

impl Request<'_> {
    pub(super) async fn send(&self, server: SocketAddr) -> anyhow::Result<Response> {
        let Self { method, path, content_type, token, body } = self;
        let authorization =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n{authorization}\
             content-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Response::parse(answer).with_context(|| format!("{method} {path}"))
    }
}

impl Response {
    fn parse(answer: Vec<u8>) -> anyhow::Result<Self> {
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer was cut off")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("answered {status}: {body}");
        }
        let response = Self { head: head.to_owned(), body: body.to_owned() };
        let chunked = response.header("transfer-encoding").is_some();
        ensure!(!chunked, "the answer is chunked, which is not understood");
        Ok(response)
    }

    /// The first field of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = b"HTTP/1.1 201 Created\r\nLocation: /whep/a/b\r\nETag:x\r\n\r\nv=0".to_vec();
        let response = Response::parse(answer).unwrap();
        assert_eq!(response.header("location"), Some("/whep/a/b"));
        assert_eq!(response.header("content-type"), None);
        assert_eq!(response.body, "v=0");
    }

    #[test]
    fn a_refusal_is_an_error_that_says_why() {
        let refusal = Response::parse(b"HTTP/1.1 429 Too Many\r\n\r\nquota".to_vec()).unwrap_err();
        assert_eq!(refusal.to_string(), "answered 429: quota");
        assert!(Response::parse(b"HTTP/1.1 200 OK\r\nhalf".to_vec()).is_err());
    }
}
