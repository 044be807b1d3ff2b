//! The library of a running Manifold: its cameras, for who may see them.
//!
//! A description holds the camera's stream for a moment and takes no quota; playing is a lease.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use control::{CameraId, Class, Quality, ReservationId};
use engine::Rendition;
use media::Codec;
use secrecy::{ExposeSecret, SecretString};

use super::auth::{Authorization, Challenge, Verdict, same};
use super::guesses::Guesses;
use super::message::Status;
use super::sdp::{Description, TrackFormat};
use super::turns::{TURN_WAIT_MAX, Turn, Turns};
use super::uri::Uri;
use super::{Ask, CONNECTIONS_MAX, Library, Played, Playing, Refusal};
use crate::admission::{Crowd, Limits};
use crate::app::{App, Held, HoldError, Permit, ReadError, Reading, ReserveError};
use crate::config::{AuthMode, Rtsp, RtspUser};
use crate::http::{Caller, Keyring};

/// How long a client waits for a camera's first keyframe. Players give up after 10 s themselves.
const DESCRIBE_TIME_MAX: Duration = Duration::from_secs(9);

/// From a stream's first picture to its first sound, where it has any: a packet of it is 60 ms at most.
const SOUND_TIME_MAX: Duration = Duration::from_secs(1);

/// From one look whether the sound has come to the next.
const SOUND_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Connections of one address: a recorder of the whole park of 500.
const CONNECTIONS_AN_ADDRESS: usize = 512;

/// Of them without a camera that they were let see: a recorder that comes back connects for all of its
/// cameras at once, and twice as many as can be described at once wait no longer than a round trip.
const STRANGERS_AN_ADDRESS: usize = 128;

/// The same of all addresses: four such recorders.
const STRANGERS_MAX: usize = 4 * STRANGERS_AN_ADDRESS;

/// Whom a reservation is for where nobody said who he is.
const ANYBODY: &str = "rtsp";

/// All cameras, and who may see them.
#[derive(Clone)]
pub(crate) struct Cameras(Arc<Inner>);

struct Inner {
    app: App,
    keyring: Arc<Keyring>,
    users: Vec<RtspUser>,
    guesses: Mutex<Guesses>,
    turns: Turns,
    /// A password or token is asked for.
    asks: bool,
}

impl Cameras {
    /// Nobody is asked for anything in mode `open` while there are no users.
    pub(crate) fn new(app: App, keyring: Arc<Keyring>, rtsp: &Rtsp, mode: AuthMode) -> Self {
        let users = rtsp.users.clone();
        let asks = mode == AuthMode::Keys || !users.is_empty();
        Self(Arc::new(Inner {
            app,
            keyring,
            users,
            guesses: Mutex::default(),
            turns: Turns::default(),
            asks,
        }))
    }
}

/// Who asks, once he has proved it.
enum Who {
    /// Gets a reservation of his own with each connection.
    User(String),
    /// The same, for cameras that are his and as long as his token is good.
    Caller(Box<Caller>, Permit),
    /// Has one: a viewer's token is good for its own reservation.
    Viewer(ReservationId, Permit),
}

/// What is kept between description and playing.
pub(crate) struct Described {
    who: Who,
    camera: String,
    rendition: Rendition,
    /// Keeps the source running until the lease does.
    held: Held,
    /// The address's own, for as long as it holds something.
    turn: Turn,
}

impl Library for Cameras {
    // Strangers take places from themselves: somebody with a password behind the same NAT shows it in
    // the next round trip.
    const LIMITS: Limits = Limits {
        all: CONNECTIONS_MAX,
        an_address: CONNECTIONS_AN_ADDRESS,
        strangers: STRANGERS_MAX,
        strangers_an_address: STRANGERS_AN_ADDRESS,
        crowd: Crowd::Replaces,
    };

    type Described = Described;
    type Playing = Reading;

    async fn admit(&self, ask: Ask<'_>) -> Result<Described, Refusal> {
        let who = self.0.who(&ask)?;
        let Uri { name, sub, .. } = ask.uri;
        self.0.check_camera(&who, name).await?;
        let rendition = if *sub { Rendition::Sub } else { Rendition::Main };
        let turn = self.0.turns.take(ask.ip).await.ok_or_else(|| {
            let sentence = "too many cameras are being described for your address; try again later";
            Refusal::NotBefore(TURN_WAIT_MAX, sentence.to_owned())
        })?;
        let held = self.0.app.hold(name, rendition).await.map_err(not_held)?;
        Ok(Described { who, camera: name.clone(), rendition, held, turn })
    }

