//! Making a camera's access units fit for browsers: parameter sets in front of every picture that
//! decoding can start from, and nothing superfluous.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::frame::{AccessUnit, MAX_ACCESS_UNIT};
use crate::h265::error::H265Error;
use crate::h265::nal::{NalType, is_first_slice};
use crate::h265::order::PictureOrder;
use crate::h265::parameters::{Pps, Sps, VideoFormat, vps_id};
use crate::h265::slice::FirstSlice;

/// Picture parameter sets kept. Cameras have one; 32 of the largest size stay under 128 KiB. (Other
/// parameter sets are bounded by their ids.)
const MAX_PPS: usize = 32;

/// SEI units up to this size are forwarded: what matters to a decoder takes a few dozen bytes, what
/// is larger is a vendor's private data, and would cost every viewer a packet of its own.
const MAX_SEI: usize = 256;

/// Cleans a camera's access units and keeps its parameter sets.
#[derive(Debug, Default)]
pub struct Normaliser {
    vps: BTreeMap<u8, Bytes>,
    sps: BTreeMap<u8, StoredSps>,
    pps: BTreeMap<u8, StoredPps>,
    order: PictureOrder,
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
    pps: Pps,
    /// It stood in an access unit that was forwarded.
    sent: bool,
}

impl Normaliser {
    /// Takes parameter sets that came out of band (`sprop-vps`, `sprop-sps`, `sprop-pps`). Broken ones
    /// are passed over: the stream may still bring good ones.
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
    ) -> Result<Option<AccessUnit>, H265Error> {
        let bytes = nals.iter().map(Bytes::len).sum();
        if bytes > MAX_ACCESS_UNIT {
            return Err(H265Error::AccessUnitSize { bytes });
        }
        let mut picture = Picture::default();
        for nal in nals {
            match NalType::of(&nal) {
                Some(NalType::Vps | NalType::Sps | NalType::Pps) => self.store(&nal)?,
                Some(NalType::Sei) if nal.len() > MAX_SEI => {}
                Some(NalType::Sei | NalType::EndOfSequence) => picture.units.push(nal),
                Some(nal_type) if nal_type.is_slice() => picture.take_slice(nal, nal_type)?,
                Some(_) | None => {}
            }
        }
        self.complete(picture)
    }

    /// The format of the newest sequence parameter set.
    pub fn format(&self) -> Option<VideoFormat> {
        self.format
    }

    /// Puts the parameter sets in front that the picture needs; `None` without them or slices.
    fn complete(&mut self, picture: Picture) -> Result<Option<AccessUnit>, H265Error> {
        let Some(first) = picture.first else { return Ok(None) };
        let Some(active) = self.pps.get(&first.pps_id()?).map(|stored| stored.pps) else {
            return Ok(None);
        };
        let Some(StoredSps { nal: sps_nal, sps }) = self.sps.get(&active.sps_id) else {
            return Ok(None);
        };
        let Some(vps_nal) = self.vps.get(&sps.vps_id) else { return Ok(None) };
        let lower = first.order_count(&active, sps)?;
        let mut units = Vec::with_capacity(picture.units.len() + 3);
        if picture.keyframe {
            units.extend([vps_nal.clone(), sps_nal.clone()]);
        }
        let out_of_order = self.order.is_reordered(&picture.header, lower, sps.order_bits);
        // A new viewer has nothing but what begins at a keyframe, so all go there; between
        // keyframes only what nobody has seen.
        for stored in self.pps.values_mut().filter(|stored| stored.pps.sps_id == active.sps_id) {
            if picture.keyframe || !stored.sent {
                units.push(stored.nal.clone());
                stored.sent = true;
            }
        }
        units.extend(picture.units);
        Ok(Some(AccessUnit { units, keyframe: picture.keyframe, reordered: out_of_order }))
    }

    /// Keeps a parameter set in place of the one with the same id.
    fn store(&mut self, nal: &[u8]) -> Result<(), H265Error> {
        match NalType::of(nal) {
            Some(NalType::Vps) => self.store_vps(nal),
            Some(NalType::Sps) => self.store_sps(nal),
            Some(NalType::Pps) => self.store_pps(nal),
            Some(
                NalType::Trailing
                | NalType::Leading
                | NalType::BrokenLink
                | NalType::Idr
                | NalType::CleanRandomAccess
                | NalType::EndOfSequence
                | NalType::Sei
                | NalType::Other,
            )
            | None => Ok(()),
        }
    }

    fn store_vps(&mut self, nal: &[u8]) -> Result<(), H265Error> {
        let id = vps_id(nal)?;
        if self.vps.get(&id).is_none_or(|stored| stored != nal) {
            // A copy, since a slice would keep the whole access unit alive.
            self.vps.insert(id, Bytes::copy_from_slice(nal));
        }
        Ok(())
    }

    fn store_sps(&mut self, nal: &[u8]) -> Result<(), H265Error> {
        let sps = Sps::parse(nal)?;
        self.format = Some(sps.format);
        if self.sps.get(&sps.id).is_none_or(|stored| stored.nal != nal) {
            let nal = Bytes::copy_from_slice(nal);
            self.sps.insert(sps.id, StoredSps { nal, sps });
        }
        Ok(())
    }

    fn store_pps(&mut self, nal: &[u8]) -> Result<(), H265Error> {
        let pps = Pps::parse(nal)?;
        if self.pps.get(&pps.id).is_some_and(|stored| stored.nal == nal) {
            return Ok(());
        }
        if self.pps.len() == MAX_PPS && !self.pps.contains_key(&pps.id) {
            return Err(H265Error::TooManyParameterSets { limit: MAX_PPS });
        }
        let nal = Bytes::copy_from_slice(nal);
        self.pps.insert(pps.id, StoredPps { nal, pps, sent: false });
        Ok(())
    }
}

/// What is known of one access unit while its NAL units are read.
#[derive(Default)]
struct Picture {
    units: Vec<Bytes>,
    first: Option<FirstSlice>,
    /// Of the first slice.
    header: Bytes,
    keyframe: bool,
}

impl Picture {
    fn take_slice(&mut self, nal: Bytes, nal_type: NalType) -> Result<(), H265Error> {
        if self.first.is_none() {
            if !is_first_slice(&nal) {
                return Err(H265Error::NoFirstSlice);
            }
            self.first = Some(FirstSlice::new(&nal, nal_type));
            self.header = nal.clone();
            self.keyframe = nal_type.is_random_access();
        }
        self.units.push(nal);
        Ok(())
    }
}
