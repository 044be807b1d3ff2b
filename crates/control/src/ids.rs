//! The names by which people and programs refer to things.
//!
//! A value of these types is well formed, wherever it came from: it can stand in a URL path, a file
//! name, a log line and a Valkey key without escaping. This module does *not* say whether the thing
//! that is named exists.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not an id. The text itself is not repeated: it may be hostile or huge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("{kind} is empty")]
    Empty {
        /// What kind of id was read.
        kind: &'static str,
    },
    /// More characters than the kind may have.
    #[error("{kind} is longer than {max} characters")]
    TooLong {
        /// What kind of id was read.
        kind: &'static str,
        /// The most characters it may have.
        max: usize,
    },
    /// A character that the kind does not have, or not there.
    #[error("{kind} has {character:?} at position {position}; {allowed}")]
    Character {
        /// What kind of id was read.
        kind: &'static str,
        /// The first character that does not fit.
        character: char,
        /// Where it stands, counted in characters from 0.
        position: usize,
        /// What may stand there, as half a sentence.
        allowed: &'static str,
    },
    /// Not the hyphenated form of a UUID.
    #[error("a reservation id is a UUID in its hyphenated form of 36 characters")]
    NotAUuid,
}

/// Text shared by all copies of an id: ids are copied into every lease, index and log line.
macro_rules! id_type {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// Maps keyed by the id can be asked with any text, parsed or not.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// `cam-001-sheikh-zayed`: letters, digits, `-`, `_` and `.`, not starting with `.`; at most 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CameraId(Arc<str>);

id_type!(CameraId);

impl CameraId {
    /// Longest id: with `camera_` and `_publisher` around it it still fits a file name (255 bytes).
    pub const MAX_CHARACTERS: usize = 128;

    /// Reads an id. Slashes, NUL and a leading dot are refused, so that an id never leaves the
    /// directory or the URL segment that it is put into.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let kind = "the camera id";
        check_length(text, kind, Self::MAX_CHARACTERS)?;
        if text.starts_with('.') {
            let allowed = "it does not start with a dot";
            return Err(IdError::Character { kind, character: '.', position: 0, allowed });
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        check_characters(text, kind, "it has letters, digits, '-', '_' and '.' only", fits)?;
        Ok(Self(text.into()))
    }

    /// The room in which this camera is watched: `camera_<id>`.
    pub fn room_name(&self) -> String {
        format!("camera_{self}")
    }

    /// The camera's own participant in its room: `camera_<id>_publisher`.
    pub fn publisher_identity(&self) -> String {
        format!("camera_{self}_publisher")
    }

    /// The name under which the camera's puller is listed: `whip-pusher-<id>`.
    pub fn pusher_name(&self) -> String {
        format!("whip-pusher-{self}")
    }
}

/// `DUBAI_POLICE`: `[A-Z0-9_]+`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(Arc<str>);

id_type!(SourceId);

impl SourceId {
    /// Longest id: it becomes part of environment names and of Valkey keys.
    pub const MAX_CHARACTERS: usize = 64;

    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let kind = "the source id";
        check_length(text, kind, Self::MAX_CHARACTERS)?;
        let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        check_characters(text, kind, "it has capital letters, digits and '_' only", fits)?;
        Ok(Self(text.into()))
    }
}

/// A reservation's id: a random UUID in its hyphenated form, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(Arc<str>);

id_type!(ReservationId);

impl ReservationId {
    /// Where the hyphens stand: `8-4-4-4-12` (RFC 9562 §4).
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    /// 32 hexadecimal digits and the hyphens.
    const BYTES: usize = 36;

    /// Reads an id; capital digits are accepted and stored in lower case (RFC 9562 §4).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let is_uuid = text.len() == Self::BYTES
            && text.bytes().enumerate().all(|(position, byte)| {
                if Self::HYPHENS.contains(&position) {
                    byte == b'-'
                } else {
                    byte.is_ascii_hexdigit()
                }
            });
        if !is_uuid {
            return Err(IdError::NotAUuid);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The viewer's identity in the room, unique by construction: `viewer_<id>`.
    pub fn viewer_identity(&self) -> String {
        format!("viewer_{self}")
    }
}

fn check_length(text: &str, kind: &'static str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { kind });
    }
    // Bytes bound characters from above, so that a huge text is not walked through.
    if text.len() > max * 4 || text.chars().count() > max {
        return Err(IdError::TooLong { kind, max });
    }
    Ok(())
}

fn check_characters(
    text: &str,
    kind: &'static str,
    allowed: &'static str,
    fits: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    match text.chars().enumerate().find(|(_, character)| !fits(*character)) {
        Some((position, character)) => {
            Err(IdError::Character { kind, character, position, allowed })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn a_camera_id_names_its_room_publisher_and_pusher() {
        let id = CameraId::parse("cam-001-sheikh-zayed").unwrap();
        assert_eq!(id.room_name(), "camera_cam-001-sheikh-zayed");
        assert_eq!(id.publisher_identity(), "camera_cam-001-sheikh-zayed_publisher");
        assert_eq!(id.pusher_name(), "whip-pusher-cam-001-sheikh-zayed");
    }

    #[test]
    fn camera_ids_that_could_leave_their_place_are_refused() {
        let overlong = "a".repeat(129);
        let huge = "é".repeat(1 << 20);
        for text in [
            "", "../x", "..", ".", ".hidden", "a/b", "a\\b", "a\0", "a b", "a%2fb", "a\n",
            "<script>", "شارع", &overlong, &huge,
        ] {
            assert!(CameraId::parse(text).is_err(), "{text:.20?} was accepted");
        }
        assert!(CameraId::parse(&"a".repeat(128)).is_ok());
        assert!(CameraId::parse("a..b").is_ok(), "dots inside a segment lead nowhere");
    }

    #[test]
    fn an_error_names_the_character_without_repeating_the_text() {
        let error = CameraId::parse("cam/../../etc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the camera id has '/' at position 3; it has letters, digits, '-', '_' and '.' only"
        );
    }

    #[test]
    fn source_ids_are_capitals_digits_and_underscores() {
        assert_eq!(SourceId::parse("DUBAI_POLICE").unwrap().as_str(), "DUBAI_POLICE");
        for text in ["", "metro", "A-B", "A B", &"A".repeat(65)] {
            assert!(SourceId::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn reservation_ids_are_hyphenated_uuids_in_lower_case() {
        let id = ReservationId::parse(&UUID.to_ascii_uppercase()).unwrap();
        assert_eq!(id.as_str(), UUID);
        assert_eq!(id.viewer_identity(), format!("viewer_{UUID}"));
        for text in ["", "67e5504410b1426f9247bb680e5fe0c8", &UUID[1..], &UUID.replace('-', "_")] {
            assert_eq!(ReservationId::parse(text), Err(IdError::NotAUuid));
        }
    }
}
