//! Cameras that the server has and the settings of this machine do not: they were added over the API, are
//! published, or it is another machine's server. It alone can call them; one that it does not know about is
//! reserved for a moment, so that it does.

use std::time::Duration;

use futures::StreamExt;
use hyper::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::cameras::{
    CameraChoice, INTERVAL_REMEDY, Instead, LISTEN_TIME_MAX, judge_codec, judge_interval, no_second,
};
use super::{Finding, RunningServer};
use crate::remote::{Ask, CameraPages, HttpClient, RemoteError};
use crate::why::camera_remedy;

const PART: &str = "camera";

/// Cameras that the server is made call at once; each takes one unit of its quota meanwhile.
const AT_ONCE: usize = 4;

/// From the reservation to a picture, or the reason why there is none. A connection may take 10 s, and so may
/// the first keyframe.
const CALL_TIME_MAX: Duration = Duration::from_secs(25);

/// From the reservation to all that is looked at: nobody watches by it, so that it ends after 30 s.
const HOLD_TIME_MAX: Duration = Duration::from_secs(29);

/// Between two looks at a camera that is being called.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Who reserves.
const USER: &str = "doctor";

/// The server's cameras, as it lists them.
pub(super) struct Park(Vec<Value>);

impl Park {
    /// Asks the server. An error is a finding: who has no token is not told.
    pub(super) async fn of(server: &mut RunningServer) -> Result<Self, Finding> {
        let RunningServer { http, base, token } = server;
        let mut pages = CameraPages::default();
        while let Some(path) = pages.next_path() {
            let page = ask(http, token.as_ref(), base, Method::GET, &path, "");
            pages.take(page.await.map_err(|error| {
                let sentence = format!("the server does not tell its cameras: {error}");
                Finding::note(PART, sentence, "give a token with --token")
            })?);
        }
        Ok(Self(pages.into_cameras()))
    }

    /// Whether the camera of the settings is another one at the server: it was changed over the API.
    pub(super) fn has_changed(&self, id: &str) -> bool {
        self.0.iter().any(|camera| camera["id"] == id && camera["origin"] == "stored")
    }

    /// What the server says of those that were not `called` from here.
    pub(super) async fn told(
        &self,
        server: &RunningServer,
        choice: &CameraChoice,
        called: impl Fn(&str) -> bool,
    ) -> Vec<Finding> {
        let id = |camera: &Value| camera["id"].as_str().map(ToOwned::to_owned);
        let asked: Vec<&Value> = self
            .0
            .iter()
            .filter(|camera| id(camera).is_some_and(|id| choice.takes(&id) && !called(&id)))
            .collect();
        let looks = futures::stream::iter(asked).map(|camera| look(server, camera));
        looks.buffered(AT_ONCE).collect::<Vec<_>>().await.concat()
    }

    /// Whether there is a camera of this name.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|camera| camera["id"] == id)
    }
}

async fn look(server: &RunningServer, camera: &Value) -> Vec<Finding> {
    if is_whole(camera) {
        return told(camera, Duration::ZERO);
    }
    let id = camera["id"].as_str().unwrap_or_default();
    // A connection of its own: several are called at once.
    let mut http = server.http.another();
    match called(&mut http, server, id).await {
        Ok((camera, listened)) => told(&camera, listened),
        // Somebody watches it, and there is no place for one more: what is known of it is worth telling.
        Err(_) if is_known(camera) => told(camera, Duration::ZERO),
        // Its quota is used up, or the token is no operator's: what it knows is what there is.
        Err(error) => vec![Finding::note(
            PART,
            format!(
                "camera {id} is {}, and was not called: {error}",
                camera["state"].as_str().unwrap_or("idle")
            ),
            "free a place, or give a token of an operator with --token",
        )],
    }
}

/// It sends, or the last attempt has failed.
fn is_known(camera: &Value) -> bool {
    !["idle", "connecting", "closing"].iter().any(|state| camera["state"] == *state)
}

/// All that is looked at is known: the last attempt has failed, or two keyframes have come. A publisher's
/// come when somebody needs them.
fn is_whole(camera: &Value) -> bool {
    let is_published = camera["url"].as_str().is_some_and(|url| url.starts_with("whip:"));
    let is_measured = is_published || camera["keyframe_interval_s"].is_number();
    is_known(camera) && (camera["reason"].is_string() || is_measured)
}

