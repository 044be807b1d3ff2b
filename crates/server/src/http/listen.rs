//! Listening sockets and the connections on them.
//!
//! Bounded in four ways: connections at once, time for the handshake of TLS, time to send the headers,
//! size of the headers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::extract::Scheme;
use crate::bind_error::BindError;
use crate::metrics::Outlets;

/// Connections at once over all listeners: 1000 viewers with the six connections that a browser
/// opens to one origin, and as much room again for scripts. Further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 8192;

/// From the start of a connection to the end of TLS's handshake, which takes two round trips.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// The first byte of TLS: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Who speaks HTTP to the port of HTTPS.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS: write https:// before the address.\n";

/// From the start of a connection, or the end of a request, to the end of the next headers.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);

/// Request line and headers. Tokens have 400 bytes, browsers send 2 KiB; hyper takes 8 KiB at least.
const HEADERS_LENGTH_MAX: usize = 64 * 1024;

/// How long a client may take nothing of an answer. Without it, who never reads would keep one of
/// the connections for ever.
const STALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes that may wait in the kernel before they are sent: what an endless answer (MP3) is behind when
/// its line stands still. A second of it; what is on its way does not count, so nothing else is slower.
const UNSENT_MAX: u32 = 16 * 1024;

/// How long answers may still be written after the end was asked for.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Pause after an error of accept, so that a lack of file descriptors does not burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from, among its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) SocketAddr);

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<Listener>);

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    door: Door,
}

/// How a listener is spoken to.
#[derive(Clone)]
enum Door {
    Plain,
    Secure(TlsAcceptor),
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Secure(_) => "Secure",
        })
    }
}

/// Binds all addresses of `listen`, or none. `settings` is named in the error.
pub(crate) async fn bind(addresses: &[SocketAddr], settings: &str) -> Result<Listeners, BindError> {
    let mut listeners = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let bound = Listener::bind(*address).await;
        listeners.push(bound.map_err(|reason| BindError {
            address: *address,
            key: "listen",
            index: Some(index),
            settings: settings.to_owned(),
            reason,
        })?);
    }
    Ok(Listeners(listeners))
}

/// Binds the one address of the setting `key`.
pub(crate) async fn bind_one(
    address: SocketAddr,
    key: &'static str,
    settings: &str,
) -> Result<Listeners, BindError> {
    let bound = Listener::bind(address).await.map_err(|reason| BindError {
        address,
        key,
        index: None,
        settings: settings.to_owned(),
        reason,
    });
    bound.map(|listener| Listeners(vec![listener]))
}

impl Listener {
    async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, door: Door::Plain })
    }
}

