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
use std::time::{Duration, SystemTime};

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use control::{CameraId, ReservationId, SourceId};

use super::Http;
use super::auth::{Grant, GrantError, TokenError};
use super::problem::Problem;
use super::wire::{Claims, VideoGrant};
use crate::app::{LeaseError, Over, Snapshot};
use crate::config::AuthMode;

/// Most sources in one token: with ids of 64 characters they still fit into the longest token.
const SOURCES_MAX: usize = 64;

/// What the token of a reservation opens, of what stands behind the question who calls.
const ROUTES_OF_VIEWERS: [&str; 5] = [
    "/api/v1/stream/release/{id}",
    "/api/v1/stream/heartbeat/{id}",
    "/api/v1/cameras/{id}/frame.jpeg",
    "/api/v1/why/{id}",
    // For renewals.
    "/ws/stream/stats",
];

/// How the identities of reservations' viewers begin.
const VIEWER: &str = "viewer_";

/// Longest user name, in bytes: it goes into leases and logs.
const USER_LENGTH_MAX: usize = 128;

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

    /// No source at all.
    pub(crate) const fn none() -> Self {
        Self::Set(BTreeSet::new())
    }

    fn contains(&self, source: &SourceId) -> bool {
        match self {
            Self::All => true,
            Self::Set(ids) => ids.contains(source),
        }
    }
}

/// What a token for a person or a program shall say.
#[derive(Debug)]
pub(crate) struct Badge {
    pub(crate) identity: String,
    pub(crate) role: Role,
    pub(crate) sources: Sources,
    /// A camera that a viewer may watch beside those of his sources.
    pub(crate) camera: Option<CameraId>,
}

impl Badge {
    /// `Err`: one sentence of what is wrong with the identity.
    pub(crate) fn new(
        identity: String,
        role: Role,
        sources: Sources,
        camera: Option<CameraId>,
    ) -> Result<Self, String> {
        check_user(&identity)?;
        if identity.starts_with(VIEWER) {
            return Err(format!(
                "a user's name does not begin with {VIEWER}: that is how the viewers of reservations                  are called"
            ));
        }
        Ok(Self { identity, role, sources, camera })
    }

    /// The claims of a token that is good from `now` on for `ttl`.
    pub(crate) fn claims(&self, now: SystemTime, ttl: Duration) -> Claims {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
        };
        let is_viewer = self.role == Role::Viewer;
        let video = VideoGrant {
            room_join: is_viewer,
            room: self.camera.as_ref().map(CameraId::room_name).unwrap_or_default(),
            can_subscribe: Some(is_viewer),
            can_publish: Some(false),
            room_admin: !is_viewer,
            room_create: false,
        };
        let is_plain = match self.role {
            Role::Admin => true,
            Role::Viewer => self.sources == Sources::none(),
            Role::Operator => false,
        };
        let texts = [("role", self.role.as_str().to_owned()), ("sources", self.sources.to_text())];
        let texts = texts.into_iter().filter(|_| !is_plain);
        let attributes = texts.map(|(name, text)| (name.to_owned(), text.into())).collect();
        Claims {
            iss: String::new(),
            sub: self.identity.clone(),
            exp: seconds(now + ttl),
            nbf: seconds(now),
            jti: String::new(),
            video,
            attributes,
        }
    }
}

/// Refuses user names that have no place in leases and logs. `Err`: one sentence.
pub(super) fn check_user(user: &str) -> Result<(), String> {
    if user.is_empty() || user.len() > USER_LENGTH_MAX || user.chars().any(char::is_control) {
        return Err(format!(
            "user_id must be 1 to {USER_LENGTH_MAX} bytes of text without control characters"
        ));
    }
    Ok(())
}

/// Who sent a request. See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    identity: String,
    role: Role,
    sources: Sources,
    /// The room that the token names, if any.
    room: String,
    /// What the token is for, if it is a viewer's: the one reservation, or none that there could be.
    viewer: Option<Option<ReservationId>>,
}

