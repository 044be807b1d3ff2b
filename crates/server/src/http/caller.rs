//! Who calls, and what of it all is his: an identity, a role and the sources that he has a say in.
//!
//! | role | sees | changes |
//! |---|---|---|
//! | viewer | cameras of his sources, and the camera that his token names; of reservations his own | his own reservations |
//! | operator | everything of his sources | everything of his sources |
//! | admin | everything | everything |
//!
//! Role and sources stand in LiveKit's own `attributes` claim, which only ever narrows what the `video`
//! grant gives: applications put texts of their users there. What is not the caller's is answered as
//! if it were not there, so that nobody learns what there is.
//!
//! A handler takes a [`Caller`] as an argument. In `auth.mode = "open"` everybody may do everything.

use std::collections::BTreeSet;
use std::time::SystemTime;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use control::{CameraId, ReservationId, SourceId};

use super::Http;
use super::auth::{Grant, GrantError, TokenError};
use super::problem::Problem;
use crate::app::{Holder, Snapshot};
use crate::config::AuthMode;

/// Most sources in one token: with ids of 64 characters they still fit into the longest token.
const SOURCES_MAX: usize = 64;

/// What the token of a reservation opens, of what stands behind the question who calls.
const ROUTES_OF_VIEWERS: [&str; 5] = [
    "/api/v1/stream/release/{id}",
    "/api/v1/stream/heartbeat/{id}",
    "/api/v1/cameras/{id}",
    "/api/v1/cameras/{id}/frame.jpeg",
    // For renewals.
    "/ws/stream/stats",
];

/// The identity of who was not asked who he is.
const ANYBODY: &str = "anybody";

/// Means all sources where their ids may stand.
const ALL_SOURCES: &str = "*";

/// What a caller may do with what is his.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Watches.
    Viewer,
    /// Changes what belongs to his sources.
    Operator,
    /// Changes everything.
    Admin,
}

impl Role {
    /// As tokens and commands have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// `None` for any other word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == word)
    }
}

/// The sources that a caller has a say in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sources {
    /// Every one, also those to come.
    All,
    /// These; there need not be such sources.
    Set(BTreeSet<SourceId>),
}

impl Sources {
    /// Reads `METRO,TAXI`, or `*` for all.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == ALL_SOURCES {
            return Ok(Self::All);
        }
        let ids = text.split(',').map(|id| SourceId::parse(id.trim()));
        let ids = ids.take(SOURCES_MAX + 1).collect::<Result<BTreeSet<_>, _>>();
        let ids = ids.map_err(|error| error.to_string())?;
        if ids.len() > SOURCES_MAX {
            return Err(format!("there are more than {SOURCES_MAX} sources"));
        }
        Ok(Self::Set(ids))
    }

    /// As [`Self::parse`] reads it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::All => ALL_SOURCES.to_owned(),
            Self::Set(ids) => ids.iter().map(SourceId::as_str).collect::<Vec<_>>().join(","),
        }
    }

    fn contains(&self, source: &SourceId) -> bool {
        match self {
            Self::All => true,
            Self::Set(ids) => ids.contains(source),
        }
    }
}

/// Who sent a request. See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    identity: String,
    role: Role,
    sources: Sources,
    /// The room that the token names, if any.
    room: String,
    /// The reservation that the token is for, if it is a viewer's of one.
    reservation: Option<ReservationId>,
}

impl Caller {
    /// Who was not asked.
    fn anybody() -> Self {
        Self {
            identity: ANYBODY.to_owned(),
            role: Role::Admin,
            sources: Sources::All,
            room: String::new(),
            reservation: None,
        }
    }

    /// Whoever holds a token that says this.
    pub(crate) fn of(grant: &Grant) -> Result<Self, TokenError> {
        let (role, sources) = role_of(grant)?;
        Ok(Self {
            identity: grant.subject().to_owned(),
            role,
            sources,
            room: grant.room().to_owned(),
            reservation: grant.reservation(),
        })
    }

    /// The token's subject, or `anybody` where nobody was asked.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// What the caller may do with what is his.
    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Whether everything of `source` may be shown to the caller.
    pub(crate) fn may_read(&self, source: &SourceId) -> bool {
        self.sources.contains(source)
    }

    /// Whether the caller may change what belongs to `source`.
    pub(crate) fn may_change(&self, source: &SourceId) -> bool {
        self.role >= Role::Operator && self.sources.contains(source)
    }

    /// Whether the caller may change everything. 403 where not.
    pub(crate) fn require_admin(&self) -> Result<(), GrantError> {
        if self.is_admin() { Ok(()) } else { Err(GrantError::NotAnAdmin) }
    }

