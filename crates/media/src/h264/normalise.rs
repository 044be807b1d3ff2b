//! Making a camera's access units fit for browsers.
//!
//! Cameras send parameter sets in the session description, in front of some pictures, or both, and
//! put things between pictures that no browser wants. What leaves here has the parameter sets in
//! front of every picture that decoding can start from, and nothing superfluous.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::h264::error::H264Error;
use crate::h264::nal::{MAX_ACCESS_UNIT, NalType};
use crate::h264::slice::{SliceHeader, SliceType, is_instant_recovery_point};
use crate::h264::sps::{Pps, Sps, VideoFormat};

/// Picture parameter sets kept. Cameras have one, encoders with several coding modes a handful;
/// 32 of the largest size stay under 128 KiB. (Sequence parameter sets are bounded by their id.)
const MAX_PPS: usize = 32;

/// SEI units up to this size are forwarded: what matters to a decoder takes a few dozen bytes, what
/// is larger is a vendor's private data, and would cost every viewer a packet of its own.
const MAX_SEI: usize = 256;

/// An access unit made fit for browsers: no AUD, no filler, parameter sets before each keyframe.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// NAL units in decoding order.
    pub units: Vec<Bytes>,
    /// Contains an IDR picture, or consists of intra slices alone behind a recovery point.
    pub keyframe: bool,
    /// Contains a B slice, in a stream that may show pictures in another order than it sends them.
    pub reordered: bool,
}

/// Cleans a camera's access units and keeps its parameter sets.
#[derive(Debug, Default)]
pub struct Normaliser {
    sps: BTreeMap<u8, StoredSps>,
    pps: BTreeMap<u8, StoredPps>,
    format: Option<VideoFormat>,
}

#[derive(Debug)]
struct StoredSps {
    nal: Bytes,
    sps: Sps,
}

#[derive(Debug)]
struct StoredPps {
    nal: Bytes,
    sps_id: u8,
    /// It stood in an access unit that was forwarded.
    sent: bool,
}

impl Normaliser {
    /// Takes parameter sets that came out of band (`sprop-parameter-sets`). Broken ones are passed
    /// over: the stream may still bring good ones.
    pub fn handle_parameter_set(&mut self, nal: &[u8]) {
        // An error in the description is no reason to refuse the stream.
        let _ = self.store(nal);
    }

    /// One access unit in; `None` when nothing of it is worth sending: only delimiters, filler or
    /// parameter sets, or slices whose parameter sets have not come yet.
    ///
    /// After an error the access unit is lost, and decoding may have to wait for a keyframe.
    pub fn handle_access_unit(
        &mut self,
        nals: Vec<Bytes>,
    ) -> Result<Option<AccessUnit>, H264Error> {
        let bytes = nals.iter().map(Bytes::len).sum();
        if bytes > MAX_ACCESS_UNIT {
            return Err(H264Error::AccessUnitSize { bytes });
        }
        let mut picture = Picture::default();
        for nal in nals {
            match NalType::of(&nal) {
                Some(NalType::Sps | NalType::Pps) => self.store(&nal)?,
                Some(NalType::Slice | NalType::IdrSlice) => picture.take_slice(nal)?,
                Some(NalType::Sei) => picture.take_sei(nal),
                Some(NalType::Partition) => picture.units.push(nal),
                Some(NalType::Other) | None => {}
            }
        }
        Ok(self.complete(picture))
    }

    /// The format of the newest sequence parameter set.
    pub fn format(&self) -> Option<VideoFormat> {
        self.format
    }

    /// Puts the parameter sets in front that the picture needs; `None` without them or slices.
    fn complete(&mut self, picture: Picture) -> Option<AccessUnit> {
        let sps_id = self.pps.get(&picture.pps_id?)?.sps_id;
        let active = self.sps.get(&sps_id)?;
        let keyframe = picture.is_keyframe();
        let mut units = Vec::with_capacity(picture.units.len() + 2);
        if keyframe {
            units.push(active.nal.clone());
        }
        // A new viewer has nothing but what begins at a keyframe, so all go there; between
        // keyframes only what nobody has seen.
        for pps in self.pps.values_mut().filter(|pps| pps.sps_id == sps_id) {
            if keyframe || !pps.sent {
                units.push(pps.nal.clone());
                pps.sent = true;
            }
        }
        units.extend(picture.units);
        let in_order = active.sps.pic_order_cnt_type == 2;
        Some(AccessUnit { units, keyframe, reordered: picture.bidirectional && !in_order })
    }

    /// Keeps a parameter set in place of the one with the same id.
    fn store(&mut self, nal: &[u8]) -> Result<(), H264Error> {
        match NalType::of(nal) {
            Some(NalType::Sps) => self.store_sps(nal),
            Some(NalType::Pps) => self.store_pps(nal),
            Some(
                NalType::Slice
                | NalType::Partition
                | NalType::IdrSlice
                | NalType::Sei
                | NalType::Other,
            )
            | None => Ok(()),
        }
    }

    fn store_sps(&mut self, nal: &[u8]) -> Result<(), H264Error> {
        let sps = Sps::parse(nal)?;
        self.format = Some(sps.format);
        if self.sps.get(&sps.id).is_none_or(|stored| stored.nal != nal) {
            // A copy, since a slice would keep the whole access unit alive.
            let nal = Bytes::copy_from_slice(nal);
            self.sps.insert(sps.id, StoredSps { nal, sps });
        }
        Ok(())
    }

    fn store_pps(&mut self, nal: &[u8]) -> Result<(), H264Error> {
        let Pps { id, sps_id } = Pps::parse(nal)?;
        if self.pps.get(&id).is_some_and(|stored| stored.nal == nal) {
            return Ok(());
        }
        if self.pps.len() == MAX_PPS && !self.pps.contains_key(&id) {
            return Err(H264Error::TooManyParameterSets { limit: MAX_PPS });
        }
        let nal = Bytes::copy_from_slice(nal);
        self.pps.insert(id, StoredPps { nal, sps_id, sent: false });
        Ok(())
    }
}

/// What is known of one access unit while its NAL units are read.
#[derive(Default)]
struct Picture {
    units: Vec<Bytes>,
    /// Of the first slice; `None` while there is none.
    pps_id: Option<u8>,
    idr: bool,
    recovery_point: bool,
    /// Some slice is not intra coded.
    predicted: bool,
    bidirectional: bool,
}

impl Picture {
    fn take_slice(&mut self, nal: Bytes) -> Result<(), H264Error> {
        let header = SliceHeader::parse(&nal)?;
        self.pps_id.get_or_insert(header.pps_id);
        self.idr |= NalType::of(&nal) == Some(NalType::IdrSlice);
        self.predicted |= header.slice_type != SliceType::Intra;
        self.bidirectional |= header.slice_type == SliceType::Bidirectional;
        self.units.push(nal);
        Ok(())
    }

    fn take_sei(&mut self, nal: Bytes) {
        self.recovery_point |= is_instant_recovery_point(&nal);
        if nal.len() <= MAX_SEI {
            self.units.push(nal);
        }
    }

    fn is_keyframe(&self) -> bool {
        self.idr || (self.recovery_point && !self.predicted)
    }
}
