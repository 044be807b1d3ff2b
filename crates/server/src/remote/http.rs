//! An HTTP/1.1 client (RFC 9112) for the few small requests that tools make: bounded in time and in
//! size, and its errors name whom they concern.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use super::trust::Trust;

/// Longest body that is read. An answer in SDP has some 10 KB, the list of a thousand cameras 800 KB, the
/// metrics of ten thousand cameras 8 MB.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Characters of a refusal's body that are shown.
const REASON_CHARACTERS_MAX: usize = 300;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The URL cannot be asked.
    #[error(
        "{0} cannot be asked: only http:// URLs with a host can; put a proxy that ends TLS before an https:// server"
    )]
    Scheme(Url),
    /// No address, or none that answers.
    #[error("{authority} cannot be reached: {reason}")]
    Unreachable {
        /// `host:port`.
        authority: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{method} {path} was cut off: {reason}")]
    Cut {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// What the library said.
        reason: String,
    },
    /// No answer in time.
    #[error("{method} {path} was not answered within {} s", limit.as_secs())]
    Late {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Another status than success.
    #[error("{method} {path} was refused with {status}: {reason}")]
    Refused {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// What was answered.
        status: StatusCode,
        /// The answer's own explanation, in one line.
        reason: String,
    },
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// Of the body; none without one.
    pub(crate) content_type: Option<&'static str>,
    /// Goes along as the bearer token (RFC 6750).
    pub(crate) token: Option<&'a SecretString>,
    pub(crate) body: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Keeps its connection from request to request, as long as they go to the same server.
#[derive(Debug)]
pub(crate) struct HttpClient {
    limit: Duration,
    /// For servers that are asked by HTTPS; none are without it.
    trust: Option<Trust>,
    /// By the scheme, host and port that it goes to.
    kept: Option<(String, SendRequest<String>)>,
}

impl HttpClient {
    /// `limit` is how long one request may take.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, trust: None, kept: None }
    }

    /// One that asks by HTTPS, too, where it is told by whom servers are believed.
    pub(crate) fn with_any(limit: Duration, trust: Option<Trust>) -> Self {
        Self { trust, ..Self::new(limit) }
    }

    /// One that asks by HTTPS, too.
    pub(crate) fn with_trust(limit: Duration, trust: Trust) -> Self {
        Self { trust: Some(trust), ..Self::new(limit) }
    }

    /// One like it, with a connection of its own.
    pub(crate) fn another(&self) -> Self {
        Self { limit: self.limit, trust: self.trust.clone(), kept: None }
    }

    /// Closes the connection.
    pub(crate) fn hang_up(&mut self) {
        self.kept = None;
    }

    /// Asks, and refuses every status but success.
    pub(crate) async fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, RemoteError> {
        let answer = self.ask_for_any(ask).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(answer.into_refusal(ask.method.clone(), ask.url))
    }

    /// Asks, whatever is answered.
    pub(crate) async fn ask_for_any(&mut self, ask: &Ask<'_>) -> Result<Answer, RemoteError> {
        let limit = self.limit;
        timeout(limit, self.exchange(ask)).await.unwrap_or_else(|_| {
            self.kept = None;
            let (method, path) = (ask.method.clone(), ask.url.path().to_owned());
            Err(RemoteError::Late { method, path, limit })
        })
    }

    /// The connection that is kept, where it goes there and still stands.
    async fn kept_to(&mut self, place: &str) -> Option<SendRequest<String>> {
        let (_, mut sender) = self.kept.take().filter(|(to, _)| to == place)?;
        sender.ready().await.is_ok().then_some(sender)
    }

    async fn exchange(&mut self, ask: &Ask<'_>) -> Result<Answer, RemoteError> {
        let authority = authority(ask.url)?;
        let cut = |reason: String| {
            let (method, path) = (ask.method.clone(), ask.url.path().to_owned());
            RemoteError::Cut { method, path, reason }
        };
        let place = format!("{}://{authority}", ask.url.scheme());
        let mut sender = match self.kept_to(&place).await {
            Some(sender) => sender,
            None => connect(ask.url, &authority, self.trust.as_ref()).await?,
        };
        let request = ask.request(&authority).map_err(|error| cut(format!("{error:#}")))?;
        let response =
            sender.send_request(request).await.map_err(|error| cut(error.to_string()))?;
        let (head, body) = response.into_parts();
        let body = read(body).await.map_err(cut)?;
        self.kept = Some((place, sender));
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Ask<'_> {
    fn request(&self, authority: &str) -> anyhow::Result<hyper::Request<String>> {
        let target = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = hyper::Request::builder()
            .method(self.method.clone())
            .uri(if target.is_empty() { "/" } else { target })
            .header(HOST, authority);
        if let Some(content_type) = self.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(token) = self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .context("the token has characters that no header can carry")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request.body(self.body.clone())?)
    }
}

impl Answer {
    /// The first field of this name, if it is text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error that it is, once its status was seen to be none of success.
    pub(super) fn into_refusal(self, method: Method, url: &Url) -> RemoteError {
        let (path, reason) = (url.path().to_owned(), self.reason());
        RemoteError::Refused { method, path, status: self.status, reason }
    }

    /// Why it is a refusal: the problem's sentence (RFC 9457), our quota's, or the body itself.
    pub(crate) fn reason(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let sentence =
            [&json["detail"], &json["error"]["message_en"], &json["error"], &json["message"]]
                .into_iter()
                .find_map(Value::as_str);
        let words: Vec<&str> = sentence.unwrap_or(&self.body).split_whitespace().collect();
        let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
        if line.is_empty() {
            return "no reason was given".to_owned();
        }
        line.chars().take(REASON_CHARACTERS_MAX).collect()
    }
}

/// `host:port`, where the URL is one that can be asked.
fn authority(url: &Url) -> Result<String, RemoteError> {
    let host = url.host_str().filter(|_| ["http", "https"].contains(&url.scheme()));
    let host = host.ok_or_else(|| RemoteError::Scheme(url.clone()))?;
    Ok(format!("{host}:{}", url.port_or_known_default().unwrap_or(80)))
}

/// The addresses of a URL's host, most preferred first.
pub(super) async fn addresses(url: &Url) -> Result<Vec<SocketAddr>, RemoteError> {
    let authority = authority(url)?;
    let found = lookup_host(authority.as_str()).await.map(Iterator::collect);
    found.map_err(|reason| RemoteError::Unreachable { authority, reason })
}

async fn connect(
    url: &Url,
    authority: &str,
    trust: Option<&Trust>,
) -> Result<SendRequest<String>, RemoteError> {
    let unreachable = |reason| RemoteError::Unreachable { authority: authority.to_owned(), reason };
    let is_plain = url.scheme() == "http";
    if !is_plain && trust.is_none() {
        return Err(RemoteError::Scheme(url.clone()));
    }
    let stream = TcpStream::connect(&addresses(url).await?[..]).await.map_err(unreachable)?;
    // A request is written in one piece; waiting to fill a segment only delays it.
    let _ = stream.set_nodelay(true);
    match trust.filter(|_| !is_plain) {
        None => speak(stream).await.map_err(unreachable),
        Some(trust) => {
            let host = url.host_str().unwrap_or_default();
            let stream = trust.secure(stream, host).await.map_err(unreachable)?;
            speak(stream).await.map_err(unreachable)
        }
    }
}

async fn speak<S>(stream: S) -> std::io::Result<SendRequest<String>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // It ends with the sender or with the server; who sends hears of it.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(mut body: Incoming) -> Result<String, String> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let data: Bytes = frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default();
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is longer than {BODY_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: HeaderMap::new(), body: body.to_owned() }
    }

    #[test]
    fn a_refusal_says_why_in_one_line() {
        let problem = answer(404, r#"{"title":"Not Found","detail":"there is no camera x"}"#);
        assert_eq!(problem.reason(), "there is no camera x");
        let quota = answer(429, r#"{"error":{"message_en":"full"}}"#);
        assert_eq!(quota.reason(), "full");
        assert_eq!(answer(500, "<h1>\r\n oh\u{7} </h1>").reason(), "<h1> oh </h1>");
        assert_eq!(answer(500, "").reason(), "no reason was given");
        assert_eq!(answer(500, &"x".repeat(5_000)).reason().len(), 300);
    }

    #[tokio::test]
    async fn other_schemes_are_refused_with_the_way_out() {
        for url in ["https://a.example/whep/b", "ftp://a.example/whep/b"] {
            let url = url.parse().unwrap();
            let (method, content_type) = (Method::GET, None);
            let ask = Ask { method, url: &url, content_type, token: None, body: String::new() };
            let error = HttpClient::new(Duration::from_secs(1)).ask(&ask).await.unwrap_err();
            assert!(error.to_string().contains("proxy that ends TLS"), "{error}");
        }
        assert_eq!(authority(&"http://[::1]/a".parse().unwrap()).unwrap(), "[::1]:80");
    }

    #[test]
    fn the_token_goes_along_and_is_not_shown() {
        let url: Url = "http://a.example:81/whep/b?c=d#e".parse().unwrap();
        let token = SecretString::from("secret");
        let (method, content_type) = (Method::POST, Some("application/sdp"));
        let ask = Ask { method, url: &url, content_type, token: Some(&token), body: String::new() };
        let request = ask.request("a.example:81").unwrap();
        assert_eq!(request.uri(), "/whep/b?c=d");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer secret");
        assert!(!format!("{:?}", request.headers()).contains("secret"));
    }
}
