//! Why there is no picture or no sound: one sentence, one remedy, and the ladder that a viewer climbs.
//!
//! Computed from what the application shows of itself at one instant and from the journal; nothing is
//! measured or changed.

#[cfg(test)]
mod tests;
mod viewer;

use std::time::Duration;

use control::{CameraId, ReservationId};

use crate::app::{CameraSnapshot, ReservationSnapshot, Snapshot, SourceSnapshot, Stage};
use crate::voice::Status;

pub(crate) use viewer::{elsewhere, reservation};

/// How long a voice is silent before it counts as muted. Who listens for a while says nothing himself.
const SILENCE: Duration = Duration::from_secs(5);

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// Of what.
    pub(crate) kind: Kind,
    /// Nothing is in the way.
    pub(crate) is_well: bool,
    /// What it comes to.
    pub(crate) sentence: String,
    /// What to do, where something can be done.
    pub(crate) remedy: Option<String>,
    /// From the first to the last step to a picture or a sound.
    pub(crate) ladder: Vec<Rung>,
    /// Who watches; of a camera alone.
    pub(crate) viewers: Vec<Watcher>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Camera,
    Reservation,
    Voice,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    pub(crate) state: RungState,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RungState {
    /// Taken.
    Done,
    /// Here it stands.
    Failed,
    /// It is under way.
    Waiting,
    /// Not come to yet.
    Ahead,
    /// This server cannot see it.
    Unseen,
}

/// One who watches a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watcher {
    pub(crate) reservation: ReservationId,
    pub(crate) user: String,
    /// As in [`stage_words`].
    pub(crate) stage: &'static str,
}

/// What keeps somebody from the next rung.
struct Verdict {
    sentence: String,
    remedy: Option<String>,
}

impl Verdict {
    fn new(sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), remedy: Some(remedy.into()) }
    }
}

/// Why a camera is or is not seen; `None`: there is no such camera.
pub(crate) fn camera(snapshot: &Snapshot, id: &CameraId) -> Option<Explanation> {
    let camera = snapshot.cameras.iter().find(|camera| camera.about.id == *id)?;
    let quota = quota(snapshot, camera);
    let (rungs, trouble) = camera_rungs(camera);
    let full = quota.state == RungState::Failed;
    let verdict = trouble.or_else(|| {
        full.then(|| {
            Verdict::new(
                format!("the camera works, and a new viewer finds no place: {}", quota.detail),
                "close a viewer, or raise the limit: by PUT /api/v1/sources/{id}/limit, sources[].limit or quota.total",
            )
        })
    });
    let viewers: Vec<Watcher> = watchers(snapshot, id);
    let sentence = match &verdict {
        Some(verdict) => verdict.sentence.clone(),
        None if camera.state == "live" => {
            format!("the camera works, {}", counted(viewers.len(), "viewer"))
        }
        None if camera.state == "idle" => {
            "nobody watches the camera; it is called with the next viewer".to_owned()
        }
        None => format!("the camera is {}", camera.state),
    };
    Some(Explanation {
        kind: Kind::Camera,
        is_well: verdict.is_none(),
        sentence,
        remedy: verdict.and_then(|verdict| verdict.remedy),
        ladder: std::iter::once(quota).chain(rungs).collect(),
        viewers,
    })
}

