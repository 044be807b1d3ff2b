//! Sources: what brings a camera's frames in.
//!
//! [`pull`] makes one attempt at one source and feeds an [`Output`] until the source fails. When to
//! try again, and who is told, is the engine's business.

mod audio;
mod clock;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod group;
pub(crate) mod opus;
mod reach;
mod rtsp;
mod source_url;
mod steps;
pub(crate) mod testcard;
mod wall_clock;
mod whep;
mod whip;

use std::sync::Arc;
use std::time::Duration;

use engine::SourceFailure;
use media::{Codec, Frame};
use secrecy::SecretString;
use tokio::sync::Notify;
use url::Url;

use self::testcard::TestCard;
use crate::remote::Trust;

pub(crate) use self::clock::SourceClock;
pub(crate) use self::group::{Group, GroupMeter};
pub(crate) use self::reach::Reach;
pub(crate) use self::source_url::SourceUrl;
pub(crate) use self::testcard::strip;
pub(crate) use self::wall_clock::WallClock;
pub(crate) use self::whip::PublishPoint;

/// How RTP comes from an RTSP camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RtspTransport {
    /// Interleaved in the RTSP connection (RFC 2326 §10.12).
    Tcp,
    /// Over UDP.
    Udp,
}

impl RtspTransport {
    /// As it is written in settings.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// What [`Self::word`] says again.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|transport| transport.word() == word)
    }
}

/// Where a source puts what it has. Implementations never block.
pub(crate) trait Output: Send + Sync + 'static {
    /// The next frame of any of the source's tracks.
    fn frame(&self, frame: Frame);
    /// The first keyframe is there, or the format changed.
    fn live(&self, format: SourceFormat);
    /// Packets lost between the camera and us since the last call.
    fn lost(&self, packets: u64);
}

/// What a live source sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceFormat {
    /// The picture's codec.
    pub(crate) codec: Codec,
    /// Pixels of the picture.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The sound as viewers get it, if there is any.
    pub(crate) audio: Option<Codec>,
}

/// One attempt at a source: connects, then feeds `output` until the source fails. Dropping the
/// future ends the attempt and frees everything (RTSP TEARDOWN and DELETE are sent in the background).
/// `keyframe_wanted` is notified when viewers cannot decode; sources that cannot help ignore it.
pub(crate) async fn pull(
    source: &SourceUrl,
    reach: Reach,
    transport: RtspTransport,
    output: Arc<dyn Output>,
    keyframe_wanted: Arc<Notify>,
) -> SourceFailure {
    match source {
        // RTSP has no way to ask for a keyframe.
        SourceUrl::Rtsp { url, username, password } => {
            let url = match reach.pinned(url).await {
                Ok(url) => url,
                Err(failure) => return failure,
            };
            let (username, password) = (username.as_deref(), password.as_ref());
            let address = rtsp::Address { url: &url, username, password };
            rtsp::pull(&address, transport, output, rtsp::Limits::default()).await
        }
        SourceUrl::Sealed { reason, .. } => SourceFailure::Unusable { detail: reason.clone() },
        SourceUrl::Whip(point) => whip::pull(point, output, &keyframe_wanted).await,
        SourceUrl::Whep { url, token } => {
            let url = match reach.pinned(url).await {
                Ok(url) => url,
                Err(failure) => return failure,
            };
            let origin = whep::Origin::new(&url, token.as_ref(), reach.into());
            whep::pull(&origin, output, &keyframe_wanted).await
        }
        SourceUrl::Test { pattern, width, height, fps, gop } => {
            let pattern = pattern.clone();
            let (width, height, fps, gop) = (*width, *height, *fps, *gop);
            let card = TestCard { pattern, width, height, fps, gop };
            testcard::pull(card, output, keyframe_wanted).await
        }
    }
}

/// Where another node has a stream.
pub(crate) struct NodeStream<'a> {
    pub(crate) url: &'a Url,
    /// Opens it there.
    pub(crate) token: &'a SecretString,
    /// By whom the node is believed, where it is asked by HTTPS.
    pub(crate) trust: Option<&'a Trust>,
}

/// One attempt at another node's stream. As [`pull`].
pub(crate) async fn pull_node(
    node: &NodeStream<'_>,
    output: Arc<dyn Output>,
    keyframe_wanted: &Notify,
) -> SourceFailure {
    whep::pull(&whep::Origin::of_node(node), output, keyframe_wanted).await
}

/// Asks a camera what it has, and takes nothing of it. `None`: there is nobody to ask.
pub(crate) async fn probe(source: &SourceUrl, reach: Reach) -> Option<Result<(), SourceFailure>> {
    match source {
        SourceUrl::Rtsp { url, username, password } => {
            let url = match reach.pinned(url).await {
                Ok(url) => url,
                Err(failure) => return Some(Err(failure)),
            };
            let (username, password) = (username.as_deref(), password.as_ref());
            Some(rtsp::probe(&rtsp::Address { url: &url, username, password }).await)
        }
        SourceUrl::Sealed { reason, .. } => {
            Some(Err(SourceFailure::Unusable { detail: reason.clone() }))
        }
        // Another server is asked by an offer, and would count who asks as a viewer.
        SourceUrl::Whip(_) | SourceUrl::Whep { .. } | SourceUrl::Test { .. } => None,
    }
}

/// Waits until cameras and servers whose pull was dropped have been told (RTSP TEARDOWN, DELETE), at
/// most `limit`. For the end of the program: before, nobody needs to wait.
pub(crate) async fn settle(limit: Duration) {
    tokio::join!(rtsp::teardowns_sent(limit), whep::goodbyes_said(limit));
}

/// How long a camera may take to its first keyframe after PLAY.
pub(crate) const FIRST_KEYFRAME_TIMEOUT: Duration = Duration::from_secs(15);
