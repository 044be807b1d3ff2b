//! Random operations: the store answers each as the model does, whatever is done to its keys between
//! two of them.

use std::collections::VecDeque;

use control::testing::{Model, START, Sequence, Setup, id, reservation, sequences};
use control::{Answer, LedgerOp, Unit, Usage};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Server, Timed};

/// What somebody does to the store.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    FlushAll,
    ScriptFlush,
    DeleteIndex,
    DeleteLeases,
    DeleteRecords,
    DeleteEpoch,
    ForeignMembers,
    ForeignTypes,
    WrongCounts,
    EndlessLease,
}

impl Spoil {
    fn commands(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::FlushAll => &[&["FLUSHALL"]],
            Self::ScriptFlush => &[&["SCRIPT", "FLUSH"]],
            Self::DeleteIndex => &[&["DEL", "stream:index"]],
            Self::DeleteLeases => &[&["DEL", "stream:leases"]],
            Self::DeleteRecords => &[&["DEL", "stream:records"]],
            Self::DeleteEpoch => &[&["DEL", "stream:epoch"]],
            Self::ForeignMembers => &[
                &["ZADD", "stream:leases", "1900000000000", "somebody"],
                &["ZADD", "stream:index", "0", "s/METRO/x/y"],
                &["HSET", "stream:records", "somebody", "something"],
            ],
            Self::ForeignTypes => &[
                &["SET", "stream:leases", "x"],
                &["SET", "stream:index", "x"],
                &["LPUSH", "stream:limits", "x"],
                &["SET", "stream:mirrors", "x"],
                &["SET", "stream:ended", "x"],
            ],
            Self::WrongCounts => {
                &[&["SET", "stream:count:METRO", "-7"], &["LPUSH", "stream:count:TAXI", "x"]]
            }
            Self::EndlessLease => &[&["ZADD", "stream:leases", "9000000000000", "somebody"]],
        }
    }
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        Just(Spoil::FlushAll),
        Just(Spoil::ScriptFlush),
        Just(Spoil::DeleteIndex),
        Just(Spoil::DeleteLeases),
        Just(Spoil::DeleteRecords),
        Just(Spoil::DeleteEpoch),
        Just(Spoil::ForeignMembers),
        Just(Spoil::ForeignTypes),
        Just(Spoil::WrongCounts),
        Just(Spoil::EndlessLease),
    ]
}

#[test]
fn the_store_answers_as_the_model_does() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(60));
    let result = runner.run(&sequences(100), |sequence| {
        server.cli(&["FLUSHALL"]);
        runtime.block_on(compare(&server, &sequence, &[]))
    });
    result.unwrap();
}

#[test]
fn what_is_done_to_the_keys_changes_no_answer() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(40));
    let spoils = prop::collection::vec((0usize..60, spoil()), 1..6);
    let result = runner.run(&(sequences(60), spoils), |(sequence, spoils)| {
        server.cli(&["FLUSHALL"]);
        runtime.block_on(compare(&server, &sequence, &spoils))
    });
    result.unwrap();
}

#[test]
fn what_is_asked_together_is_answered_one_by_one() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(60));
    let together = prop::collection::vec(1usize..12, 1..20);
    let result = runner.run(&(sequences(100), together), |(sequence, together)| {
        server.cli(&["FLUSHALL"]);
        runtime.block_on(compare_together(&server, &sequence, &together))
    });
    result.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_together_is_asked_again_where_the_store_was_emptied_meanwhile() {
    let server = Server::start();
    for spoil in [Spoil::FlushAll, Spoil::ForeignTypes, Spoil::ScriptFlush] {
        server.cli(&["FLUSHALL"]);
        let setup = Setup { unit: Unit::Viewer, per_user: None };
        let mut timed = Timed::new(&server, setup).await;
        timed.apply(LedgerOp::Reserve(reservation(1, 0)), START).await;
        for words in spoil.commands() {
            server.cli(words);
        }

        let ops = [
            LedgerOp::Reserve(reservation(2, 0)),
            LedgerOp::Release(id(1)),
            LedgerOp::Heartbeat { id: id(1), extend: None },
            LedgerOp::Reserve(reservation(2, 0)),
        ];
        let outcomes = timed.apply_all(ops.to_vec(), START).await;

        let answers: Vec<&Answer> = outcomes.iter().map(|(_, outcome)| &outcome.answer).collect();
        assert!(
            matches!(
                answers[..],
                [
                    Answer::Reserved { usage: Usage { current: 2, .. }, .. },
                    Answer::Released { usage: Usage { current: 1, .. }, .. },
                    Answer::NotFound,
                    Answer::IdTaken,
                ]
            ),
            "{spoil:?}: {answers:?}"
        );
        assert_eq!(server.cli(&["ZCARD", "stream:leases"]), "1", "{spoil:?}");
        assert!(timed.book.ended.is_empty());
    }
}

