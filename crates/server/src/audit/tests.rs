use super::*;
use crate::data_dir::tests::Temporary;

fn rows(database: &Database) -> Vec<Row> {
    let query = Query { limit: 100_000, ..Query::default() };
    let found = database.read_now(move |reading| store::find(reading, &query)).unwrap();
    found.unwrap_or_default().rows.into_iter().map(|found| found.row).collect()
}

fn kinds(database: &Database) -> Vec<Kind> {
    rows(database).into_iter().map(|row| row.kind).collect()
}

#[test]
fn what_is_told_is_written_and_the_next_server_goes_on() {
    let Temporary(place) = &Temporary::new();
    let database = Database::new(place.clone());
    let audit = Audit::start(database.clone(), None);
    audit.note("amal", "camera_changed", "cam-1");
    audit.finish();
    let next = Audit::start(database.clone(), None);
    next.note("badr", "camera_removed", "cam-1");
    next.finish();

    let expected =
        [Kind::Started, Kind::Changed, Kind::Stopped, Kind::Started, Kind::Changed, Kind::Stopped];
    assert_eq!(kinds(&database), expected);
    assert!(matches!(verify_now(&database, None), Ok(Some(Verdict::Whole { rows: 6, .. }))));
    assert_eq!(next.figures().lost, 0);
}

#[test]
fn a_server_that_has_nothing_to_tell_makes_no_file() {
    let Temporary(place) = &Temporary::new();
    let database = Database::new(place.clone());
    let audit = Audit::start(database.clone(), Some(Duration::from_secs(3600)));
    audit.finish();
    assert!(!place.path("manifold.redb").exists());
    assert!(matches!(verify_now(&database, None), Ok(None)));
}

#[test]
fn more_than_the_disk_takes_is_counted_and_the_loss_is_a_row() {
    let Temporary(place) = &Temporary::new();
    let database = Database::new(place.clone());
    // Nobody else writes while this transaction lasts, so that the queue fills.
    let (audit, told) = database
        .write_now(|_| {
            let audit = Audit::start(database.clone(), None);
            let mut told = 0_u64;
            while audit.figures().lost < 3 {
                audit.note("amal", "limit_changed", "METRO");
                told += 1;
            }
            Ok((audit, told))
        })
        .unwrap();
    audit.finish();
    // The loss is told with the rows that come after it.
    audit.note("amal", "limit_changed", "METRO");
    audit.finish();

    let rows = rows(&database);
    let lost: u64 = rows.iter().filter(|row| row.kind == Kind::Lost).map(|row| row.count).sum();
    let written = rows.iter().filter(|row| row.kind == Kind::Changed).count() as u64;
    assert_eq!((lost, written), (3, told + 1 - 3));
}

#[test]
fn a_place_that_cannot_be_written_stops_nobody() {
    let Temporary(place) = &Temporary::new();
    place.write("file", "").unwrap();
    let below = crate::data_dir::DataDir::of_process(Some(&place.path("file")));
    let audit = Audit::start(Database::new(below), None);
    for _ in 0..2 * MAX_WAITING {
        audit.note("amal", "limit_changed", "METRO");
    }
    assert!(audit.figures().lost > 0);
}
