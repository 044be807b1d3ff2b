//! A voice's packets, decoded in the order of their numbers. What is missing is made up, what comes
//! too late is dropped. No clock: pauses are the playout's business.

use media::{Codec, PacketisedFrame};

use super::frames::CHANNELS;
use crate::ingest::opus::{OpusDecoder, OpusError};

/// Samples a second and channel that are decoded to: ticks of Opus in RTP (RFC 7587 §4.1).
pub(super) const DECODED_RATE: usize = 48_000;

/// Longest loss that is made up, in ticks: 120 ms. Behind that the decoder has faded out, and what is
/// left is silence.
const CONCEALED_MAX: u64 = 5_760;

/// What Opus can make up is a multiple of this many ticks (2.5 ms).
const CONCEALED_STEP: u64 = 120;

/// Packets that may overtake another. One that is further behind is the first of a new count.
const LATE_MAX: u64 = 500;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its sound follows what was heard before.
    Whole,
    /// So many packets are missing before it.
    AfterLoss(u64),
    /// Dropped: others after it were heard already.
    Late,
    /// Dropped: no sound can be made of it.
    Broken,
}

/// Decodes one voice to [`DECODED_RATE`], left and right in turn.
#[derive(Debug)]
pub(super) struct PacketDecoder {
    decoder: OpusDecoder,
    next: Option<Expected>,
}

/// The packet that follows the last one if nothing is lost and nobody pauses.
#[derive(Debug, Clone, Copy)]
struct Expected {
    number: u64,
    ticks: u64,
}

impl PacketDecoder {
    pub(super) fn new() -> Result<Self, OpusError> {
        Ok(Self { decoder: OpusDecoder::new(DECODED_RATE as u32, CHANNELS as u8)?, next: None })
    }

    /// Hands the sound of a packet to `listen`, and before it what is made up of those that were
    /// lost before it.
    pub(super) fn handle_packet(
        &mut self,
        packet: &PacketisedFrame,
        mut listen: impl FnMut(&[f32]),
    ) -> Heard {
        if packet.codec != Codec::Opus || packet.packet_count() != 1 {
            return Heard::Broken;
        }
        let expected = self.next.filter(|_| !packet.discontinuity);
        let number = packet.forwarded.as_ref().map(|forwarded| forwarded.number);
        let number = number.or(expected.map(|expected| expected.number)).unwrap_or(0);
        let expected = expected.filter(|expected| number + LATE_MAX > expected.number);
        let lost = match expected.map(|expected| number.checked_sub(expected.number)) {
            Some(None) => return Heard::Late,
            Some(Some(lost)) => lost,
            None => 0,
        };
        let payload = packet.payload(0);
        if let Some(expected) = expected.filter(|_| lost > 0) {
            let missing = packet.ticks.saturating_sub(expected.ticks).min(CONCEALED_MAX);
            let missing = missing - missing % CONCEALED_STEP;
            if let Ok(sound) = self.decoder.recover(payload, missing as usize * CHANNELS) {
                listen(sound);
            }
        }
        let Ok(sound) = self.decoder.decode(payload) else {
            // Its place stays open, and is made up when the next one comes.
            self.next = self.next.or(Some(Expected { number, ticks: packet.ticks }));
            return Heard::Broken;
        };
        let ticks = packet.ticks.wrapping_add((sound.len() / CHANNELS) as u64);
        self.next = Some(Expected { number: number + 1, ticks });
        listen(sound);
        if lost > 0 { Heard::AfterLoss(lost) } else { Heard::Whole }
    }
}

#[cfg(test)]
mod tests {
    use media::packetise::packetise;
    use media::{Forwarded, Frame, NtpTime};

    use super::*;
    use crate::ingest::opus::OpusEncoder;
    use crate::ingest::opus::tests::{power, tone};

    /// A second of a tone, in packets of 20 ms with numbers from 10 on.
    fn spoken() -> Vec<PacketisedFrame> {
        let mut encoder = OpusEncoder::new(48_000, 1).unwrap();
        let packets = (0..50).map(|index| {
            let payload = encoder.encode(&tone(440.0, 48_000, 1, index as usize, 960)).unwrap();
            packet(10 + index, 7_000 + index * 960, payload)
        });
        packets.collect()
    }

