//! What the process takes of its machine, under the names that Prometheus gives to it everywhere.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{counter, gauge};

/// How Linux counts CPU time for programs (`USER_HZ`, the same on every architecture it runs servers on).
const TICKS_A_SECOND: f64 = 100.0;

/// Read when they are asked for; nothing where the system does not tell.
#[derive(Debug)]
pub(super) struct ProcessFigures;

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
        if let Some(seconds) = read("stat").ok().as_deref().and_then(cpu_seconds) {
            let help = "CPU seconds that the process has used, in user and in system mode";
            counter(encoder, "process_cpu_seconds", help)?
                .encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        if let Some(bytes) = read("status").ok().as_deref().and_then(resident_bytes) {
            gauge(encoder, "process_resident_memory_bytes", "Memory that the process has")?
                .encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

/// proc(5): behind the name, which may hold anything, `utime` and `stime` are the fields 12 and 13.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_A_SECOND)
}

/// `VmRSS:    1234 kB`
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read_and_anything_else_is_not() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\nRssAnon: 1 kB"), Some(1_263_616));
        assert_eq!(resident_bytes("VmRSS: many"), None);
    }
}