/// Why no voice is heard. `None` stands for a relay that is switched off.
pub(crate) fn voice(status: Option<&Status>, is_running: bool) -> Explanation {
    let Some(status) = status else {
        let verdict = Verdict::new("the voice relay is switched off", "set voice.enabled = true");
        return voice_explanation(Some(verdict), Vec::new(), String::new());
    };
    let residue = status.residue;
    let heard = counted(residue.voices, "voice");
    let listeners = counted(residue.receivers, "receiver");
    let silent: Vec<&str> = status
        .levels
        .iter()
        .filter(|level| level.sounded.elapsed() >= SILENCE)
        .map(|level| level.voice.as_str())
        .collect();
    let all_silent = residue.voices > 0 && silent.len() >= residue.voices;
    let connects = residue.senders > residue.voices;
    let verdict = if !is_running {
        Some(Verdict::new("the voice relay has failed", "start the server again"))
    } else if residue.voices == 0 && connects {
        Some(Verdict::new(
            "a sender has begun, and nothing of its microphone has come: ICE or DTLS is not done, or it sends no packet",
            "open media.udp in the firewall for UDP and TCP, and allow the microphone in the page",
        ))
    } else if residue.voices == 0 {
        Some(Verdict::new(
            "nobody speaks: there is no sender",
            "start a sender; who asked for a voice hears it as soon as it begins",
        ))
    } else if all_silent {
        Some(Verdict::new(
            format!("{heard} sent, all of them silent: {}", silent.join(", ")),
            "unmute the microphone, and choose the right one in the sender's page",
        ))
    } else if residue.receivers == 0 {
        Some(Verdict::new(
            format!("{heard} sent, and nobody listens: there is no receiver"),
            "open a receiver; its page asks for the voice with start_receiving",
        ))
    } else {
        None
    };
    let sentence = format!("{heard} sent, heard by {listeners}");
    voice_explanation(verdict, voice_rungs(status, &silent), sentence)
}

fn voice_explanation(verdict: Option<Verdict>, ladder: Vec<Rung>, well: String) -> Explanation {
    Explanation {
        kind: Kind::Voice,
        is_well: verdict.is_none(),
        sentence: verdict.as_ref().map_or(well, |verdict| verdict.sentence.clone()),
        remedy: verdict.and_then(|verdict| verdict.remedy),
        ladder,
        viewers: Vec::new(),
    }
}

fn voice_rungs(status: &Status, silent: &[&str]) -> Vec<Rung> {
    let residue = status.residue;
    let rung = |name, is_done: bool, detail: String| {
        let state = if is_done { RungState::Done } else { RungState::Failed };
        Rung { name, state, detail }
    };
    let level = status.levels.iter().map(|level| format!("{} {} dB", level.voice, level.dbov));
    let levels: Vec<String> = level.collect();
    let none = "no voice has a level".to_owned();
    vec![
        rung("clients", residue.connections > 0, counted(residue.connections, "WebSocket")),
        rung("sender", residue.senders > 0, counted(residue.senders, "sender")),
        rung("voice", residue.voices > 0, counted(residue.voices, "voice")),
        rung(
            "level",
            residue.voices > silent.len(),
            if levels.is_empty() { none } else { levels.join(", ") },
        ),
        rung(
            "receiver",
            residue.receivers > 0,
            format!(
                "{}, {} waiting for a voice",
                counted(residue.receivers, "receiver"),
                residue.waiting
            ),
        ),
    ]
}

/// What to do about a camera in this state.
pub(crate) fn camera_remedy(state: &str) -> Option<&'static str> {
    Some(match state {
        "unreachable" => {
            "check that the camera has power, that its url names the right host, and that this machine reaches its RTSP port"
        }
        "unauthorized" => {
            "correct the user name and password in the camera's url; percent-encode @ : / ? # % in them"
        }
        "not_found" => {
            "correct the path in the camera's url; its manual has it, often /stream1 or /Streaming/Channels/101"
        }
        "no_keyframe" => "set an I-frame interval of 1 to 4 s in the camera",
        "b_frames" => "turn B-frames off in the camera, or take its baseline profile",
        "unsupported_codec" => "set the camera to H.264, or give a sub_url that is",
        "no_publisher" => {
            "start the encoder with this server's /whip address and the camera's stream key"
        }
        "lost" => {
            "wait, it is tried again by itself; if it goes on, look at the camera's network and power"
        }
        "unusable" => "correct the camera's url, or allow this address in the settings",
        "protocol" => "try transport = \"udp\" or \"tcp\" for the camera, or new firmware",
        _ => return None,
    })
}

/// The words for how far a viewer has come.
pub(crate) fn stage_words(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "on another node",
        Some(Stage::Reserved) => "reserved, no offer",
        Some(Stage::Answered) => "no way found (ICE)",
        Some(Stage::PathFound) => "agreeing on keys (DTLS)",
        Some(Stage::Connected) => "connected, no packet",
        Some(Stage::Playing) => "playing",
    }
}

