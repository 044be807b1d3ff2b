//! A row of the audit trail and its canonical bytes, which the chain's hashes are made of.
//!
//! ```text
//! row in the database: | hash, 32 bytes | body |
//! body:                | tag | length, 4 bytes LE | value | tag | ...      tags rise, empty values are left out
//! hash = SHA-256(hash of the row before | number of this row, 8 bytes LE | body)
//! ```
//! A row has one body and a body is one row, so that nothing can be changed in it without changing the hash.

use aws_lc_rs::digest::{Context, SHA256};
use control::{ReservationId, Timestamp};

/// SHA-256's.
pub(crate) const HASH_BYTES: usize = 32;

/// A hash of the chain.
pub(crate) type Hash = [u8; HASH_BYTES];

/// What the hash of the first row follows.
const GENESIS: &[u8] = b"manifold audit trail 1";

/// Longest text of a row, in bytes: names of users are at most 256 characters, sentences of cameras some
/// hundred. What is longer is cut.
const TEXT_BYTES_MAX: usize = 1_024;

/// Room for a body at first: the life of somebody who left soon has 300 bytes.
const BODY_USUAL: usize = 512;

/// Most steps of a life in a row: as many as the journal keeps.
const STEPS_MAX: usize = 64;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Somebody may watch from here on.
    Begun,
    /// He does not any more: how long, how many bytes, why it ended.
    Ended,
    /// Somebody was not let in.
    Refused,
    /// Somebody watched when the server was killed: what is known of him.
    Cut,
    /// Somebody changed something.
    Changed,
    /// The server began to write.
    Started,
    /// The server ended as it should.
    Stopped,
    /// Rows were lost, as more came than the disk took.
    Lost,
    /// Rows were removed since they were too old.
    Checkpoint,
}

impl Kind {
    /// All there are.
    pub(crate) const ALL: [Self; 9] = [
        Self::Begun,
        Self::Ended,
        Self::Refused,
        Self::Cut,
        Self::Changed,
        Self::Started,
        Self::Stopped,
        Self::Lost,
        Self::Checkpoint,
    ];

    /// As queries and files have it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Begun => "watch_begun",
            Self::Ended => "watch_ended",
            Self::Refused => "watch_refused",
            Self::Cut => "watch_cut",
            Self::Changed => "changed",
            Self::Started => "server_started",
            Self::Stopped => "server_stopped",
            Self::Lost => "rows_lost",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// `None` for any other word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A row. What does not concern its kind is empty, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// When it was written down; never before the row before it.
    pub(crate) at: Timestamp,
    pub(crate) kind: Kind,
    /// Who: the user of a reservation, or who changed something.
    pub(crate) actor: String,
    /// What he did, in a word.
    pub(crate) action: String,
    /// To what he did it.
    pub(crate) object: String,
    pub(crate) camera: String,
    pub(crate) source: String,
    pub(crate) reservation: String,
    /// Watched from then on.
    pub(crate) from: Option<Timestamp>,
    /// And until then.
    pub(crate) to: Option<Timestamp>,
    /// RTP packets that were sent, without repeats.
    pub(crate) packets: u64,
    /// Bytes of media in them.
    pub(crate) bytes: u64,
    /// Why it ended or was refused.
    pub(crate) reason: String,
    /// The life of the reservation.
    pub(crate) steps: Vec<RowStep>,
    /// Steps that were left out of it.
    pub(crate) steps_omitted: u64,
    /// Rows that were lost or removed.
    pub(crate) count: u64,
    /// The last row that was removed, and its hash.
    pub(crate) removed: Option<(u64, Hash)>,
}

/// A step of a reservation's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowStep {
    pub(crate) at: Timestamp,
    pub(crate) word: String,
    pub(crate) detail: String,
}

/// A body that is none of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the row is not of this version's form")]
pub(crate) struct RowError;

impl Row {
    /// One with nothing in it but its kind. Its time is that of its writing, unless it is set.
    pub(crate) fn new(kind: Kind) -> Self {
        let text = String::new;
        Self {
            at: Timestamp::ZERO,
            kind,
            actor: text(),
            action: text(),
            object: text(),
            camera: text(),
            source: text(),
            reservation: text(),
            from: None,
            to: None,
            packets: 0,
            bytes: 0,
            reason: text(),
            steps: Vec::new(),
            steps_omitted: 0,
            count: 0,
            removed: None,
        }
    }

    /// Somebody changed something.
    pub(crate) fn changed(actor: &str, action: &str, object: &str) -> Self {
        Self {
            actor: actor.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
            ..Self::new(Kind::Changed)
        }
    }

