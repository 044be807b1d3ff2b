use std::sync::Arc;
use std::time::{Instant, SystemTime};

use control::{Class, Quality, SourceId};
use engine::{EndReason, Note, Rendition};
use media::ViewerId;
use media::batch::Route;

use super::*;
use crate::app::{About, ReservationSnapshot, SourceSnapshot};
use crate::audit::Audit;
use crate::journal::{Journal, OfferFault, Refusal, Step, Wish};
use crate::net::{CloseReason, MediaEvent};
use crate::voice::VoiceLevel;

const VIEWER: ViewerId = ViewerId(7);

/// A rung, a part of its sentence, and what brings the viewer there.
type Climb<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);

fn reservation_id() -> ReservationId {
    ReservationId::parse("0b6b2e0c-8f2f-4b8e-9d4e-1f7a5d3c2b1a").unwrap()
}

fn camera_id() -> CameraId {
    CameraId::parse("cam-1").unwrap()
}

fn source_id() -> SourceId {
    SourceId::parse("METRO").unwrap()
}

/// One camera, one live reservation, one of two places taken.
fn snapshot(state: &'static str, reason: Option<&str>) -> Snapshot {
    let camera = CameraSnapshot {
        about: Arc::new(About {
            id: camera_id(),
            name: "Union".to_owned(),
            name_ar: "الاتحاد".to_owned(),
            location: String::new(),
            source: source_id(),
            url: "rtsp://192.0.2.7/a".to_owned(),
            sub_url: None,
            has_credentials: false,
            origin: crate::app::CameraOrigin::Config,
            transport: crate::ingest::RtspTransport::Tcp,
            close_after: Duration::from_secs(5),
            has_sub: false,
            on_demand: true,
            synthetic: false,
        }),
        probed_at: None,
        status: "ONLINE",
        state,
        reason: reason.map(ToOwned::to_owned),
        retry_in: reason.map(|_| Duration::from_secs(8)),
        viewer_count: 1,
        active_since: None,
        codec: Some("H264"),
        width: Some(640),
        height: Some(360),
        keyframe_interval: None,
        audio: None,
        pullers: 1,
        pulls_started: 1,
        pulls_failed: 0,
        packets_lost: 0,
        renditions: Vec::new(),
        nodes: Vec::new(),
    };
    let now = SystemTime::now();
    let viewer = ReservationSnapshot {
        id: reservation_id(),
        camera: camera_id(),
        user: "amal".to_owned(),
        created_at: now,
        expires_at: now + Duration::from_secs(30),
        connected: false,
        stage: Some(Stage::Reserved),
        line: None,
    };
    let source = SourceSnapshot {
        id: source_id(),
        name: "Metro".to_owned(),
        name_ar: String::new(),
        configured_limit: 2,
        current: 1,
        limit: 2,
        active_cameras: 1,
    };
    Snapshot {
        total_current: 1,
        total_limit: 500,
        sources: vec![source],
        cameras: vec![camera],
        reservations: vec![viewer],
        ..Snapshot::of_nothing()
    }
}

fn journal() -> Journal {
    let journal = Journal::new(Audit::off());
    let (camera, source) = (camera_id(), source_id());
    let (user, quality, class) = ("amal".to_owned(), Quality::Auto, Class::LOWEST);
    let wish = Wish { camera: camera.clone(), user: user.clone(), quality, class };
    journal.asked(&reservation_id(), wish);
    let id = reservation_id();
    let granted = control::Reservation { id, camera, source, user, quality, class };
    let begun = Note::Begun { reservation: Box::new(granted), rendition: Rendition::Main };
    journal.handle_note(&reservation_id(), begun);
    journal
}

fn told(snapshot: &Snapshot, journal: &Journal) -> Explanation {
    let life = journal.life(&reservation_id()).unwrap();
    reservation(snapshot, &life, SystemTime::now())
}

/// The rung on which it stands.
fn stands_on(explanation: &Explanation) -> &'static str {
    let is_done = |rung: &&Rung| rung.state != RungState::Done && rung.state != RungState::Unseen;
    explanation.ladder.iter().find(is_done).map_or("top", |rung| rung.name)
}

