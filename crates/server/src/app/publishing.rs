//! Who may publish to which camera, and who does: the places with stream keys, and WHIP's sessions.
//!
//! Keys are kept as digests, in memory: a key that was made by the API ends with the process, one of
//! the config comes back with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use control::CameraId;
use engine::Rendition;
use secrecy::SecretString;

use super::{CameraConfig, IceRestart};
use crate::cluster::{Cluster, Elsewhere, KeptPlace};
use crate::ingest::{PublishPoint, SourceUrl};
use crate::net::{IceCredentials, MediaPlane, PublishError, PublisherHandle, PublisherId};

/// What can be published to, for the life of the process; cheap to clone.
#[derive(Clone)]
pub(crate) struct Publishing(Arc<Inner>);

struct Inner {
    media: Option<MediaPlane>,
    cluster: Option<Cluster>,
    places: Mutex<Vec<Arc<Place>>>,
    /// By the name of their resource. At most a session a place, and those that are ending.
    sessions: Mutex<HashMap<String, Session>>,
}

struct Place {
    camera: CameraId,
    rendition: Rendition,
    point: Arc<PublishPoint>,
    /// Held while somebody is let in, so that of two who come at once one is second.
    door: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Session {
    publisher: PublisherHandle,
    etag: String,
    /// The publisher's own ICE user fragment.
    their_ufrag: Option<String>,
    /// What other nodes find the camera by.
    kept: Option<Arc<KeptPlace>>,
}

/// What opens a place.
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    /// The path's segment: a stream key, or a camera's id.
    pub(crate) name: &'a str,
    /// The token of `Authorization: Bearer`.
    pub(crate) bearer: Option<&'a str>,
}

/// A publisher that was let in.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) camera: CameraId,
    /// Unguessable; the last segment of the WHIP resource URL.
    pub(crate) resource: String,
    pub(crate) answer_sdp: String,
    /// The ICE user fragment, without quotes.
    pub(crate) etag: String,
}

