//! Keys and arguments of a call, one after the other in one buffer: a call of many reservations has a
//! thousand of them, and a text of its own for each would cost more than what is done with it.

use std::fmt;
use std::io::Write as _;

/// Keys or arguments, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    bytes: Vec<u8>,
    /// Where in `bytes` each ends; each begins where the one before it ends.
    ends: Vec<usize>,
}

impl Words {
    /// Adds one.
    pub(crate) fn push(&mut self, word: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(word.as_ref());
        self.ends.push(self.bytes.len());
    }

    /// Adds one that is put together, as `format_args!` does it.
    pub(crate) fn write(&mut self, word: fmt::Arguments<'_>) {
        // A `Vec` takes all that is written to it.
        let _ = self.bytes.write_fmt(word);
        self.ends.push(self.bytes.len());
    }

    /// Adds all of `others` behind its own.
    pub(crate) fn append(&mut self, others: &Self) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.ends.extend(others.ends.iter().map(|end| begin + end));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all of them together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let word = self.bytes.get(begin..*end).unwrap_or_default();
            begin = *end;
            word
        })
    }
}

impl<W: AsRef<[u8]>> Extend<W> for Words {
    fn extend<I: IntoIterator<Item = W>>(&mut self, words: I) {
        words.into_iter().for_each(|word| self.push(word));
    }
}

impl<W: AsRef<[u8]>> FromIterator<W> for Words {
    fn from_iter<I: IntoIterator<Item = W>>(words: I) -> Self {
        let mut all = Self::default();
        all.extend(words);
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_come_back_as_they_were_added(
            first in prop::collection::vec(".{0,8}", 0..8),
            second in prop::collection::vec(".{0,8}", 0..8),
        ) {
            let mut words: Words = first.iter().collect();
            let mut others = Words::default();
            second.iter().for_each(|word| others.write(format_args!("{word}")));
            words.append(&others);

            let all: Vec<&[u8]> = first.iter().chain(&second).map(String::as_bytes).collect();
            prop_assert_eq!(words.len(), all.len());
            prop_assert_eq!(words.bytes(), all.concat().len());
            prop_assert_eq!(words.iter().collect::<Vec<_>>(), all);
        }
    }
}
