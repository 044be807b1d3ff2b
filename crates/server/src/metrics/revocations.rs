//! Tokens that were taken back, as the servers of one store tell each other of them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{count, counter, gauge};
use crate::revocations::SharedRevocations;

/// At one instant.
#[derive(Debug)]
pub(super) struct RevocationFigures(pub(super) SharedRevocations);

impl Collector for RevocationFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let SharedRevocations { known, learned, looks, looks_failed, time } = self.0;
        gauge(encoder, "manifold_revocations", "Tokens that are taken back and may not be over")?
            .encode_gauge(&count(known))?;
        counter(encoder, "manifold_revocations_learned", "Tokens that other servers took back")?
            .encode_counter::<NoLabelSet, _, u64>(&learned, None)?;
        let help = "Looks into the list of revoked tokens that all servers of a store share";
        let mut metric = counter(encoder, "manifold_revocation_looks", help)?;
        for (outcome, looks) in [("answered", looks), ("failed", looks_failed)] {
            let labels = [("outcome", outcome)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&looks, None)?;
        }
        let (name, help) = ("manifold_revocation_looks_seconds", "Time that these looks took");
        let seconds = time.as_secs_f64();
        counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }
}
