//! Asks cameras that nobody watches how they are, so that it is known before somebody wants to.
//!
//! A camera is asked for its description and nothing more, once an interval. One that is being pulled is
//! not asked: its puller knows. One that refuses the password is left in peace for long, since many lock
//! the account after a few wrong tries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control::CameraId;
use engine::SourceFailure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Probed, Unwatched};
use crate::ingest;

/// How often is looked who is to be asked. A camera that is added is known that soon.
const PACE: Duration = Duration::from_secs(2);

/// Cameras that are asked at once, 32 a second where they answer: of 10,000 each is asked every 5 min. One that
/// is not there takes 10 s: of 500 of which all are gone each is asked every 80 s.
const PROBES_MAX: usize = 64;

/// From one wrong password to the next try. Cameras that lock an account do so for up to half an hour.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_secs(30 * 60);

/// Runs until the server ends.
pub(crate) async fn probe_unwatched(app: App, interval: Duration, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(PROBES_MAX));
    let mut rounds = Rounds::new(interval);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
        let unwatched = app.unwatched().await;
        for camera in rounds.due(unwatched, Instant::now()) {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { break };
            rounds.asked(&camera, Instant::now());
            tokio::spawn(probe(app.clone(), camera, place));
        }
    }
}

async fn probe(app: App, unwatched: Unwatched, _place: OwnedSemaphorePermit) {
    let Unwatched { camera, url, reach, revision, .. } = unwatched;
    let Some(result) = ingest::probe(&url, reach).await else { return };
    if let Err(failure) = &result {
        tracing::debug!(camera_id = %camera, reason = %failure, "a camera that nobody watches has no picture");
    }
    app.keep_finding(Probed { camera, revision, at: SystemTime::now(), result }).await;
}

/// Who was asked, and when he is to be asked again. At most one entry a camera that is there.
struct Rounds {
    interval: Duration,
    turns: HashMap<CameraId, Turn>,
}

struct Turn {
    revision: u64,
    due: Instant,
    is_unwatched: bool,
    /// It refused the password, and is left in peace until `due`.
    is_paused: bool,
}

impl Rounds {
    fn new(interval: Duration) -> Self {
        Self { interval, turns: HashMap::new() }
    }

    /// Who is to be asked now, who waits longest first.
    fn due(&mut self, unwatched: Vec<Unwatched>, now: Instant) -> Vec<Unwatched> {
        let mut turns = std::mem::take(&mut self.turns);
        let mut due = Vec::new();
        for camera in unwatched {
            let before = turns.remove(&camera.camera);
            let before = before.filter(|turn| turn.revision == camera.revision);
            let was_refused = camera.failure == Some(SourceFailure::Unauthorized);
            let is_paused = before.as_ref().is_some_and(|turn| turn.is_paused);
            let at = match before {
                _ if was_refused && !is_paused => now + WRONG_PASSWORD_PAUSE,
                Some(turn) if turn.is_unwatched || turn.is_paused => turn.due,
                // Its viewers knew how it is until now.
                Some(turn) => turn.due.max(now + self.interval),
                None => now,
            };
            let (revision, is_paused) = (camera.revision, was_refused);
            let turn = Turn { revision, due: at, is_unwatched: true, is_paused };
            self.turns.insert(camera.camera.clone(), turn);
            if at <= now {
                due.push((at, camera));
            }
        }
        // Those that are left are being watched, or gone, which makes no difference before they come back.
        turns.retain(|_, turn| turn.due + WRONG_PASSWORD_PAUSE > now);
        turns.values_mut().for_each(|turn| turn.is_unwatched = false);
        self.turns.extend(turns);
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, camera)| camera).collect()
    }

    fn asked(&mut self, camera: &Unwatched, now: Instant) {
        if let Some(turn) = self.turns.get_mut(&camera.camera) {
            turn.due = now + self.interval;
            turn.is_paused = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Reach, SourceUrl};

    const INTERVAL: Duration = Duration::from_secs(60);

    fn camera(revision: u64, failure: Option<SourceFailure>) -> Vec<Unwatched> {
        vec![Unwatched {
            camera: CameraId::parse("c").unwrap(),
            url: SourceUrl::parse("rtsp://192.0.2.1/").unwrap(),
            reach: Reach::Network,
            revision,
            failure,
        }]
    }

    /// Whether it is asked, and if, that it was.
    fn ask(rounds: &mut Rounds, unwatched: Vec<Unwatched>, now: Instant) -> bool {
        let due = rounds.due(unwatched, now);
        due.iter().for_each(|camera| rounds.asked(camera, now));
        !due.is_empty()
    }

    #[test]
    fn a_camera_is_asked_at_once_and_then_once_an_interval() {
        let (mut rounds, start) = (Rounds::new(INTERVAL), Instant::now());
        let asked: Vec<u64> = (0..200)
            .filter(|second| {
                ask(&mut rounds, camera(1, None), start + Duration::from_secs(*second))
            })
            .collect();
        assert_eq!(asked, [0, 60, 120, 180]);
        assert!(
            ask(&mut rounds, camera(2, None), start + Duration::from_secs(200)),
            "it was changed"
        );
    }

    #[test]
    fn a_camera_that_was_watched_is_not_asked_at_once() {
        let (mut rounds, start) = (Rounds::new(INTERVAL), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(ask(&mut rounds, camera(1, None), at(0)));
        assert!(!ask(&mut rounds, Vec::new(), at(90)));
        assert!(!ask(&mut rounds, camera(1, None), at(100)));
        assert!(!ask(&mut rounds, camera(1, None), at(159)));
        assert!(ask(&mut rounds, camera(1, None), at(160)));
    }

    #[test]
    fn a_wrong_password_is_not_tried_again_and_again() {
        let (mut rounds, start) = (Rounds::new(INTERVAL), Instant::now());
        let wrong = || camera(1, Some(SourceFailure::Unauthorized));
        assert!(ask(&mut rounds, camera(1, None), start));
        let at = |second| start + Duration::from_secs(second);
        let tries =
            (2..24 * 3600).step_by(2).filter(|second| ask(&mut rounds, wrong(), at(*second)));
        assert_eq!(tries.count(), 47, "one in half an hour");
    }
}
