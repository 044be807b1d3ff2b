//! Putting NAL units together again from RTP payloads: the counterpart of [`packetise`]. Order and
//! completeness are the caller's to watch by sequence numbers; what a gap breaks is refused here.
//!
//! [`packetise`]: crate::h265::packetise()

use bytes::Bytes;

use crate::fragments::{Fragments, NalPayloadError, split_aggregate};
use crate::h265::nal::HEADER;
use crate::h265::packetise::{AP, FU, NOT_TYPE};

/// Puts NAL units together from payloads in sending order.
#[derive(Debug, Default)]
pub struct Depacketiser {
    fragments: Fragments,
}

impl Depacketiser {
    /// The next payload; answers the NAL units that it completes. After an error the state is as at
    /// the start, and the payload is lost.
    pub fn handle_payload(&mut self, payload: &[u8]) -> Result<Vec<Bytes>, NalPayloadError> {
        let truncated = NalPayloadError::Truncated { bytes: payload.len() };
        let head = payload.split_first_chunk::<HEADER>();
        let nal_type = head.map(|(header, _)| header[0] >> 1 & 0x3f);
        if nal_type == Some(FU)
            && let &[first, second, flags, ref fragment @ ..] = payload
        {
            let nal_header = [first & NOT_TYPE | (flags & 0x3f) << 1, second];
            let unit = self.fragments.add(nal_header, flags, fragment)?;
            return Ok(unit.into_iter().collect());
        }
        let ended = self.fragments.end();
        match nal_type {
            None | Some(FU) => Err(truncated),
            Some(_) if ended.is_err() => ended.map(|()| Vec::new()),
            Some(0..AP) => Ok(vec![Bytes::copy_from_slice(payload)]),
            Some(AP) => split_aggregate(&payload[HEADER..], HEADER).ok_or(truncated),
            Some(other) => Err(NalPayloadError::Type(other)),
        }
    }

    /// The frame is over (the marker bit was set): an error when a NAL unit is still open.
    pub fn handle_end_of_frame(&mut self) -> Result<(), NalPayloadError> {
        self.fragments.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Codec, Frame, MAX_PAYLOAD, NtpTime, PacketisedFrame};
    use crate::h265::packetise;
    use crate::payloads::FU_END;

    #[test]
    fn parameter_sets_and_sei_share_a_payload() {
        let units =
            [unit(32, 1, 20), unit(33, 1, 40), unit(34, 1, 7), unit(39, 1, 9), unit(19, 1, 90)];
        let cut = cut(&units);
        assert_eq!(cut.packet_count(), 2);
        assert_eq!(cut.payload(0)[..4], [48 << 1, 1, 0, 20]);
        assert_eq!(cut.payload(1), units[4]);
        assert_eq!(join(&cut), units);
    }

    #[test]
    fn the_border_between_one_payload_and_two() {
        assert_eq!(cut(&[unit(1, 1, MAX_PAYLOAD)]).packet_count(), 1);
        let cut = cut(&[unit(1, 2, MAX_PAYLOAD + 1)]);
        assert_eq!(cut.payloads().map(<[u8]>::len).collect::<Vec<_>>(), [583, 582]);
        assert_eq!(cut.payload(0)[..3], [49 << 1, 2, 0x81]);
        assert_eq!(cut.payload(1)[..3], [49 << 1, 2, 0x41]);
    }

    #[test]
    fn what_has_no_header_is_left_out() {
        assert_eq!(cut(&[]).packet_count(), 0);
        assert_eq!(cut(&[vec![], vec![2]]).packet_count(), 0);
    }

    #[test]
    fn refuses_other_kinds_and_broken_payloads() {
        let handle = |payload: &[u8]| Depacketiser::default().handle_payload(payload);
        assert_eq!(handle(&[0x60]), Err(NalPayloadError::Truncated { bytes: 1 }));
        assert_eq!(handle(&[50 << 1, 1, 0]), Err(NalPayloadError::Type(50)));
        assert_eq!(handle(&[48 << 1, 1]), Err(NalPayloadError::Truncated { bytes: 2 }));
        assert_eq!(handle(&[48 << 1, 1, 0, 1, 2]), Err(NalPayloadError::Truncated { bytes: 5 }));
        assert_eq!(handle(&[49 << 1, 1]), Err(NalPayloadError::Truncated { bytes: 2 }));
        assert_eq!(handle(&[49 << 1, 1, 0xc1, 9]), Err(NalPayloadError::Mixed));
        assert_eq!(handle(&[49 << 1, 1, 0x41, 9]), Err(NalPayloadError::NoStart));
    }

    proptest! {
        #[test]
        fn depacketising_undoes_packetising(units in units()) {
            let cut = cut(&units);
            let whole: Vec<_> = units.into_iter().filter(|unit| unit.len() >= HEADER).collect();
            prop_assert_eq!(join(&cut), whole);
        }

        #[test]
        fn payloads_fit_and_fragments_are_equal(units in units()) {
            let cut = cut(&units);
            prop_assert!(cut.payloads().all(|payload| (2..=MAX_PAYLOAD).contains(&payload.len())));
            let mut size = None;
            for payload in cut.payloads().filter(|payload| payload[0] >> 1 & 0x3f == FU) {
                let first = *size.get_or_insert(payload.len());
                if payload[2] & FU_END == 0 {
                    prop_assert_eq!(payload.len(), first);
                } else {
                    prop_assert!(payload.len() <= first);
                    size = None;
                }
            }
            prop_assert_eq!(size, None);
        }

        #[test]
        fn any_payloads_are_taken_without_panic(payloads: Vec<Vec<u8>>) {
            let mut depacketiser = Depacketiser::default();
            for payload in payloads {
                let _ = depacketiser.handle_payload(&payload);
            }
            let _ = depacketiser.handle_end_of_frame();
        }
    }

    fn unit(kind: u8, temporal: u8, size: usize) -> Vec<u8> {
        let mut unit = vec![0xa5; size];
        for (byte, header) in unit.iter_mut().zip([kind << 1, temporal]) {
            *byte = header;
        }
        unit
    }

    /// NAL units of any kind that may be sent, small ones more often, some without a whole header.
    fn units() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let size = prop_oneof![4 => 0..100_usize, 3 => 1100..1250_usize, 2 => 2300..9000_usize];
        let any = (0..48_u8, 1..8_u8, size).prop_map(|(kind, tid, size)| unit(kind, tid, size));
        let small = (32..41_u8, 1..60_usize).prop_map(|(kind, size)| unit(kind, 1, size));
        prop::collection::vec(prop_oneof![any, small], 0..8)
    }

    fn cut(units: &[Vec<u8>]) -> PacketisedFrame {
        packetise(&Frame {
            forwarded: None,
            codec: Codec::H265,
            ticks: 0,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: units.iter().map(|unit| Bytes::copy_from_slice(unit)).collect(),
        })
    }

    fn join(frame: &PacketisedFrame) -> Vec<Vec<u8>> {
        let mut depacketiser = Depacketiser::default();
        let units: Vec<_> = frame
            .payloads()
            .flat_map(|payload| depacketiser.handle_payload(payload).unwrap())
            .map(|unit| unit.to_vec())
            .collect();
        depacketiser.handle_end_of_frame().unwrap();
        units
    }
}
