use proptest::prelude::*;

use super::super::row::tests::any_row;
use super::*;
use crate::data_dir::tests::Temporary;
use crate::database::Database;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn later(ms: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + ms)
}

fn database() -> (Temporary, Database) {
    let place = Temporary::new();
    let database = Database::new(place.0.clone());
    (place, database)
}

fn add(database: &Database, rows: &[Row]) -> Link {
    database.write_now(|transaction| append(transaction, rows, NOW)).unwrap()
}

fn check(database: &Database, noted: Option<Link>) -> Verdict {
    database.read_now(|transaction| verify(transaction, noted)).unwrap().unwrap()
}

fn seek(database: &Database, query: Query) -> Vec<u64> {
    let found = database.read_now(|transaction| find(transaction, &query)).unwrap().unwrap();
    found.rows.into_iter().map(|found| found.number).collect()
}

fn all() -> Query {
    Query { limit: 1000, ..Query::default() }
}

fn watch(kind: Kind, reservation: &str, camera: &str, user: &str) -> Row {
    Row {
        camera: camera.to_owned(),
        actor: user.to_owned(),
        source: "METRO".to_owned(),
        reservation: reservation.to_owned(),
        ..Row::new(kind)
    }
}

/// As somebody would who has the file and the library.
fn tamper(database: &Database, act: impl FnOnce(&mut Table<'_, u64, &'static [u8]>)) {
    database
        .write_now(|transaction| {
            act(&mut transaction.open_table(ROWS)?);
            Ok(())
        })
        .unwrap();
}

fn bytes(table: &Table<'_, u64, &'static [u8]>, number: u64) -> Vec<u8> {
    table.get(number).unwrap().unwrap().value().to_vec()
}

