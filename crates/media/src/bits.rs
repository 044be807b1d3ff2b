//! Reading what encoders write bit by bit: the raw byte sequence payload of a NAL unit (ITU-T H.264
//! §7.2 and §9.1, H.265 the same), the frame headers of VP9 and AV1.

/// Undoes emulation prevention (ITU-T H.264 §7.4.1): every `00 00 03` becomes `00 00`.
///
/// `nal` is the NAL unit with its header of `header` bytes, which is left out of the result. At most
/// `limit` bytes are produced.
pub(crate) fn unescape(nal: &[u8], header: usize, limit: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len().min(limit));
    let mut zeros = 0;
    for &byte in nal.iter().skip(header) {
        if payload.len() == limit {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

/// A cursor over bits, most significant first. Every read answers `None` at the end of the data.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// `u(1)`.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = self.data.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit == 1)
    }

    /// `u(count)`, at most 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        let position = self.position.checked_add(count)?;
        (position <= self.data.len() * 8).then(|| self.position = position)
    }

    /// `ue(v)`: an unsigned Exp-Golomb number of at most 2^32 - 2, the largest of the standard.
    pub(crate) fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        Some(((1_u64 << zeros) - 1) as u32 + rest)
    }

    /// `ue(v)` that must not exceed `max`.
    pub(crate) fn unsigned_up_to(&mut self, max: u32) -> Option<u32> {
        self.unsigned().filter(|value| *value <= max)
    }

    /// `se(v)`: a signed Exp-Golomb number (§9.1.1).
    pub(crate) fn signed(&mut self) -> Option<i32> {
        let code = i64::from(self.unsigned()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_golomb_codes_of_the_standard() {
        // §9.1, table 9-2: 1, 010, 011, 00100, 00101; then signed 010, 011.
        let data = [0b1010_0110, 0b0100_0010, 0b1010_0110];
        let mut reader = BitReader::new(&data);
        let values: Vec<_> = (0..5).map(|_| reader.unsigned().unwrap()).collect();
        assert_eq!(values, [0, 1, 2, 3, 4]);
        assert_eq!((reader.signed(), reader.signed()), (Some(1), Some(-1)));
    }

    #[test]
    fn the_largest_code_is_read_and_a_larger_one_refused() {
        let largest = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(BitReader::new(&largest).unsigned(), Some(u32::MAX - 1));
        let larger = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(BitReader::new(&larger).unsigned(), None);
    }

    #[test]
    fn emulation_prevention_is_removed() {
        let nal = [0x67, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3, 3];
        assert_eq!(unescape(&nal, 1, 64), [0, 0, 1, 0, 0, 0, 0, 3, 3]);
        assert_eq!(unescape(&nal, 1, 2), [0, 0]);
        assert!(unescape(&[], 1, 64).is_empty());
    }

    proptest! {
        #[test]
        fn any_bits_are_read_without_panic(data: Vec<u8>, steps in prop::collection::vec(0..5_u8, 0..64)) {
            let mut reader = BitReader::new(&data);
            for step in steps {
                let done = match step {
                    0 => reader.flag().is_none(),
                    1 => reader.bits(32).is_none(),
                    2 => reader.unsigned().is_none(),
                    3 => reader.signed().is_none(),
                    _ => reader.skip(usize::from(step)).is_none(),
                };
                if done {
                    break;
                }
            }
        }
    }
}
