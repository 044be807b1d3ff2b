//! The connection to the store: one, shared by all who ask it, made anew when it was lost.
//!
//! A call that fails is not repeated here, except by its text where the store had forgotten the
//! script: whether it was executed is for the caller to find out. Nothing of leases is known here.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use super::address::{StoreAddress, StoreKind};
use super::words::Words;

/// How long a connection may take to come about, Sentinels and TLS included.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// How long the store may take to answer. Its operations take it microseconds; one that does not
/// answer for this time is taken for lost, and who waits is answered otherwise.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// How often a cluster's client asks another of its servers before it gives up.
const CLUSTER_RETRIES: u32 = 3;

/// Digits of how many keys a call has.
const COUNT_DIGITS_MAX: usize = 20;

/// A Lua script and the name by which the store keeps it.
#[derive(Debug)]
pub(crate) struct Script {
    text: String,
    sha1: String,
}

impl Script {
    /// All keys that it touches are handed in as `KEYS`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha1 }
    }
}

/// One call of a script.
#[derive(Debug, Clone)]
pub(crate) struct Call<'s> {
    /// What to execute.
    pub(crate) script: &'s Script,
    /// The keys that it touches, the prefix included. At least one: a cluster finds the server by it.
    pub(crate) keys: Words,
    /// What else it is told.
    pub(crate) args: Words,
}

/// Why the store did not do what it was asked for. No password is in it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nobody answers there.
    #[error("the store {store} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        store: String,
        /// In the words of the system.
        reason: String,
    },
    /// It answers, but not in time.
    #[error("the store {store} did not answer within {} s", ANSWER_TIME_MAX.as_secs())]
    Slow {
        /// Where.
        store: String,
    },
    /// It does not let us in.
    #[error("the store {store} refuses user or password of {setting}: {reason}")]
    Forbidden {
        /// Where.
        store: String,
        /// Where they are written.
        setting: &'static str,
        /// In its words.
        reason: String,
    },
    /// It shows a certificate that is not to be trusted.
    #[error(
        "the certificate of the store {store} is not trusted: {reason}; `store.ca` names the file of the authority that made it"
    )]
    Untrusted {
        /// Where.
        store: String,
        /// In the words of TLS.
        reason: String,
    },
    /// Whom to trust cannot be read.
    #[error("`store.ca` is of no use: {path}: {reason}")]
    Authorities {
        /// The file.
        path: String,
        /// In the words of the system.
        reason: String,
    },
    /// It has no memory left.
    #[error("the store {store} is full: raise its `maxmemory`, or free what else is in it")]
    Full {
        /// Where.
        store: String,
    },
    /// A key holds what we did not put there.
    #[error(
        "a key of ours in the store {store} holds something of another type: {reason}; set `store.prefix` where others use the same store"
    )]
    Foreign {
        /// Where.
        store: String,
        /// In its words.
        reason: String,
    },
    /// Anything else that it answers instead of a result: it is loading, has no leader, only reads.
    #[error("the store {store} refuses: {reason}")]
    Refused {
        /// Where.
        store: String,
        /// In its words.
        reason: String,
    },
    /// It answered what the script does not answer.
    #[error("the store {store} answered something that is not understood: {reason}")]
    Garbled {
        /// Where.
        store: String,
        /// What was expected.
        reason: String,
    },
}

/// A handle to the store; cheap to clone, all clones share one connection.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: StoreAddress,
    /// Before every key.
    prefix: String,
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    /// Connections made so far. 64 bits do not wrap.
    made: u64,
    current: Option<Link>,
}

/// One connection, and its number among all that were made.
#[derive(Clone)]
struct Link {
    number: u64,
    wire: Wire,
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Store {
    /// A handle to the store at `address`; it is connected by the first call. `prefix` stands before
    /// every key.
    pub(crate) fn new(address: StoreAddress, prefix: String) -> Self {
        Self { inner: Arc::new(Inner { address, prefix, links: Mutex::default() }) }
    }

    /// Where it is, without user and password.
    pub(crate) fn place(&self) -> String {
        self.inner.address.to_string()
    }

    /// The name under which `name` is kept.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.inner.prefix)
    }

    /// What stands before every key.
    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Calls one script.
    pub(crate) async fn eval(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Vec<u8>>,
    ) -> Result<Value, StoreError> {
        let (keys, args) = (keys.into_iter().collect(), args.into_iter().collect());
        self.eval_one(Call { script, keys, args }).await
    }