    /// Whether everything is his.
    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.sources == Sources::All
    }

    /// Whether nothing is hidden from the caller.
    pub(crate) fn reads_all(&self) -> bool {
        self.role >= Role::Operator && self.sources == Sources::All
    }

    /// Whether the caller may watch a camera of `source`, and know that it is there.
    pub(crate) fn may_watch(&self, camera: &CameraId, source: &SourceId) -> bool {
        self.may_read(source) || self.room == camera.room_name()
    }

    /// Whether a reservation that was made for `user` is the caller's own.
    pub(crate) fn owns(&self, reservation: &ReservationId, user: &str) -> bool {
        match &self.reservation {
            Some(own) => own == reservation,
            None => self.role == Role::Viewer && self.identity == user,
        }
    }

    /// Whether the caller may make a reservation for `user`. 403 where not.
    pub(crate) fn require_reserve_for(&self, user: &str) -> Result<(), GrantError> {
        if self.role >= Role::Operator || self.identity == user {
            Ok(())
        } else {
            Err(GrantError::NotHimself { identity: self.identity.clone() })
        }
    }

    /// Whether the caller may be let to a route at all. A token of one reservation is in many hands and
    /// opens what its viewer needs and nothing else, whatever is added. 403 where not.
    pub(super) fn require_route(&self, route: &str) -> Result<(), GrantError> {
        let is_open = self.reservation.is_none() || ROUTES_OF_VIEWERS.contains(&route);
        if is_open { Ok(()) } else { Err(GrantError::NotAnAdmin) }
    }

    /// What of the whole state is the caller's to see.
    pub(crate) fn visible(&self, mut snapshot: Snapshot) -> Snapshot {
        if self.reads_all() {
            return snapshot;
        }
        snapshot.sources.retain(|source| self.may_read(&source.id));
        snapshot.total_current = snapshot.sources.iter().map(|source| source.current).sum();
        let limits = snapshot.sources.iter().map(|source| source.limit);
        snapshot.total_limit = limits.fold(0, u32::saturating_add).min(snapshot.total_limit);
        snapshot.cameras.retain(|camera| self.may_watch(&camera.id, &camera.source));
        let cameras = &snapshot.cameras;
        snapshot.reservations.retain(|viewer| {
            let camera = cameras.iter().find(|camera| camera.id == viewer.camera);
            let is_his = camera.is_some_and(|camera| self.may_change(&camera.source));
            is_his || self.owns(&viewer.id, &viewer.user)
        });
        snapshot
    }
}

/// What a caller wants with a camera or a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To know of it, or to watch it.
    Watch,
    /// To change or end it.
    Change,
}

impl Caller {
    /// Refuses what the caller may not do with a camera: 404 where he may not know of it, 403 where he
    /// may not change it.
    pub(super) async fn require_camera(
        &self,
        http: &Http,
        camera: &CameraId,
        wish: Wish,
    ) -> Result<(), Problem> {
        if self.is_admin() {
            return Ok(());
        }
        if self.reservation.is_some() && self.room != camera.room_name() {
            return Err(GrantError::OtherRoom { room: camera.room_name() }.into());
        }
        let source = http.app().source_of(camera.clone()).await;
        match source.filter(|source| self.may_watch(camera, source)) {
            None => Err(no_camera(camera)),
            Some(source) if wish == Wish::Watch || self.may_change(&source) => Ok(()),
            Some(_) => Err(GrantError::NotAnOperator.into()),
        }
    }

    /// Refuses to touch a reservation that is neither the caller's own nor of his sources.
    pub(super) async fn require_reservation(&self, http: &Http, id: &str) -> Result<(), Problem> {
        if self.is_admin() {
            return Ok(());
        }
        if self.reservation.as_ref().is_some_and(|own| own.as_str() != id) {
            return Err(GrantError::OtherReservation.into());
        }
        let id = ReservationId::parse(id).map_err(|_| no_reservation())?;
        let holder = http.app().holder_of(id.clone()).await;
        let is_his =
            |holder: &Holder| self.may_change(&holder.source) || self.owns(&id, &holder.user);
        holder.filter(is_his).map(drop).ok_or_else(no_reservation)
    }
}

/// As for a camera that is not there.
pub(super) fn no_camera(camera: &CameraId) -> Problem {
    Problem::not_found(format!("there is no camera {camera}"))
}

/// As for a reservation that is not there.
pub(super) fn no_reservation() -> Problem {
    Problem::not_found("there is no such reservation, or it has ended; reserve again")
}

impl FromRequestParts<Http> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Problem> {
        match parts.extensions.get::<Self>() {
            Some(known) => Ok(known.clone()),
            None => Ok(http.caller(parts.headers.get(AUTHORIZATION))?),
        }
    }
}

impl Http {
    /// Whoever sends this `Authorization` header.
    pub(super) fn caller(&self, authorization: Option<&HeaderValue>) -> Result<Caller, TokenError> {
        if self.auth_mode() == AuthMode::Open {
            return Ok(Caller::anybody());
        }
        let authorization = authorization.map(HeaderValue::as_bytes);
        Caller::of(&self.keyring().verify(authorization, SystemTime::now())?)
    }
}

fn role_of(grant: &Grant) -> Result<(Role, Sources), TokenError> {
    let none = || Sources::Set(BTreeSet::new());
    let wrong = |sentence: String| TokenError::Attributes(sentence);
    let sources = grant.attribute("sources").map_err(wrong)?;
    let sources = sources.map(Sources::parse).transpose().map_err(wrong)?;
    let is_admin = grant.admin().is_ok();
    let Some(word) = grant.attribute("role").map_err(wrong)? else {
        return match sources {
            Some(_) => Err(wrong("they have sources but no role".to_owned())),
            None if is_admin => Ok((Role::Admin, Sources::All)),
            None => Ok((Role::Viewer, none())),
        };
    };
    let role = Role::parse(word)
        .ok_or_else(|| wrong("the role must be viewer, operator or admin".to_owned()))?;
    if role > Role::Viewer && !is_admin {
        let sentence = format!("the role {word} needs the grant roomAdmin or roomCreate");
        return Err(wrong(sentence));
    }
    match (role, sources) {
        (Role::Admin, None | Some(Sources::All)) => Ok((role, Sources::All)),
        (Role::Admin, Some(Sources::Set(_))) => {
            Err(wrong("an admin has all sources; use the role operator".to_owned()))
        }
        (Role::Operator, None) => {
            Err(wrong("an operator needs sources, as in METRO,TAXI or *".to_owned()))
        }
        (Role::Viewer | Role::Operator, Some(sources)) => Ok((role, sources)),
        (Role::Viewer, None) => Ok((role, none())),
    }
}