    async fn describe(&self, described: &mut Described) -> Result<Description, Refusal> {
        let Described { camera, held, .. } = described;
        let picture = first_picture(held).await?;
        let sound = first_sound(&self.0.app, held).await;
        let tracks = std::iter::once(picture).chain(sound.map(TrackFormat::of_sound)).collect();
        Ok(Description { title: camera.clone(), tracks })
    }

    async fn play(&self, described: Described) -> Result<Reading, Refusal> {
        let Described { who, camera, rendition, held, turn } = described;
        let app = &self.0.app;
        let (user, permit) = match &who {
            Who::Viewer(reservation, permit) => {
                let reading = app.read(reservation.clone(), &camera, &held, Some(*permit)).await;
                return reading.map_err(not_read);
            }
            Who::User(user) => (user.as_str(), None),
            Who::Caller(caller, permit) => (caller.identity(), Some(*permit)),
        };
        let quality = match rendition {
            Rendition::Main => Quality::High,
            Rendition::Sub => Quality::Low,
        };
        let reserved =
            app.reserve(&camera, user, (quality, Class::LOWEST)).await.map_err(not_reserved)?;
        let reading = app.read(reserved.id.clone(), &camera, &held, permit).await;
        drop((held, turn));
        if reading.is_err() {
            // Where it ended before, there is nothing to do.
            let _ = app.release(reserved.id.as_str()).await;
        }
        reading.map_err(not_read)
    }
}

impl Playing for Reading {
    async fn next(&mut self) -> Option<Played> {
        self.next_tapped().await.map(Played::Tapped)
    }

    fn alive(&self) {
        Self::alive(self);
    }
}

/// Waits for the first keyframe, which says what the picture is.
async fn first_picture(held: &mut Held) -> Result<TrackFormat, Refusal> {
    let unavailable = |sentence: String| Refusal::Because(Status::ServiceUnavailable, sentence);
    match tokio::time::timeout(DESCRIBE_TIME_MAX, held.keyframe()).await {
        Ok(Ok(keyframe)) => Ok(TrackFormat::of_keyframe(&keyframe)),
        Ok(Err(Some(failure))) => Err(unavailable(failure.to_string())),
        Ok(Err(None)) => Err(unavailable("the camera was stopped".to_owned())),
        Err(_) => {
            let waited = DESCRIBE_TIME_MAX.as_secs();
            Err(unavailable(format!("the camera has sent no keyframe within {waited} s")))
        }
    }
}

/// The sound that goes with it. Of what an encoder, another server or another node sends it is known only once
/// it comes, so that it is waited for where the picture is new.
async fn first_sound(app: &App, held: &Held) -> Option<Codec> {
    loop {
        let (format, since) = app.format(held.stream).await?;
        if format.audio.is_some() || since >= SOUND_TIME_MAX {
            return format.audio;
        }
        tokio::time::sleep(SOUND_LOOK_INTERVAL).await;
    }
}

impl Inner {
    fn who(&self, ask: &Ask<'_>) -> Result<Who, Refusal> {
        if let Some(token) = &ask.uri.token {
            return self.token_of(token, ask.uri);
        }
        if !self.asks {
            return Ok(Who::User(ANYBODY.to_owned()));
        }
        match ask.authorization {
            None => Err(self.unauthorized("this camera asks for a password or a token")),
            Some(Authorization::Bearer(token)) => self.token_of(token, ask.uri),
            Some(Authorization::Basic { user, password }) => {
                let Some(known) = self.users.iter().find(|known| known.name == *user) else {
                    return self.token_of(password, ask.uri);
                };
                let is_right = || has_password(known, password);
                let verdict = || if is_right() { Verdict::Right } else { Verdict::Wrong };
                self.user_of(user, ask.ip, verdict)
            }
            Some(Authorization::Digest(digest)) => {
                let known = self.users.iter().find(|known| known.name == digest.user);
                let verify =
                    |known: &RtspUser| digest.verify(ask.method.name(), ask.nonce, &known.password);
                self.user_of(&digest.user, ask.ip, || known.map_or(Verdict::Wrong, verify))
            }
        }
    }