    /// [`Self::eval`], with all that belongs to it.
    pub(crate) async fn eval_one(&self, call: Call<'_>) -> Result<Value, StoreError> {
        let mut answers = self.eval_all(&[call]).await?;
        let nothing = || self.garbled("no answer at all");
        answers.pop().map(|(_, answer)| answer).ok_or_else(nothing)?
    }

    /// Calls scripts one after the other, all of them in one go. The answers come in the order in which
    /// the store made them, each with the place of its call in `calls`: where it had forgotten a
    /// script, that call is made later than those behind it.
    pub(crate) async fn eval_all(
        &self,
        calls: &[Call<'_>],
    ) -> Result<Vec<(usize, Result<Value, StoreError>)>, StoreError> {
        let link = self.link().await?;
        let mut answers = Vec::with_capacity(calls.len());
        let mut forgotten = Vec::new();
        let by_name = self.send(&link, calls.iter().map(|call| by_sha1(call))).await?;
        for (index, answer) in by_name.into_iter().enumerate() {
            match answer {
                Err(error) if is_unknown_script(&error) => forgotten.push(index),
                answer => answers.push((index, answer.map_err(|error| self.error(&error)))),
            }
        }
        if !forgotten.is_empty() {
            let calls = forgotten.iter().filter_map(|index| calls.get(*index)).map(by_text);
            let by_text = self.send(&link, calls).await?;
            let answers_again = by_text.into_iter().map(|a| a.map_err(|error| self.error(&error)));
            answers.extend(forgotten.into_iter().zip(answers_again));
        }
        Ok(answers)
    }

    /// Whether it answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let link = self.link().await?;
        match self.send(&link, std::iter::once(redis::cmd("PING"))).await?.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.error(&error)),
            None => Err(self.garbled("no answer at all")),
        }
    }

    /// Several commands that are no scripts, in one go. Those that the store refuses count as done.
    pub(crate) async fn commands(&self, commands: Vec<redis::Cmd>) -> Result<(), StoreError> {
        let link = self.link().await?;
        self.send(&link, commands.into_iter()).await.map(drop)
    }

    /// That it answered something that is not understood.
    pub(crate) fn garbled(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Garbled { store: self.place(), reason: reason.into() }
    }

    async fn send(
        &self,
        link: &Link,
        commands: impl Iterator<Item = redis::Cmd>,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.ignore_errors();
        let all = async {
            match link.wire.clone() {
                Wire::One(mut wire) => pipeline.query_async(&mut wire).await,
                Wire::Cluster(mut wire) => pipeline.query_async(&mut wire).await,
            }
        };
        let error = match tokio::time::timeout(ANSWER_TIME_MAX, all).await {
            Ok(Ok(answers)) => return Ok(answers),
            Ok(Err(error)) => self.error(&error),
            Err(_) => StoreError::Slow { store: self.place() },
        };
        self.forget(link).await;
        Err(error)
    }

    async fn link(&self) -> Result<Link, StoreError> {
        let mut links = self.inner.links.lock().await;
        if let Some(link) = &links.current {
            return Ok(link.clone());
        }
        let address = &self.inner.address;
        let authorities = authorities(address)?;
        let connected = connect(address, authorities);
        let wire = match tokio::time::timeout(CONNECT_TIME_MAX, connected).await {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return Err(self.error(&error)),
            Err(_) => {
                let reason = format!("no connection within {} s", CONNECT_TIME_MAX.as_secs());
                return Err(StoreError::Unreachable { store: self.place(), reason });
            }
        };
        links.made += 1;
        let link = Link { number: links.made, wire };
        links.current = Some(link.clone());
        Ok(link)
    }

    /// The next call makes a connection anew, unless somebody did meanwhile.
    async fn forget(&self, link: &Link) {
        let mut links = self.inner.links.lock().await;
        if links.current.as_ref().is_some_and(|current| current.number == link.number) {
            links.current = None;
        }
    }

    fn error(&self, error: &RedisError) -> StoreError {
        let store = self.place();
        let reason = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                StoreError::Forbidden {
                    store,
                    setting: self.inner.address.login_settings(),
                    reason,
                }
            }
            // So rustls begins what is wrong with the other's certificate.
            _ if reason.contains("invalid peer certificate") => {
                StoreError::Untrusted { store, reason }
            }
            _ if error.is_timeout() => StoreError::Slow { store },
            (_, Some("OOM")) => StoreError::Full { store },
            _ if reason.contains("WRONGTYPE") => StoreError::Foreign { store, reason },
            _ if error.is_io_error() || error.is_connection_dropped() || error.code().is_none() => {
                StoreError::Unreachable { store, reason }
            }
            _ => StoreError::Refused { store, reason },
        }
    }
}

