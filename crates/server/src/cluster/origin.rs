//! Which node pulls a camera: the one with the lease on it. The others pull that one.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use control::CameraId;
use engine::{Rendition, SourceFailure};
use hyper::Method;
use media::Frame;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::registry::text;
use super::renewal::{Claim, RENEWAL_INTERVAL};
use super::{Cluster, Peer, place_name};
use crate::ingest::{self, NodeStream, Output, Reach, RtspTransport, SourceFormat, SourceUrl};
use crate::remote::Ask;

/// How long a camera is a node's after it said so last. A node that was killed holds a camera for so long.
pub(super) const ORIGIN_LEASE: Duration = Duration::from_secs(2);

/// From one look at whose a camera is to the next, where it could not be pulled from its owner.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long an edge looks for an origin before the engine is told: a dead node's leases on camera and name
/// are over by then.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(5);

/// An edge that pulled for so long had a picture, and its search begins anew.
const STEADY_AFTER: Duration = Duration::from_secs(2);

/// How long another node may take to say whether it sees the store.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(1);

/// One stream's source, as each node has it in its settings.
pub(crate) struct Place<'a> {
    pub(crate) camera: &'a CameraId,
    pub(crate) rendition: Rendition,
    pub(crate) source: &'a SourceUrl,
    pub(crate) reach: Reach,
    pub(crate) transport: RtspTransport,
}

/// What was found when somebody looked for a node that sees the store.
pub(super) struct Seeing {
    /// `None`: there is none.
    peer: Option<Peer>,
    at: Instant,
}

/// What became of a lease that was ours.
pub(super) enum Kept {
    Until(Instant),
    Taken,
    /// Others see the store, and this node does not: the camera is theirs.
    CutOff,
}

