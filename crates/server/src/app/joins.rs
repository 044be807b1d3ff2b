//! How long viewers wait for their first packet of media.

use std::time::Duration;

/// Upper bounds of the buckets that join times are counted in; one more bucket takes the rest.
pub(crate) const JOIN_BUCKETS_MS: [u64; 10] = [25, 50, 80, 120, 200, 400, 800, 1600, 3200, 10_000];

/// A histogram of join times, from the WHEP POST to the first packet of media.
#[derive(Debug, Default)]
pub(super) struct Joins {
    /// Not cumulative.
    pub(super) buckets: [u64; JOIN_BUCKETS_MS.len() + 1],
    pub(super) sum_ms: u64,
}

impl Joins {
    pub(super) fn observe(&mut self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let bucket = JOIN_BUCKETS_MS.partition_point(|bound| *bound < ms);
        self.buckets[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_the_last_takes_the_rest() {
        let mut joins = Joins::default();
        for ms in [0, 25, 26, 10_000, 10_001, 1 << 40] {
            joins.observe(Duration::from_millis(ms));
        }
        assert_eq!(joins.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(joins.sum_ms, 25 + 26 + 10_000 + 10_001 + (1 << 40));
    }
}