    /// Who shows a password is let in if it is right, and if not too many from there were wrong.
    fn user_of(
        &self,
        user: &str,
        ip: IpAddr,
        verdict: impl FnOnce() -> Verdict,
    ) -> Result<Who, Refusal> {
        let now = Instant::now();
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.check(ip, now).map_err(|wait| {
            let sentence = "too many wrong passwords have come from your address; try again later";
            Refusal::NotBefore(wait, sentence.to_owned())
        })?;
        match verdict() {
            Verdict::Right => Ok(Who::User(user.to_owned())),
            Verdict::Stale => {
                let sentence = "the challenge is too old".to_owned();
                Err(Refusal::Unauthorized(Challenge::Stale, sentence))
            }
            Verdict::Wrong => {
                guesses.note_wrong(ip, now);
                Err(self.unauthorized("the user name or the password is wrong"))
            }
        }
    }

    /// A viewer's token opens its own reservation; one that may call the API opens all cameras.
    fn token_of(&self, token: &SecretString, uri: &Uri) -> Result<Who, Refusal> {
        let grant = self
            .keyring
            .verify_token(token.expose_secret(), SystemTime::now())
            .map_err(|error| self.unauthorized(&error.to_string()))?;
        let permit = grant.permit();
        if !grant.is_viewers() {
            let caller =
                Caller::of(&grant).map_err(|error| self.unauthorized(&error.to_string()))?;
            return Ok(Who::Caller(Box::new(caller), permit));
        }
        let forbidden = |sentence: String| Refusal::Because(Status::Forbidden, sentence);
        let camera = CameraId::parse(&uri.name)
            .map_err(|_| not_held(HoldError::UnknownCamera(uri.name.chars().take(64).collect())))?;
        let viewer = grant.viewer_of(&camera.room_name());
        viewer.map(|id| Who::Viewer(id, permit)).map_err(|error| forbidden(error.to_string()))
    }

    /// Cameras that are not the caller's are not there.
    async fn check_camera(&self, who: &Who, camera: &str) -> Result<(), Refusal> {
        let (Who::Caller(caller, _), Ok(camera)) = (who, CameraId::parse(camera)) else {
            return Ok(());
        };
        if caller.is_admin() {
            return Ok(());
        }
        match self.app.source_of(camera.clone()).await {
            Some(source) if caller.may_watch(&camera, &source) => Ok(()),
            Some(_) | None => Err(not_held(HoldError::UnknownCamera(camera.to_string()))),
        }
    }

    fn unauthorized(&self, sentence: &str) -> Refusal {
        let challenge =
            if self.users.is_empty() { Challenge::Basic } else { Challenge::DigestOrBasic };
        Refusal::Unauthorized(challenge, sentence.to_owned())
    }
}

fn has_password(user: &RtspUser, password: &SecretString) -> bool {
    same(user.password.expose_secret(), password.expose_secret())
}

fn not_held(error: HoldError) -> Refusal {
    let status = match &error {
        HoldError::UnknownCamera(_) | HoldError::NoSub(_) => Status::NotFound,
        HoldError::CameraOffline(_) | HoldError::TooMany | HoldError::ShuttingDown => {
            Status::ServiceUnavailable
        }
    };
    Refusal::Because(status, error.to_string())
}

fn not_reserved(error: ReserveError) -> Refusal {
    let status = match &error {
        ReserveError::UnknownCamera(_) => Status::NotFound,
        ReserveError::QuotaExceeded { .. } => Status::NotEnoughBandwidth,
        ReserveError::CameraOffline(_) | ReserveError::StoreLost | ReserveError::ShuttingDown => {
            Status::ServiceUnavailable
        }
    };
    Refusal::Because(status, error.to_string())
}

fn not_read(error: ReadError) -> Refusal {
    let status = match &error {
        ReadError::ReservationEnded | ReadError::OtherStream => Status::Forbidden,
        ReadError::ShuttingDown => Status::ServiceUnavailable,
    };
    Refusal::Because(status, error.to_string())
}
