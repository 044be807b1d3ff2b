//! The ladder of one reservation, from its life as the journal has it.

use std::time::{SystemTime, UNIX_EPOCH};

use control::{ReservationId, Timestamp};

use super::{Explanation, Kind, Rung, RungState, Verdict, camera_rungs, places};
use crate::app::{ReservationSnapshot, Snapshot};
use crate::journal::{Life, LifeState, OfferFault, Refusal, Step};

/// From here on loss is seen, as a share of all packets.
const LOSS_SEEN: f32 = 0.05;

/// What to do with a reservation that is of no more use.
const RESERVE_AGAIN: &str =
    "reserve again; in a page, close the tile and open it, which pages of ours do by themselves";

/// How far the connection that was last tried has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Offered,
    Answered,
    Path,
    Connected,
    Sent,
    Heard,
    Decoded,
}

/// Why a viewer sees or does not see something. `snapshot` is what the caller may know of it; a reservation
/// that is not in there has ended.
pub(crate) fn reservation(snapshot: &Snapshot, life: &Life, now: SystemTime) -> Explanation {
    let ladder = Ladder::of(snapshot, life, now);
    let sentence = match &ladder.verdict {
        Some(verdict) => verdict.sentence.clone(),
        None => format!("media flows to {} from camera {}", life.user, life.camera),
    };
    Explanation {
        kind: Kind::Reservation,
        is_well: ladder.verdict.is_none(),
        sentence,
        remedy: ladder.verdict.and_then(|verdict| verdict.remedy),
        ladder: ladder.rungs,
        viewers: Vec::new(),
    }
}

/// A reservation that lives, and whose viewer another node serves. `None`: there is no such one.
pub(crate) fn elsewhere(snapshot: &Snapshot, id: &ReservationId) -> Option<Explanation> {
    let viewer = snapshot.reservations.iter().find(|viewer| viewer.id == *id)?;
    let rung = |name| Rung { name, state: RungState::Unseen, detail: "on another node".to_owned() };
    let (user, camera) = (&viewer.user, &viewer.camera);
    Some(Explanation {
        kind: Kind::Reservation,
        is_well: false,
        sentence: format!("another node serves {user}, who watches camera {camera}"),
        remedy: Some("ask that node; the viewer's whep_url names it".to_owned()),
        ladder: ["offer", "ice", "dtls", "packet", "decode"].map(rung).to_vec(),
        viewers: Vec::new(),
    })
}

struct Ladder {
    rungs: Vec<Rung>,
    /// The first that was found.
    verdict: Option<Verdict>,
}

impl Ladder {
    fn of(snapshot: &Snapshot, life: &Life, now: SystemTime) -> Self {
        let mut ladder = Self { rungs: Vec::new(), verdict: ended(life) };
        let live = snapshot.reservations.iter().find(|viewer| viewer.id == life.id);
        let granted = ladder.climb_quota(snapshot, life);
        ladder.climb_token(life, live, now);
        let camera = snapshot.cameras.iter().find(|camera| camera.about.id == life.camera);
        if let (true, Some(camera), true) = (granted, camera, live.is_some()) {
            let (rungs, trouble) = camera_rungs(camera);
            ladder.rungs.extend(rungs);
            ladder.blame(trouble);
        } else {
            ladder.climb_past_camera(life);
        }
        ladder.climb_connection(life, live, now);
        ladder
    }

    fn push(&mut self, name: &'static str, state: RungState, detail: impl Into<String>) {
        self.rungs.push(Rung { name, state, detail: detail.into() });
    }

    fn blame(&mut self, verdict: Option<Verdict>) {
        if self.verdict.is_none() {
            self.verdict = verdict;
        }
    }

    /// Whether it was granted.
    fn climb_quota(&mut self, snapshot: &Snapshot, life: &Life) -> bool {
        let refusal = life.newest(|step| matches!(step, Step::Refused(_)));
        if let Some(Step::Refused(Refusal::Quota(reason) | Refusal::Server(reason))) =
            refusal.map(|moment| &moment.step)
        {
            self.push("quota", RungState::Failed, reason);
            return false;
        }
        let camera = snapshot.cameras.iter().find(|camera| camera.about.id == life.camera);
        let detail = camera.map(|camera| places(snapshot, camera)).unwrap_or_default();
        self.push("quota", RungState::Done, detail);
        life.source.is_some()
    }