impl Cluster {
    /// One attempt at a camera, from here or from the node that pulls it.
    pub(crate) async fn pull(
        &self,
        place: &Place<'_>,
        output: Arc<dyn Output>,
        keyframe_wanted: Arc<Notify>,
    ) -> SourceFailure {
        match place.source {
            SourceUrl::Rtsp { .. } | SourceUrl::Whep { .. } => {}
            SourceUrl::Whip(point) => {
                return self.pull_published(point, place, output, keyframe_wanted).await;
            }
            // What is painted costs nobody a connection.
            SourceUrl::Test { .. } | SourceUrl::Sealed { .. } => {
                return place.pull(output, keyframe_wanted).await;
            }
        }
        let name = place_name(place.camera, place.rendition);
        let key = self.0.settings.store.key(&lease_name(&name));
        let mut searching = Instant::now();
        loop {
            let peer = match self.claim(&key).await {
                Ok(Claim::Ours(until)) => {
                    return self.originate(&key, until, place, output, keyframe_wanted).await;
                }
                Ok(Claim::Of(owner)) => self.peers(|peers| peers.by_name.get(&owner).cloned()),
                Err(error) => match self.peer_with_store().await {
                    Some(peer) => Some(peer),
                    None => {
                        warn!(%error, "nobody sees the store; the camera is pulled from here");
                        return self.originate_alone(place, output, keyframe_wanted).await;
                    }
                },
            };
            let begun = Instant::now();
            let failure = match &peer {
                Some(peer) => {
                    let (output, wanted) = (Arc::clone(&output), Arc::clone(&keyframe_wanted));
                    self.pull_from(peer, (&key, &name), output, wanted).await
                }
                None => lost("the node that pulls this camera is gone"),
            };
            if begun.elapsed() >= STEADY_AFTER {
                self.count(|counters| &counters.rehomings);
                info!(reason = %failure, "the node that pulls this camera is lost; another is looked for");
                searching = Instant::now();
            }
            if searching.elapsed() >= SEARCH_TIME_MAX {
                return failure;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Pulls another node, as long as the stream is its.
    pub(super) async fn pull_from(
        &self,
        peer: &Peer,
        (key, name): (&str, &str),
        output: Arc<dyn Output>,
        keyframe_wanted: Arc<Notify>,
    ) -> SourceFailure {
        debug!(node = peer.name, "another node has this camera, and is pulled");
        let _taken = self.takes_feed();
        let feed = Arc::new(PeerFeed { output, is_live: AtomicBool::new(false) });
        tokio::select! {
            failure = pull_peer(peer, name, Arc::clone(&feed), keyframe_wanted) => failure,
            () = self.moved(key, peer, &feed) => {
                lost("it is not that node any more that has this camera")
            }
        }
    }

    /// The node that pulls a camera's full picture; `None`: none does, or the store does not say.
    pub(crate) async fn origin_of(&self, camera: &CameraId) -> Option<String> {
        let inner = &self.0;
        let name = place_name(camera, Rendition::Main);
        let keys = vec![inner.settings.store.key(&format!("stream:origin:{name}"))];
        let owner = inner.settings.store.eval(&inner.scripts.owner, keys, Vec::new()).await;
        owner.ok().as_ref().and_then(text).map(|owner| node_of(&owner))
    }

    /// Resolves when a camera is not this node's any more, as long as no picture came from there: a node that
    /// stands still, or whose machine is dead, answers nothing, and its lease tells so before any deadline does.
    async fn moved(&self, key: &str, peer: &Peer, feed: &PeerFeed) {
        let inner = &self.0;
        while !feed.is_live.load(Ordering::Relaxed) {
            sleep(LOOK_INTERVAL).await;
            let script = &inner.scripts.owner;
            // What the store does not say changes nothing.
            let Ok(owner) = inner.settings.store.eval(script, vec![key.to_owned()], vec![]).await
            else {
                continue;
            };
            if text(&owner).is_none_or(|owner| node_of(&owner) != peer.name) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Pulls the camera as long as it is ours.
    async fn originate(
        &self,
        key: &str,
        mut until: Instant,
        place: &Place<'_>,
        output: Arc<dyn Output>,
        keyframe_wanted: Arc<Notify>,
    ) -> SourceFailure {
        let _lease = Lease::new(self, key);
        self.count(|counters| &counters.origins_taken);
        info!(node = self.0.settings.node, "this node is the camera's origin");
        let mut pull = pin!(place.pull(output, keyframe_wanted));
        loop {
            let kept = tokio::select! {
                failure = &mut pull => return failure,
                kept = self.keep(key, until) => kept,
            };
            until = match kept {
                Kept::Until(until) => until,
                Kept::Taken => {
                    self.count(|counters| &counters.origins_lost);
                    return lost("another node pulls the camera now");
                }
                Kept::CutOff => {
                    self.count(|counters| &counters.origins_lost);
                    warn!("this node does not see the store, and others do: the camera is theirs");
                    return lost("this node has lost the store, and another one pulls the camera");
                }
            };
        }
    }

    /// As [`Self::originate`], without a lease, until this node or another one sees the store.
    async fn originate_alone(
        &self,
        place: &Place<'_>,
        output: Arc<dyn Output>,
        keyframe_wanted: Arc<Notify>,
    ) -> SourceFailure {
        self.count(|counters| &counters.alone);
        tokio::select! {
            failure = place.pull(output, keyframe_wanted) => failure,
            () = self.anybody_sees_store() => {
                lost("the store is back, and says who pulls the camera")
            }
        }
    }

    /// Asked again and again: a node that was too busy to answer once may be the one.
    async fn anybody_sees_store(&self) {
        loop {
            sleep(RENEWAL_INTERVAL).await;
            if self.sees_store() || self.peer_with_store().await.is_some() {
                return;
            }
        }
    }

    /// Renews the lease at the next turn. Where the store is away for all, it is ours on.
    pub(super) async fn keep(&self, key: &str, until: Instant) -> Kept {
        loop {
            match timeout_at(until, self.renew(key)).await {
                Ok(Ok(Claim::Ours(until))) => {
                    // Whoever had it before in this process may have given it back a moment ago.
                    self.hold(key);
                    return Kept::Until(until);
                }
                Ok(Ok(Claim::Of(_))) => return Kept::Taken,
                // The next turn may go better.
                Ok(Err(_)) => {}
                Err(_) => break,
            }
        }
        // A process that stood still has missed its time with the store at hand, and may find the lease free.
        match timeout(LOOK_INTERVAL, self.claim(key)).await {
            Ok(Ok(Claim::Ours(until))) => {
                self.hold(key);
                return Kept::Until(until);
            }
            Ok(Ok(Claim::Of(_))) => return Kept::Taken,
            Ok(Err(_)) | Err(_) => {}
        }
        match self.peer_with_store().await {
            Some(_) => Kept::CutOff,
            None => Kept::Until(Instant::now() + RENEWAL_INTERVAL),
        }
    }

    /// Another node that sees the store. All who look for one at the same time ask once.
    async fn peer_with_store(&self) -> Option<Peer> {
        let mut seeing = self.0.seeing.lock().await;
        let known = seeing.as_ref().filter(|seeing| seeing.at.elapsed() < LOOK_INTERVAL);
        if let Some(known) = known {
            return known.peer.clone();
        }
        let peer = self.ask_who_sees_store().await;
        *seeing = Some(Seeing { peer: peer.clone(), at: Instant::now() });
        peer
    }

    async fn ask_who_sees_store(&self) -> Option<Peer> {
        let peers: Vec<Peer> = self.peers(|peers| peers.by_name.values().cloned().collect());
        let asked = peers.into_iter().map(|peer| async move {
            let sees = sees_store(&peer).await;
            sees.then_some(peer)
        });
        futures::future::join_all(asked).await.into_iter().flatten().next()
    }
}

impl Place<'_> {
    pub(super) async fn pull(&self, output: Arc<dyn Output>, wanted: Arc<Notify>) -> SourceFailure {
        ingest::pull(self.source, self.reach, self.transport, output, wanted).await
    }
}

/// What comes from another node, and whether a picture did.
struct PeerFeed {
    output: Arc<dyn Output>,
    is_live: AtomicBool,
}

impl Output for PeerFeed {
    fn frame(&self, frame: Frame) {
        self.output.frame(frame);
    }

    fn live(&self, format: SourceFormat) {
        self.is_live.store(true, Ordering::Relaxed);
        self.output.live(format);
    }

    fn lost(&self, packets: u64) {
        self.output.lost(packets);
    }
}

/// A lease that is given back when the camera is not pulled any more.
pub(super) struct Lease {
    pub(super) cluster: Cluster,
    pub(super) key: String,
}

impl Lease {
    pub(super) fn new(cluster: &Cluster, key: &str) -> Self {
        cluster.hold(key);
        Self { cluster: cluster.clone(), key: key.to_owned() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = &self.cluster.0.held;
        // Where it is gone, the node has left and gives all of them back.
        let was_held = held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        if let (true, Ok(runtime)) = (was_held, tokio::runtime::Handle::try_current()) {
            let (cluster, key) = (self.cluster.clone(), std::mem::take(&mut self.key));
            runtime.spawn(async move { cluster.release_all(std::iter::once(key)).await });
        }
    }
}

/// The key of the lease on a stream, without the store's prefix.
pub(super) fn lease_name(place: &str) -> String {
    format!("stream:origin:{place}")
}

async fn pull_peer(
    peer: &Peer,
    place: &str,
    feed: Arc<PeerFeed>,
    wanted: Arc<Notify>,
) -> SourceFailure {
    let Some((url, token)) = peer.at(place) else {
        return lost("the node that pulls this camera has an address that cannot be asked");
    };
    let node = NodeStream { url: &url, token: &token, trust: peer.trust.as_ref() };
    ingest::pull_node(&node, feed, &wanted).await
}

/// Whether another node sees the store.
async fn sees_store(peer: &Peer) -> bool {
    let Some((url, token)) = peer.at("store") else { return false };
    let mut http = peer.client(QUESTION_TIME_MAX);
    let ask = Ask {
        method: Method::GET,
        url: &url,
        content_type: None,
        token: Some(&token),
        body: String::new(),
    };
    http.ask(&ask).await.is_ok()
}

/// The node of an owner, which is its name and its process.
pub(super) fn node_of(owner: &str) -> String {
    owner.split(' ').next().unwrap_or_default().to_owned()
}

fn lost(detail: &str) -> SourceFailure {
    SourceFailure::Lost { detail: detail.to_owned() }
}
