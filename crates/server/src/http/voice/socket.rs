//! One WebSocket of the voice relay, from its upgrade to its end.
//!
//! Bounded: a message is at most [`READ_LENGTH_MAX`] in memory, whatever its header says; a peer that
//! does not read is given up by the relay and by [`SEND_TIME_MAX`]; one that is gone without a word is
//! found by pings.

use std::net::IpAddr;
use std::time::Duration;

use engine::voice::ClientMessage;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::messages;
use crate::voice::{Closed, Messages, Speaking, Told, Voice};

/// Longest message that is taken in, to be answered with an error where it is longer than one may be. What
/// is longer still ends the connection at its header.
const READ_LENGTH_MAX: usize = 1024 * 1024;

/// Read and write buffers. Messages have some 100 bytes, offers 8 KiB.
const BUFFER_LENGTH: usize = 8 * 1024;

/// What may wait to be written: the largest offer, twice.
const WRITE_LENGTH_MAX: usize = 64 * 1024;

/// How often the server pings: proxies cut what is idle for 60 s (nginx).
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Without a sign of life for so long, three pings, the peer is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long the peer may take nothing of a message.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// From our close frame to the peer's.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// What is read and thrown away after an error, so that the peer, which may still be writing, comes to
/// read why: some 10 MB that it has under way.
const DRAIN_LENGTH_MAX: u64 = 32 * 1024 * 1024;

/// The same in time.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Why the conversation is over.
enum Ending {
    /// Both sides have said it, or the connection broke.
    Done,
    /// We say why.
    Close(CloseCode, &'static str),
    /// What came is not WebSocket, or more than is taken: the peer may be in the middle of it.
    Fault(CloseCode, String),
}

/// Serves one WebSocket to its end.
pub(super) async fn converse(stream: TokioIo<Upgraded>, voice: &Voice, address: IpAddr) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_LENGTH)
        .write_buffer_size(BUFFER_LENGTH)
        .max_write_buffer_size(WRITE_LENGTH_MAX.max(BUFFER_LENGTH + 1))
        .max_message_size(Some(READ_LENGTH_MAX))
        .max_frame_size(Some(READ_LENGTH_MAX));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let Some(client) = voice.connect(address).await else { return };
    let (speaking, mut messages) = client.split();
    let ending = serve(&mut socket, &speaking, &mut messages).await;
    // The relay forgets it before the last words are said, which may take a while.
    drop((speaking, messages));
    match ending {
        Ending::Done => {}
        Ending::Close(code, reason) => close(&mut socket, code, reason).await,
        Ending::Fault(code, sentence) => {
            let error = engine::voice::ServerMessage::Error(
                engine::voice::ServerTrouble::BadMessage(sentence).into(),
            );
            if send(&mut socket, Message::text(messages::write(&error))).await {
                close(&mut socket, code, "").await;
                drain(&mut socket).await;
            }
        }
    }
}

async fn serve(socket: &mut Socket, speaking: &Speaking, messages: &mut Messages) -> Ending {
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let is_sent = tokio::select! {
            read = socket.next() => {
                heard = Instant::now();
                match hear(read, speaking).await {
                    Some(ending) => return ending,
                    None => true,
                }
            }
            told = messages.next() => match told {
                Told::Message(message) => {
                    send(socket, Message::text(messages::write(&message))).await
                }
                Told::Closed(reason) => return farewell(reason),
            },
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    tracing::info!(connection = %speaking.id(), "nothing comes any more, not even an answer to pings");
                    return Ending::Done;
                }
                send(socket, Message::Ping(Default::default())).await
            }
        };
        if !is_sent {
            return Ending::Done;
        }
    }
}

/// Hands on what came; the end, if it is that.
async fn hear(read: Option<Result<Message, Error>>, speaking: &Speaking) -> Option<Ending> {
    let bytes = read.as_ref().map_or(0, |read| read.as_ref().map_or(0, Message::len));
    let said = match read {
        None => return Some(Ending::Done),
        Some(Ok(Message::Text(text))) => messages::read(&text),
        Some(Ok(Message::Binary(_))) => Err(messages::binary()),
        // Pings are answered by the library.
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
            Ok(ClientMessage::Control)
        }
        // The library answers it; nothing comes after.
        Some(Ok(Message::Close(_))) => return None,
        Some(Err(error)) => return Some(broken(error)),
    };
    if speaking.say(said, bytes).await { None } else { Some(farewell(Closed::GoingAway)) }
}

fn broken(error: Error) -> Ending {
    match error {
        Error::Capacity(_) => {
            let sentence = messages::too_long().0;
            Ending::Fault(CloseCode::Size, sentence)
        }
        Error::Utf8(_) => {
            Ending::Fault(CloseCode::Invalid, "a text message is not UTF-8".to_owned())
        }
        Error::Protocol(error) => {
            Ending::Fault(CloseCode::Protocol, format!("this is not WebSocket: {error}"))
        }
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::AttackAttempt
        | Error::Url(_) => Ending::Done,
    }
}

/// RFC 6455 §7.4.1, and IANA's registry for 1013.
fn farewell(reason: Closed) -> Ending {
    match reason {
        Closed::Policy => Ending::Close(CloseCode::Policy, "too many messages"),
        Closed::TryAgainLater => Ending::Close(CloseCode::Again, "all places are taken"),
        Closed::TooSlow => Ending::Close(CloseCode::Policy, "messages are not read fast enough"),
        Closed::GoingAway => Ending::Close(CloseCode::Away, "the server ends"),
    }
}

/// Whether the peer took it.
async fn send(socket: &mut Socket, message: Message) -> bool {
    matches!(timeout(SEND_TIME_MAX, socket.send(message)).await, Ok(Ok(())))
}

/// Says that it is over and waits a moment for the peer to say so too.
async fn close(socket: &mut Socket, code: CloseCode, reason: &'static str) {
    let goodbye = async {
        let frame = CloseFrame { code, reason: reason.into() };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // Who does not answer is cut off.
    let _ = timeout(CLOSE_TIME_MAX, goodbye).await;
}

/// Without this the kernel would reset the connection, and the peer would not read what it was told.
async fn drain(socket: &mut Socket) {
    let mut rest = socket.get_mut().take(DRAIN_LENGTH_MAX);
    let _ = timeout(DRAIN_TIME_MAX, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