/// Packets are left out: those that are told together all count before anything ends.
async fn compare_together(
    server: &Server,
    sequence: &Sequence,
    together: &[usize],
) -> Result<(), TestCaseError> {
    let mut timed = Timed::new(server, sequence.setup).await;
    let mut model = Model::new(sequence.setup);
    let mut ops: VecDeque<_> =
        sequence.ops().filter(|(op, _)| !matches!(op, LedgerOp::MediaSeen { .. })).collect();
    for count in together.iter().cycle() {
        let group: Vec<_> = ops.drain(..(*count).min(ops.len())).collect();
        let Some((_, now)) = group.last() else { break };
        let asked = group.iter().map(|(op, _)| op.clone()).collect();
        let outcomes = timed.apply_all(asked, *now).await;
        prop_assert_eq!(outcomes.len(), group.len());
        for (place, outcome) in outcomes {
            let (op, _) = &group[place];
            let expected = model.apply(op.clone(), *now);
            prop_assert_eq!(&outcome.answer, &expected.answer, "{:?}", op);
            prop_assert_eq!(&outcome.ended, &expected.ended, "{:?}", op);
        }
    }
    let now = *timed.now.lock().unwrap();
    let last = timed.apply(LedgerOp::Expire, now).await;
    prop_assert_eq!(last, model.apply(LedgerOp::Expire, now));
    Ok(())
}

/// Limits live in the store alone: who empties it takes the configured ones again.
fn loses_limits(spoil: Spoil) -> bool {
    matches!(spoil, Spoil::FlushAll)
}

async fn compare(
    server: &Server,
    sequence: &Sequence,
    spoils: &[(usize, Spoil)],
) -> Result<(), TestCaseError> {
    let mut timed = Timed::new(server, sequence.setup).await;
    let mut model = Model::new(sequence.setup);
    for (place, (op, now)) in sequence.ops().enumerate() {
        // Leases that are due end by the next operation, before and after it is spoilt.
        for (_, spoil) in spoils.iter().filter(|(at, _)| *at == place) {
            let swept = timed.apply(LedgerOp::Expire, now).await;
            prop_assert_eq!(swept, model.apply(LedgerOp::Expire, now));
            for words in spoil.commands() {
                server.cli(words);
            }
            timed.book.take_census().await.unwrap();
            prop_assert!(timed.book.ended.is_empty(), "{:?} ended a lease", spoil);
            if loses_limits(*spoil) {
                for index in 0..2 {
                    let source = control::testing::source(index);
                    model.apply(LedgerOp::SetLimit { source, limit: None }, now);
                }
            }
        }
        let outcome = timed.apply(op.clone(), now).await;
        prop_assert_eq!(&outcome, &model.apply(op.clone(), now), "{:?}", op);
        if let Answer::Snapshot(snapshot) = &outcome.answer {
            timed.book.take_census().await.unwrap();
            for source in &snapshot.sources {
                let of_source = |lease: &&control::Lease| lease.reservation.source == source.source;
                let leases = snapshot.leases.iter().filter(of_source).count();
                let shown = server.cli(&["GET", &format!("stream:count:{}", source.source)]);
                prop_assert_eq!(shown, leases.to_string());
            }
        }
    }
    Ok(())
}