    fn climb_token(&mut self, life: &Life, live: Option<&ReservationSnapshot>, now: SystemTime) {
        // Whichever came last counts.
        let newest = life.newest(|step| {
            matches!(step, Step::TokenRefused { .. } | Step::Offered | Step::Reading)
        });
        if let Some(Step::TokenRefused { reason }) = newest.map(|moment| &moment.step) {
            self.push("token", RungState::Failed, reason);
            self.blame(Some(Verdict::new(
                format!("the viewer's token was refused: {reason}"),
                "renew it by a heartbeat, which answers a fresh one, or reserve again",
            )));
            return;
        }
        let lease = live.map(|viewer| {
            let left = viewer.expires_at.duration_since(now).unwrap_or_default().as_secs();
            format!("the lease runs out in {left} s unless it is renewed")
        });
        let Some(token) = life.token else {
            return self.push("token", RungState::Ahead, lease.unwrap_or_default());
        };
        let left = since_epoch(token.expires).duration_since(now).unwrap_or_default().as_secs();
        let renewed = format!("renewed {} times", token.renewals);
        let lease = lease.map(|lease| format!("; {lease}")).unwrap_or_default();
        self.push("token", RungState::Done, format!("good for {left} s, {renewed}{lease}"));
    }

    /// Of a reservation that does not live: what its camera did is history.
    fn climb_past_camera(&mut self, life: &Life) {
        let newest = life.newest(|step| {
            matches!(
                step,
                Step::CameraLive | Step::CameraFailed { .. } | Step::Refused(Refusal::Camera(_))
            )
        });
        match newest.map(|moment| &moment.step) {
            Some(Step::CameraLive) => {
                self.push("camera", RungState::Done, "it sent");
                self.push("keyframe", RungState::Done, "");
            }
            Some(Step::CameraFailed { reason } | Step::Refused(Refusal::Camera(reason))) => {
                self.push("camera", RungState::Failed, reason);
                self.push("keyframe", RungState::Ahead, "");
            }
            Some(_) | None => {
                self.push("camera", RungState::Ahead, "");
                self.push("keyframe", RungState::Ahead, "");
            }
        }
    }

    fn climb_connection(
        &mut self,
        life: &Life,
        live: Option<&ReservationSnapshot>,
        now: SystemTime,
    ) {
        let tried = Tried::of(life);
        let steps = [
            ("offer", Reached::Answered),
            ("ice", Reached::Path),
            ("dtls", Reached::Connected),
            ("packet", Reached::Sent),
        ];
        let mut is_next = true;
        for (name, rung) in steps {
            let detail = tried.details.iter().find(|(of, _)| *of == rung);
            let detail = detail.map(|(_, detail)| detail.clone()).unwrap_or_default();
            let failed = tried.failure.as_ref().filter(|_| is_next);
            let (state, detail) = match (tried.reached >= rung, failed) {
                (true, _) => (RungState::Done, detail),
                (false, Some(failure)) => (RungState::Failed, failure.clone()),
                (false, None) if is_next && tried.reached > Reached::Nothing => {
                    (RungState::Waiting, "not yet".to_owned())
                }
                (false, None) => (RungState::Ahead, String::new()),
            };
            is_next = tried.reached >= rung;
            self.push(name, state, detail);
        }
        let line = live.and_then(line);
        self.climb_decoding(life, tried.reached);
        if live.is_some() {
            self.blame(tried.verdict(life, line, now));
        }
    }

    fn climb_decoding(&mut self, life: &Life, reached: Reached) {
        let sent = life.sent.packets;
        match (life.decoded, reached >= Reached::Sent) {
            (Some(0), true) => {
                self.push("decode", RungState::Waiting, "the page has decoded nothing");
            }
            (Some(frames), true) => {
                self.push(
                    "decode",
                    RungState::Done,
                    format!("the page has decoded {frames} frames"),
                );
            }
            (None, true) if reached >= Reached::Heard => {
                let detail = format!(
                    "{sent} packets sent, and they arrive; the page does not say what it decodes"
                );
                self.push("decode", RungState::Unseen, detail);
            }
            (None, true) => {
                let detail = format!("{sent} packets sent, no report of their arrival yet");
                self.push("decode", RungState::Unseen, detail);
            }
            (Some(_) | None, false) => self.push("decode", RungState::Ahead, ""),
        }
    }
}

fn offer_remedy(fault: Option<OfferFault>) -> &'static str {
    match fault {
        Some(OfferFault::Form) => {
            "let the viewer send the SDP of createOffer as it is, with a video transceiver that receives"
        }
        Some(OfferFault::Codec) => {
            "use a browser that takes the camera's codec, or give the camera a sub_url in H.264"
        }
        Some(OfferFault::Late) | None => RESERVE_AGAIN,
    }
}

/// The connection that was last tried.
struct Tried {
    reached: Reached,
    details: Vec<(Reached, String)>,
    /// Why it was given up.
    failure: Option<String>,
    /// Of an offer that was refused.
    fault: Option<OfferFault>,
}