/// Whom to trust, where a file says so. It is small and local, and read for each connection: it may have
/// been renewed.
fn authorities(address: &StoreAddress) -> Result<Option<TlsCertificates>, StoreError> {
    let Some(path) = address.ca.as_ref().filter(|_| address.tls) else { return Ok(None) };
    let useless =
        |reason: String| StoreError::Authorities { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| useless(error.to_string()))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|part| part == begin) {
        return Err(useless("there is no certificate in it (PEM)".to_owned()));
    }
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
}

async fn connect(
    address: &StoreAddress,
    authorities: Option<TlsCertificates>,
) -> RedisResult<Wire> {
    if address.tls {
        // Several cryptography libraries are linked; this one does all TLS of this server.
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        // It fails where one is installed already, which is as good.
        let _ = provider.install_default();
    }
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIME_MAX))
        .set_response_timeout(Some(ANSWER_TIME_MAX));
    match &address.kind {
        StoreKind::Single => {
            // An address that was read has one host at least.
            let Some(first) = address.hosts.first() else {
                return Err((ErrorKind::InvalidClientConfig, "no host").into());
            };
            let host = host(address, first).into_connection_info()?;
            let host = host.set_redis_settings(login(address));
            let client = match authorities {
                Some(authorities) => Client::build_with_tls(host, authorities)?,
                None => Client::open(host)?,
            };
            let wire = client.get_multiplexed_async_connection_with_config(&settings).await?;
            Ok(Wire::One(wire))
        }
        StoreKind::Sentinel { master } => {
            let mut client = by_sentinels(address, master, authorities)?;
            Ok(Wire::One(client.get_async_connection_with_config(&settings).await?))
        }
        StoreKind::Cluster => {
            let client = of_cluster(address, authorities)?;
            Ok(Wire::Cluster(client.get_async_connection().await?))
        }
    }
}

fn by_sentinels(
    address: &StoreAddress,
    master: &str,
    authorities: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let sentinels = address.hosts.iter().map(|at| host(address, at));
    let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
        .set_client_to_redis_db(address.database);
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(authorities) = authorities {
        builder = builder
            .set_client_to_redis_certificates(authorities.clone())
            .set_client_to_sentinel_certificates(authorities);
    }
    if let Some(user) = &address.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = address.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &address.sentinel_login.user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = address.sentinel_password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    builder.build()
}

fn of_cluster(
    address: &StoreAddress,
    authorities: Option<TlsCertificates>,
) -> RedisResult<ClusterClient> {
    let hosts: RedisResult<Vec<_>> = address
        .hosts
        .iter()
        .map(|at| {
            let info = host(address, at).into_connection_info()?;
            Ok(info.set_redis_settings(login(address)))
        })
        .collect();
    let builder = ClusterClient::builder(hosts?)
        .connection_timeout(CONNECT_TIME_MAX)
        .response_timeout(ANSWER_TIME_MAX)
        .retries(CLUSTER_RETRIES);
    match authorities {
        Some(authorities) => builder.certs(authorities).build(),
        None => builder.build(),
    }
}

fn host(address: &StoreAddress, (host, port): &(String, u16)) -> ConnectionAddr {
    let (host, port) = (host.clone(), *port);
    if address.tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn login(address: &StoreAddress) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(address.database);
    if let Some(user) = &address.user {
        login = login.set_username(user);
    }
    if let Some(password) = address.password() {
        login = login.set_password(password);
    }
    login
}

fn by_sha1(call: &Call<'_>) -> redis::Cmd {
    with_arguments("EVALSHA", &call.script.sha1, call)
}

fn by_text(call: &Call<'_>) -> redis::Cmd {
    with_arguments("EVAL", &call.script.text, call)
}

fn with_arguments(name: &str, script: &str, call: &Call<'_>) -> redis::Cmd {
    let Call { keys, args, .. } = call;
    // Its own three: name, script and how many keys.
    let (count, bytes) = (3 + keys.len() + args.len(), keys.bytes() + args.bytes());
    let mut command =
        redis::Cmd::with_capacity(count, name.len() + script.len() + COUNT_DIGITS_MAX + bytes);
    command.arg(name).arg(script).arg(keys.len());
    for word in keys.iter().chain(args.iter()) {
        command.arg(word);
    }
    command
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