fn broken_at(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Broken { number, .. } => number,
        Verdict::Whole { .. } => panic!("nothing was found"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_trail_that_is_left_alone_is_whole(
        rows in proptest::collection::vec(any_row(), 1..30),
        batch in 1_usize..10,
    ) {
        let (_place, database) = database();
        // A removal that nobody made is none of the server's rows.
        let rows: Vec<_> = rows.into_iter().map(|row| Row { removed: None, ..row }).collect();
        let mut head = Link::origin();
        for rows in rows.chunks(batch) {
            head = add(&database, rows);
        }
        let whole = Verdict::Whole { rows: rows.len() as u64, removed: 0, head };
        prop_assert_eq!(check(&database, Some(head)), whole);
        prop_assert_eq!(head.to_string().parse(), Ok(head));
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_row(
        rows in proptest::collection::vec(any_row(), 2..12),
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let (_place, database) = database();
        add(&database, &rows);
        let number = which.index(rows.len()) as u64 + 1;
        tamper(&database, |table| {
            let mut value = bytes(table, number);
            let at = place.index(value.len());
            value[at] ^= 1_u8 << bit;
            table.insert(number, value.as_slice()).unwrap();
        });
        prop_assert_eq!(broken_at(check(&database, None)), number);
    }

    #[test]
    fn removed_rows_are_found_wherever_they_stood(
        rows in proptest::collection::vec(any_row(), 2..12),
        which in any::<prop::sample::Index>(),
        count in 1_u64..4,
    ) {
        let (_place, database) = database();
        add(&database, &rows);
        let first = which.index(rows.len()) as u64 + 1;
        tamper(&database, |table| {
            for number in first..first + count {
                table.remove(number).unwrap();
            }
        });
        prop_assert_eq!(broken_at(check(&database, None)), first);
    }

    #[test]
    fn rows_that_changed_places_are_found(
        rows in proptest::collection::vec(any_row(), 2..12),
        (one, other) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let (_place, database) = database();
        add(&database, &rows);
        let (one, other) = (one.index(rows.len()) as u64 + 1, other.index(rows.len()) as u64 + 1);
        prop_assume!(one != other);
        tamper(&database, |table| {
            let (first, second) = (bytes(table, one), bytes(table, other));
            table.insert(one, second.as_slice()).unwrap();
            table.insert(other, first.as_slice()).unwrap();
        });
        prop_assert_eq!(broken_at(check(&database, None)), one.min(other));
    }
}

#[test]
fn a_chain_that_was_made_anew_is_another_than_was_noted() {
    let (_place, database) = database();
    add(&database, &[Row::changed("amal", "camera_changed", "cam-1")]);
    let noted = add(&database, &[Row::changed("amal", "camera_removed", "cam-1")]);
    add(&database, &[Row::changed("badr", "camera_changed", "cam-2")]);

    // Somebody writes all rows anew, with right hashes, and leaves one out or changes it.
    let forged = |rows: &[Row]| {
        let (place, database) = self::database();
        add(&database, rows);
        (place, database)
    };
    let (_one, short) = forged(&[Row::changed("amal", "camera_changed", "cam-1")]);
    let changed = [
        Row::changed("amal", "camera_changed", "cam-1"),
        Row::changed("omar", "camera_removed", "cam-1"),
        Row::changed("badr", "camera_changed", "cam-2"),
    ];
    let (_two, other) = forged(&changed);

    assert!(matches!(check(&database, Some(noted)), Verdict::Whole { rows: 3, .. }));
    assert!(matches!(check(&short, None), Verdict::Whole { .. }), "the file alone cannot tell");
    assert_eq!(broken_at(check(&short, Some(noted))), 2);
    assert_eq!(broken_at(check(&other, Some(noted))), 2);
}

#[test]
fn rows_that_were_put_behind_the_newest_are_found() {
    let (_place, database) = database();
    let head = add(&database, &[Row::changed("amal", "a", "b")]);
    tamper(&database, |table| {
        let body = Row::changed("omar", "a", "b").to_body();
        let value = [&hash(&head.hash, 2, &body)[..], &body].concat();
        table.insert(2, value.as_slice()).unwrap();
    });
    assert_eq!(broken_at(check(&database, None)), 3);
}

#[test]
fn old_rows_go_and_a_row_vouches_for_it() {
    let (_place, database) = database();
    let old = Row { at: NOW, ..watch(Kind::Ended, "r1", "cam-1", "amal") };
    let young = Row { at: later(1000), ..watch(Kind::Ended, "r2", "cam-1", "amal") };
    add(&database, &[old.clone(), old, young]);
    let noted = database.read_now(head).unwrap().unwrap();
    let pruned = |before, rows_max, at_once| {
        database
            .write_now(|transaction| prune(transaction, before, rows_max, at_once, later(2000)))
            .unwrap()
    };

    assert_eq!(pruned(Some(later(1000)), 100, 1), 1, "no more at once than is said");
    assert_eq!(pruned(Some(later(1000)), 100, 100), 1);
    assert_eq!(pruned(Some(later(1000)), 100, 100), 0);

    assert!(matches!(check(&database, Some(noted)), Verdict::Whole { rows: 3, removed: 2, .. }));
    assert_eq!(seek(&database, all()), [3, 4, 5]);
    let life =
        |id: &'static str| database.read_now(move |reading| life(reading, id)).unwrap().unwrap();
    assert!(life("r1").is_none() && life("r2").is_some());

    assert_eq!(pruned(None, 2, 100), 1, "there are more than may be");
    assert!(matches!(check(&database, None), Verdict::Whole { removed: 3, .. }));
}

#[test]
fn a_beginning_that_nobody_vouches_for_is_found() {
    let (_place, database) = database();
    let rows = ["a", "b", "c"].map(|action| Row::changed("amal", action, ""));
    add(&database, &rows);
    database
        .write_now(|transaction| {
            let mut table = transaction.open_table(ROWS)?;
            let value = table.remove(1)?.map(|value| value.value().to_vec()).unwrap_or_default();
            let base = Link { number: 1, hash: value[..HASH_BYTES].try_into().unwrap() };
            transaction.open_table(STATE)?.insert(BASE, base.to_bytes().as_slice())?;
            Ok(())
        })
        .unwrap();
    assert_eq!(broken_at(check(&database, None)), 1);
}

#[test]
fn rows_are_found_by_what_they_are_about_and_when_it_was() {
    let (_place, database) = database();
    let long = Row {
        at: later(10_000),
        from: Some(later(0)),
        to: Some(later(9_000)),
        ..watch(Kind::Ended, "r1", "cam-1", "amal")
    };
    let short = Row {
        at: later(12_000),
        from: Some(later(11_000)),
        to: Some(later(11_500)),
        source: "TAXI".to_owned(),
        ..watch(Kind::Ended, "r2", "cam-2", "badr")
    };
    let change = Row { at: later(13_000), ..Row::changed("badr", "camera_changed", "cam-2") };
    add(&database, &[long, short, change]);
    let text = |text: &str| text.to_owned();

    assert_eq!(seek(&database, all()), [1, 2, 3]);
    assert_eq!(seek(&database, Query { camera: text("cam-2"), ..all() }), [2, 3]);
    assert_eq!(seek(&database, Query { user: text("badr"), ..all() }), [2, 3]);
    assert_eq!(seek(&database, Query { sources: vec![text("METRO")], ..all() }), [1]);
    assert_eq!(seek(&database, Query { kinds: vec![Kind::Changed], ..all() }), [3]);
    let at = |from, to| Query { from: Some(later(from)), to: Some(later(to)), ..all() };
    assert_eq!(seek(&database, at(4_000, 5_000)), [1], "he watched then, whenever it was written");
    assert_eq!(seek(&database, at(9_001, 11_000)), [0; 0]);
    assert_eq!(seek(&database, at(9_000, 20_000)), [1, 2, 3]);

    let one = Query { limit: 1, ..all() };
    let page = database.read_now(|reading| find(reading, &one)).unwrap().unwrap();
    assert_eq!(page.next, Some(1));
    assert_eq!(seek(&database, Query { after: 1, ..all() }), [2, 3]);
    let last = Query { limit: 3, ..all() };
    let page = database.read_now(|reading| find(reading, &last)).unwrap().unwrap();
    assert_eq!(page.next, None);
}

#[test]
fn who_watched_when_the_server_was_killed_is_told_once() {
    let (_place, database) = database();
    let begun = |id| watch(Kind::Begun, id, "cam-1", "amal");
    add(&database, &[begun("r1"), begun("r2"), watch(Kind::Ended, "r1", "cam-1", "amal")]);
    let reopen = || {
        database
            .write_now(|transaction| {
                let rows = cut(transaction)?;
                append(transaction, &rows, later(5))?;
                Ok(rows)
            })
            .unwrap()
    };

    let rows = reopen();

    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].reservation.as_str(), rows[0].from), ("r2", Some(NOW)));
    assert!(reopen().is_empty());
    let found = database.read_now(|reading| life(reading, "r2")).unwrap().unwrap().unwrap();
    assert_eq!((found.row.kind, found.row.at), (Kind::Cut, later(5)));
}

#[test]
fn times_never_go_back_even_if_the_clock_does() {
    let (_place, database) = database();
    add(&database, &[Row { at: later(5_000), ..Row::changed("a", "b", "c") }]);
    add(&database, &[Row::changed("a", "b", "c")]);
    let answer = database.read_now(|reading| find(reading, &all())).unwrap().unwrap();
    let times: Vec<_> = answer.rows.into_iter().map(|found| found.row.at).collect();
    assert_eq!(times, [later(5_000), later(5_000)]);
}
