//! The header of an RTP packet, as far as a receiver needs it (RFC 3550 §5.1).

/// Bytes without contributing sources and extension.
const FIXED_BYTES: usize = 12;

/// What the clear part of a protected packet says.
///
/// ```text
/// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
/// |                           timestamp                           |
/// |                             SSRC                              |
/// |  CC contributing sources                                      |
/// |  X: profile, length in words  | extension                     |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    /// Bytes before the payload.
    pub(super) len: usize,
}

impl Header {
    /// `None`: not RTP, or cut short.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<FIXED_BYTES>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut len = FIXED_BYTES + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let extension = packet.get(len..len + 4)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| fixed[at + byte]));
        (len <= packet.len()).then_some(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: word(4),
            ssrc: word(8),
            len,
        })
    }
}

/// Whether a datagram of the media range is RTCP and not RTP (RFC 5761 §4).
pub(super) fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [_, 192..=223, ..])
}

/// The payload without its padding; `None` if that says to be longer than the payload.
pub(super) fn without_padding(has_padding: bool, payload: &[u8]) -> Option<&[u8]> {
    if !has_padding {
        return Some(payload);
    }
    let padding = usize::from(*payload.last()?);
    payload.get(..payload.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_extension_are_part_of_the_header() {
        let mut packet = vec![0x92, 0x80 | 96, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 0, 0, 0, 0]);
        packet.extend([0x65, 1]);
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.marker, header.payload_type, header.sequence), (true, 96, 0x0102));
        assert_eq!((header.timestamp, header.ssrc, header.len), (9, 7, 28));
        for cut in 0..28 {
            assert_eq!(Header::parse(&packet[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn padding_is_left_out_and_lies_are_refused() {
        assert_eq!(without_padding(true, &[1, 2, 0, 2]), Some(&[1, 2][..]));
        assert_eq!(without_padding(true, &[9]), None);
        assert_eq!(without_padding(true, &[]), None);
        assert_eq!(without_padding(false, &[9]), Some(&[9][..]));
    }
}