#[test]
fn each_rung_is_named_until_the_picture_is_there() {
    let (journal, live) = (journal(), snapshot("live", None));
    let id = reservation_id();
    journal.token(&id, Duration::from_secs(3600));
    let route = Route::new(
        std::net::SocketAddr::from(([10, 0, 0, 1], 8555)),
        std::net::SocketAddr::from(([10, 0, 0, 2], 4000)),
    );
    let mut steps: Vec<Climb<'_>> = vec![
        ("offer", "no offer", Box::new(|| ())),
        ("offer", "being answered", Box::new(|| journal.step(&id, Step::Offered))),
        ("ice", "ICE", Box::new(|| journal.handle_note(&id, Note::Answered { viewer: VIEWER }))),
        (
            "dtls",
            "DTLS",
            Box::new(|| journal.handle_media(&MediaEvent::Reached { viewer: VIEWER, route })),
        ),
        (
            "packet",
            "first packet",
            Box::new(|| {
                let (viewer, handshake_ms) = (VIEWER, 80);
                journal.handle_media(&MediaEvent::Connected { viewer, handshake_ms, route });
            }),
        ),
        (
            "decode",
            "decode",
            Box::new(|| {
                journal.handle_media(&MediaEvent::FirstMedia { viewer: VIEWER });
                journal.decoded(&id, 0);
            }),
        ),
    ];
    for (rung, words, act) in steps.drain(..) {
        act();
        let found = told(&live, &journal);
        assert_eq!(stands_on(&found), rung, "{found:?}");
        assert!(!found.is_well && found.remedy.is_some());
        assert!(found.sentence.contains(words), "{rung}: {}", found.sentence);
    }
    journal.decoded(&id, 25);
    let found = told(&live, &journal);
    assert!(found.is_well && found.remedy.is_none(), "{found:?}");
    assert_eq!(stands_on(&found), "top");
    assert_eq!(found.sentence, "media flows to amal from camera cam-1");
}

#[test]
fn without_a_picture_of_the_camera_its_own_sentence_is_told() {
    let journal = journal();
    let off = snapshot("unreachable", Some("the camera at a:554 cannot be reached: no answer"));
    let found = told(&off, &journal);
    assert!(found.sentence.starts_with("the camera at a:554 cannot be reached"));
    assert!(found.sentence.ends_with("tried again in 8 s"), "{}", found.sentence);
    assert!(found.remedy.unwrap().contains("RTSP port"));
    let calling = told(&snapshot("connecting", None), &journal);
    assert!(calling.sentence.contains("first keyframe"), "{}", calling.sentence);
    let silent = told(&snapshot("no_keyframe", Some("the camera sends no keyframe")), &journal);
    let rung = silent.ladder.iter().find(|rung| rung.state == RungState::Failed).unwrap();
    assert_eq!(rung.name, "keyframe");
}

#[test]
fn a_token_that_was_refused_is_the_reason() {
    let journal = journal();
    let reason = "the token expired at 2026-01-01T00:00:00Z".to_owned();
    journal.step(&reservation_id(), Step::TokenRefused { reason });
    let found = told(&snapshot("live", None), &journal);
    assert!(found.sentence.contains("token was refused: the token expired"), "{found:?}");
    assert!(found.remedy.unwrap().contains("heartbeat"));
    // It came back with a good one.
    journal.step(&reservation_id(), Step::Offered);
    assert!(!told(&snapshot("live", None), &journal).sentence.contains("token"));
}

#[test]
fn a_connection_that_did_not_come_about_is_told_with_its_rung() {
    let journal = journal();
    journal.step(&reservation_id(), Step::Offered);
    journal.handle_note(&reservation_id(), Note::Answered { viewer: VIEWER });
    journal.handle_note(&reservation_id(), Note::PeerGone(CloseReason::NeverConnected));
    let found = told(&snapshot("live", None), &journal);
    assert!(found.sentence.starts_with("ICE"), "{}", found.sentence);
    let failed = found.ladder.iter().find(|rung| rung.state == RungState::Failed).unwrap();
    assert_eq!(
        (failed.name, failed.detail.as_str()),
        ("ice", "ICE or DTLS did not finish in time")
    );
}

#[test]
fn an_offer_that_was_refused_has_the_remedy_of_its_fault() {
    for (fault, remedy) in [
        (OfferFault::Form, "the SDP of createOffer"),
        (OfferFault::Codec, "a sub_url in H.264"),
        (OfferFault::Late, "reserve again"),
    ] {
        let journal = journal();
        journal.step(&reservation_id(), Step::Offered);
        journal.step(&reservation_id(), Step::OfferRefused { reason: "it is wrong".into(), fault });
        let found = told(&snapshot("live", None), &journal);
        assert_eq!(found.sentence, "the viewer's offer was refused: it is wrong");
        assert!(found.remedy.as_ref().is_some_and(|told| told.contains(remedy)), "{found:?}");
    }
}

