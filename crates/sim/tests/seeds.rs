//! Runs by seed. `SIM_SEED=n` replays one, `SIM_SEEDS=n` runs that many random ones.

use std::time::{Duration, Instant, SystemTime};

/// Seeds that found something, and others that go far.
const SEEDS: std::ops::Range<u64> = 0..40;

#[test]
fn runs() {
    let mut failures = Vec::new();
    for seed in seeds() {
        if let Err(failure) = run(seed) {
            println!("{}: {:.200}", failure.seed, failure.what);
            failures.push(failure);
        }
    }
    if let Some(first) = failures.first() {
        panic!("{} runs failed, the first of them:\n{first}", failures.len());
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if let Some(seed) = number("SIM_SEED") {
        return vec![seed];
    }
    if let Some(count) = number("SIM_SEEDS") {
        let any = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        let first = number("SIM_FIRST").unwrap_or(any);
        return (first..first + count).collect();
    }
    SEEDS.collect()
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn run(seed: u64) -> Result<sim::Report, Box<sim::Failure>> {
    let start = Instant::now();
    let report = sim::run(seed, start)?;
    let took = start.elapsed();
    if took > Duration::from_secs(2) {
        println!("{seed}: {took:?} for {report:?}");
    }
    Ok(report)
}
