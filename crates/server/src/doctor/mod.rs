//! What stands between a server and a picture: each part is tried for real, and each finding is one
//! sentence with one remedy.
//!
//! | module | what |
//! |---|---|
//! | `ports` | are the ports free, or who holds them |
//! | `reach` | the media port, by STUN checks to each candidate that viewers are told |
//! | `certificate` | HTTPS: until when, and for which names |
//! | `clocks` | this machine's clock beside the server's |
//! | `stores` | the store of leases: way in, version, latency, clock, memory, its keys |
//! | `cameras` | each camera of the settings: reached, password, codec, keyframes, B-frames, sound |
//! | `park` | the server's other cameras, which it calls itself: the same, as it tells it |
//!
//! It works beside a running server, of which it asks, and without one. It changes nothing; for the
//! STUN checks, and for each camera that the server alone can call, it holds one reservation for a moment.

mod cameras;
mod certificate;
mod clocks;
mod park;
mod ports;
mod reach;
mod stores;

use secrecy::SecretString;
use url::Url;

use crate::config::Config;
use crate::remote::HttpClient;

pub(crate) use cameras::CameraChoice;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// In the way of a picture or a sound.
    Trouble,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Trouble => "trouble",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Which part it is of, as in `ports`.
    pub(crate) part: &'static str,
    pub(crate) level: Level,
    /// One sentence.
    pub(crate) sentence: String,
    /// What to do; of nothing that is fine.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn fine(part: &'static str, sentence: impl Into<String>) -> Self {
        Self { part, level: Level::Fine, sentence: sentence.into(), remedy: None }
    }

    fn note(part: &'static str, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { part, level: Level::Note, sentence: sentence.into(), remedy: Some(remedy.into()) }
    }

    fn trouble(part: &'static str, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Trouble, ..Self::note(part, sentence, remedy) }
    }
}

/// A running server.
pub(crate) struct RunningServer {
    pub(crate) http: HttpClient,
    pub(crate) base: Url,
    pub(crate) token: Option<SecretString>,
}

/// What is looked at.
pub(crate) struct Checkup<'a> {
    /// The settings of this machine, and the file they are changed in.
    pub(crate) settings: Option<(&'a Config, &'a str)>,
    /// `None`: none runs, or it was not found.
    pub(crate) server: Option<RunningServer>,
    /// Which cameras are called.
    pub(crate) cameras: CameraChoice,
}

/// Something that is told while it works.
pub(crate) enum Progress {
    /// What is tried now.
    Begins(String),
    /// What came of it.
    Found(Finding),
}

/// Tries everything, and tells as it goes.
pub(crate) async fn run(checkup: Checkup<'_>, tell: &mut dyn FnMut(Progress)) {
    let Checkup { settings, mut server, cameras } = checkup;
    if let Some((config, file)) = settings {
        tell(Progress::Begins("ports".to_owned()));
        let answering = match &server {
            None => ports::Answering::Nobody,
            Some(server) => ports::Answering::at(&server.base),
        };
        ports::check(config, file, &answering)
            .into_iter()
            .for_each(|found| tell(Progress::Found(found)));
    }
    tell(Progress::Begins("the way to the media port".to_owned()));
    let found = match (&mut server, settings) {
        (Some(server), _) => reach::check_server(server).await,
        (None, Some((config, _))) => reach::check_machine(&config.media).await,
        (None, None) => Vec::new(),
    };
    found.into_iter().for_each(|found| tell(Progress::Found(found)));
    tell(Progress::Begins("certificate and clock".to_owned()));
    let found = certificate::check(settings.map(|(config, _)| config), server.as_mut()).await;
    found.into_iter().for_each(|found| tell(Progress::Found(found)));
    if let Some(server) = &mut server {
        clocks::check(server).await.into_iter().for_each(|found| tell(Progress::Found(found)));
    }
    let config = settings.map(|(config, _)| config);
    if let Some(config) = config {
        tell(Progress::Begins("the store of leases".to_owned()));
        stores::check(config).await.into_iter().for_each(|found| tell(Progress::Found(found)));
    }
    cameras::check(config, server.as_mut(), &cameras, tell).await;
}
