//! How the store of leases is, and what was put right in it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{counter, gauge};
use crate::ledger::{Repair, StoreHealth};

/// At one instant.
#[derive(Debug)]
pub(super) struct StoreFigures(pub(super) StoreHealth);

impl Collector for StoreFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        gauge(encoder, "manifold_store_up", "1 while the store of leases answers")?
            .encode_gauge(&i64::from(self.0.away.is_none()))?;
        counter(encoder, "manifold_store_losses", "How often the store was lost")?
            .encode_counter::<NoLabelSet, _, u64>(&self.0.losses, None)?;
        let mut metric =
            counter(encoder, "manifold_store_repairs", "What was put right in the store")?;
        for (repair, count) in Repair::ALL.into_iter().zip(self.0.repairs) {
            let labels = [("kind", repair.as_str())];
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