    /// The same of a reservation.
    pub(crate) fn of(self, reservation: &ReservationId) -> Self {
        Self { reservation: reservation.to_string(), ..self }
    }

    /// From when to when what it tells of happened.
    pub(crate) fn span(&self) -> (Timestamp, Timestamp) {
        (self.from.unwrap_or(self.at), self.to.unwrap_or(self.at))
    }

    /// Its canonical bytes.
    #[cfg(test)]
    pub(crate) fn to_body(&self) -> Vec<u8> {
        self.to_body_at(self.at)
    }

    /// Its canonical bytes, with another time of its writing.
    pub(crate) fn to_body_at(&self, at: Timestamp) -> Vec<u8> {
        let mut body = Body(Vec::with_capacity(BODY_USUAL));
        let texts = [
            (tag::ACTOR, &self.actor),
            (tag::ACTION, &self.action),
            (tag::OBJECT, &self.object),
            (tag::CAMERA, &self.camera),
            (tag::SOURCE, &self.source),
            (tag::RESERVATION, &self.reservation),
        ];
        body.number(tag::AT, at.as_millis());
        body.bytes(tag::KIND, self.kind.word().as_bytes());
        texts.into_iter().for_each(|(tag, text)| body.text(tag, text));
        body.number(tag::FROM, self.from.map_or(0, Timestamp::as_millis));
        body.number(tag::TO, self.to.map_or(0, Timestamp::as_millis));
        body.number(tag::PACKETS, self.packets);
        body.number(tag::BYTES, self.bytes);
        body.text(tag::REASON, &self.reason);
        for step in self.steps.iter().take(STEPS_MAX) {
            body.inner(tag::STEP, |inner| {
                inner.number(tag::AT, step.at.as_millis());
                inner.text(tag::ACTION, &step.word);
                inner.text(tag::REASON, &step.detail);
            });
        }
        body.number(tag::OMITTED, self.steps_omitted);
        body.number(tag::COUNT, self.count);
        if let Some((row, hash)) = &self.removed {
            body.number(tag::REMOVED_ROW, *row);
            body.bytes(tag::REMOVED_HASH, hash);
        }
        body.0
    }

    /// Reads a body.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, RowError> {
        let mut row = Self::new(Kind::Changed);
        let (mut removed_row, mut removed_hash, mut has_kind) = (None, None, false);
        for field in Fields(body) {
            let (tag, value) = field?;
            match tag {
                tag::AT => row.at = time(value)?,
                tag::KIND => {
                    row.kind = Kind::parse(&text(value)?).ok_or(RowError)?;
                    has_kind = true;
                }
                tag::ACTOR => row.actor = text(value)?,
                tag::ACTION => row.action = text(value)?,
                tag::OBJECT => row.object = text(value)?,
                tag::CAMERA => row.camera = text(value)?,
                tag::SOURCE => row.source = text(value)?,
                tag::RESERVATION => row.reservation = text(value)?,
                tag::FROM => row.from = Some(time(value)?),
                tag::TO => row.to = Some(time(value)?),
                tag::PACKETS => row.packets = number(value)?,
                tag::BYTES => row.bytes = number(value)?,
                tag::REASON => row.reason = text(value)?,
                tag::STEP => row.steps.push(RowStep::of_body(value)?),
                tag::OMITTED => row.steps_omitted = number(value)?,
                tag::COUNT => row.count = number(value)?,
                tag::REMOVED_ROW => removed_row = Some(number(value)?),
                tag::REMOVED_HASH => removed_hash = Hash::try_from(value).ok(),
                _ => return Err(RowError),
            }
        }
        row.removed = removed_row.zip(removed_hash);
        if has_kind { Ok(row) } else { Err(RowError) }
    }
}

impl RowStep {
    fn of_body(body: &[u8]) -> Result<Self, RowError> {
        let mut step = Self { at: Timestamp::ZERO, word: String::new(), detail: String::new() };
        for field in Fields(body) {
            match field? {
                (tag::AT, value) => step.at = time(value)?,
                (tag::ACTION, value) => step.word = text(value)?,
                (tag::REASON, value) => step.detail = text(value)?,
                _ => return Err(RowError),
            }
        }
        Ok(step)
    }
}

/// The hash of a row.
pub(crate) fn hash(before: &Hash, number: u64, body: &[u8]) -> Hash {
    digest(&[before, &number.to_le_bytes(), body])
}

/// What the first row of all follows.
pub(crate) fn genesis() -> Hash {
    digest(&[GENESIS])
}

