use std::net::SocketAddr;

use engine::SwitchReason;
use media::batch::Route;

use super::*;

fn id(number: u128) -> ReservationId {
    ReservationId::parse(&uuid::Uuid::from_u128(number).to_string()).unwrap()
}

fn wish() -> Wish {
    let camera = CameraId::parse("cam-1").unwrap();
    Wish { camera, user: "amal".to_owned(), quality: Quality::Auto, class: Class::LOWEST }
}

fn begun(id: &ReservationId) -> Note {
    let Wish { camera, user, quality, class } = wish();
    let source = SourceId::parse("METRO").unwrap();
    let reservation = control::Reservation { id: id.clone(), camera, source, user, quality, class };
    Note::Begun { reservation: Box::new(reservation), rendition: Rendition::Main }
}

fn route() -> Route {
    Route::new(SocketAddr::from(([10, 0, 0, 1], 8555)), SocketAddr::from(([10, 0, 0, 2], 4000)))
}

fn sent(packets: u64) -> TrackFigures {
    TrackFigures { packets, octets: packets * 1000 }
}

fn granted(journal: &Journal, number: u128) -> ReservationId {
    let id = id(number);
    journal.asked(&id, wish());
    journal.handle_note(&id, begun(&id));
    id
}

/// A browser that watches.
fn watching(journal: &Journal, id: &ReservationId, viewer: ViewerId) {
    journal.step(id, Step::Offered);
    journal.handle_note(id, Note::Answered { viewer });
    journal.handle_media(&MediaEvent::Reached { viewer, route: route() });
    journal.handle_media(&MediaEvent::Connected { viewer, handshake_ms: 80, route: route() });
    journal.handle_media(&MediaEvent::FirstMedia { viewer });
}

fn words(life: &Life) -> Vec<&'static str> {
    life.steps.iter().map(|moment| moment.step.word()).collect()
}

#[test]
fn a_life_is_told_from_its_request_to_its_end() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    journal.token(&id, Duration::from_secs(3600));
    journal.token(&id, Duration::from_secs(3600));
    journal.handle_note(&id, Note::CameraLive);
    watching(&journal, &id, ViewerId(7));
    journal.decoded(&id, 0);
    journal.decoded(&id, 25);
    journal.decoded(&id, 50);
    journal.handle_note(&id, Note::Ended(EndReason::PeerLeft));

    let life = journal.life(&id).unwrap();

    let expected = [
        "asked",
        "reserved",
        "token_issued",
        "camera_live",
        "offered",
        "answered",
        "path",
        "connected",
        "first_media",
        "decoded",
        "ended",
    ];
    assert_eq!(words(&life), expected);
    assert_eq!(life.state, LifeState::Ended(EndReason::PeerLeft));
    assert_eq!((life.decoded, life.token.unwrap().renewals), (Some(50), 1));
    assert_eq!(life.since_offer().len(), 7);
    assert!(life.steps.iter().all(|moment| !moment.step.detail().is_empty()));
}

#[test]
fn what_all_peers_were_sent_is_added_up_whenever_it_is_told() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    watching(&journal, &id, ViewerId(1));
    let alive = |viewer, packets| {
        let at = Instant::now();
        journal.handle_media(&MediaEvent::Alive { viewer, at, sent: Some(sent(packets)) });
    };
    alive(ViewerId(1), 10);
    alive(ViewerId(1), 20);
    assert_eq!(journal.life(&id).unwrap().sent, sent(20));
    watching(&journal, &id, ViewerId(2));
    journal.handle_media(&MediaEvent::Detached { viewer: ViewerId(1), sent: sent(25) });
    alive(ViewerId(2), 5);
    journal.handle_note(&id, Note::Ended(EndReason::Released));
    assert_eq!(journal.life(&id).unwrap().sent, sent(30));

    journal.handle_media(&MediaEvent::Detached { viewer: ViewerId(2), sent: sent(6) });

    assert_eq!(journal.life(&id).unwrap().sent, sent(31));
    assert!(journal.book().peers.is_empty());
    assert_eq!(journal.book().ended, [id], "it is over once nothing is added any more");
}

