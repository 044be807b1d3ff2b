//! Listening sockets and the connections on them.
//!
//! Bounded in three ways: connections at once, time to send the headers, size of the headers.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bind_error::BindError;

/// Connections at once over all listeners: 1000 viewers with the six connections that a browser
/// opens to one origin, and as much room again for scripts. Further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 8192;

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
pub(crate) struct Listeners {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// Binds all addresses, or none. `settings` is named in the error.
pub(crate) async fn bind(addresses: &[SocketAddr], settings: &str) -> Result<Listeners, BindError> {
    let mut listeners = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let failed = |reason| BindError {
            address: *address,
            key: "listen",
            index: Some(index),
            settings: settings.to_owned(),
            reason,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listeners.push((listener, bound));
    }
    let (listeners, addresses) = listeners.into_iter().unzip();
    Ok(Listeners { listeners, addresses })
}

impl Listeners {
    /// What is really bound, in the order of the settings.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `closing` is cancelled, then lets running requests finish for a short while.
    pub(crate) async fn serve(self, router: Router, closing: CancellationToken) {
        let patience = Patience { headers: HEADER_TIME_MAX, stall: STALL_TIME_MAX };
        self.serve_within(patience, router, closing).await;
    }

    async fn serve_within(self, patience: Patience, router: Router, closing: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let service = Service { router, patience, closing };
        let mut loops = JoinSet::new();
        for listener in self.listeners {
            loops.spawn(accept(listener, service.clone(), permits.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    headers: Duration,
    stall: Duration,
}

/// What every connection needs.
#[derive(Clone)]
struct Service {
    router: Router,
    patience: Patience,
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
                    let connection = converse(stream, address, service.clone());
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
async fn converse(stream: TcpStream, address: SocketAddr, service: Service) {
    // Answers are small and complete; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let Service { router, patience, closing } = service;
    // The kernel counts while nothing of what was written is taken (tcp(7)).
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(patience.stall));
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
    let router = TowerToHyperService::new(router);
    let serve = |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(address));
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

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
        let addresses = listeners.addresses().to_vec();
        let closing = CancellationToken::new();
        let serving = tokio::spawn(listeners.serve(router, closing.clone()));
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
        let patience = Patience { headers: Duration::from_millis(20), stall: STALL_TIME_MAX };
        let closing = CancellationToken::new();
        tokio::spawn(listeners.serve_within(patience, Router::new(), closing));
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
        let patience = Patience { headers: HEADER_TIME_MAX, stall: Duration::from_millis(200) };
        // More than both ends' buffers hold.
        let router = Router::new().route("/", get(|| async { vec![0_u8; 64 << 20] }));
        tokio::spawn(listeners.serve_within(patience, router, CancellationToken::new()));
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
}