#[test]
fn what_is_over_says_why() {
    let journal = journal();
    journal.handle_note(&reservation_id(), Note::Ended(EndReason::Preempted));
    let mut nobody = snapshot("idle", None);
    nobody.reservations.clear();
    let found = told(&nobody, &journal);
    let wanted = "the reservation has ended: a reservation of a higher class took its place";
    assert_eq!(found.sentence, wanted);
    assert!(found.remedy.unwrap().starts_with("reserve again"));

    let refused = Journal::new(Audit::off());
    let wish = Wish {
        camera: camera_id(),
        user: "amal".to_owned(),
        quality: Quality::Auto,
        class: Class::LOWEST,
    };
    refused.asked(&reservation_id(), wish);
    refused.refused(&reservation_id(), Refusal::Quota("quota of METRO is used up: 2 of 2".into()));
    let found = told(&nobody, &refused);
    assert_eq!(found.sentence, "the reservation was refused: quota of METRO is used up: 2 of 2");
    assert_eq!((stands_on(&found), found.ladder[0].state), ("quota", RungState::Failed));
}

#[test]
fn a_viewer_of_another_node_is_told_as_such() {
    let mut far = snapshot("live", None);
    far.reservations[0].stage = None;
    let found = elsewhere(&far, &reservation_id()).unwrap();
    assert!(found.sentence.starts_with("another node serves amal"), "{found:?}");
    far.reservations.clear();
    assert!(elsewhere(&far, &reservation_id()).is_none());
}

#[test]
fn a_camera_is_well_idle_and_live_and_not_when_its_source_is_full() {
    assert!(camera(&snapshot("live", None), &camera_id()).unwrap().is_well);
    let idle = camera(&snapshot("idle", None), &camera_id()).unwrap();
    assert!(idle.is_well && idle.sentence.contains("nobody watches"));
    let mut full = snapshot("live", None);
    full.sources[0].limit = 1;
    let found = camera(&full, &camera_id()).unwrap();
    assert!(found.sentence.contains("METRO uses 1 of 1") && !found.is_well, "{}", found.sentence);
    assert_eq!(found.viewers.len(), 1);
    assert!(camera(&full, &CameraId::parse("other").unwrap()).is_none());
}

#[test]
fn every_state_of_a_camera_that_is_a_failure_has_a_remedy() {
    let failures = [
        "unreachable",
        "unauthorized",
        "not_found",
        "no_keyframe",
        "b_frames",
        "unsupported_codec",
        "no_publisher",
        "lost",
        "protocol",
        "unusable",
    ];
    assert!(failures.iter().all(|state| camera_remedy(state).is_some()));
    assert!(["idle", "live", "connecting", "closing"].iter().all(|s| camera_remedy(s).is_none()));
}

#[test]
fn a_voice_that_is_not_heard_says_who_is_missing() {
    let of = |voices: usize, senders: usize, receivers: usize, silent_for: u64| {
        let mut status = Status::default();
        status.residue.connections = senders + receivers;
        (status.residue.voices, status.residue.senders) = (voices, senders);
        status.residue.receivers = receivers;
        let sounded = Instant::now().checked_sub(Duration::from_secs(silent_for)).unwrap();
        let level = |n| VoiceLevel { voice: format!("stream_{n}"), dbov: -90, sounded };
        status.levels = (0..voices).map(level).collect();
        voice(Some(&status), true)
    };
    let cases = [
        (of(0, 0, 1, 0), "no sender"),
        (of(0, 1, 1, 0), "nothing of its microphone"),
        (of(1, 1, 0, 0), "no receiver"),
        (of(1, 1, 1, 60), "silent: stream_0"),
        (voice(None, true), "switched off"),
        (voice(Some(&Status::default()), false), "failed"),
    ];
    for (found, words) in cases {
        assert!(!found.is_well && found.remedy.is_some(), "{found:?}");
        assert!(found.sentence.contains(words), "{words}: {}", found.sentence);
    }
    let well = of(2, 2, 3, 1);
    assert!(well.is_well, "{well:?}");
    assert_eq!(well.sentence, "2 voices sent, heard by 3 receivers");
}
