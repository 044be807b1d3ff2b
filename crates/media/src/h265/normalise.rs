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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VPS: &[u8] = &[
        0x40, 1, 0x0c, 1, 0xff, 0xff, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x1e, 0xba,
        0x02, 0x40,
    ];
    /// 96x64, eight bits of order count.
    const SPS: &[u8] = &[
        0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x1e, 0xa0, 0x30, 0x81, 5,
        0x96, 0xe9, 0x29, 0x30, 0xbc, 5, 0xa0, 0x20, 0, 0, 3, 0, 0x20, 0, 0, 3, 1, 0xe1,
    ];
    /// Id 0.
    const PPS: &[u8] = &[0x44, 1, 0xc0, 0x73, 0xc1, 0x09];
    /// Id 1.
    const SECOND_PPS: &[u8] = &[0x44, 1, 0x50, 0x73, 0xc1, 0x09];
    const AUD: &[u8] = &[0x46, 1, 0x10];
    const FILLER: &[u8] = &[0x4c, 1, 0xff, 0x80];
    const SEI: &[u8] = &[0x4e, 1, 5, 1, 9, 0x80];
    const END: &[u8] = &[0x48, 1];
    /// first_slice, no_output_of_prior_pics, pps 0.
    const IDR: &[u8] = &[0x28, 1, 0b1010_0000, 0x11];
    const IDR_SECOND_SLICE: &[u8] = &[0x28, 1, 0b0010_0000, 0x22];
    /// Of another layer.
    const LAYER: &[u8] = &[0x28, 9, 0b1010_0000, 0x11];

    /// A slice with pps `pps` (0 or 1) of the P type and an order count below 64.
    fn trailing(pps: u8, order: u8) -> Vec<u8> {
        // first_slice (1), pps 0 (1) or 1 (010), slice_type 1 (010), order count (8 bits), 1s.
        let (head, length) = if pps == 0 { (0b11010_u32, 5) } else { (0b101_0010, 7) };
        let word = (head << 8 | u32::from(order)) << (32 - 8 - length) | 1 << 4;
        [&[0x02, 1][..], &word.to_be_bytes()].concat()
    }

    #[test]
    fn superfluous_units_go_and_parameter_sets_stand_once_before_the_idr() {
        let mut normaliser = Normaliser::default();
        let units = [AUD, VPS, SPS, PPS, VPS, SPS, PPS, SEI, IDR, IDR_SECOND_SLICE, FILLER, LAYER];
        let unit = feed(&mut normaliser, &units).unwrap();
        assert!(unit.keyframe && !unit.reordered);
        assert_eq!(unit.units, [VPS, SPS, PPS, SEI, IDR, IDR_SECOND_SLICE]);
        let next = trailing(0, 1);
        assert_eq!(feed(&mut normaliser, &[AUD, &next, END]).unwrap().units, [&next[..], END]);
        assert_eq!(feed(&mut normaliser, &[AUD, IDR]).unwrap().units, [VPS, SPS, PPS, IDR]);
        let size = normaliser.format().unwrap().size();
        assert_eq!((size.width, size.height), (96, 64));
    }

    #[test]
    fn parameter_sets_come_out_of_band_and_all_three_are_waited_for() {
        let mut normaliser = Normaliser::default();
        for set in [&[0x42, 1, 1][..], &[], SPS, PPS] {
            normaliser.handle_parameter_set(set);
            assert!(feed(&mut normaliser, &[IDR]).is_none());
        }
        normaliser.handle_parameter_set(VPS);
        assert_eq!(feed(&mut normaliser, &[IDR]).unwrap().units, [VPS, SPS, PPS, IDR]);
    }

    #[test]
    fn between_keyframes_only_new_picture_parameter_sets_are_sent() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[VPS, SPS, PPS, IDR]);
        let (first, second) = (trailing(0, 1), trailing(1, 2));
        assert_eq!(feed(&mut normaliser, &[VPS, SPS, PPS, &first]).unwrap().units, [&first[..]]);
        assert!(feed(&mut normaliser, &[SECOND_PPS]).is_none());
        let unit = feed(&mut normaliser, &[&second]).unwrap();
        assert_eq!(unit.units, [SECOND_PPS, &second[..]]);
        let unit = feed(&mut normaliser, &[IDR]).unwrap();
        assert_eq!(unit.units, [VPS, SPS, PPS, SECOND_PPS, IDR]);
    }

    #[test]
    fn pictures_out_of_order_are_found_by_their_order_counts() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[VPS, SPS, PPS, IDR]);
        let order = [3, 1, 2, 6, 4]
            .map(|order| feed(&mut normaliser, &[&trailing(0, order)]).unwrap().reordered);
        assert_eq!(order, [false, true, true, false, true]);
    }

    #[test]
    fn a_vendors_private_data_is_not_sent() {
        let mut normaliser = Normaliser::default();
        let sei = [&[0x4e, 1, 5, 255, 100][..], &[0xaa; 355], &[0x80]].concat();
        let unit = feed(&mut normaliser, &[VPS, SPS, PPS, &sei, IDR]).unwrap();
        assert_eq!(unit.units, [VPS, SPS, PPS, IDR]);
    }

    #[test]
    fn what_is_broken_or_too_large_is_an_error() {
        let mut normaliser = Normaliser::default();
        feed(&mut normaliser, &[VPS, SPS, PPS, IDR]);
        let mut handle =
            |nal: Vec<u8>| normaliser.handle_access_unit(vec![nal.into()]).map(|_| ()).unwrap_err();
        assert!(matches!(handle(vec![0x42, 1, 1]), H265Error::Malformed { .. }));
        assert!(matches!(
            handle(vec![0x02, 1, 0x80]),
            H265Error::Malformed { what: "slice header", .. }
        ));
        assert_eq!(handle(IDR_SECOND_SLICE.to_vec()), H265Error::NoFirstSlice);
        assert!(matches!(handle(vec![2; 9 << 20]), H265Error::AccessUnitSize { .. }));
    }

    proptest! {
        #[test]
        fn any_units_are_taken_without_panic(units in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                prop::sample::select(vec![VPS, SPS, PPS, SECOND_PPS, IDR, SEI, END])
                    .prop_map(<[u8]>::to_vec),
                (0..2_u8, 0..64_u8).prop_map(|(pps, order)| trailing(pps, order)),
            ],
            0..12,
        )) {
            let mut normaliser = Normaliser::default();
            for chunk in units.chunks(3) {
                let nals = chunk.iter().cloned().map(Bytes::from).collect();
                let Ok(Some(unit)) = normaliser.handle_access_unit(nals) else { continue };
                prop_assert!(normaliser.format().is_some());
                let of = |kind| {
                    unit.units.iter().filter(|nal| NalType::of(nal) == Some(kind)).count()
                };
                prop_assert_eq!(of(NalType::Sps), usize::from(unit.keyframe));
                prop_assert_eq!(of(NalType::Vps), usize::from(unit.keyframe));
            }
        }
    }

    fn feed(normaliser: &mut Normaliser, nals: &[&[u8]]) -> Option<AccessUnit> {
        let nals = nals.iter().map(|nal| Bytes::copy_from_slice(nal)).collect();
        normaliser.handle_access_unit(nals).unwrap()
    }
}
