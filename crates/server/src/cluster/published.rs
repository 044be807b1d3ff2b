//! Cameras that are published to: the node that the publisher came to has the lease on the camera, whether
//! anybody watches or not. The others pull it from there, and let no second publisher in.

use std::sync::Arc;

use control::CameraId;
use engine::{Rendition, SourceFailure};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::origin::{Kept, LOOK_INTERVAL, Lease, ORIGIN_LEASE, Place, lease_name, node_of};
use super::registry::text;
use super::renewal::{Claim, RENEWAL_INTERVAL};
use super::{Cluster, Peer, place_name};
use crate::ingest::{Output, PublishPoint};

/// The node that has a camera's publisher.
#[derive(Debug)]
pub(crate) struct Elsewhere(pub(crate) String);

/// A publisher's lease on its camera, not kept yet.
pub(crate) struct ClaimedPlace {
    lease: Lease,
    until: Instant,
}

/// The lease while the publisher is there; dropped, it is given back.
#[derive(Debug)]
pub(crate) struct KeptPlace(AbortHandle);

impl KeptPlace {
    /// It was not lost to another node.
    pub(crate) fn is_kept(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for KeptPlace {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cluster {
    /// Takes the lease for a publisher that came here. Another node's is waited for as long as one of a
    /// node that has died may last.
    pub(crate) async fn claim_published(
        &self,
        camera: &CameraId,
        rendition: Rendition,
    ) -> Result<ClaimedPlace, Elsewhere> {
        let key = self.0.settings.store.key(&lease_name(&place_name(camera, rendition)));
        let patience = Instant::now() + ORIGIN_LEASE + LOOK_INTERVAL;
        let until = loop {
            match self.claim(&key).await {
                Ok(Claim::Ours(until)) => break until,
                Ok(Claim::Of(node)) if Instant::now() >= patience => return Err(Elsewhere(node)),
                Ok(Claim::Of(_)) => sleep(LOOK_INTERVAL).await,
                // The lease is tried again at the next turn, and what that finds decides.
                Err(error) => {
                    warn!(%error, camera_id = %camera, "a publisher is let in that the store does not know of");
                    break Instant::now() + RENEWAL_INTERVAL;
                }
            }
        };
        self.count(|counters| &counters.origins_taken);
        info!(node = self.0.settings.node, camera_id = %camera, "this node is the camera's origin");
        Ok(ClaimedPlace { lease: Lease::new(self, &key), until })
    }

    /// One attempt at a camera that is published to, here or at another node.
    pub(super) async fn pull_published(
        &self,
        point: &PublishPoint,
        place: &Place<'_>,
        output: Arc<dyn Output>,
        keyframe_wanted: Arc<Notify>,
    ) -> SourceFailure {
        if point.publisher().is_some() {
            return place.pull(output, keyframe_wanted).await;
        }
        let name = place_name(place.camera, place.rendition);
        let key = self.0.settings.store.key(&lease_name(&name));
        match self.publisher_of(&key).await {
            Some(peer) => self.pull_from(&peer, (&key, &name), output, keyframe_wanted).await,
            // Nobody, or somebody who came here meanwhile.
            None => place.pull(output, keyframe_wanted).await,
        }
    }

    /// The other node that has the lease.
    async fn publisher_of(&self, key: &str) -> Option<Peer> {
        let inner = &self.0;
        let keys = vec![key.to_owned()];
        let owner = inner.settings.store.eval(&inner.scripts.owner, keys, Vec::new()).await.ok()?;
        let node = node_of(&text(&owner)?);
        self.peers(|peers| peers.by_name.get(&node).cloned())
    }
}

impl ClaimedPlace {
    /// Renews it from here on. Where it is another node's all the same, `lost` is called once.
    pub(crate) fn keep(self, lost: impl FnOnce() + Send + 'static) -> KeptPlace {
        let Self { lease, mut until } = self;
        let keeper = tokio::spawn(async move {
            let cluster = lease.cluster.clone();
            while let Kept::Until(next) = cluster.keep(&lease.key, until).await {
                until = next;
            }
            cluster.count(|counters| &counters.origins_lost);
            warn!(
                "another node has this camera's publisher, or this node does not see the store and others do: the publisher here is sent away"
            );
            lost();
        });
        KeptPlace(keeper.abort_handle())
    }
}
