//! The running server, as commands ask it: where it is, with which token, and in what words it is told
//! when that does not work.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hyper::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::Failure;
use super::load::TOKEN_VARIABLE;
use crate::config::{self, Environment, Flags};
use crate::data_dir::DataDir;
use crate::remote::{
    Answer, Ask, CameraPages, GIVE_CA, HttpClient, RemoteError, Trust, TrustError, disbelief,
};
use crate::tls;

/// Where the server is, for who does not want to type it each time.
const URL_VARIABLE: &str = "MANIFOLD_URL";

/// Where it is unless somebody says otherwise: its own default.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// How long one request may take. The server itself ends what takes longer than 30 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(35);

/// Which server a command asks, and how it writes what it finds.
#[derive(Debug, Clone, Args)]
pub(super) struct Server {
    /// Where the server is [default: the variable MANIFOLD_URL, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Bearer token of each request [default: the variable MANIFOLD_TOKEN]
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    token: Option<SecretString>,
    /// Certificate of the authority that an https:// server is believed by [default: those of this machine, and
    /// that of its own server]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

/// Why the server did not say what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The address is none that can be asked. Exit code 2.
    #[error("{0:?} is no address of a server; write it as http://host:8080 or https://host:8443")]
    Address(String),
    /// Nobody answers. Exit code 2.
    #[error(
        "no server answers at {url}: {reason}; start it with `manifold`, or say with --url where it is"
    )]
    Absent {
        /// As asked.
        url: Url,
        /// What the network said.
        reason: String,
    },
    /// Somebody answers there who cannot be believed. Exit code 2.
    #[error("the server at {url} is not asked: {reason}")]
    Untrusted {
        /// As asked.
        url: Url,
        /// What it showed, and what to do.
        reason: String,
    },
    /// There is nobody to believe it by. Exit code 2.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It wants a key, or another one. Exit code 3.
    #[error("the server refuses: {0}; give a token with --token or {TOKEN_VARIABLE}")]
    Token(String),
    /// It says no. Exit code 3.
    #[error("{0}")]
    Refused(String),
    /// What came is not what this version understands. Exit code 1.
    #[error("{0} does not answer as Manifold does; is it another program, or another version?")]
    Strange(Url),
}

impl AskError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Strange(_) => 1,
            Self::Address(_) | Self::Absent { .. } | Self::Untrusted { .. } | Self::Trust(_) => 2,
            Self::Token(_) | Self::Refused(_) => 3,
        }
    }
}

/// Asks one server, over one connection.
#[derive(Debug)]
pub(super) struct Client {
    http: HttpClient,
    base: Url,
    token: Option<SecretString>,
}

