//! `/ws/stream/stats`: dashboards are told of every change as it happens.
//!
//! The first message is the whole state; from then on what changed, at most every 250 ms, and the figures
//! every 5 s where nothing did. A client is told what it may see, and nothing more once its token is over.
//! A client that does not read is left behind by nothing but itself: it is told the state that there is
//! when it reads again, and is dropped when it takes nothing for [`SEND_TIME_MAX`].

mod feed;
mod view;

use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::caller::Caller;
use super::extract::{Params, Scheme, authority};
use super::problem::Problem;
use super::voice::{accept_upgrade, client_address};
use super::wire::live::{LiveError, LiveQuery, News, RenewedToken, Said, Told};
use super::{Http, api, renewal, rfc3339};
use crate::app::Snapshot;
use view::View;

pub(super) use feed::Feed;

/// Most sockets: a control room of a hundred screens, each with a second tab. Each takes up to 300 KB
/// while it is written to.
pub(super) const SOCKETS_MAX: usize = 256;

/// Of these, what one address may have: a proxy in front, or a house behind one router.
pub(super) const SOCKETS_OF_ADDRESS_MAX: usize = 192;

/// Where nothing changes, the figures are told this often.
const STATS_INTERVAL: Duration = Duration::from_secs(5);

/// How often the server asks itself whether this may go on: tokens end, and so does the server. A viewer
/// who lost the right to watch is gone within 5 s.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take nothing of a message.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// From our close frame to the client's.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest message that is read: a token with the longest claims has 4 KiB.
const READ_LENGTH_MAX: usize = 16 * 1024;

/// Read and write buffers.
const BUFFER_LENGTH: usize = 8 * 1024;

/// What may wait to be written: the figures of 1,000 watched cameras, twice.
const WRITE_LENGTH_MAX: usize = 512 * 1024;

/// Messages that a client may send between two checks. A renewal comes every few minutes.
const MESSAGES_MAX: u32 = 10;

/// The route, as callers' rights know it.
const ROUTE: &str = "/ws/stream/stats";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// `GET /ws/stream/stats`
pub(super) async fn connect(
    State(http): State<Http>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    admit_origin(&http, &parts)?;
    let Params(query) = Params::<LiveQuery>::from_request_parts(&mut parts, &()).await?;
    let page = api::page_name(query.page.as_deref())?;
    let token = bearer(&parts, query.token)?;
    let caller = http.caller(token.as_ref())?;
    caller.require_route(ROUTE)?;
    let Some(place) = http.live_places().take(client_address(&parts)) else {
        http.outlets().live_refused.add(1);
        let sentence = "too many dashboards are connected; try again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
    };
    let (response, upgrade) = accept_upgrade(parts)?;
    tokio::spawn(async move {
        // It fails where the connection breaks before the answer is written.
        if let Ok(stream) = upgrade.await {
            http.outlets().live_sockets.add(1);
            if let Some(page) = &page {
                http.app().page_opened(page.clone()).await;
            }
            Conversation { http: &http, caller, token, said: 0 }.run(TokioIo::new(stream)).await;
            if let Some(page) = page {
                http.app().page_closed(page).await;
            }
            http.outlets().live_sockets.subtract_one();
        }
        drop(place);
    });
    Ok(response)
}

/// Browsers let every page open a WebSocket anywhere, and say only whose page it is.
fn admit_origin(http: &Http, parts: &Parts) -> Result<(), Problem> {
    let Some(origin) = parts.headers.get(ORIGIN) else { return Ok(()) };
    let host = authority(&parts.headers, &parts.uri);
    if http.rules().admits_origin(origin, host.as_ref(), Scheme::of(&parts.extensions)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "pages of this origin may not watch what happens here; add the origin to \
         http.allowed_origins if it is yours",
    ))
}

/// The header, or what stands for it in the query.
fn bearer(parts: &Parts, token: Option<String>) -> Result<Option<HeaderValue>, Problem> {
    let Some(token) = token else { return Ok(parts.headers.get(AUTHORIZATION).cloned()) };
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    header.map(Some).map_err(|_| Problem::bad_request("the token in the query is no token"))
}

/// Why a conversation is over.
enum Ending {
    /// Both sides have said it, or the connection broke.
    Done,
    /// The client takes nothing of what is written.
    Slow,
    /// We say why.
    Close(CloseCode, String),
}

/// One socket, from its upgrade to its end.
struct Conversation<'a> {
    http: &'a Http,
    caller: Caller,
    /// The newest one; `None` where nobody asks for it.
    token: Option<HeaderValue>,
    /// Messages since the last check.
    said: u32,
}

