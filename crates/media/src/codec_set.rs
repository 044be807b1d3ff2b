//! Sets of codecs: what a viewer takes.

use crate::frame::Codec;

/// Some codecs, each in it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodecSet(u16);

impl CodecSet {
    /// All there are: what a viewer of whom nothing is known may take.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether a codec is in it.
    pub const fn contains(self, codec: Codec) -> bool {
        self.0 & Self::bit(codec) != 0
    }

    const fn bit(codec: Codec) -> u16 {
        1 << codec as u8
    }
}

impl FromIterator<Codec> for CodecSet {
    fn from_iter<T: IntoIterator<Item = Codec>>(codecs: T) -> Self {
        Self(codecs.into_iter().fold(0, |bits, codec| bits | Self::bit(codec)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let set: CodecSet = [Codec::H264, Codec::Pcma].into_iter().collect();
        assert!(set.contains(Codec::H264) && set.contains(Codec::Pcma));
        assert!(!set.contains(Codec::H265) && !CodecSet::default().contains(Codec::H264));
        assert!(CodecSet::ALL.contains(Codec::Pcma));
    }
}
