//! One publishing connection: offered, connected, fed, ended.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use media::peer::client::ClientError;
use media::peer::pusher::{PushError, PushFigures, Pusher, PusherFactory, PusherOutput};
use media::{Frame, MediaKind};
use secrecy::SecretString;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, FramesIn};
use super::{PushPlan, tell_live};
use crate::remote::{HttpClient, Redirects, RemoteError, Session};

/// How long a request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);
/// How long ICE and DTLS may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Longest datagram that a server sends.
const DATAGRAM_BYTES: usize = 2048;

/// Why a publication is over, or did not come about.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server does not want it, or cannot be asked.
    Refused(RemoteError),
    /// Its answer cannot be used.
    Answer(ClientError),
    /// It takes no frame of the source's picture.
    Codec(PushError),
    /// No socket.
    Socket(std::io::Error),
    /// ICE and DTLS led to nothing.
    NotConnected,
    /// It was there and is gone.
    Lost,
    /// We ended it.
    Stopped,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Answer(error) => error.fmt(f),
            Self::Codec(error) => error.fmt(f),
            Self::Socket(error) => write!(f, "no socket: {error}"),
            Self::NotConnected => {
                let seconds = CONNECT_TIME_MAX.as_secs();
                write!(f, "the server answered, but ICE and DTLS were not done within {seconds} s")
            }
            Self::Stopped => f.write_str("ended"),
            Self::Lost => {
                f.write_str("the server ended the session, or cannot be reached any more")
            }
        }
    }
}

/// A running publication.
pub(super) struct Publication {
    http: HttpClient,
    token: Option<SecretString>,
    session: Session,
    pusher: Box<Pusher>,
    socket: UdpSocket,
    due: Instant,
    live: Live,
}

/// What the live line is made of.
struct Live {
    connected: Instant,
    told: Instant,
    pictures: u64,
    pictures_told: u64,
    video: PushFigures,
    bytes_told: u64,
    sound: PushFigures,
}

impl Publication {
    /// Offers and connects.
    pub(super) async fn open(
        plan: &PushPlan,
        factory: &PusherFactory,
        own: IpAddr,
        stop: &CancellationToken,
    ) -> Result<Self, Ended> {
        let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await.map_err(Ended::Socket)?;
        let address = socket.local_addr().map_err(Ended::Socket)?;
        let (pusher, offer) = factory.offer(address, Instant::now()).map_err(Ended::Answer)?;
        let mut http = HttpClient::with_any(REQUEST_TIME_MAX, plan.trust.clone());
        let token = plan.token.clone();
        let to = Redirects::Anywhere;
        let session = Session::open(&mut http, &plan.whip, token.as_ref(), &offer, to).await;
        let session = session.map_err(Ended::Refused)?;
        http.hang_up();
        let now = Instant::now();
        let live = Live {
            connected: now,
            told: now,
            pictures: 0,
            pictures_told: 0,
            video: PushFigures::default(),
            bytes_told: 0,
            sound: PushFigures::default(),
        };
        let pusher = Box::new(pusher);
        let mut publication = Self { http, token, session, pusher, socket, due: now, live };
        let connected = tokio::select! {
            connected = publication.connect() => connected,
            () = stop.cancelled() => Err(Ended::Stopped),
        };
        if connected.is_err() {
            publication.close().await;
        }
        connected.map(|()| publication)
    }