impl Conversation<'_> {
    async fn run(mut self, stream: TokioIo<Upgraded>) {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_LENGTH)
            .write_buffer_size(BUFFER_LENGTH)
            .max_write_buffer_size(WRITE_LENGTH_MAX)
            .max_message_size(Some(READ_LENGTH_MAX))
            .max_frame_size(Some(READ_LENGTH_MAX));
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        match self.serve(&mut socket).await {
            Err(Ending::Close(code, reason)) => close(&mut socket, code, reason).await,
            Err(Ending::Slow) => self.http.outlets().live_dropped_slow.add(1),
            Err(Ending::Done) | Ok(()) => {}
        }
    }

    /// Goes on until the end, which is an `Err`.
    async fn serve(&mut self, socket: &mut Socket) -> Result<(), Ending> {
        let mut feed = self.http.feed().subscribe();
        let mut view = self.view(self.http.whole().snapshot().await);
        self.tell(socket, |timestamp| view.first(timestamp)).await?;
        let mut stats_due = Instant::now() + STATS_INTERVAL;
        let mut checks = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = socket.next() => self.hear(socket, read).await?,
                changed = feed.changed() => {
                    changed.map_err(|_| Ending::Done)?;
                    let Some(seen) = feed.borrow_and_update().clone() else { continue };
                    let now = self.view(Snapshot::clone(&seen));
                    let before = std::mem::replace(&mut view, now);
                    if self.tell(socket, |timestamp| view.since(&before, timestamp)).await? {
                        stats_due = Instant::now() + STATS_INTERVAL;
                    }
                }
                () = tokio::time::sleep_until(stats_due) => {
                    self.tell(socket, |timestamp| vec![view.stats(timestamp)]).await?;
                    stats_due = Instant::now() + STATS_INTERVAL;
                }
                _ = checks.tick() => self.check()?,
            }
        }
    }

    /// Whether it may go on.
    fn check(&mut self) -> Result<(), Ending> {
        self.said = 0;
        if self.http.is_closing() || !self.http.app().is_running() {
            return Err(Ending::Close(CloseCode::Away, "the server ends".to_owned()));
        }
        match self.http.caller(self.token.as_ref()) {
            Ok(caller) => self.caller = caller,
            Err(error) => return Err(Ending::Close(CloseCode::Policy, error.to_string())),
        }
        Ok(())
    }

    fn view(&self, snapshot: Snapshot) -> View {
        View::of(&self.caller.visible(snapshot))
    }

    /// Sends what `news` makes at this time of day. Whether the figures were among it.
    async fn tell(
        &self,
        socket: &mut Socket,
        news: impl FnOnce(&str) -> Vec<News>,
    ) -> Result<bool, Ending> {
        let timestamp = rfc3339(SystemTime::now());
        let news = news(&timestamp);
        let has_stats = news.iter().any(|news| matches!(news, News::StreamStats(_)));
        for news in news {
            send(socket, &Told { news, timestamp: timestamp.clone() }).await?;
        }
        Ok(has_stats)
    }

    async fn hear(
        &mut self,
        socket: &mut Socket,
        read: Option<Result<Message, Error>>,
    ) -> Result<(), Ending> {
        let text = match read {
            None => return Err(Ending::Done),
            Some(Ok(Message::Text(text))) => text,
            // The library answers pings and closes.
            Some(Ok(
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_),
            )) => {
                return Ok(());
            }
            Some(Ok(Message::Binary(_))) => {
                let reason = "messages are JSON, in text frames";
                return Err(Ending::Close(CloseCode::Unsupported, reason.to_owned()));
            }
            Some(Err(Error::Capacity(_))) => {
                return Err(Ending::Close(CloseCode::Size, "a message is too long".to_owned()));
            }
            Some(Err(_)) => return Err(Ending::Done),
        };
        self.said += 1;
        if self.said > MESSAGES_MAX {
            return Err(Ending::Close(CloseCode::Policy, "too many messages".to_owned()));
        }
        let news = match serde_json::from_str(&text) {
            Ok(Said::Renew { token }) => self.renew(&token).await,
            Err(_) => refusal("the message must be {\"type\": \"RENEW\", \"token\": \"…\"}"),
        };
        self.tell(socket, |_| vec![news]).await?;
        Ok(())
    }

    /// A fresh token for one that holds; where it is this socket's own, it lives on with it.
    async fn renew(&mut self, token: &str) -> News {
        let fresh = match renewal::renew(self.http, token).await {
            Ok(fresh) => fresh,
            Err(problem) => return refusal(problem.detail()),
        };
        let is_own =
            |own: &HeaderValue| own.as_bytes().strip_prefix(b"Bearer ") == Some(token.as_bytes());
        if self.token.as_ref().is_some_and(is_own)
            && let Ok(header) = HeaderValue::try_from(format!("Bearer {}", fresh.token))
        {
            self.token = Some(header);
        }
        News::Token(RenewedToken { expires_at: fresh.expires_at, token: fresh.token })
    }
}

fn refusal(message: &str) -> News {
    News::Error(LiveError { message: message.to_owned() })
}

async fn send(socket: &mut Socket, told: &Told) -> Result<(), Ending> {
    let Ok(text) = serde_json::to_string(told) else {
        tracing::error!("a message to a dashboard could not be written as JSON");
        return Err(Ending::Done);
    };
    match timeout(SEND_TIME_MAX, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ending::Done),
        Err(_) => Err(Ending::Slow),
    }
}

/// Says that it is over and waits a moment for the client to say so too.
async fn close(socket: &mut Socket, code: CloseCode, reason: String) {
    let goodbye = async {
        let frame = CloseFrame { code, reason: reason.into() };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // Who does not answer is cut off.
    let _ = timeout(CLOSE_TIME_MAX, goodbye).await;
}