/// Why a publisher was not let in. No variant repeats a key.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PublishRefusal {
    #[error("no camera takes this stream key; its url must be whip:// with this key")]
    UnknownKey,
    #[error("the bearer token is not the stream key of this camera")]
    WrongBearer,
    #[error("camera {0} has a publisher already; end that one first, or wait until it is gone")]
    Busy(CameraId),
    #[error(
        "camera {camera} has a publisher already, at node {node}; end that one first, or wait until it is gone"
    )]
    Elsewhere { camera: CameraId, node: String },
    #[error(transparent)]
    Offer(#[from] PublishError),
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why no key was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefusal {
    #[error("there is no camera {0}")]
    UnknownCamera(String),
    #[error("camera {0} is not published to; set its url to whip:// first")]
    NotPublished(CameraId),
}

impl Publishing {
    /// The places of a camera park.
    pub(super) fn new<'a>(
        cameras: impl Iterator<Item = &'a CameraConfig>,
        media: MediaPlane,
        cluster: Option<Cluster>,
    ) -> Self {
        let places = Mutex::new(cameras.flat_map(places_of).collect());
        Self(Arc::new(Inner { media: Some(media), cluster, places, sessions: Mutex::default() }))
    }

    /// Cameras have `changed`, or are `gone`. A place that stays keeps its publisher; those of the others
    /// are sent away.
    pub(super) fn change<'a>(
        &self,
        changed: impl Iterator<Item = &'a CameraConfig>,
        gone: &[CameraId],
    ) {
        let changed: Vec<&CameraConfig> = changed.collect();
        let concerned: HashSet<&CameraId> =
            changed.iter().map(|camera| &camera.definition.id).chain(gone).collect();
        let new: Vec<Arc<Place>> = changed.iter().flat_map(|camera| places_of(camera)).collect();
        let mut left = Vec::new();
        {
            let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
            let (before, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut *places)
                .into_iter()
                .partition(|place| concerned.contains(&place.camera));
            for place in new {
                let same = before.iter().find(|old| old.is_same(&place));
                kept.push(same.map_or(place, Arc::clone));
            }
            left.extend(before.into_iter().filter(|old| !kept.iter().any(|k| Arc::ptr_eq(k, old))));
            *places = kept;
        }
        for place in left {
            if let Some(publisher) = place.point.publisher() {
                tracing::info!(camera_id = %place.camera, "a publisher is sent away: the camera changed");
                publisher.close();
            }
        }
    }

    /// Where nobody can publish.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        let (places, sessions) = Default::default();
        Self(Arc::new(Inner { media: None, cluster: None, places, sessions }))
    }

    /// WHIP POST: answers the offer if the credentials open a place where nobody is.
    pub(crate) async fn publish(
        &self,
        credentials: Credentials<'_>,
        offer_sdp: String,
    ) -> Result<Accepted, PublishRefusal> {
        let place = self.place(credentials)?;
        let media = self.0.media.as_ref().ok_or(PublishRefusal::ShuttingDown)?;
        let _door = place.door.lock().await;
        if let Some(before) = place.point.publisher()
            && before.is_present().await
        {
            tracing::info!(camera_id = %place.camera, "a second publisher is not let in");
            return Err(PublishRefusal::Busy(place.camera.clone()));
        }
        let kept = self.keep(&place).await?;
        let their_ufrag = offer_sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        let their_ufrag = their_ufrag.map(|ufrag| ufrag.trim().to_owned());
        let (publisher, accepted) = media.accept_publisher(offer_sdp).await?;
        let resource = uuid::Uuid::new_v4().to_string();
        let etag = accepted.ice_ufrag;
        let session =
            Session { publisher: publisher.clone(), etag: etag.clone(), their_ufrag, kept };
        self.sessions(|sessions| sessions.insert(resource.clone(), session));
        let id = publisher.id();
        if let Some(before) = place.point.set_publisher(publisher.clone()) {
            before.close();
        }
        // Whoever makes a new key ends the publisher that is there. One who came in by the old key
        // meanwhile finds that out here.
        if let Err(refusal) = self.place(credentials) {
            self.forget(id);
            publisher.close();
            return Err(refusal);
        }
        tracing::info!(camera_id = %place.camera, rendition = place.rendition.as_str(), "a publisher is let in");
        let (camera, answer_sdp) = (place.camera.clone(), accepted.answer_sdp);
        Ok(Accepted { camera, resource, answer_sdp, etag })
    }

    /// Tells the other nodes that the camera is here, as long as what is answered lives. Who takes the place of
    /// a publisher that is silent has it from him.
    async fn keep(&self, place: &Place) -> Result<Option<Arc<KeptPlace>>, PublishRefusal> {
        let Some(cluster) = &self.0.cluster else { return Ok(None) };
        let before = place.point.publisher().map(|before| before.id());
        let kept = self.sessions(|sessions| {
            let before = sessions.values().find(|session| Some(session.publisher.id()) == before);
            before?.kept.clone().filter(|kept| kept.is_kept())
        });
        if kept.is_some() {
            return Ok(kept);
        }
        let claimed = cluster.claim_published(&place.camera, place.rendition).await;
        let claimed = claimed.map_err(|Elsewhere(node)| {
            tracing::info!(camera_id = %place.camera, node, "a second publisher is not let in");
            PublishRefusal::Elsewhere { camera: place.camera.clone(), node }
        })?;
        let point = Arc::clone(&place.point);
        let send_away = move || {
            if let Some(publisher) = point.publisher() {
                publisher.close();
            }
        };
        Ok(Some(Arc::new(claimed.keep(send_away))))
    }

    /// WHIP PATCH; `None`: no such session (404). Err: the tag is another ICE session's (412). A lite
    /// agent with a public port needs no remote candidates: checks bring their source address along.
    pub(crate) fn trickle(&self, resource: &str, etag: Option<&str>) -> Option<Result<(), ()>> {
        self.sessions(|sessions| {
            let session = sessions.get(resource)?;
            let fits = etag.is_none_or(|etag| etag == session.etag);
            Some(fits.then_some(()).ok_or(()))
        })
    }

    /// WHIP PATCH with `If-Match: *`: an ICE restart, unless the credentials are those that the
    /// publisher had. `None`: no such session.
    pub(crate) async fn restart_ice(
        &self,
        resource: &str,
        theirs: IceCredentials,
    ) -> Option<IceRestart> {
        let session = self.sessions(|sessions| sessions.get(resource).cloned())?;
        if session.their_ufrag.as_ref() == Some(&theirs.ufrag) {
            return Some(IceRestart::Unchanged);
        }
        let their_ufrag = Some(theirs.ufrag.clone());
        let restarted = session.publisher.restart_ice(theirs).await?;
        self.sessions(|sessions| {
            if let Some(session) = sessions.get_mut(resource) {
                session.etag.clone_from(&restarted.ice_ufrag);
                session.their_ufrag = their_ufrag;
            }
        });
        Some(IceRestart::Done(restarted))
    }

    /// WHIP DELETE: the session ends at once. False: no such session.
    pub(crate) fn end(&self, resource: &str) -> bool {
        let session = self.sessions(|sessions| sessions.remove(resource));
        if let Some(session) = &session {
            self.forget(session.publisher.id());
            session.publisher.close();
        }
        session.is_some()
    }

    /// Makes a camera a new stream key and ends who publishes with the old one. It is answered here
    /// and nowhere else.
    pub(crate) fn new_key(
        &self,
        camera: CameraId,
        rendition: Rendition,
    ) -> Result<SecretString, KeyRefusal> {
        let place = self.find(|p| p.camera == camera && p.rendition == rendition);
        let place = place.ok_or(KeyRefusal::NotPublished(camera))?;
        let key = uuid::Uuid::new_v4().simple().to_string();
        place.point.set_key(&key);
        if let Some(publisher) = place.point.publisher() {
            publisher.close();
        }
        tracing::info!(camera_id = %place.camera, "the camera has a new stream key");
        Ok(key.into())
    }

    /// Whether a camera's stream is published to, and if, whether somebody does.
    pub(super) fn presence(&self, camera: &CameraId, rendition: Rendition) -> Option<Presence> {
        let place = self.find(|place| place.camera == *camera && place.rendition == rendition)?;
        Some(match place.point.publisher() {
            Some(_) => Presence::Here,
            None => Presence::Nobody,
        })
    }

    /// Which stream a publisher sends.
    pub(super) fn place_of(&self, publisher: PublisherId) -> Option<(CameraId, Rendition)> {
        let place = self.find(|place| {
            place.point.publisher().is_some_and(|current| current.id() == publisher)
        })?;
        Some((place.camera.clone(), place.rendition))
    }

    /// A publisher's session is over.
    pub(super) fn forget(&self, publisher: PublisherId) {
        self.sessions(|sessions| sessions.retain(|_, session| session.publisher.id() != publisher));
        self.places().iter().for_each(|place| place.point.forget(publisher));
    }

    /// The camera that the credentials open, if any.
    pub(crate) fn camera_of(&self, credentials: Credentials<'_>) -> Option<CameraId> {
        self.place(credentials).ok().map(|place| place.camera.clone())
    }

    /// The place that the credentials open. Every key is compared, whichever fits, so that the time
    /// says nothing of the others.
    fn place(&self, credentials: Credentials<'_>) -> Result<Arc<Place>, PublishRefusal> {
        let Credentials { name, bearer } = credentials;
        let places = self.places();
        let opened_by = |key: &str| {
            let opened = places.iter().filter(|place| place.point.admits(key));
            opened.fold(None, |_, place| Some(Arc::clone(place)))
        };
        let by_path = opened_by(name);
        let Some(bearer) = bearer else {
            return by_path.ok_or(PublishRefusal::UnknownKey);
        };
        let by_bearer = opened_by(bearer);
        let is_named =
            |place: &Arc<Place>| place.camera.as_str() == name || place.point.admits(name);
        by_bearer.filter(is_named).ok_or(PublishRefusal::WrongBearer)
    }

    fn places(&self) -> Vec<Arc<Place>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, is_it: impl Fn(&Place) -> bool) -> Option<Arc<Place>> {
        let places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().find(|place| is_it(place)).cloned()
    }

    fn sessions<T>(&self, act: impl FnOnce(&mut HashMap<String, Session>) -> T) -> T {
        act(&mut self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// Whether it is the same place with the same key, so that its publisher may stay.
    fn is_same(&self, other: &Self) -> bool {
        self.camera == other.camera
            && self.rendition == other.rendition
            && Arc::ptr_eq(&self.point, &other.point)
    }
}

fn places_of(camera: &CameraConfig) -> impl Iterator<Item = Arc<Place>> {
    let main = (Rendition::Main, Some(&camera.main));
    let sub = (Rendition::Sub, camera.sub.as_ref());
    [main, sub].into_iter().filter_map(|(rendition, url)| match url? {
        SourceUrl::Whip(point) => Some(Arc::new(Place {
            camera: camera.definition.id.clone(),
            rendition,
            point: Arc::clone(point),
            door: tokio::sync::Mutex::default(),
        })),
        SourceUrl::Rtsp { .. }
        | SourceUrl::Whep { .. }
        | SourceUrl::Test { .. }
        | SourceUrl::Sealed { .. } => None,
    })
}

/// Whether somebody publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    Nobody,
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config;
    use crate::net::{MediaConfig, MediaEvent, MediaTcp, Priority, PublisherEnd};

    const KEY: &str = "a-stream-key-of-32-characters-000";

    fn by(name: &str) -> Credentials<'_> {
        Credentials { name, bearer: None }
    }

    /// A place with the key, an offer for it, and what the media plane tells.
    fn world() -> (Publishing, String, mpsc::UnboundedReceiver<MediaEvent>) {
        let offer = include_str!("../../../../e2e/sdp/chromium.sdp");
        let offer = offer.replace("a=recvonly", "a=sendonly");
        let config = config::from_toml(&format!(
            "[[sources]]\nid = \"S\"\nlimit = 1\n\
             [[cameras]]\nid = \"c\"\nsource = \"S\"\nurl = \"whip://{KEY}\"\n"
        ));
        let udp = "127.0.0.1:0".parse().unwrap();
        let media = MediaConfig {
            udp,
            tcp: MediaTcp::Off,
            advertise: Vec::new(),
            workers: Some(1),
            priority: Priority::Ordinary,
        };
        let (events, told) = mpsc::unbounded_channel();
        let media = MediaPlane::start(&media, events).unwrap();
        let cameras = config.application().cameras;
        (Publishing::new(cameras.iter(), media, None), offer, told)
    }

    #[tokio::test]
    async fn who_hangs_up_before_the_answer_leaves_no_session_behind() {
        let (publishing, offer, mut told) = world();
        {
            let mut posted = std::pin::pin!(publishing.publish(by(KEY), offer));
            assert!(futures::poll!(posted.as_mut()).is_pending());
        }
        let closed = told.recv().await;
        let Some(MediaEvent::PublisherClosed { reason, .. }) = closed else { panic!("{closed:?}") };
        assert_eq!(reason, PublisherEnd::Asked, "not only when its handshake has had its time");
        assert!(publishing.places()[0].point.publisher().is_none());
    }

    #[tokio::test]
    async fn who_waits_at_the_door_while_the_key_is_replaced_stays_outside() {
        let (publishing, offer, _told) = world();
        let place = &publishing.places()[0];

        let door = place.door.lock().await;
        let mut waiting = std::pin::pin!(publishing.publish(by(KEY), offer.clone()));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let key = publishing.new_key(place.camera.clone(), place.rendition).unwrap();
        drop(door);
        assert!(matches!(waiting.await, Err(PublishRefusal::UnknownKey)));
        assert!(place.point.publisher().is_none());
        assert!(publishing.sessions(|sessions| sessions.is_empty()));
        assert!(publishing.publish(by(key.expose_secret()), offer).await.is_ok());
    }
}
