//! Putting NAL units together again from RTP payloads: the counterpart of [`packetise`], for tests,
//! the simulation and load tools. Order and completeness are the caller's to watch by sequence
//! numbers; what a gap breaks is refused here.
//!
//! [`packetise`]: crate::h264::packetise()

use bytes::Bytes;

use crate::fragments::{Fragments, NalPayloadError, split_aggregate};
use crate::h264::packetise::{FU_A, STAP_A};

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
        let nal_type = payload.first().map(|indicator| indicator & 0x1f);
        if nal_type == Some(FU_A)
            && let &[indicator, header, ref fragment @ ..] = payload
        {
            let nal_header = indicator & 0xe0 | header & 0x1f;
            let unit = self.fragments.add([nal_header], header, fragment)?;
            return Ok(unit.into_iter().collect());
        }
        let ended = self.fragments.end();
        match nal_type {
            None | Some(FU_A) => Err(truncated),
            Some(_) if ended.is_err() => ended.map(|()| Vec::new()),
            Some(1..=23) => Ok(vec![Bytes::copy_from_slice(payload)]),
            Some(STAP_A) => split_aggregate(&payload[1..], 1).ok_or(truncated),
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
    use crate::h264::packetise;
    use crate::payloads::FU_END;

    #[test]
    fn parameter_sets_and_sei_share_a_payload() {
        let units = [vec![0x67; 20], vec![0x28; 5], vec![0x06; 30], vec![0x65; 100]];
        let cut = cut(&units);
        assert_eq!(cut.packet_count(), 2);
        assert_eq!(cut.payload(0)[..3], [0x60 | 24, 0, 20]);
        assert_eq!(cut.payload(1), units[3]);
        assert_eq!(join(&cut), units);
    }

    #[test]
    fn what_does_not_fit_together_goes_alone() {
        let units = [vec![0x67; 700], vec![0x68; 500], vec![0x06; 700], vec![0x41; 3]];
        let cut = cut(&units);
        assert_eq!(cut.payloads().map(<[u8]>::len).collect::<Vec<_>>(), [700, 500, 700, 3]);
        let units = [vec![0x67; 600], vec![0x68; 600], vec![0x06; 500], vec![0x41; 3]];
        let sizes: Vec<_> = self::cut(&units).payloads().map(<[u8]>::len).collect();
        assert_eq!(sizes, [600, 1 + 2 + 600 + 2 + 500, 3]);
    }

    #[test]
    fn the_border_between_one_payload_and_two() {
        assert_eq!(cut(&[vec![0x65; MAX_PAYLOAD]]).packet_count(), 1);
        let cut = cut(&[vec![0x65; MAX_PAYLOAD + 1]]);
        assert_eq!(cut.payloads().map(<[u8]>::len).collect::<Vec<_>>(), [582, 582]);
        assert_eq!(cut.payload(0)[..2], [0x7c, 0x85]);
        assert_eq!(cut.payload(1)[..2], [0x7c, 0x45]);
    }

    #[test]
    fn an_empty_frame_has_no_payloads() {
        assert_eq!(cut(&[]).packet_count(), 0);
        assert_eq!(cut(&[vec![], vec![]]).packet_count(), 0);
    }

    #[test]
    fn gaps_are_noticed() {
        let cut = cut(&[vec![0x65; 4000], vec![0x41; 3000]]);
        let payloads: Vec<_> = cut.payloads().collect();
        for lost in 0..payloads.len() {
            let mut depacketiser = Depacketiser::default();
            let result = payloads
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != lost)
                .try_for_each(|(_, payload)| depacketiser.handle_payload(payload).map(drop))
                .and_then(|()| depacketiser.handle_end_of_frame());
            // A lost middle fragment leaves no trace in the payloads: that is what RTP sequence
            // numbers are for.
            let middle = [1, 2, 5].contains(&lost);
            assert_eq!(result.is_ok(), middle, "payload {lost}: {result:?}");
        }
    }

    #[test]
    fn refuses_other_modes_and_broken_payloads() {
        let handle = |payload: &[u8]| Depacketiser::default().handle_payload(payload);
        assert_eq!(handle(&[]), Err(NalPayloadError::Truncated { bytes: 0 }));
        assert_eq!(handle(&[29, 0]), Err(NalPayloadError::Type(29)));
        assert_eq!(handle(&[0, 0]), Err(NalPayloadError::Type(0)));
        assert_eq!(handle(&[24]), Err(NalPayloadError::Truncated { bytes: 1 }));
        assert_eq!(handle(&[24, 0, 9, 1]), Err(NalPayloadError::Truncated { bytes: 4 }));
        assert_eq!(handle(&[28, 0xc5, 1]), Err(NalPayloadError::Mixed));
        assert_eq!(handle(&[28, 0x45, 1]), Err(NalPayloadError::NoStart));
    }

    proptest! {
        #[test]
        fn depacketising_undoes_packetising(units in units()) {
            let cut = cut(&units);
            let whole: Vec<_> = units.into_iter().filter(|unit| !unit.is_empty()).collect();
            prop_assert_eq!(join(&cut), whole);
        }

        #[test]
        fn payloads_fit_and_fragments_are_equal(units in units()) {
            let cut = cut(&units);
            prop_assert!(cut.payloads().all(|payload| (1..=MAX_PAYLOAD).contains(&payload.len())));
            let mut size = None;
            for payload in cut.payloads().filter(|payload| payload[0] & 0x1f == FU_A) {
                let first = *size.get_or_insert(payload.len());
                if payload[1] & FU_END == 0 {
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

    /// NAL units of any kind that may be sent, small ones more often, some empty.
    fn units() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let size = prop_oneof![4 => 0..100_usize, 3 => 1100..1250_usize, 2 => 2300..9000_usize];
        let unit = (1..=23_u8, 0..4_u8, size, any::<u8>()).prop_map(|(kind, nri, size, fill)| {
            let mut unit = vec![fill; size];
            if let Some(header) = unit.first_mut() {
                *header = nri << 5 | kind;
            }
            unit
        });
        let small = (6..=8_u8, 1..60_usize).prop_map(|(kind, size)| vec![0x60 | kind; size]);
        prop::collection::vec(prop_oneof![unit, small], 0..8)
    }

    fn cut(units: &[Vec<u8>]) -> PacketisedFrame {
        packetise(&Frame {
            forwarded: None,
            codec: Codec::H264,
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