    async fn connect(&mut self) -> Result<(), Ended> {
        self.pusher.handle_answer(&self.session.answer).map_err(Ended::Answer)?;
        self.pusher.handle_timeout(Instant::now());
        let deadline = Instant::now() + CONNECT_TIME_MAX;
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            match self.drain(None).await {
                Drained::Connected => break,
                Drained::Closed => return Err(Ended::NotConnected),
                Drained::Quiet => {}
            }
            tokio::select! {
                () = sleep_until(deadline.into()) => return Err(Ended::NotConnected),
                () = self.input(&mut buffer) => {}
            }
        }
        self.live.connected = Instant::now();
        self.live.told = self.live.connected;
        Ok(())
    }

    /// Brings frames until the connection is lost.
    pub(super) async fn run(
        &mut self,
        frames: &mut FramesIn,
        feed: &Feed,
        keyframe_wanted: &Notify,
    ) -> Ended {
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            if let Drained::Closed = self.drain(Some(keyframe_wanted)).await {
                return Ended::Lost;
            }
            tokio::select! {
                frame = frames.next(feed) => {
                    if let Err(error) = self.handle_frame(&frame) {
                        return Ended::Codec(error);
                    }
                }
                () = self.input(&mut buffer) => {}
            }
            self.live.tell(feed);
        }
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<(), PushError> {
        let is_picture = frame.codec.kind() == MediaKind::Video;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let captured = SystemTime::UNIX_EPOCH + Duration::from_micros(frame.captured.unix_micros());
        let ago = wall.duration_since(captured).unwrap_or_default();
        match self.pusher.handle_frame(frame, now.checked_sub(ago).unwrap_or(now)) {
            // A picture without its sound is worth having.
            Err(PushError::Codec(_)) if !is_picture => {}
            Err(PushError::Refused(reason)) => tracing::debug!(reason, "frame dropped"),
            Err(error @ PushError::Codec(_)) => return Err(error),
            Ok(()) => self.live.pictures += u64::from(is_picture),
        }
        // What was paced out at a later time is due now.
        self.pusher.handle_timeout(now);
        Ok(())
    }

    /// Waits for a datagram or for the time that the pusher named, and hands it over.
    async fn input(&mut self, buffer: &mut [u8]) {
        tokio::select! {
            received = self.socket.recv_from(buffer) => {
                // An error is what an earlier datagram came to; ICE notices by itself.
                if let Ok((len, source)) = received {
                    self.pusher.handle_datagram(source, &buffer[..len], Instant::now());
                }
            }
            () = sleep_until(self.due.into()) => self.pusher.handle_timeout(Instant::now()),
        }
    }

    /// Does what the pusher wants done.
    async fn drain(&mut self, keyframe_wanted: Option<&Notify>) -> Drained {
        loop {
            match self.pusher.poll_output() {
                PusherOutput::Transmit { destination, contents } => {
                    // Any datagram may be lost; this one is lost at once.
                    let _ = self.socket.send_to(&contents, destination).await;
                }
                PusherOutput::Connected => return Drained::Connected,
                PusherOutput::KeyframeWanted => {
                    if let Some(wanted) = keyframe_wanted {
                        wanted.notify_one();
                    }
                }
                PusherOutput::Figures(MediaKind::Video, figures) => self.live.video = figures,
                PusherOutput::Figures(MediaKind::Audio, figures) => self.live.sound = figures,
                PusherOutput::Closed => return Drained::Closed,
                PusherOutput::Timeout(at) => {
                    self.due = at;
                    return Drained::Quiet;
                }
            }
        }
    }

    /// Ends the session at the server, whatever state it is in.
    pub(super) async fn close(&mut self) {
        // A session that is lost may be gone there as well.
        let _ = self.session.close(&mut self.http, self.token.as_ref()).await;
        self.pusher.close();
        self.drain(None).await;
    }
}

/// What came out of the pusher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    Connected,
    Closed,
    /// Nothing more for now.
    Quiet,
}

impl Live {
    /// One line a second.
    fn tell(&mut self, feed: &Feed) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.told);
        if since < Duration::from_secs(1) {
            return;
        }
        let seconds = since.as_secs_f64();
        let bytes = self.video.bytes + self.sound.bytes;
        let rate = bytes.saturating_sub(self.bytes_told) as f64 * 8e-6 / seconds;
        let fps = (self.pictures - self.pictures_told) as f64 / seconds;
        let round_trip = self.video.round_trip.or(self.sound.round_trip);
        let round_trip = round_trip
            .map_or_else(|| "?".to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        let lost = self.video.lost.or(self.sound.lost);
        let lost = lost.map_or_else(|| "?".to_owned(), |share| format!("{:.1} %", share * 100.0));
        tell_live(&format!(
            "published {:.0} s  {rate:.2} Mbit/s  {fps:.1} fps  rtt {round_trip}  lost {lost}  \
             nacks {}  keyframes asked {}  dropped {}  lost by the source {}",
            now.saturating_duration_since(self.connected).as_secs_f64(),
            self.video.nacks + self.sound.nacks,
            self.video.keyframe_requests,
            feed.dropped(),
            feed.lost(),
        ));
        (self.told, self.bytes_told, self.pictures_told) = (now, bytes, self.pictures);
    }
}
