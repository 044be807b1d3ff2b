//! From the numbers of packets that are passed on to the packet indices of one viewer.
//!
//! A viewer sees the gaps and the order that its sender's packets came in. When another sender goes
//! on, or the same one anew, the indices rise on from where they are.
//!
//! ```text
//! sender   … 41  42  44  43 │ 7  8  10  9        44 before 43; then another sender, of which 9 is late
//! viewer   … 90  91  93  92 │ 94 95 97  96
//! ```
//! It does not know which indices were used: the cipher does (`SrtpSender::is_free`).

use crate::srtp::LATE_INDICES;

/// Numbers that go on further ahead or behind than this have nothing to do with those before: a
/// receiver takes them for another sender's too (`MAX_DROPOUT`, RFC 3550 appendix A.1). At 400 packets
/// a second, the most that Opus has, it is 7 s, after which a sender is taken for dead.
const MAX_GAP: u64 = 3_000;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing that is known comes before it: indices go on with it.
    Begins,
    /// Behind all that came.
    Ahead(u64),
    /// Before others that came; the index may have been used.
    Late(u64),
    /// It came twice, or so late that nothing is left for it.
    Nowhere,
}

/// Numbers of one sender without a break.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    first_number: u64,
    first_index: u64,
    newest_number: u64,
}

/// How a track's numbers go on.
#[derive(Debug, Default)]
pub(super) struct Numbering(Option<Stretch>);

impl Numbering {
    /// Where the packet with this number goes. Changes nothing.
    pub(super) fn place(&self, number: u64) -> Place {
        let Some(stretch) = &self.0 else { return Place::Begins };
        let index = number.wrapping_sub(stretch.first_number).wrapping_add(stretch.first_index);
        let ahead = number.wrapping_sub(stretch.newest_number);
        let behind = stretch.newest_number.wrapping_sub(number);
        match (ahead, behind) {
            (0, _) => Place::Nowhere,
            (1..=MAX_GAP, _) => Place::Ahead(index),
            (_, 1..LATE_INDICES) if number >= stretch.first_number => Place::Late(index),
            (_, 1..=MAX_GAP) => Place::Nowhere,
            (_, _) => Place::Begins,
        }
    }

    /// Numbers begin with this one, which has this index.
    pub(super) fn begin(&mut self, number: u64, index: u64) {
        let (first_number, first_index) = (number, index);
        self.0 = Some(Stretch { first_number, first_index, newest_number: number });
    }

    /// The packet with this number was behind all that came.
    pub(super) fn go_on(&mut self, number: u64) {
        if let Some(stretch) = &mut self.0 {
            stretch.newest_number = number;
        }
    }

    /// What comes next has nothing to do with what came.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(number: u64, index: u64) -> Numbering {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.place(number), Place::Begins);
        numbering.begin(number, index);
        numbering
    }

    #[test]
    fn gaps_and_order_are_kept() {
        let mut numbering = begun(40, 90);
        assert_eq!(numbering.place(43), Place::Ahead(93));
        numbering.go_on(43);
        assert_eq!(numbering.place(41), Place::Late(91));
        assert_eq!(numbering.place(44), Place::Ahead(94));
        assert_eq!(numbering.place(43), Place::Nowhere, "it came twice");
        assert_eq!(numbering.place(39), Place::Nowhere, "its index is of the sender before");
    }

    #[test]
    fn what_is_far_away_begins_anew_and_what_is_too_late_is_nowhere() {
        let mut numbering = begun(10_000, 5);
        numbering.go_on(10_000 + LATE_INDICES);
        assert_eq!(numbering.place(10_001), Place::Late(6));
        assert_eq!(numbering.place(10_000), Place::Nowhere);
        let newest = 10_000 + LATE_INDICES;
        assert_eq!(numbering.place(newest + MAX_GAP), Place::Ahead(5 + LATE_INDICES + MAX_GAP));
        assert_eq!(numbering.place(newest + MAX_GAP + 1), Place::Begins);
        assert_eq!(numbering.place(newest - MAX_GAP), Place::Nowhere);
        assert_eq!(numbering.place(newest - MAX_GAP - 1), Place::Begins);
        assert_eq!(numbering.place(u64::MAX), Place::Begins);
        numbering.end();
        assert_eq!(numbering.place(newest + 1), Place::Begins);
    }
}