impl Tried {
    fn of(life: &Life) -> Self {
        let mut tried =
            Self { reached: Reached::Nothing, details: Vec::new(), failure: None, fault: None };
        for moment in life.since_offer() {
            let reached = match &moment.step {
                Step::Offered => Reached::Offered,
                Step::Answered => Reached::Answered,
                Step::Path(_) => Reached::Path,
                // There is no handshake.
                Step::Reading | Step::Connected { .. } => Reached::Connected,
                Step::FirstMedia => Reached::Sent,
                Step::Heard => Reached::Heard,
                Step::Decoded { .. } => Reached::Decoded,
                Step::OfferRefused { fault, .. } => {
                    (tried.failure, tried.fault) = (Some(moment.step.detail()), Some(*fault));
                    continue;
                }
                Step::Disconnected { .. } => {
                    (tried.failure, tried.fault) = (Some(moment.step.detail()), None);
                    continue;
                }
                Step::Asked
                | Step::Refused(_)
                | Step::Reserved { .. }
                | Step::TokenIssued { .. }
                | Step::TokenRefused { .. }
                | Step::CameraLive
                | Step::CameraFailed { .. }
                | Step::Switched { .. }
                | Step::SwitchFailed { .. }
                | Step::LineThin { .. }
                | Step::LineWide { .. }
                | Step::Forwarded { .. }
                | Step::Ended(_) => continue,
            };
            if tried.details.iter().all(|(of, _)| *of != reached) {
                tried.details.push((reached, moment.step.detail()));
            }
            tried.reached = tried.reached.max(reached);
        }
        tried
    }

    fn verdict(&self, life: &Life, line: Option<String>, now: SystemTime) -> Option<Verdict> {
        let camera = &life.camera;
        if self.reached >= Reached::Connected
            && let Some(failure) = &self.failure
        {
            return Some(Verdict::new(
                format!("the viewer was connected, and then: {failure}"),
                RESERVE_AGAIN,
            ));
        }
        Some(match self.reached {
            Reached::Nothing => {
                let waited = now.duration_since(since_epoch(life.began)).unwrap_or_default();
                Verdict::new(
                    format!(
                        "nobody has used the reservation for {} s: no offer came with its token",
                        waited.as_secs()
                    ),
                    format!(
                        "let the viewer POST its offer to /whep/{camera} with the token that reserve or heartbeat answered"
                    ),
                )
            }
            Reached::Offered => match &self.failure {
                Some(reason) => Verdict::new(
                    format!("the viewer's offer was refused: {reason}"),
                    offer_remedy(self.fault),
                ),
                None => {
                    Verdict::new("the viewer's offer is being answered", "ask again in a second")
                }
            },
            Reached::Answered => Verdict::new(
                "ICE: no check has come from the viewer, its network does not reach the media port",
                "open media.udp in the firewall for UDP and TCP, set media.advertise behind NAT, or media.turn; `manifold doctor` tries the port",
            ),
            Reached::Path => Verdict::new(
                "DTLS: ICE found a way, and the keys are not agreed on",
                "look for a firewall that inspects DTLS, or a path with a small MTU; try from another network",
            ),
            Reached::Connected => Verdict::new(
                "first packet: the viewer is connected, and none of the camera's has left for it",
                "wait for the camera's next keyframe; look at manifold_send_drops_total if it stays",
            ),
            Reached::Sent | Reached::Heard | Reached::Decoded if life.decoded == Some(0) => {
                Verdict::new(
                    "decode: packets are sent, and the page has decoded no frame",
                    "show the page in a window of its own; take smaller tiles, or a browser that plays the codec",
                )
            }
            Reached::Sent | Reached::Heard | Reached::Decoded => {
                let line = line?;
                Verdict::new(
                    format!("media flows, and {line}"),
                    "give the viewer a better line, or quality \"low\"",
                )
            }
        })
    }
}

/// Why a reservation is of no more use.
fn ended(life: &Life) -> Option<Verdict> {
    match life.state {
        LifeState::Asked | LifeState::Granted => None,
        LifeState::Refused => {
            let newest = life.newest(|step| matches!(step, Step::Refused(_)));
            let reason = newest.map(|moment| moment.step.detail()).unwrap_or_default();
            Some(Verdict::new(
                format!("the reservation was refused: {reason}"),
                "free a place or raise the limit where a quota is used up; else see to the camera: `manifold why` with its id",
            ))
        }
        LifeState::Ended(reason) => Some(Verdict::new(
            format!("the reservation has ended: {}", reason.as_str()),
            RESERVE_AGAIN,
        )),
    }
}

/// The journal's clock counts from the Unix epoch.
fn since_epoch(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + at.saturating_since(Timestamp::ZERO)
}

/// What is wrong with a viewer's line.
fn line(viewer: &ReservationSnapshot) -> Option<String> {
    let line = viewer.line?;
    if line.is_too_thin {
        return Some("the viewer's line is too thin for the picture: frames are left out".into());
    }
    let percent = (line.loss * 100.0).round();
    (line.loss >= LOSS_SEEN).then(|| format!("the viewer's line loses {percent} % of the packets"))
}
