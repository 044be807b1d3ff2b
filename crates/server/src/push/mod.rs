//! `manifold push`: publishes a test card or an RTSP camera to any WHIP server (RFC 9725).
//!
//! The source is pulled once and for all, the publishing connection comes and goes: when it is lost,
//! or refused for now, the next attempt follows after a pause. What a server refuses for good (the
//! key, the codecs) ends the program.

mod feed;
mod publication;

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use media::peer::pusher::PusherFactory;
use secrecy::SecretString;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::ingest::{RtspTransport, SourceUrl};
use crate::remote::{RemoteError, Trust, own_address};
use feed::{Feed, FramesIn};
use publication::{Ended, Publication};

/// The first pause before another attempt; it doubles up to the longest one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A publication that lived this long was a good one: the next pause is the first again.
const GOOD_TIME: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug)]
pub(crate) struct PushPlan {
    /// The WHIP endpoint.
    pub(crate) whip: Url,
    pub(crate) token: Option<SecretString>,
    /// By whom a server is believed that is asked by HTTPS.
    pub(crate) trust: Option<Trust>,
    pub(crate) source: SourceUrl,
    pub(crate) transport: RtspTransport,
    /// From the start to the end; else until a signal.
    pub(crate) duration: Option<Duration>,
    /// Our own address; else the one on the way to the server.
    pub(crate) bind: Option<IpAddr>,
}

/// Publishes until the time is over or a signal comes. An error where nothing was ever published.
pub(crate) fn run(plan: &PushPlan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads could not be started")?;
    let result = runtime.block_on(push(plan));
    runtime.block_on(crate::ingest::settle(Duration::from_millis(500)));
    runtime.shutdown_background();
    result
}

async fn push(plan: &PushPlan) -> anyhow::Result<()> {
    let factory = PusherFactory::new().context("no DTLS certificate could be made")?;
    let keyframe_wanted = Arc::new(Notify::new());
    let (feed, frames) = Feed::new();
    let feed = Arc::new(feed);
    let source = feed::pull(plan, Arc::clone(&feed), Arc::clone(&keyframe_wanted));
    let until = plan.duration.map(|duration| Instant::now() + duration);
    let stop = CancellationToken::new();
    let ending = stop.clone();
    tokio::spawn(async move {
        end(until).await;
        ending.cancel();
    });
    let publishing =
        Publishing { plan, factory, feed: &feed, keyframe_wanted: &keyframe_wanted, stop };
    tokio::select! {
        () = source => Ok(()),
        result = publishing.keep_up(frames) => result,
    }
}

/// The time is over, or a signal came.
async fn end(until: Option<Instant>) {
    let time = async {
        match until {
            Some(until) => sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time => {}
        // Where signals cannot be received, the system's own way ends the program.
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// What all attempts share.
struct Publishing<'a> {
    plan: &'a PushPlan,
    factory: PusherFactory,
    feed: &'a Feed,
    keyframe_wanted: &'a Notify,
    /// It is over.
    stop: CancellationToken,
}

impl Publishing<'_> {
    /// Publishes again and again until it is over, or refused for good.
    async fn keep_up(&self, mut frames: FramesIn) -> anyhow::Result<()> {
        let mut pause = PAUSE_MIN;
        let mut published = false;
        loop {
            let begun = Instant::now();
            let ended = Box::pin(self.publish(&mut frames, &mut published)).await;
            match &ended {
                Ended::Stopped => break,
                Ended::Refused(error) if is_final(error) => bail!("{ended}"),
                Ended::Refused(_)
                | Ended::Answer(_)
                | Ended::Codec(_)
                | Ended::Socket(_)
                | Ended::NotConnected
                | Ended::Lost => {}
            }
            if begun.elapsed() >= GOOD_TIME {
                pause = PAUSE_MIN;
            }
            tell(&format!("{ended}; trying again in {} s", pause.as_secs()));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
        ensure!(published, "nothing was published: no connection came about in this time");
        Ok(())
    }

    async fn publish(&self, frames: &mut FramesIn, published: &mut bool) -> Ended {
        let own = match self.plan.bind {
            Some(address) => Ok(address),
            None => own_address(&self.plan.whip).await,
        };
        let own = match own {
            Ok(own) => own,
            Err(error) => return Ended::Refused(error),
        };
        let opening = Publication::open(self.plan, &self.factory, own, &self.stop);
        let mut publication = match Box::pin(opening).await {
            Ok(publication) => publication,
            Err(ended) => return ended,
        };
        *published = true;
        self.keyframe_wanted.notify_one();
        frames.skip_to_keyframe();
        let ended = tokio::select! {
            ended = publication.run(frames, self.feed, self.keyframe_wanted) => ended,
            () = self.stop.cancelled() => Ended::Stopped,
        };
        publication.close().await;
        ended
    }
}

/// Whether trying again makes no sense: the request itself is wrong. 408, 409 (somebody publishes
/// there already), 429 and what the server takes on itself pass.
fn is_final(error: &RemoteError) -> bool {
    match error {
        RemoteError::Refused { status, .. } => {
            status.is_client_error() && ![408, 409, 429].contains(&status.as_u16())
        }
        RemoteError::Scheme(_) => true,
        RemoteError::Unreachable { .. } | RemoteError::Cut { .. } | RemoteError::Late { .. } => {
            false
        }
    }
}

/// One line on standard error.
fn tell(line: &str) {
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The line that changes every second: in place on a terminal.
fn tell_live(line: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = if stderr.is_terminal() {
        write!(stderr, "\r\x1b[2K{line}")
    } else {
        writeln!(stderr, "{line}")
    };
}

#[cfg(test)]
mod tests {
    use hyper::{Method, StatusCode};

    use super::*;

    #[test]
    fn only_what_a_repetition_cannot_change_is_final() {
        let refused = |status: StatusCode| RemoteError::Refused {
            method: Method::POST,
            path: "/whip/a".to_owned(),
            status,
            reason: String::new(),
        };
        for status in [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::NOT_ACCEPTABLE]
        {
            assert!(is_final(&refused(status)), "{status}");
        }
        for status in [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY]
        {
            assert!(!is_final(&refused(status)), "{status}");
        }
    }
}
