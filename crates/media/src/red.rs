//! Redundant audio (RED, RFC 2198): a packet that carries packets before it once more.
//!
//! ```text
//! |1| payload type (7) | timestamp offset (14) | length (10) |   for each older block, oldest first
//! |0| payload type (7) |                                         the newest block: the packet's own
//! | older blocks, as long as their headers say | newest block, all the rest |
//! ```
//! Takes payloads apart and renames their payload types. What is done with the blocks is the caller's
//! business.

use bytes::Bytes;

/// Blocks of one payload, at most: as many as libwebrtc reads. Senders put one to three into it.
pub const MAX_BLOCKS: usize = 32;

/// Whether an older block's header stands here, or that of the newest one.
const FOLLOWS: u8 = 0x80;

/// Bytes of an older block's header.
const OLDER_HEADER_BYTES: usize = 4;

/// A packet's payload inside another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// How far before the packet's own timestamp it belongs, in ticks of its clock: 0 to 16,383, and 0
    /// for the newest one.
    pub timestamp_offset: u32,
    /// Its payload; may be empty.
    pub data: Bytes,
}

/// Why a payload is none of RED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedError {
    /// It ends before its headers or blocks do.
    #[error("a redundant payload of {bytes} bytes is cut short")]
    Short {
        /// How long it is.
        bytes: usize,
    },
    /// More blocks than [`MAX_BLOCKS`].
    #[error("a redundant payload of more than {MAX_BLOCKS} blocks")]
    TooMany,
}

/// The blocks of a payload, oldest first. The last one is the newest and always there.
pub fn blocks(payload: &Bytes) -> Result<Vec<Block>, RedError> {
    let short = RedError::Short { bytes: payload.len() };
    let (headers, mut start) = headers(payload)?;
    let mut blocks = Vec::with_capacity(headers.len());
    for Header { payload_type, timestamp_offset, len } in headers {
        let end = len.map_or(payload.len(), |len| start + len);
        if end > payload.len() {
            return Err(short);
        }
        blocks.push(Block { payload_type, timestamp_offset, data: payload.slice(start..end) });
        start = end;
    }
    Ok(blocks)
}

/// What the packet would carry without redundancy.
pub fn newest(payload: &Bytes) -> Result<Block, RedError> {
    let newest = blocks(payload)?.pop();
    newest.ok_or(RedError::Short { bytes: payload.len() })
}

/// The same payload with all of its blocks named as this payload type, 0 to 127: each end of a way has
/// a name of its own for what they carry.
pub fn renamed(payload: &Bytes, payload_type: u8) -> Result<Bytes, RedError> {
    let (headers, _) = headers(payload)?;
    if headers.iter().all(|header| header.payload_type == payload_type) {
        return Ok(payload.clone());
    }
    let mut renamed = payload.to_vec();
    // Of four bytes each, but for the last one.
    for first in renamed.iter_mut().step_by(OLDER_HEADER_BYTES).take(headers.len()) {
        *first = *first & FOLLOWS | payload_type;
    }
    Ok(renamed.into())
}

struct Header {
    payload_type: u8,
    timestamp_offset: u32,
    /// `None`: up to the payload's end.
    len: Option<usize>,
}

/// The headers, and where they end.
fn headers(payload: &[u8]) -> Result<(Vec<Header>, usize), RedError> {
    let short = RedError::Short { bytes: payload.len() };
    let mut headers = Vec::new();
    let mut rest = payload;
    loop {
        let (first, behind) = rest.split_first().ok_or(short)?;
        let payload_type = first & !FOLLOWS;
        if headers.len() == MAX_BLOCKS {
            return Err(RedError::TooMany);
        }
        if first & FOLLOWS == 0 {
            headers.push(Header { payload_type, timestamp_offset: 0, len: None });
            return Ok((headers, payload.len() - behind.len()));
        }
        let [high, middle, low, next @ ..] = behind else { return Err(short) };
        let bits = u32::from_be_bytes([0, *high, *middle, *low]);
        let len = Some((bits & 0x3ff) as usize);
        headers.push(Header { payload_type, timestamp_offset: bits >> 10, len });
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The way back.
    fn written(blocks: &[Block]) -> Bytes {
        let (newest, older) = blocks.split_last().unwrap();
        let mut payload = Vec::new();
        for block in older {
            let bits = block.timestamp_offset << 10 | block.data.len() as u32;
            payload.push(FOLLOWS | block.payload_type);
            payload.extend(&bits.to_be_bytes()[1..]);
        }
        payload.push(newest.payload_type);
        payload.extend(blocks.iter().flat_map(|block| &block.data));
        payload.into()
    }

    #[test]
    fn a_packet_of_chromium_is_taken_apart() {
        // 960 ticks earlier, two bytes of Opus, then three new ones.
        let payload = Bytes::from_static(&[0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3, 4, 5]);
        let older =
            Block { payload_type: 111, timestamp_offset: 960, data: Bytes::from_static(&[1, 2]) };
        let own =
            Block { payload_type: 111, timestamp_offset: 0, data: Bytes::from_static(&[3, 4, 5]) };
        assert_eq!(newest(&payload), Ok(own.clone()));
        assert_eq!(blocks(&payload), Ok(vec![older, own]));
    }

    #[test]
    fn what_is_cut_short_or_endless_is_refused() {
        let payload = Bytes::from_static(&[0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 3]);
        for len in 0..7 {
            assert_eq!(blocks(&payload.slice(..len)), Err(RedError::Short { bytes: len }));
        }
        assert!(blocks(&payload.slice(..7)).is_ok(), "the newest block may be empty");
        let endless = Bytes::from([0x80 | 111, 0, 0, 0].repeat(MAX_BLOCKS + 1));
        assert_eq!(blocks(&endless), Err(RedError::TooMany));
    }

    fn block() -> impl Strategy<Value = Block> {
        let data = proptest::collection::vec(any::<u8>(), 0..200);
        (0_u8..128, 0_u32..1 << 14, data).prop_map(|(payload_type, timestamp_offset, data)| Block {
            payload_type,
            timestamp_offset,
            data: data.into(),
        })
    }

    proptest! {
        #[test]
        fn blocks_come_back_as_they_were_written(
            mut all in proptest::collection::vec(block(), 1..=MAX_BLOCKS),
        ) {
            all.last_mut().unwrap().timestamp_offset = 0;
            prop_assert_eq!(blocks(&written(&all)), Ok(all));
        }

        #[test]
        fn renamed_blocks_differ_in_their_names_alone(
            mut all in proptest::collection::vec(block(), 1..=MAX_BLOCKS),
            name in 0_u8..128,
        ) {
            all.last_mut().unwrap().timestamp_offset = 0;
            let renamed = renamed(&written(&all), name).unwrap();
            all.iter_mut().for_each(|block| block.payload_type = name);
            prop_assert_eq!(blocks(&renamed), Ok(all));
        }

        #[test]
        fn whatever_is_read_is_what_was_there(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let payload = Bytes::from(payload);
            if let Ok(all) = blocks(&payload) {
                prop_assert!(all.len() <= MAX_BLOCKS);
                prop_assert_eq!(written(&all).len(), payload.len());
            }
        }
    }
}