impl Client {
    /// Connects with the first question.
    pub(super) fn new(server: &Server) -> Result<Self, AskError> {
        let text = server.url.clone().or_else(|| std::env::var(URL_VARIABLE).ok());
        let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| URL_DEFAULT.to_owned());
        let is_web = |url: &Url| url.has_host() && ["http", "https"].contains(&url.scheme());
        let base = Url::parse(&text).ok().filter(is_web).ok_or(AskError::Address(text))?;
        let variable = || std::env::var(TOKEN_VARIABLE).ok().map(SecretString::from);
        let token = server.token.clone().or_else(variable);
        let http = if base.scheme() == "https" {
            HttpClient::with_trust(ANSWER_TIME_MAX, trust(server.ca.as_deref())?)
        } else {
            HttpClient::new(ANSWER_TIME_MAX)
        };
        Ok(Self { http, base, token })
    }

    /// Where the server is.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// What goes along with each request.
    pub(super) fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// For requests of another kind, over the same connection.
    pub(super) fn into_http(self) -> HttpClient {
        self.http
    }

    /// GET of JSON.
    pub(super) async fn get(&mut self, path: &str) -> Result<Value, AskError> {
        self.json(Method::GET, path, None).await
    }

    /// POST of JSON.
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<Value, AskError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// All cameras, however many pages they are.
    pub(super) async fn cameras(&mut self) -> Result<Vec<Value>, AskError> {
        let mut pages = CameraPages::default();
        while let Some(path) = pages.next_path() {
            pages.take(self.get(&path).await?);
        }
        Ok(pages.into_cameras())
    }

    /// GET of text.
    pub(super) async fn text(&mut self, path: &str) -> Result<String, AskError> {
        let answer = self.any(Method::GET, path, None).await?;
        self.accepted(answer).map(|answer| answer.body)
    }

    /// GET of something that is no JSON, with its headers.
    pub(super) async fn page(&mut self, path: &str) -> Result<Answer, AskError> {
        let answer = self.any(Method::GET, path, None).await?;
        self.accepted(answer)
    }

    /// Whatever is answered.
    pub(super) async fn any(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, AskError> {
        let url = self.base.join(path).map_err(|_| AskError::Strange(self.base.clone()))?;
        let content_type = body.is_some().then_some("application/json");
        let body = body.map(ToString::to_string).unwrap_or_default();
        let ask = Ask { method, url: &url, content_type, token: self.token.as_ref(), body };
        let absent = |error: RemoteError| {
            let reason = match error {
                RemoteError::Unreachable { reason, .. } => match disbelief(&reason, GIVE_CA) {
                    Some(reason) => {
                        return AskError::Untrusted { url: self.base.clone(), reason };
                    }
                    // Its address is told already.
                    None => reason.to_string(),
                },
                RemoteError::Scheme(_)
                | RemoteError::Cut { .. }
                | RemoteError::Late { .. }
                | RemoteError::Refused { .. } => error.to_string(),
            };
            AskError::Absent { url: self.base.clone(), reason }
        };
        self.http.ask_for_any(&ask).await.map_err(absent)
    }

    async fn json(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AskError> {
        let answer = self.any(method, path, body).await?;
        let answer = self.accepted(answer)?;
        let strange = |_| AskError::Strange(self.base.clone());
        serde_json::from_str(&answer.body).map_err(strange)
    }

    fn accepted(&self, answer: Answer) -> Result<Answer, AskError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let sentence = answer.reason();
        Err(match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AskError::Token(sentence),
            _ => AskError::Refused(sentence),
        })
    }
}

/// By whom an https:// server is believed: a server of this machine that made its own certificate is known by
/// what it keeps in its data directory.
pub(super) fn trust(ca: Option<&Path>) -> Result<Trust, TrustError> {
    if let Some(file) = ca {
        return Trust::of_file("--ca", file);
    }
    let settings = config::load(&Flags::default(), &Environment::of_process()).ok();
    let configured = settings.and_then(|loaded| loaded.config.store.data_dir);
    Trust::of_machine(tls::kept_authority(&DataDir::of_process(configured.as_deref())))
}

/// A path below `root` whose last segment is what a person typed.
pub(super) fn path_of(root: &str, segment: &str) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    format!("{root}{}", utf8_percent_encode(segment, NON_ALPHANUMERIC))
}

/// Runs what a command does, on this thread alone.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the network cannot be used")?;
    runtime.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server { url: Some(url.to_owned()), token: None, ca: None, json: false }
    }

    #[test]
    fn what_is_typed_stays_one_segment() {
        assert_eq!(path_of("/api/v1/why/", "a/../b?c"), "/api/v1/why/a%2F%2E%2E%2Fb%3Fc");
    }

    #[test]
    fn an_address_without_a_host_is_refused_with_an_example() {
        for wrong in ["nonsense", "http:", "127.0.0.1:8080", "ftp://a.example"] {
            let error = Client::new(&server(wrong)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains("http://host:8080"), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_one_sentence_with_the_way_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut client = Client::new(&server(&format!("http://{address}"))).unwrap();
        let error = client.get("/health").await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let sentence = error.to_string();
        assert!(sentence.starts_with(&format!("no server answers at http://{address}/")));
        assert!(sentence.contains("--url") && !sentence.contains('\n'), "{sentence}");
    }

    #[test]
    fn the_token_is_not_printed() {
        let mut server = server("http://a");
        server.token = Some(SecretString::from("canary"));
        assert!(!format!("{server:?}").contains("canary"));
    }
}
