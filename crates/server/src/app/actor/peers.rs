//! The viewers' connections, from the offer to the end: their WHEP resources, trickled candidates, ICE
//! restarts. When one begins or ends is the engine's decision.

use std::time::Instant;

use control::Timestamp;
use engine::{CloseCause, RequestId, ViewerEvent};
use media::estimate::LineState;
use media::{StreamId, ViewerId};
use tokio::sync::oneshot;
use tracing::error;

use super::super::{IceRestart, Watching};
use super::command::Offer;
use super::{Actor, Message, Waiting};
use crate::net::{Accepted, IceCredentials, Restarted};

/// A viewer whose offer was answered, from the answer to its end.
pub(in crate::app) struct Peer {
    resource: String,
    /// Our ICE user fragment.
    etag: String,
    /// The viewer's.
    their_ufrag: Option<String>,
    started: Instant,
    /// An authentic ICE check came from it.
    pub(in crate::app) is_checked: bool,
    /// When the newest packet came of which the media plane told.
    pub(in crate::app) heard: Option<Timestamp>,
    /// The first packet of media left for it.
    pub(in crate::app) has_media: bool,
    /// What it last told of its line.
    pub(in crate::app) line: Option<LineState>,
}

impl Actor {
    pub(super) fn accept(&mut self, request: RequestId, viewer: ViewerId, stream: StreamId) {
        let Some(Waiting::Watch(watch)) = self.waiting.get_mut(&request) else {
            error!(?request, "an offer was to be answered that is not there");
            return self.engine.handle_viewer(viewer, ViewerEvent::Refused, self.clock.now());
        };
        let offer = std::mem::take(&mut watch.offer.sdp);
        let (media, messages) = (self.media.clone(), self.messages.clone());
        tokio::spawn(async move {
            let result = media.accept(viewer, stream, offer).await;
            // Nobody listens any more only while the application ends.
            let _ = messages.send(Message::Answered { request, viewer, result });
        });
    }

    pub(super) fn trickle(
        &self,
        resource: &str,
        etag: Option<&str>,
        fragment: String,
    ) -> Option<Result<(), ()>> {
        let viewer = self.resources.get(resource)?;
        let peer = self.peers.get(viewer)?;
        if etag.is_some_and(|etag| etag != peer.etag) {
            return Some(Err(()));
        }
        self.media.trickle(*viewer, fragment);
        Some(Ok(()))
    }

    pub(super) fn restart_ice(
        &self,
        resource: &str,
        theirs: IceCredentials,
        reply: oneshot::Sender<Option<IceRestart>>,
    ) {
        let found = self.resources.get(resource);
        let Some((viewer, peer)) =
            found.and_then(|viewer| Some((*viewer, self.peers.get(viewer)?)))
        else {
            let _ = reply.send(None);
            return;
        };
        if peer.their_ufrag.as_ref() == Some(&theirs.ufrag) {
            let _ = reply.send(Some(IceRestart::Unchanged));
            return;
        }
        let (media, messages) = (self.media.clone(), self.messages.clone());
        tokio::spawn(async move {
            let their_ufrag = theirs.ufrag.clone();
            let result = media.restart_ice(viewer, theirs).await;
            // Failing means that the application has ended, and whoever asked is told so.
            let _ = messages.send(Message::Restarted { viewer, their_ufrag, result, reply });
        });
    }

    /// The viewer, if it is still there, goes by its new credentials from here on.
    pub(super) fn end_restart(
        &mut self,
        viewer: ViewerId,
        their_ufrag: String,
        result: Option<Restarted>,
    ) -> Option<IceRestart> {
        let restarted = result?;
        if let Some(peer) = self.peers.get_mut(&viewer) {
            peer.etag.clone_from(&restarted.ice_ufrag);
            peer.their_ufrag = Some(their_ufrag);
        }
        Some(IceRestart::Done(restarted))
    }

    pub(super) fn begin_peer(
        &mut self,
        viewer: ViewerId,
        accepted: Accepted,
        offer: &Offer,
    ) -> Watching {
        let resource = uuid::Uuid::new_v4().to_string();
        let etag = accepted.ice_ufrag;
        let peer = Peer {
            resource: resource.clone(),
            etag: etag.clone(),
            their_ufrag: accepted.their_ufrag,
            started: offer.started,
            is_checked: false,
            heard: None,
            has_media: false,
            line: None,
        };
        self.peers.insert(viewer, peer);
        self.resources.insert(resource.clone(), viewer);
        Watching { resource, answer_sdp: accepted.answer_sdp, etag }
    }

    pub(super) fn observe_join(&mut self, viewer: ViewerId) {
        if let Some(peer) = self.peers.get_mut(&viewer)
            && !std::mem::replace(&mut peer.has_media, true)
        {
            self.joins.observe(peer.started.elapsed());
        }
    }

    pub(super) fn close_viewer(&mut self, viewer: ViewerId, cause: CloseCause) {
        if self.outlets.close_reader(viewer) {
            return;
        }
        if let (CloseCause::Ended(reason), Some(peer)) = (cause, self.peers.get(&viewer)) {
            self.endings.note(&peer.resource, reason, self.clock.now());
        }
        self.forget_peer(viewer);
        self.media.close(viewer, cause.as_str());
    }

    pub(super) fn forget_peer(&mut self, viewer: ViewerId) {
        if let Some(peer) = self.peers.remove(&viewer) {
            self.resources.remove(&peer.resource);
        }
    }
}
