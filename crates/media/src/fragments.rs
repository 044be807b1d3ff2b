//! NAL units put together again from RTP payloads: what H.264 and H.265 have in common there.

use bytes::Bytes;

use crate::frame::MAX_ACCESS_UNIT;
use crate::payloads::{FU_END, FU_START};

/// Why a payload of NAL units cannot be part of a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NalPayloadError {
    /// The payload is too short for its kind, or an aggregated length runs over its end.
    #[error("payload of {bytes} bytes is cut short")]
    Truncated {
        /// The payload's length.
        bytes: usize,
    },
    /// A middle or last fragment without the first one: packets before it are missing.
    #[error("fragment without the start of its NAL unit")]
    NoStart,
    /// Something else came before the last fragment: packets are missing.
    #[error("NAL unit ends in the middle, behind {bytes} bytes")]
    NoEnd {
        /// How much of the NAL unit was there.
        bytes: usize,
    },
    /// A fragment that says it is of another NAL unit than the one before it, or is both the first
    /// and the last (RFC 6184 §5.8, RFC 7798 §4.4.3).
    #[error("fragment does not continue the one before it")]
    Mixed,
    /// The fragments add up to more than any NAL unit has.
    #[error("NAL unit of more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Of H.264 a kind that packetization-mode 1 does not have (RFC 6184 table 3), of H.265 PACI (50)
    /// or a type that no payload may have.
    #[error("payload of type {0} is not taken")]
    Type(u8),
}

/// The NAL unit whose fragments are coming in.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    /// What is there of it, header first; empty between NAL units.
    open: Vec<u8>,
}

impl Fragments {
    /// Something else comes, or nothing more: an error when a NAL unit is still open, which is lost.
    pub(crate) fn end(&mut self) -> Result<(), NalPayloadError> {
        match std::mem::take(&mut self.open).len() {
            0 => Ok(()),
            bytes => Err(NalPayloadError::NoEnd { bytes }),
        }
    }

    /// The next fragment: its NAL unit's `header`, the `flags` of its own header, and what it brings.
    /// Answers the NAL unit that it completes. After an error what was there is lost.
    pub(crate) fn add<const N: usize>(
        &mut self,
        header: [u8; N],
        flags: u8,
        fragment: &[u8],
    ) -> Result<Option<Bytes>, NalPayloadError> {
        let mut open = std::mem::take(&mut self.open);
        let (start, end) = (flags & FU_START != 0, flags & FU_END != 0);
        match open.first_chunk::<N>() {
            _ if start && end => return Err(NalPayloadError::Mixed),
            Some(_) if start => return Err(NalPayloadError::NoEnd { bytes: open.len() }),
            Some(first) if *first != header => return Err(NalPayloadError::Mixed),
            None if !start => return Err(NalPayloadError::NoStart),
            Some(_) => {}
            None => open.extend(header),
        }
        if open.len() + fragment.len() > MAX_ACCESS_UNIT {
            return Err(NalPayloadError::TooLarge { limit: MAX_ACCESS_UNIT });
        }
        open.extend_from_slice(fragment);
        if end {
            return Ok(Some(open.into()));
        }
        self.open = open;
        Ok(None)
    }
}

/// The NAL units of an aggregate behind its header; `None` if one is shorter than a NAL unit's header,
/// which has `header` bytes, or runs over the end, or if there is none at all.
pub(crate) fn split_aggregate(mut rest: &[u8], header: usize) -> Option<Vec<Bytes>> {
    let mut units = Vec::new();
    while !rest.is_empty() {
        let (size, behind) = rest.split_first_chunk::<2>()?;
        let (unit, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        if unit.len() < header {
            return None;
        }
        units.push(Bytes::copy_from_slice(unit));
        rest = behind;
    }
    (!units.is_empty()).then_some(units)
}