impl Caller {
    /// Who was not asked.
    fn anybody() -> Self {
        Self {
            identity: ANYBODY.to_owned(),
            role: Role::Admin,
            sources: Sources::All,
            room: String::new(),
            viewer: None,
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
            viewer: grant.is_viewers().then(|| grant.reservation()),
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
        match &self.viewer {
            Some(own) => own.as_ref() == Some(reservation),
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
        let is_open = self.viewer.is_none() || ROUTES_OF_VIEWERS.contains(&route);
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
        snapshot.cameras.retain(|camera| self.may_watch(&camera.about.id, &camera.about.source));
        let cameras = &snapshot.cameras;
        snapshot.reservations.retain(|viewer| {
            let camera = cameras.iter().find(|camera| camera.about.id == viewer.camera);
            let is_his = camera.is_some_and(|camera| self.may_change(&camera.about.source));
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
        if self.viewer.is_some() && self.room != camera.room_name() {
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
        let is_other =
            |own: &Option<ReservationId>| own.as_ref().is_none_or(|own| own.as_str() != id);
        if self.viewer.as_ref().is_some_and(is_other) {
            return Err(GrantError::OtherReservation.into());
        }
        let known = ReservationId::parse(id).map_err(|_| no_reservation())?;
        match http.find_holder(&known).await {
            Some(holder) => {
                let is_his = self.may_change(&holder.source) || self.owns(&known, &holder.user);
                if is_his { Ok(()) } else { Err(no_reservation()) }
            }
            // His own he may be told the end of.
            None if self.viewer.is_some() => Err(http.why_over(id).await),
            None => Err(no_reservation()),
        }
    }
}

/// As for a camera that is not there.
pub(super) fn no_camera(camera: &CameraId) -> Problem {
    Problem::not_found(format!("there is no camera {camera}"))
}

/// As for a reservation that is not there.
fn no_reservation() -> Problem {
    LeaseError::Over(Over(None)).into()
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
    let wrong = |sentence: String| TokenError::Attributes(sentence);
    let sources = grant.attribute("sources").map_err(wrong)?;
    let sources = sources.map(Sources::parse).transpose().map_err(wrong)?;
    let is_admin = grant.admin().is_ok();
    let Some(word) = grant.attribute("role").map_err(wrong)? else {
        return match sources {
            Some(_) => Err(wrong("they have sources but no role".to_owned())),
            None if is_admin => Ok((Role::Admin, Sources::All)),
            None => Ok((Role::Viewer, Sources::none())),
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
        (Role::Viewer, None) => Ok((role, Sources::none())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;
    use crate::config;
    use crate::http::Keyring;

    fn keyring() -> Keyring {
        Keyring::new(&config::from_toml("").auth).unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn caller(claims: Claims) -> Result<Caller, TokenError> {
        let keyring = keyring();
        let token = keyring.sign(claims).unwrap().token;
        Caller::of(&keyring.verify_token(&token, now()).unwrap())
    }

    fn with(video: Value, attributes: Value) -> Result<Caller, String> {
        let claims = json!({
            "iss": "", "sub": "u", "exp": 1_800_000_060, "video": video, "attributes": attributes,
        });
        caller(serde_json::from_value(claims).unwrap()).map_err(|error| error.to_string())
    }

    fn source(id: &str) -> SourceId {
        SourceId::parse(id).unwrap()
    }

    #[test]
    fn a_badge_comes_back_from_its_token_as_it_was_made() {
        let badge = |role, sources: Sources, camera: Option<&str>| {
            let camera = camera.map(|id| CameraId::parse(id).unwrap());
            let badge = Badge::new("u".to_owned(), role, sources, camera).unwrap();
            caller(badge.claims(now(), Duration::from_secs(60)))
        };
        let metro = || Sources::parse("METRO").unwrap();
        for (role, sources) in [
            (Role::Viewer, metro()),
            (Role::Viewer, Sources::All),
            (Role::Viewer, Sources::none()),
            (Role::Operator, metro()),
            (Role::Operator, Sources::All),
            (Role::Admin, Sources::All),
        ] {
            let caller = badge(role, sources.clone(), None).unwrap();
            assert_eq!((caller.role, &caller.sources), (role, &sources));
            assert_eq!(caller.is_admin(), role == Role::Admin);
        }
        let one = badge(Role::Viewer, Sources::none(), Some("cam-1")).unwrap();
        assert!(one.may_watch(&CameraId::parse("cam-1").unwrap(), &source("TAXI")));
        assert!(!one.may_watch(&CameraId::parse("cam-2").unwrap(), &source("TAXI")));
        // Never an admin by being left out.
        assert!(badge(Role::Operator, Sources::none(), None).is_err());
    }

    #[test]
    fn attributes_narrow_what_the_grant_gives_and_never_widen_it() {
        let admin = json!({"roomAdmin": true});
        let operator = with(admin.clone(), json!({"role": "operator", "sources": "METRO, TAXI"}));
        let operator = operator.unwrap();
        assert!(operator.may_change(&source("TAXI")) && !operator.may_read(&source("NAVY")));
        assert!(operator.require_admin().is_err());
        let viewer = with(admin.clone(), json!({"role": "viewer", "sources": "METRO"})).unwrap();
        assert!(viewer.may_read(&source("METRO")) && !viewer.may_change(&source("METRO")));
        assert!(with(admin, json!({"colour": 4})).unwrap().is_admin(), "others are not ours");
        for role in ["operator", "admin"] {
            let raised = with(json!({}), json!({"role": role, "sources": "*"})).unwrap_err();
            assert!(raised.ends_with("needs the grant roomAdmin or roomCreate"), "{raised}");
        }
    }

    #[test]
    fn malformed_attributes_open_nothing_and_say_why() {
        let wrong = |attributes| with(json!({"roomAdmin": true}), attributes).unwrap_err();
        for (attributes, sentence) in [
            (json!({"role": "boss"}), "the role must be viewer, operator or admin"),
            (json!({"role": 1}), "role must be a text"),
            (json!({"role": "operator"}), "an operator needs sources, as in METRO,TAXI or *"),
            (json!({"role": "operator", "sources": ""}), "the source id is empty"),
            (json!({"role": "operator", "sources": "METRO,"}), "the source id is empty"),
            (json!({"role": "operator", "sources": ["METRO"]}), "sources must be a text"),
            (
                json!({"role": "admin", "sources": "METRO"}),
                "an admin has all sources; use the role",
            ),
            (json!({"sources": "METRO"}), "they have sources but no role"),
        ] {
            let told = wrong(attributes);
            let told = told.strip_prefix("the token's attributes are wrong: ").unwrap();
            assert!(told.starts_with(sentence), "{told}");
        }
        let many = (0..=SOURCES_MAX).map(|n| format!("S{n}")).collect::<Vec<_>>().join(",");
        let told = wrong(json!({"role": "operator", "sources": many}));
        assert!(told.ends_with("there are more than 64 sources"), "{told}");
    }

    #[test]
    fn a_users_name_is_never_that_of_a_viewer() {
        let badge = |name: &str| {
            Badge::new(name.to_owned(), Role::Viewer, Sources::All, None).map(drop).unwrap_err()
        };
        assert!(badge("viewer_1").starts_with("a user's name does not begin with viewer_"));
        assert!(badge("").starts_with("user_id must be 1 to 128 bytes"));
        assert!(badge("a\nb").starts_with("user_id must be"));
    }
}
