//! H.265 as cameras and publishers send it, up to the packets of a viewer.

use bytes::Bytes;

use crate::frame::{AccessUnit, Codec, Frame, MAX_PAYLOAD, NtpTime};
use crate::h264::split_annex_b;
use crate::h265::{Depacketiser, NalType, Normaliser, packetise};

/// An Annex B stream, cut into access units at their delimiters. What leaves the normaliser survives
/// the payloads byte by byte, and a keyframe has its parameter sets.
pub fn h265(data: &[u8]) {
    let stream = Bytes::copy_from_slice(data);
    let mut normaliser = Normaliser::default();
    normaliser.handle_parameter_set(data);
    for units in access_units(split_annex_b(&stream)) {
        // An access unit that is refused is lost, and the next one is read all the same.
        if let Ok(Some(unit)) = normaliser.handle_access_unit(units) {
            check(&unit);
        }
    }
}

fn access_units(units: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    const DELIMITER: u8 = 35;
    let mut found = vec![Vec::new()];
    for unit in units {
        if unit.first().is_some_and(|first| first >> 1 & 0x3f == DELIMITER) {
            found.push(Vec::new());
        }
        if let Some(newest) = found.last_mut() {
            newest.push(unit);
        }
    }
    found
}

fn check(unit: &AccessUnit) {
    let kinds: Vec<_> = unit.units.iter().map(|nal| NalType::of(nal)).collect();
    assert!(!kinds.contains(&Some(NalType::Other)), "delimiters and filler are left out");
    if unit.keyframe {
        assert_eq!(kinds[..2], [Some(NalType::Vps), Some(NalType::Sps)]);
        assert!(kinds.contains(&Some(NalType::Pps)));
    }
    assert_eq!(through_payloads(unit), unit.units);
}

fn through_payloads(unit: &AccessUnit) -> Vec<Bytes> {
    let cut = packetise(&Frame {
        forwarded: None,
        codec: Codec::H265,
        ticks: 0,
        captured: NtpTime(0),
        keyframe: unit.keyframe,
        discontinuity: false,
        units: unit.units.clone(),
    });
    let mut depacketiser = Depacketiser::default();
    let mut units = Vec::new();
    for payload in cut.payloads() {
        assert!((1..=MAX_PAYLOAD).contains(&payload.len()));
        units.extend(depacketiser.handle_payload(payload).expect("it is our own payload"));
    }
    depacketiser.handle_end_of_frame().expect("the frame is whole");
    units
}
