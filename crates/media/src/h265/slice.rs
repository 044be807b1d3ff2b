//! The head of a picture's first slice, up to its order count (ITU-T H.265 §7.3.6.1).

use crate::bits::{BitReader, unescape};
use crate::h265::error::H265Error;
use crate::h265::nal::{HEADER, NalType};
use crate::h265::parameters::{Pps, Sps};

/// Flags, three Exp-Golomb numbers of at most 63 bits each and an order count of 16 bits: all that is
/// read of a slice.
const HEAD: usize = 32;

/// A first slice whose parameter sets are still to be found.
pub(super) struct FirstSlice {
    nal_type: NalType,
    payload: Vec<u8>,
    bytes: usize,
}

impl FirstSlice {
    /// Of a whole NAL unit.
    pub(super) fn new(nal: &[u8], nal_type: NalType) -> Self {
        Self { nal_type, payload: unescape(nal, HEADER, HEAD), bytes: nal.len() }
    }

    /// slice_pic_parameter_set_id, 0 to 63.
    pub(super) fn pps_id(&self) -> Result<u8, H265Error> {
        self.read_pps_id().map(|(id, _)| id).ok_or_else(|| self.malformed())
    }

    /// slice_pic_order_cnt_lsb; 0 for an IDR picture, which has none.
    pub(super) fn order_count(&self, pps: &Pps, sps: &Sps) -> Result<u32, H265Error> {
        if self.nal_type == NalType::Idr {
            return Ok(0);
        }
        let read = || {
            let (_, mut reader) = self.read_pps_id()?;
            reader.skip(pps.extra_slice_bits)?;
            reader.unsigned_up_to(2)?; // slice_type
            reader.skip(usize::from(pps.output_flag_present))?;
            reader.skip(if sps.separate_planes { 2 } else { 0 })?;
            reader.bits(sps.order_bits)
        };
        read().ok_or_else(|| self.malformed())
    }

    fn read_pps_id(&self) -> Option<(u8, BitReader<'_>)> {
        let mut reader = BitReader::new(&self.payload);
        reader.skip(1)?; // first_slice_segment_in_pic_flag
        if self.nal_type.is_random_access() {
            reader.skip(1)?; // no_output_of_prior_pics_flag
        }
        Some((reader.unsigned_up_to(63)? as u8, reader))
    }

    fn malformed(&self) -> H265Error {
        H265Error::Malformed { what: "slice header", bytes: self.bytes }
    }
}