    fn packet(number: u64, ticks: u64, payload: bytes::Bytes) -> PacketisedFrame {
        packetise(&Frame {
            codec: Codec::Opus,
            ticks,
            captured: NtpTime(0),
            keyframe: true,
            discontinuity: false,
            units: vec![payload],
            forwarded: Some(Forwarded { number, marker: false, red: None }),
        })
    }

    /// What becomes of the packets, and the left channel's samples.
    fn hear<'p>(packets: impl IntoIterator<Item = &'p PacketisedFrame>) -> (Vec<Heard>, Vec<i16>) {
        let mut decoder = PacketDecoder::new().unwrap();
        let mut samples = Vec::new();
        let mut listen = |sound: &[f32]| {
            samples.extend(sound.iter().step_by(2).map(|sample| (sample * 32_767.0) as i16));
        };
        let heard =
            packets.into_iter().map(|packet| decoder.handle_packet(packet, &mut listen)).collect();
        (heard, samples)
    }

    fn assert_tone(samples: &[i16]) {
        let (at_tone, beside) = (power(samples, 440.0, 48_000), power(samples, 1310.0, 48_000));
        assert!(at_tone > 20.0 * beside, "{at_tone} at the tone, {beside} beside");
    }

    #[test]
    fn nothing_lost_is_heard_as_it_is() {
        let (heard, samples) = hear(&spoken());
        assert_eq!((heard, samples.len()), (vec![Heard::Whole; 50], 48_000));
        assert_tone(&samples[9_600..]);
    }

    #[test]
    fn lost_packets_are_made_up_in_their_full_length() {
        let packets = spoken();
        let is_lost = |index: usize| [20, 30, 31, 40].contains(&index);
        let rest = packets.iter().enumerate().filter(|(index, _)| !is_lost(*index));
        let (heard, samples) = hear(rest.map(|(_, packet)| packet));
        assert_eq!(samples.len(), 48_000);
        assert_eq!((heard[20], heard[29]), (Heard::AfterLoss(1), Heard::AfterLoss(2)));
        assert_tone(&samples[20 * 960..21 * 960]);
        assert_tone(&samples[9_600..]);
    }

    #[test]
    fn a_long_loss_is_made_up_in_part() {
        let packets = spoken();
        let (heard, samples) = hear(packets[..20].iter().chain(&packets[40..]));
        assert_eq!(heard[20], Heard::AfterLoss(20));
        assert_eq!(samples.len(), 30 * 960 + CONCEALED_MAX as usize);
    }

    #[test]
    fn a_pause_is_no_loss() {
        let packets = spoken();
        let payload = |index: usize| packets[index].payload(0).to_vec().into();
        let after = packet(12, 7_000 + 48_000, payload(2));
        let (heard, samples) = hear([&packets[0], &packets[1], &after]);
        assert_eq!((heard, samples.len()), (vec![Heard::Whole; 3], 3 * 960));
    }

    #[test]
    fn what_comes_late_or_twice_is_dropped() {
        let packets = spoken();
        let order = [0, 1, 3, 2, 3, 4].map(|index| &packets[index]);
        let (heard, samples) = hear(order);
        use Heard::{AfterLoss, Late, Whole};
        assert_eq!(heard, [Whole, Whole, AfterLoss(1), Late, Late, Whole]);
        assert_eq!(samples.len(), 5 * 960);
    }

    #[test]
    fn a_count_that_begins_anew_is_followed() {
        let packets = spoken();
        let far = packet(5_000_000, 1, packets[3].payload(0).to_vec().into());
        let (heard, _) = hear([&far, &packets[0], &packets[1]]);
        assert_eq!(heard, [Heard::Whole; 3]);
    }

    #[test]
    fn a_broken_packet_is_dropped_and_made_up() {
        let packets = spoken();
        let broken = packet(11, 7_960, vec![2].into());
        let (heard, samples) = hear([&packets[0], &broken, &packets[2]]);
        assert_eq!(heard, [Heard::Whole, Heard::Broken, Heard::AfterLoss(1)]);
        assert_eq!(samples.len(), 3 * 960);
    }
}