#[test]
fn a_life_whose_peer_says_nothing_any_more_is_closed_by_time() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    watching(&journal, &id, ViewerId(1));
    journal.handle_note(&id, Note::Ended(EndReason::Released));
    assert!(journal.book().ended.is_empty());

    let later = journal.now() + FIGURES_WAIT;
    journal.book().settle(later);

    assert_eq!(journal.book().ended, [id]);
    assert!(journal.book().closing.is_empty());
}

#[test]
fn a_connection_that_never_came_about_leaves_its_reason_and_no_peer() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    journal.step(&id, Step::Offered);
    journal.handle_note(&id, Note::Answered { viewer: ViewerId(3) });
    let reason = CloseReason::NeverConnected;
    journal.handle_media(&MediaEvent::Closed { viewer: ViewerId(3), reason });
    journal.handle_note(&id, Note::PeerGone(reason));

    let life = journal.life(&id).unwrap();

    let last = life.newest(|step| matches!(step, Step::Disconnected { .. })).unwrap();
    assert_eq!(last.step.detail(), "ICE or DTLS did not finish in time");
    assert!(life.newest(|step| matches!(step, Step::Path(_))).is_none());
    assert!(journal.book().peers.is_empty());
}

#[test]
fn a_path_that_stays_is_one_step_and_a_line_tells_only_of_changes() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    watching(&journal, &id, ViewerId(1));
    let line = |is_too_thin| {
        let line = media::estimate::LineState { is_too_thin, ..Default::default() };
        journal.handle_media(&MediaEvent::Line {
            viewer: ViewerId(1),
            line,
            stream: media::StreamId(0),
        });
    };
    [false, true, true, false].into_iter().for_each(line);
    let life = journal.life(&id).unwrap();
    let count = |word| words(&life).into_iter().filter(|other| *other == word).count();
    assert_eq!((count("path"), count("line_thin"), count("line_wide")), (1, 1, 1));
}

#[test]
fn a_long_life_keeps_its_beginning_and_its_newest_steps() {
    let journal = Journal::new(Audit::off());
    let id = granted(&journal, 1);
    for _ in 0..500 {
        let switched = Note::Switched { to: Rendition::Sub, reason: SwitchReason::Line };
        journal.handle_note(&id, switched);
    }
    journal.handle_note(&id, Note::Ended(EndReason::Released));
    let life = journal.life(&id).unwrap();
    assert_eq!(life.steps.len(), MAX_STEPS);
    assert_eq!(life.steps_omitted as usize, 503 - MAX_STEPS);
    assert_eq!((words(&life)[0], words(&life)[MAX_STEPS - 1]), ("asked", "ended"));
}

#[test]
fn the_oldest_ends_are_forgotten_and_refusals_drive_out_no_lives() {
    let journal = Journal::new(Audit::off());
    let watched = granted(&journal, 1);
    journal.handle_note(&watched, Note::Ended(EndReason::Released));
    for number in 2..2 + 2 * MAX_REFUSED as u128 {
        journal.asked(&id(number), wish());
        journal.refused(&id(number), Refusal::Quota("full".to_owned()));
    }
    assert!(journal.life(&watched).is_some() && journal.life(&id(2)).is_none());
    assert_eq!(journal.book().lives.len(), 1 + MAX_REFUSED);

    for number in 0..MAX_ENDED as u128 {
        let id = granted(&journal, 1_000_000 + number);
        journal.handle_note(&id, Note::Ended(EndReason::Expired));
    }

    assert!(journal.life(&watched).is_none());
    assert_eq!(journal.book().lives.len(), MAX_ENDED + MAX_REFUSED);
}

#[test]
fn what_is_told_of_strangers_is_passed_over() {
    let journal = Journal::new(Audit::off());
    journal.step(&id(1), Step::Offered);
    journal.decoded(&id(1), 1);
    journal.token(&id(1), Duration::from_secs(1));
    journal.refused(&id(1), Refusal::Server("end".to_owned()));
    journal.handle_note(&id(1), Note::Ended(EndReason::Released));
    journal.handle_media(&MediaEvent::Detached { viewer: ViewerId(1), sent: sent(1) });
    assert!(journal.life(&id(1)).is_none() && journal.book().lives.is_empty());
}
