//! Why a viewer's right to watch ended before its lease did.

use std::fmt;

/// What took the right away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Its token ran out, and nobody renewed it.
    TokenExpired,
    /// The key that its token was signed with is not among the keys any more.
    KeyRemoved,
    /// Somebody who may sent it away.
    Removed,
}

impl Revocation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TokenExpired, Self::KeyRemoved, Self::Removed];

    /// Half a sentence for people: "it ended: …".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExpired => "its token expired and was not renewed",
            Self::KeyRemoved => "the key of its token was removed",
            Self::Removed => "an operator removed the viewer",
        }
    }

    /// As programs tell it from other ends.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::KeyRemoved => "KEY_REMOVED",
            Self::Removed => "REMOVED",
        }
    }

    /// One word, for figures.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TokenExpired => "expired",
            Self::KeyRemoved => "key_removed",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
