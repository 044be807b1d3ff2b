//! Making a camera's access units fit for browsers.
//!
//! Cameras send parameter sets in the session description, in front of some pictures, or both, and
//! put things between pictures that no browser wants. What leaves here has the parameter sets in
//! front of every picture that decoding can start from, and nothing superfluous.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::frame::{AccessUnit, MAX_ACCESS_UNIT};
use crate::h264::error::H264Error;
use crate::h264::nal::NalType;
use crate::h264::slice::{SliceHeader, SliceType, is_instant_recovery_point};
use crate::h264::sps::{Pps, Sps, VideoFormat};

/// Picture parameter sets kept. Cameras have one, encoders with several coding modes a handful;
/// 32 of the largest size stay under 128 KiB. (Sequence parameter sets are bounded by their id.)
const MAX_PPS: usize = 32;

/// SEI units up to this size are forwarded: what matters to a decoder takes a few dozen bytes, what
/// is larger is a vendor's private data, and would cost every viewer a packet of its own.
const MAX_SEI: usize = 256;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPS: &[u8] = &[
        0x67, 0x42, 0xc0, 0x16, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0, 0, 3, 0, 4, 0, 0, 3,
        0, 0x7a, 0x3c, 0x58, 0xba, 0x80,
    ];
    /// 1920x1080, same id.
    const OTHER_SPS: &[u8] = &[
        0x67, 0x64, 0, 0x28, 0xac, 0xb2, 0, 0xf0, 4, 0x4f, 0xcb, 0x80, 0x88, 0, 0, 3, 0, 8, 0, 0,
        3, 0, 0xf0, 0x78, 0xc1, 0x92, 0x40,
    ];
    /// Of a stream that may reorder (pic_order_cnt_type 0), same id.
    const REORDERING_SPS: &[u8] = &[
        0x67, 0x64, 0, 0x28, 0xac, 0xd9, 0x40, 0x78, 2, 0x27, 0xe5, 0xc0, 0x44, 0, 0, 3, 0, 4, 0,
        0, 3, 0, 0x78, 0x3c, 0x60, 0xc6, 0x58,
    ];
    const PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];
    /// Same id, other content.
    const OTHER_PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xcc];
    /// Id 1.
    const SECOND_PPS: &[u8] = &[0x68, 0x52, 0x0f, 0xc8];
    const AUD: &[u8] = &[0x09, 0xf0];
    const FILLER: &[u8] = &[0x0c, 0xff, 0x80];
    const IDR: &[u8] = &[0x65, 0b1000_1000, 0x84, 0x11];
    const P: &[u8] = &[0x41, 0b1001_1011, 0x22];
    const P_SECOND_SLICE: &[u8] = &[0x41, 0b0100_0110, 0b1000_0000, 0x22];
    const B: &[u8] = &[0x01, 0b1010_1000, 0x33];
    const I: &[u8] = &[0x41, 0b1000_1000, 0x84];
    /// Uses picture parameter set 1.
    const P_OF_SECOND_PPS: &[u8] = &[0x41, 0b1001_1001, 0b0000_0000, 0x22];
    const RECOVERY: &[u8] = &[6, 6, 1, 0xc4, 0x80];

    #[test]
    fn superfluous_units_go_and_parameter_sets_stand_once_before_the_idr() {
        let mut normaliser = Normaliser::default();
        let end = &[0x0a_u8][..];
        let scalable = &[0x0e_u8, 1, 2][..];
        let unit =
            feed(&mut normaliser, &[AUD, SPS, PPS, SPS, PPS, RECOVERY, IDR, FILLER, scalable, end]);
        let unit = unit.unwrap();
        assert!(unit.keyframe && !unit.reordered);
        assert_eq!(unit.units, [SPS, PPS, RECOVERY, IDR]);
        assert_eq!(
            feed(&mut normaliser, &[AUD, P, P_SECOND_SLICE]).unwrap().units,
            [P, P_SECOND_SLICE]
        );
        assert_eq!(feed(&mut normaliser, &[AUD, IDR]).unwrap().units, [SPS, PPS, IDR]);
    }

    #[test]
    fn parameter_sets_come_out_of_band() {
        let mut normaliser = Normaliser::default();
        assert!(feed(&mut normaliser, &[IDR]).is_none());
        normaliser.handle_parameter_set(SPS);
        normaliser.handle_parameter_set(&[0x67, 1]);
        normaliser.handle_parameter_set(&[]);
        assert!(feed(&mut normaliser, &[IDR]).is_none());
        normaliser.handle_parameter_set(PPS);
        assert_eq!(feed(&mut normaliser, &[IDR]).unwrap().units, [SPS, PPS, IDR]);
        assert_eq!(normaliser.format().unwrap().width, 640);
    }

    #[test]
    fn parameter_sets_in_an_access_unit_of_their_own_are_kept() {
        let mut normaliser = Normaliser::default();
        assert!(feed(&mut normaliser, &[SPS, PPS]).is_none());
        assert_eq!(feed(&mut normaliser, &[IDR]).unwrap().units, [SPS, PPS, IDR]);
    }

    #[test]
    fn another_resolution_is_taken_over() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[SPS, PPS, IDR]);
        let unit = feed(&mut normaliser, &[OTHER_SPS, OTHER_PPS, IDR]).unwrap();
        assert_eq!(unit.units, [OTHER_SPS, OTHER_PPS, IDR]);
        let format = normaliser.format().unwrap();
        assert_eq!((format.width, format.height), (1920, 1080));
    }

    #[test]
    fn between_keyframes_only_new_picture_parameter_sets_are_sent() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[SPS, PPS, IDR]);
        assert_eq!(feed(&mut normaliser, &[SPS, PPS, P]).unwrap().units, [P]);
        assert!(feed(&mut normaliser, &[SECOND_PPS]).is_none());
        let unit = feed(&mut normaliser, &[P_OF_SECOND_PPS]).unwrap();
        assert_eq!(unit.units, [SECOND_PPS, P_OF_SECOND_PPS]);
        assert_eq!(feed(&mut normaliser, &[P_OF_SECOND_PPS]).unwrap().units, [P_OF_SECOND_PPS]);
        assert_eq!(feed(&mut normaliser, &[IDR]).unwrap().units, [SPS, PPS, SECOND_PPS, IDR]);
    }

    #[test]
    fn a_recovery_point_of_intra_slices_is_a_keyframe() {
        let mut normaliser = Normaliser::default();
        let unit = feed(&mut normaliser, &[SPS, PPS, RECOVERY, I]).unwrap();
        assert!(unit.keyframe);
        assert_eq!(unit.units, [SPS, PPS, RECOVERY, I]);
        assert!(!feed(&mut normaliser, &[I]).unwrap().keyframe);
        assert!(!feed(&mut normaliser, &[RECOVERY, I, P_SECOND_SLICE]).unwrap().keyframe);
    }

    #[test]
    fn b_slices_are_found_in_any_slice() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[REORDERING_SPS, PPS, IDR]);
        assert!(feed(&mut normaliser, &[B]).unwrap().reordered);
        assert!(feed(&mut normaliser, &[P, B]).unwrap().reordered);
        assert!(!feed(&mut normaliser, &[P, P_SECOND_SLICE]).unwrap().reordered);
    }

    #[test]
    fn b_slices_of_a_stream_that_never_reorders_pass() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[SPS, PPS, IDR]);
        assert!(!feed(&mut normaliser, &[B]).unwrap().reordered);
    }

    #[test]
    fn a_vendors_private_data_is_not_sent_but_its_recovery_point_seen() {
        let mut normaliser = Normaliser::default();
        let mut sei = RECOVERY[..4].to_vec();
        sei.extend([5, 255, 100]);
        sei.extend([0xaa; 355]);
        sei.push(0x80);
        let unit = feed(&mut normaliser, &[SPS, PPS, &sei, I]).unwrap();
        assert!(unit.keyframe);
        assert_eq!(unit.units, [SPS, PPS, I]);
    }

    #[test]
    fn what_is_broken_or_too_large_is_an_error() {
        let mut normaliser = Normaliser::default();
        let mut handle =
            |nal: Vec<u8>| normaliser.handle_access_unit(vec![nal.into()]).map(|_| ()).unwrap_err();
        assert!(matches!(handle(vec![0x67, 1]), H264Error::Malformed { .. }));
        assert!(matches!(handle(vec![0x65]), H264Error::Malformed { what: "slice header", .. }));
        assert!(matches!(handle(vec![0x41; 9 << 20]), H264Error::AccessUnitSize { .. }));
    }

    #[test]
    fn picture_parameter_sets_are_bounded() {
        let mut normaliser = Normaliser::default();
        for id in 31..255_u16 {
            // Nine to fifteen bits of id, then sps 0.
            let code = u32::from(id) + 1;
            let bits = 2 * code.ilog2() + 1;
            let word = (code << (31 - bits) | 1 << (30 - bits)) << 1;
            let nal: Vec<u8> =
                std::iter::once(0x68).chain(word.to_be_bytes()).chain([0x80]).collect();
            normaliser.handle_parameter_set(&nal);
        }
        assert_eq!(normaliser.pps.len(), MAX_PPS);
    }

    proptest! {
        #[test]
        fn any_units_are_taken_without_panic(units in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                prop::sample::select(vec![SPS, PPS, SECOND_PPS, IDR, P, B, I, RECOVERY])
                    .prop_map(<[u8]>::to_vec),
            ],
            0..12,
        )) {
            let mut normaliser = Normaliser::default();
            for chunk in units.chunks(3) {
                let nals = chunk.iter().cloned().map(Bytes::from).collect();
                let Ok(Some(unit)) = normaliser.handle_access_unit(nals) else { continue };
                prop_assert!(normaliser.format().is_some());
                let sps = unit.units.iter().filter(|nal| nal[0] & 0x1f == 7).count();
                prop_assert_eq!(sps, usize::from(unit.keyframe));
            }
        }
    }

    fn feed(normaliser: &mut Normaliser, nals: &[&[u8]]) -> Option<AccessUnit> {
        let nals = nals.iter().map(|nal| Bytes::copy_from_slice(nal)).collect();
        normaliser.handle_access_unit(nals).unwrap()
    }
}
