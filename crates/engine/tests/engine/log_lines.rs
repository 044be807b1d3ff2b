//! The log lines that operators search for, word for word, with the fields that they search by.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

use crate::support::*;
use engine::SourceFailure;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

const CREATING: &str = "Creating new stream resources (first viewer)";
const REUSING: &str = "Reusing existing stream resources for additional viewer";
const JOINED: &str = "Additional viewer joined existing stream";
const KEPT: &str = "Viewer disconnected - stream resources kept for remaining viewers";
const LAST: &str = "Last viewer disconnected - cleaning up all stream resources";
const CLEANED: &str = "All stream resources cleaned up (last viewer)";

#[test]
fn a_streams_life_is_told_in_the_words_that_people_search_for() {
    let lines = record(|world| {
        world.reserved(1, 0);
        world.reserved(2, 0);
        world.watch(2, 0);
        world.release(1);
        world.release(2);
        world.pass(Duration::from_secs(5));
    });
    let told: Vec<_> = [CREATING, REUSING, JOINED, KEPT, LAST, CLEANED]
        .iter()
        .flat_map(|words| lines.iter().filter(move |line| line.message == *words))
        .map(|line| (line.message.as_str(), line.field("reservation_id"), line.field("camera_id")))
        .collect();
    let (first, second) = (reservation_id(1).to_string(), reservation_id(2).to_string());
    let expected: Vec<_> = [
        (CREATING, &first),
        (REUSING, &second),
        (JOINED, &second),
        (KEPT, &first),
        (LAST, &second),
        (CLEANED, &second),
    ]
    .into_iter()
    .map(|(words, id)| (words, Some(id.clone()), Some("cam-0".to_owned())))
    .collect();
    assert_eq!(told, expected);
}

#[test]
fn nothing_is_cleaned_up_when_a_viewer_comes_back_in_time() {
    let lines = record(|world| {
        world.reserved(1, 0);
        world.live(0);
        world.release(1);
        world.pass(Duration::from_secs(4));
        world.reserved(2, 0);
        world.pass(Duration::from_secs(4));
    });
    let count = |words: &str| lines.iter().filter(|line| line.message == words).count();
    assert_eq!((count(CREATING), count(REUSING), count(LAST), count(CLEANED)), (1, 1, 1, 0));
}

#[test]
fn a_failure_is_told_once_and_repeated_only_to_who_debugs() {
    let lines = record(|world| {
        world.reserved(1, 0);
        for _ in 0..4 {
            world.fail(0, unreachable());
            while world.puller(0).is_none() {
                world.pass(Duration::from_millis(500));
                let reservation = reservation_id(1);
                world.ask(engine::Request::Heartbeat { reservation, extend: None, quality: None });
            }
        }
        world.fail(0, SourceFailure::Unauthorized);
    });
    let warnings: Vec<_> = lines
        .iter()
        .filter(|line| line.level == Level::WARN)
        .map(|line| (line.field("camera_id"), line.field("reason")))
        .collect();
    let camera = || Some("cam-0".to_owned());
    let expected = [
        (camera(), Some(unreachable().to_string())),
        (camera(), Some(SourceFailure::Unauthorized.to_string())),
    ];
    assert_eq!(warnings, expected);
}

fn record(scenario: impl FnOnce(&mut World)) -> Vec<Line> {
    let mut world = World::new(3, 1);
    LINES.set(Some(Vec::new()));
    scenario(&mut world);
    LINES.take().expect("recording was on")
}

thread_local! {
    /// What this thread's test has logged, while it records.
    static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// Records for all tests of this program, from before their first line: a recorder that came and
/// went with a test would race for what `tracing` remembers of each line's readers.
pub(crate) fn install_recorder() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Recorder).expect("there is no other");
    });
}

struct Line {
    level: Level,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn field(&self, name: &str) -> Option<String> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone())
    }
}

struct Recorder;

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        LINES.with_borrow_mut(|lines| {
            let Some(lines) = lines else {
                return;
            };
            let level = *event.metadata().level();
            let mut line = Line { level, message: String::new(), fields: Vec::new() };
            event.record(&mut line);
            lines.push(line);
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}