/// In hexadecimal digits.
pub(crate) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Numbers of fields. They are never given a second meaning; bodies hold them in this order.
mod tag {
    pub(super) const AT: u8 = 1;
    pub(super) const KIND: u8 = 2;
    pub(super) const ACTOR: u8 = 3;
    pub(super) const ACTION: u8 = 4;
    pub(super) const OBJECT: u8 = 5;
    pub(super) const CAMERA: u8 = 6;
    pub(super) const SOURCE: u8 = 7;
    pub(super) const RESERVATION: u8 = 8;
    pub(super) const FROM: u8 = 9;
    pub(super) const TO: u8 = 10;
    pub(super) const PACKETS: u8 = 11;
    pub(super) const BYTES: u8 = 12;
    pub(super) const REASON: u8 = 13;
    pub(super) const STEP: u8 = 14;
    pub(super) const OMITTED: u8 = 15;
    pub(super) const COUNT: u8 = 16;
    pub(super) const REMOVED_ROW: u8 = 17;
    pub(super) const REMOVED_HASH: u8 = 18;
}

struct Body(Vec<u8>);

impl Body {
    fn bytes(&mut self, tag: u8, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        // Texts are cut, steps are three of them, and the rest is short.
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(value);
    }

    /// A value that has fields itself.
    fn inner(&mut self, tag: u8, write: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let begin = self.0.len();
        write(self);
        if self.0.len() == begin {
            return self.0.truncate(length_at - 1);
        }
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[length_at..begin].copy_from_slice(&length.to_le_bytes());
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.bytes(tag, &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
    }

    fn number(&mut self, tag: u8, number: u64) {
        if number != 0 {
            self.bytes(tag, &number.to_le_bytes());
        }
    }
}

/// The fields of a body, with one error where it is cut.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take(&mut self.0).ok_or(RowError);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn take<'a>(body: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = body.split_first()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    *body = rest;
    Some((*tag, value))
}

fn number(value: &[u8]) -> Result<u64, RowError> {
    value.try_into().map(u64::from_le_bytes).map_err(|_| RowError)
}

fn time(value: &[u8]) -> Result<Timestamp, RowError> {
    number(value).map(Timestamp::from_millis)
}

fn text(value: &[u8]) -> Result<String, RowError> {
    String::from_utf8(value.to_vec()).map_err(|_| RowError)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_row() -> impl Strategy<Value = Row> {
        let words = proptest::collection::vec("[a-z=+\"',\\n\u{600}-\u{6ff}]{0,12}", 7);
        let numbers = proptest::collection::vec(1_u64.., 6);
        let steps = proptest::collection::vec((1_u64.., "[a-z]{1,8}", ".{0,20}"), 0..4);
        (words, numbers, steps, 0..Kind::ALL.len(), any::<bool>()).prop_map(
            |(words, numbers, steps, kind, is_removal)| Row {
                at: Timestamp::from_millis(numbers[0]),
                kind: Kind::ALL[kind],
                actor: words[0].clone(),
                action: words[1].clone(),
                object: words[2].clone(),
                camera: words[3].clone(),
                source: words[4].clone(),
                reservation: words[5].clone(),
                from: Some(Timestamp::from_millis(numbers[1])),
                to: None,
                packets: numbers[2],
                bytes: 0,
                reason: words[6].clone(),
                steps: steps
                    .into_iter()
                    .map(|(at, word, detail)| RowStep {
                        at: Timestamp::from_millis(at),
                        word,
                        detail,
                    })
                    .collect(),
                steps_omitted: numbers[3],
                count: numbers[4],
                removed: is_removal.then_some((numbers[5], [7; HASH_BYTES])),
            },
        )
    }

    proptest! {
        #[test]
        fn a_row_is_its_body(row in any_row()) {
            prop_assert_eq!(Row::of_body(&row.to_body()), Ok(row));
        }

        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Row::of_body(&body);
        }

        #[test]
        fn a_cut_body_is_refused_or_another_row(row in any_row(), share in 0.0_f64..1.0) {
            let body = row.to_body();
            let cut = &body[..(body.len() as f64 * share) as usize];
            prop_assert_ne!(Row::of_body(cut), Ok(row));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let row = Row::changed(&"ش".repeat(5000), "a", "b");
        let read = Row::of_body(&row.to_body()).unwrap();
        assert_eq!(read.actor.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn the_hash_depends_on_all_that_it_is_made_of() {
        let of = |before: u8, number, body: &[u8]| hash(&[before; HASH_BYTES], number, body);
        let hashes = [of(0, 1, b"a"), of(1, 1, b"a"), of(0, 2, b"a"), of(0, 1, b"b"), genesis()];
        for (index, one) in hashes.iter().enumerate() {
            assert!(hashes.iter().skip(index + 1).all(|other| other != one));
        }
        assert_eq!(hex(&[0x0a; HASH_BYTES]), "0a".repeat(HASH_BYTES));
    }
}
