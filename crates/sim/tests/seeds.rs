//! Runs by seed. `SIM_SEED=n` replays one, `SIM_SEEDS=n` runs that many random ones.

use std::time::{Instant, SystemTime};

/// Seeds that found something, and others that go far.
const SEEDS: std::ops::Range<u64> = 0..40;

#[test]
fn runs() {
    for seed in seeds() {
        run(seed);
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if let Some(seed) = number("SIM_SEED") {
        return vec![seed];
    }
    if let Some(count) = number("SIM_SEEDS") {
        let first = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        return (first..first + count).collect();
    }
    SEEDS.collect()
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn run(seed: u64) -> sim::Report {
    let start = Instant::now();
    match sim::run(seed, start) {
        Ok(report) => {
            println!("{seed}: {report:?} in {:?}", start.elapsed());
            report
        }
        Err(failure) => panic!("{failure}"),
    }
}
