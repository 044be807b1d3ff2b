//! Ten thousand people come and go, by DELETE, release, BYE or without a word; then everything is as at
//! the start: no lease, session, peer, viewer, puller or timer. The run itself fails where one is left.

use std::time::Instant;

const JOINS: u64 = 10_000;

#[test]
#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn ten_thousand_joins_leave_nothing_behind() {
    let report =
        sim::run_churn(1, JOINS, Instant::now()).unwrap_or_else(|failed| panic!("{failed}"));
    assert_eq!(report.leases, JOINS);
    // Some only reserve, or offer what cannot be answered.
    assert!(report.peers > JOINS * 3 / 4, "{report:?}");
    assert!(report.pictures > report.peers, "{report:?}");
}