fn watchers(snapshot: &Snapshot, camera: &CameraId) -> Vec<Watcher> {
    let of_camera = snapshot.reservations.iter().filter(|viewer| viewer.camera == *camera);
    let watcher = |viewer: &ReservationSnapshot| Watcher {
        reservation: viewer.id.clone(),
        user: viewer.user.clone(),
        stage: stage_words(viewer.stage),
    };
    of_camera.map(watcher).collect()
}

/// Whether the next viewer of a camera would find a place.
fn quota(snapshot: &Snapshot, camera: &CameraSnapshot) -> Rung {
    let source = snapshot.sources.iter().find(|source| source.id == camera.about.source);
    let is_full = |source: &SourceSnapshot| source.current >= source.limit;
    let total_is_full = source.is_some() && snapshot.total_current >= snapshot.total_limit;
    let detail = places(snapshot, camera);
    let state = if source.is_some_and(is_full) || total_is_full {
        RungState::Failed
    } else {
        RungState::Done
    };
    Rung { name: "quota", state, detail }
}

/// How full the quotas are that a viewer of a camera counts against.
pub(crate) fn places(snapshot: &Snapshot, camera: &CameraSnapshot) -> String {
    let (current, limit) = (snapshot.total_current, snapshot.total_limit);
    let source = snapshot.sources.iter().find(|source| source.id == camera.about.source);
    // Quotas of others are not the caller's to see.
    source.map_or_else(String::new, |source| {
        let SourceSnapshot { id, current: used, limit: of, .. } = source;
        format!("{id} uses {used} of {of}, all together {current} of {limit}")
    })
}

/// The camera and its first keyframe.
fn camera_rungs(camera: &CameraSnapshot) -> ([Rung; 2], Option<Verdict>) {
    let rung = |name, state, detail: &str| Rung { name, state, detail: detail.to_owned() };
    let id = &camera.about.id;
    match (camera.state, &camera.reason) {
        ("live", _) => {
            let picture = format!(
                "{} {}x{}, sound {}",
                camera.codec.unwrap_or("picture"),
                camera.width.unwrap_or_default(),
                camera.height.unwrap_or_default(),
                camera.audio.unwrap_or("none"),
            );
            let rungs = [
                rung("camera", RungState::Done, "it sends"),
                rung("keyframe", RungState::Done, &picture),
            ];
            (rungs, None)
        }
        ("connecting", _) => {
            let rungs = [
                rung("camera", RungState::Waiting, "it is being called"),
                rung("keyframe", RungState::Ahead, "its first keyframe is awaited"),
            ];
            let verdict = Verdict::new(
                format!("camera {id} is being called, and its first keyframe has not come"),
                "wait for the interval between its keyframes; shorten it in the camera if it is over 4 s",
            );
            (rungs, Some(verdict))
        }
        ("idle", _) if camera.retry_in.is_some() => {
            let stopped = "its puller was stopped on request";
            let rungs = [
                rung("camera", RungState::Waiting, stopped),
                rung("keyframe", RungState::Ahead, ""),
            ];
            (rungs, Some(failed(camera, stopped)))
        }
        ("no_keyframe", Some(reason)) => {
            let rungs = [
                rung("camera", RungState::Done, "it sends"),
                rung("keyframe", RungState::Failed, reason),
            ];
            (rungs, Some(failed(camera, reason)))
        }
        (_, Some(reason)) => {
            let rungs =
                [rung("camera", RungState::Failed, reason), rung("keyframe", RungState::Ahead, "")];
            (rungs, Some(failed(camera, reason)))
        }
        (state, None) => {
            let rungs =
                [rung("camera", RungState::Ahead, state), rung("keyframe", RungState::Ahead, "")];
            (rungs, None)
        }
    }
}

fn failed(camera: &CameraSnapshot, reason: &str) -> Verdict {
    let again = camera.retry_in.map(|wait| format!("; it is tried again in {} s", wait.as_secs()));
    Verdict {
        sentence: format!("{reason}{}", again.unwrap_or_default()),
        remedy: camera_remedy(camera.state).map(ToOwned::to_owned),
    }
}

/// `1 viewer`, `2 viewers`.
fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
