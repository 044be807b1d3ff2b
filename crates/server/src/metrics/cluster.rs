//! This node's part in the cluster.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::{counter, gauge};
use crate::cluster::ClusterFigures;

/// At one instant. Feeds given are the media plane's, and told with the snapshot.
#[derive(Debug)]
pub(super) struct NodeFigures(pub(super) ClusterFigures);

impl Collector for NodeFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let figures = &self.0;
        let gauges = [
            ("manifold_nodes", "Other nodes that are there", figures.nodes),
            ("manifold_origins", "Streams of which this node has the lease", figures.origins),
            ("manifold_feeds_taken", "Streams pulled from other nodes", figures.feeds_taken),
        ];
        for (name, help, value) in gauges {
            gauge(encoder, name, help)?.encode_gauge(&value)?;
        }
        let counters = [
            ("manifold_origins_taken", "Leases on streams taken", figures.origins_taken),
            ("manifold_origins_lost", "Leases on streams lost to others", figures.origins_lost),
            (
                "manifold_pulls_alone",
                "Pulls without a lease, no node seeing the store",
                figures.alone,
            ),
            ("manifold_rehomings", "Nodes lost from which a stream was pulled", figures.rehomings),
            (
                "manifold_node_registrations_lost",
                "Times that this node could not say any more that it is there",
                figures.registrations_lost,
            ),
            (
                "manifold_records_learned",
                "Cameras and layouts that became what another node had written",
                figures.records_learned,
            ),
            (
                "manifold_records_refused",
                "Cameras and layouts written at another node that could not be had from it",
                figures.records_refused,
            ),
        ];
        for (name, help, value) in counters {
            counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        self.questions(encoder)
    }
}

impl NodeFigures {
    fn questions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures = &self.0;
        let help = "Questions to other nodes";
        let mut metric = counter(encoder, "manifold_node_questions", help)?;
        let outcomes =
            [("answered", figures.questions_answered), ("failed", figures.questions_failed)];
        for (outcome, count) in outcomes {
            let labels = [("outcome", outcome)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let (name, help) =
            ("manifold_node_questions_seconds", "Time that was waited for other nodes' answers");
        let seconds = figures.questions_time.as_secs_f64();
        counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        let (name, help) =
            ("manifold_node_questions_taken", "Questions of other nodes that were answered here");
        let taken = figures.questions_taken;
        counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, u64>(&taken, None)
    }
}
