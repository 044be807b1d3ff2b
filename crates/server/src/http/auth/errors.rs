//! Why a token opens nothing, or not this, or could not be made.

/// Why a token opens nothing: 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// No `Authorization` header.
    #[error("there is no token; send Authorization: Bearer <token>")]
    Missing,
    /// Another scheme than `Bearer`.
    #[error("the Authorization header is not of the form: Bearer <token>")]
    NotBearer,
    /// Not a JSON Web Token.
    #[error("the token is malformed")]
    Malformed,
    /// `none`, `RS256` and everything else.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// `iss` names no configured key.
    #[error("the token is signed with a key that this server does not have")]
    UnknownKey,
    /// The signature is not that of its key.
    #[error("the token has a bad signature")]
    Signature,
    /// `exp` is past.
    #[error("the token expired at {at}; ask for a fresh one by heartbeat or reserve again")]
    Expired {
        /// RFC 3339, UTC.
        at: String,
    },
    /// `nbf` is to come.
    #[error("the token is valid from {at} on; check the clocks")]
    NotYet {
        /// RFC 3339, UTC.
        at: String,
    },
    /// It was taken back.
    #[error("the token was revoked: its viewer was sent away by an operator")]
    Revoked,
    /// Role and sources are not what they must be. The rest of a sentence.
    #[error("the token's attributes are wrong: {0}")]
    Attributes(String),
}

/// Why a valid token does not open this: 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    /// The token names another camera's room.
    #[error("the token is for another room, not {room}")]
    OtherRoom {
        /// The room that was asked for.
        room: String,
    },
    /// A token that is not from a reservation.
    #[error("the token is no viewer's token; use the token that reserve answered")]
    NotAViewer,
    /// A viewer's token at the API.
    #[error("the token may not call this; it needs the grant roomAdmin or roomCreate")]
    NotAnAdmin,
    /// A viewer's token at somebody else's reservation.
    #[error("the token is for another reservation")]
    OtherReservation,
    /// A viewer names somebody else.
    #[error("a viewer reserves for himself alone: the token is for user_id {identity:?}")]
    NotHimself {
        /// Whom the token is for.
        identity: String,
    },
    /// A viewer's token where somebody's things are to be changed.
    #[error("the token lets its holder watch, and change nothing here; it needs the role operator")]
    NotAnOperator,
}

/// The system gave no random bytes, or the claims could not be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// `getrandom` failed.
    #[error("the system gives no random numbers to make a signing key of")]
    NoRandomness,
    /// The library refused.
    #[error("a token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}