impl Listeners {
    /// What is really bound, in the order of the settings.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|listener| listener.address).collect()
    }

    /// These speak TLS and nothing else.
    pub(crate) fn secured(mut self, acceptor: &TlsAcceptor) -> Self {
        for listener in &mut self.0 {
            listener.door = Door::Secure(acceptor.clone());
        }
        self
    }

    /// These and `others`, under the same bounds.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Serves until `closing` is cancelled, then lets running requests finish for a short while.
    pub(crate) async fn serve(
        self,
        router: Router,
        outlets: Arc<Outlets>,
        closing: CancellationToken,
    ) {
        self.serve_within(PATIENCE, router, outlets, closing).await;
    }

    async fn serve_within(
        self,
        patience: Patience,
        router: Router,
        outlets: Arc<Outlets>,
        closing: CancellationToken,
    ) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut loops = JoinSet::new();
        for Listener { socket, door, .. } in self.0 {
            let (router, outlets, closing) =
                (router.clone(), Arc::clone(&outlets), closing.clone());
            let service = Service { door, router, patience, outlets, closing };
            loops.spawn(accept(socket, service, permits.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

impl Door {
    fn scheme(&self) -> Scheme {
        match self {
            Self::Plain => Scheme::Http,
            Self::Secure(_) => Scheme::Https,
        }
    }
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    handshake: Duration,
    headers: Duration,
    stall: Duration,
}

const PATIENCE: Patience =
    Patience { handshake: HANDSHAKE_TIME_MAX, headers: HEADER_TIME_MAX, stall: STALL_TIME_MAX };

/// What every connection needs.
#[derive(Clone)]
struct Service {
    door: Door,
    router: Router,
    patience: Patience,
    outlets: Arc<Outlets>,
    closing: CancellationToken,
}

async fn accept(listener: TcpListener, service: Service, permits: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // The semaphore is never closed; should it be, nothing more is accepted.
            let permit = permits.clone().acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        tokio::select! {
            () = service.closing.cancelled() => break,
            Some((permit, accepted)) = next => match accepted {
                Ok((stream, address)) => {
                    let connection = welcome(stream, address, service.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
async fn welcome(stream: TcpStream, address: SocketAddr, service: Service) {
    // Answers are small and complete; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    // The kernel counts while nothing of what was written is taken (tcp(7)).
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(service.patience.stall));
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
    match service.door.clone() {
        Door::Plain => converse(stream, address, service).await,
        Door::Secure(acceptor) => {
            let closing = service.closing.clone();
            let handshake = shake_hands(stream, &acceptor, &service);
            tokio::select! {
                secured = handshake => {
                    if let Some(stream) = secured {
                        converse(stream, address, service).await;
                    }
                }
                () = closing.cancelled() => {}
            }
        }
    }
}

/// The handshake of TLS; `None` where it comes to nothing, which is counted.
async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    service: &Service,
) -> Option<TlsStream<TcpStream>> {
    let outlets = &service.outlets;
    match tokio::time::timeout(service.patience.handshake, secure(stream, acceptor)).await {
        Ok(Ok(secured)) => {
            outlets.tls_handshakes_ok.add(1);
            Some(secured)
        }
        Ok(Err(error)) => {
            // Phones that do not know the authority yet end it so, every time.
            tracing::debug!(%error, "a handshake of TLS failed");
            outlets.tls_handshakes_failed.add(1);
            None
        }
        Err(_) => {
            outlets.tls_handshakes_slow.add(1);
            None
        }
    }
}

/// The handshake itself. Somebody who speaks HTTP is told so.
async fn secure(mut stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    if length > 0 && first[0] != HANDSHAKE_RECORD {
        // What is left unread would end the connection with a reset, before the answer is read.
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await?;
        stream.write_all(NOT_TLS).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no TLS"));
    }
    acceptor.accept(stream).await
}

/// Serves requests to the end of the connection.
async fn converse<S>(stream: S, address: SocketAddr, service: Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scheme = service.door.scheme();
    let Service { router, patience, closing, .. } = service;
    let router = TowerToHyperService::new(router);
    let serve = |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(address));
        request.extensions_mut().insert(scheme);
        router.call(request)
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.headers)
        .max_buf_size(HEADERS_LENGTH_MAX)
        .serve_connection(TokioIo::new(stream), service_fn(serve))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            let drained = tokio::time::timeout(DRAIN_TIME_MAX, connection).await;
            drained.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::sync::Notify;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::data_dir::tests::Temporary;
    use crate::tls::{self, Certificates};

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_busy_port_is_named_with_its_setting_and_the_way_out() {
        let first = bind(&[loopback()], "m.toml").await.unwrap();
        let taken = first.addresses()[0];
        let error = bind(&[loopback(), taken], "m.toml").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "port {taken} (listen[1]) is in use; stop the other program or change `listen` in \
                 m.toml"
            )
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        let error = bind(&["192.0.2.1:0".parse().unwrap()], "m.toml").await.unwrap_err();
        let wanted = "192.0.2.1:0 (listen[0]) is no address of this machine; ";
        assert!(error.to_string().starts_with(wanted), "{error}");
    }

    #[tokio::test]
    async fn every_listener_serves_and_the_end_waits_for_running_answers() {
        let begun = Arc::new(Notify::new());
        let finish = Arc::new(Notify::new());
        let slow = {
            let (begun, finish) = (begun.clone(), finish.clone());
            move || async move {
                begun.notify_one();
                finish.notified().await;
                "slow"
            }
        };
        let router = Router::new().route("/", get(|| async { "ok" })).route("/slow", get(slow));
        let listeners = bind(&[loopback(), loopback()], "m.toml").await.unwrap();
        let addresses = listeners.addresses();
        let closing = CancellationToken::new();
        let serving = tokio::spawn(listeners.serve(router, Arc::default(), closing.clone()));
        for address in &addresses {
            assert!(ask(*address, "/").await.ends_with("\r\n\r\nok"));
        }

        let running = tokio::spawn(ask(addresses[0], "/slow"));
        begun.notified().await;
        closing.cancel();
        finish.notify_one();
        assert!(running.await.unwrap().ends_with("slow"));
        serving.await.unwrap();
        assert!(TcpStream::connect(addresses[0]).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_headers_is_cut_off() {
        let listeners = bind(&[loopback()], "m.toml").await.unwrap();
        let address = listeners.addresses()[0];
        let patience = Patience { headers: Duration::from_millis(20), ..PATIENCE };
        let closing = CancellationToken::new();
        tokio::spawn(listeners.serve_within(patience, Router::new(), Arc::default(), closing));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut rest = Vec::new();
        // The read ends because the server ends the connection.
        stream.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_never_reads_its_answer_is_cut_off() {
        let listeners = bind(&[loopback()], "m.toml").await.unwrap();
        let address = listeners.addresses()[0];
        let patience = Patience { stall: Duration::from_millis(200), ..PATIENCE };
        // More than both ends' buffers hold.
        let router = Router::new().route("/", get(|| async { vec![0_u8; 64 << 20] }));
        let closing = CancellationToken::new();
        tokio::spawn(listeners.serve_within(patience, router, Arc::default(), closing));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let cut_off = async {
            // Nobody is there any more as soon as something that is sent meets a reset.
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), cut_off).await.unwrap();
    }

    /// A server by TLS with an authority of its own; where it is, and what a client trusts.
    struct SecureServer {
        address: SocketAddr,
        connector: TlsConnector,
        outlets: Arc<Outlets>,
        _data: Temporary,
    }

    impl SecureServer {
        async fn start(patience: Patience) -> Self {
            let data = Temporary::new();
            let (tls, _) = tls::open(&Certificates::Local, data.0.clone(), Vec::new()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(tls.authority().unwrap()).unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let listeners = bind_one(loopback(), "http.https", "m.toml").await.unwrap();
            let address = listeners.addresses()[0];
            let outlets = Arc::<Outlets>::default();
            let router =
                Router::new().route("/", get(|scheme: Scheme| async move { scheme.as_str() }));
            let secured = listeners.secured(&tls.acceptor(&["http/1.1"]).unwrap());
            let closing = CancellationToken::new();
            tokio::spawn(secured.serve_within(patience, router, Arc::clone(&outlets), closing));
            let connector = TlsConnector::from(Arc::new(client));
            Self { address, connector, outlets, _data: data }
        }
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_is_served_by_tls() {
        let server = SecureServer::start(PATIENCE).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::from(server.address.ip());
        let mut stream = server.connector.connect(name, stream).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nhttps"), "{answer}");
        assert_eq!(server.outlets.tls_handshakes_ok.value(), 1);
    }

    #[tokio::test]
    async fn who_speaks_http_to_the_port_of_https_is_told_so() {
        let server = SecureServer::start(PATIENCE).await;
        let answer = ask(server.address, "/").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("This port speaks HTTPS: write https:// before the address.\n"));
        assert_eq!(server.outlets.tls_handshakes_failed.value(), 1);
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_handshake_is_cut_off() {
        let patience = Patience { handshake: Duration::from_millis(20), ..PATIENCE };
        let server = SecureServer::start(patience).await;
        // Nothing at all, and the beginning of a record.
        for beginning in [&b""[..], &[HANDSHAKE_RECORD, 3, 1, 2]] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(beginning).await.unwrap();
            let mut rest = Vec::new();
            // The read ends because the server ends the connection; with a reset where it has not read all.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "{rest:?}");
        }
        assert_eq!(server.outlets.tls_handshakes_slow.value(), 2);
    }
}