/// Reserves a camera until it is known what it sends; tells also for how long it was listened to.
async fn called(
    http: &mut HttpClient,
    server: &RunningServer,
    id: &str,
) -> Result<(Value, Duration), RemoteError> {
    let token = server.token.as_ref();
    let body = serde_json::json!({ "camera_id": id, "user_id": USER }).to_string();
    let place = ask(http, token, &server.base, Method::POST, "/api/v1/stream/reserve", &body).await;
    let path = format!("/api/v1/cameras/{id}");
    let place = match place {
        Ok(place) => place,
        // It failed a moment ago, and is not called again so soon: the camera itself says why.
        Err(RemoteError::Refused { status, .. }) if status == hyper::StatusCode::CONFLICT => {
            let camera = ask(http, token, &server.base, Method::GET, &path, "").await?;
            return Ok((camera, Duration::ZERO));
        }
        Err(error) => return Err(error),
    };
    let found = listen(http, server, &path).await;
    let reservation = place["reservation_id"].as_str().unwrap_or_default();
    let path = format!("/api/v1/stream/release/{reservation}");
    // Where that fails, it ends by itself in half a minute.
    let _ = ask(http, token, &server.base, Method::DELETE, &path, "").await;
    found
}

/// Looks at a camera that is being called until nothing more is to be learned.
async fn listen(
    http: &mut HttpClient,
    server: &RunningServer,
    path: &str,
) -> Result<(Value, Duration), RemoteError> {
    let begun = Instant::now();
    let mut live_at = None;
    loop {
        let camera = ask(http, server.token.as_ref(), &server.base, Method::GET, path, "").await?;
        if is_known(&camera) {
            live_at.get_or_insert_with(Instant::now);
        }
        let listened = live_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        let is_late = live_at.is_none() && begun.elapsed() >= CALL_TIME_MAX;
        let is_over = listened >= LISTEN_TIME_MAX || begun.elapsed() >= HOLD_TIME_MAX;
        if is_whole(&camera) || is_late || is_over {
            return Ok((camera, listened));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn ask(
    http: &mut HttpClient,
    token: Option<&secrecy::SecretString>,
    base: &url::Url,
    method: Method,
    path: &str,
    body: &str,
) -> Result<Value, RemoteError> {
    let url = base.join(path).map_err(|_| RemoteError::Scheme(base.clone()))?;
    let content_type = (!body.is_empty()).then_some("application/json");
    let ask = Ask { method, url: &url, content_type, token, body: body.to_owned() };
    let answer = http.ask(&ask).await?;
    Ok(serde_json::from_str(&answer.body).unwrap_or_default())
}

fn told(camera: &Value, listened: Duration) -> Vec<Finding> {
    let text = |key: &str| camera[key].as_str().unwrap_or_default();
    let (id, state) = (text("id"), text("state"));
    if let Some(reason) = camera["reason"].as_str() {
        return vec![Finding::trouble(
            PART,
            format!("camera {id}, says the server: {reason}"),
            camera_remedy(state).unwrap_or("look at the camera's own page"),
        )];
    }
    let Some(codec) = camera["codec"].as_str() else {
        return vec![Finding::note(
            PART,
            format!("camera {id} is {state}, says the server, and no picture has come"),
            "wait for its keyframe, and look again: `manifold why` has its state",
        )];
    };
    let (width, height) = (&camera["width"], &camera["height"]);
    let sound = camera["audio"].as_str().unwrap_or("no sound");
    let picture = format!("camera {id} sends {codec} {width}x{height}, {sound}");
    let name = format!("camera {id}");
    let instead = if camera["has_sub"] == true { Instead::Sub } else { Instead::Nothing };
    let found = match camera["keyframe_interval_s"].as_f64().map(Duration::try_from_secs_f64) {
        Some(Ok(interval)) => {
            let seconds = interval.as_secs_f64();
            let keyframes = format!("no B-frames, a keyframe every {seconds:.1} s");
            judge_interval(format!("{picture}, {keyframes}, says the server"), interval)
        }
        Some(Err(_)) | None if is_whole(camera) || listened == Duration::ZERO => {
            Finding::fine(PART, format!("{picture}, says the server"))
        }
        Some(Err(_)) | None => {
            let sentence = format!("{picture}, says the server, and {}", no_second(listened));
            Finding::note(PART, sentence, INTERVAL_REMEDY)
        }
    };
    std::iter::once(found).chain(judge_codec(&name, codec, instead)).collect()
}
