//! The parameter sets: what of them decides whether and how a picture can be forwarded.

use crate::bits::{BitReader, unescape};
use crate::frame::{MAX_PICTURE_SIDE, PictureSize};
use crate::h265::error::H265Error;
use crate::h265::nal::HEADER;

/// Largest parameter set that is read or kept, in bytes. Cameras' take under 100; lists of scaling
/// factors and reference pictures of a rich encoder stay under 2 KiB.
pub(super) const MAX_PARAMETER_SET: usize = 4096;

/// Bits of profile space, tier, profile and its compatibility and constraint flags (§7.3.3).
const PROFILE_BITS: usize = 88;

/// What a sequence parameter set says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoFormat {
    /// general_profile_idc: 1 Main, 2 Main 10, 3 Main Still Picture, 4 and up extensions.
    pub profile: u8,
    /// general_tier_flag: High tier instead of Main tier.
    pub high_tier: bool,
    /// general_level_idc: thirty times the level, 93 is level 3.1.
    pub level: u8,
    /// Cropped width in pixels.
    pub width: u32,
    /// Cropped height in pixels.
    pub height: u32,
}

impl VideoFormat {
    /// The size alone.
    pub fn size(&self) -> PictureSize {
        PictureSize { width: self.width, height: self.height }
    }
}

/// A sequence parameter set (ITU-T H.265 §7.3.2.2.1), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps {
    /// sps_seq_parameter_set_id, 0 to 15.
    pub id: u8,
    /// sps_video_parameter_set_id, 0 to 15.
    pub vps_id: u8,
    /// Profile, level and size.
    pub format: VideoFormat,
    /// sps_max_num_reorder_pics of the highest temporal layer. With 0, pictures are shown in decoding
    /// order. Cameras without B-frames may still claim some here.
    pub max_num_reorder_pics: u32,
    /// Bits of slice_pic_order_cnt_lsb, 4 to 16.
    pub(super) order_bits: u32,
    /// separate_colour_plane_flag.
    pub(super) separate_planes: bool,
}

impl Sps {
    /// Reads a whole NAL unit of type 33, up to the order of pictures; what follows may be broken.
    pub fn parse(nal: &[u8]) -> Result<Self, H265Error> {
        let payload = payload_of(nal)?;
        let malformed = H265Error::Malformed { what: "sequence parameter set", bytes: nal.len() };
        let (mut sps, width, height) = read_sps(&payload).ok_or(malformed)?;
        let side = |pixels: i64| {
            u32::try_from(pixels).ok().filter(|side| (1..=MAX_PICTURE_SIDE).contains(side))
        };
        let (Some(cropped_width), Some(cropped_height)) = (side(width), side(height)) else {
            return Err(H265Error::PictureSize { width, height });
        };
        sps.format.width = cropped_width;
        sps.format.height = cropped_height;
        Ok(sps)
    }
}

/// The set, and the cropped width and height, which are still to be judged.
fn read_sps(payload: &[u8]) -> Option<(Sps, i64, i64)> {
    let mut reader = BitReader::new(payload);
    let vps_id = reader.bits(4)? as u8;
    let sub_layers = reader.bits(3)?;
    reader.skip(1)?; // sps_temporal_id_nesting_flag
    let mut format = read_profile(&mut reader, sub_layers)?;
    let id = reader.unsigned_up_to(15)? as u8;
    let chroma = reader.unsigned_up_to(3)?;
    let separate_planes = chroma == 3 && reader.flag()?;
    let (width, height) = read_size(&mut reader, chroma)?;
    reader.unsigned_up_to(8)?; // bit_depth_luma_minus8
    reader.unsigned_up_to(8)?; // bit_depth_chroma_minus8
    let order_bits = reader.unsigned_up_to(12)? + 4;
    let told_for_each = reader.flag()?;
    let mut max_num_reorder_pics = 0;
    for _ in if told_for_each { 0 } else { sub_layers }..=sub_layers {
        reader.unsigned()?; // sps_max_dec_pic_buffering_minus1
        max_num_reorder_pics = reader.unsigned()?;
        reader.unsigned()?; // sps_max_latency_increase_plus1
    }
    (format.width, format.height) = (0, 0);
    let sps = Sps { id, vps_id, format, max_num_reorder_pics, order_bits, separate_planes };
    Some((sps, width, height))
}

/// profile_tier_level (§7.3.3) of `sub_layers` + 1 temporal layers; the size is left open.
fn read_profile(reader: &mut BitReader<'_>, sub_layers: u32) -> Option<VideoFormat> {
    reader.skip(2)?; // general_profile_space
    let high_tier = reader.flag()?;
    let profile = reader.bits(5)? as u8;
    reader.skip(PROFILE_BITS - 8)?;
    let level = reader.bits(8)? as u8;
    let mut present = Vec::with_capacity(7);
    for _ in 0..sub_layers {
        present.push((reader.flag()?, reader.flag()?));
    }
    if sub_layers > 0 {
        reader.skip(2 * (8 - sub_layers as usize))?; // reserved_zero_2bits
    }
    for (has_profile, has_level) in present {
        reader.skip(if has_profile { PROFILE_BITS } else { 0 })?;
        reader.skip(if has_level { 8 } else { 0 })?;
    }
    Some(VideoFormat { profile, high_tier, level, width: 0, height: 0 })
}

/// Size and conformance window; answers width and height in pixels.
fn read_size(reader: &mut BitReader<'_>, chroma: u32) -> Option<(i64, i64)> {
    let (mut width, mut height) = (i64::from(reader.unsigned()?), i64::from(reader.unsigned()?));
    if reader.flag()? {
        // Table 6-1: what one unit of cropping is worth.
        let (horizontal, vertical) = match chroma {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        for _ in 0..2 {
            width -= i64::from(reader.unsigned()?) * horizontal;
        }
        for _ in 0..2 {
            height -= i64::from(reader.unsigned()?) * vertical;
        }
    }
    Some((width, height))
}

/// The id of a video parameter set (ITU-T H.265 §7.3.2.1), 0 to 15: nothing else of it matters here.
pub(super) fn vps_id(nal: &[u8]) -> Result<u8, H265Error> {
    let payload = payload_of(nal)?;
    let id = BitReader::new(&payload).bits(4);
    let malformed = H265Error::Malformed { what: "video parameter set", bytes: nal.len() };
    id.map(|id| id as u8).ok_or(malformed)
}

/// A picture parameter set (ITU-T H.265 §7.3.2.3.1): who it is, what it refers to, and what stands
/// between the beginning of a slice and its order count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pps {
    /// pps_pic_parameter_set_id, 0 to 63.
    pub(super) id: u8,
    /// pps_seq_parameter_set_id, 0 to 15.
    pub(super) sps_id: u8,
    /// output_flag_present_flag.
    pub(super) output_flag_present: bool,
    /// num_extra_slice_header_bits, 0 to 7.
    pub(super) extra_slice_bits: usize,
}

impl Pps {
    /// Reads a whole NAL unit of type 34.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, H265Error> {
        let payload = payload_of(nal)?;
        let mut reader = BitReader::new(&payload);
        let mut read = || {
            let id = reader.unsigned_up_to(63)? as u8;
            let sps_id = reader.unsigned_up_to(15)? as u8;
            reader.skip(1)?; // dependent_slice_segments_enabled_flag
            let output_flag_present = reader.flag()?;
            let extra_slice_bits = reader.bits(3)? as usize;
            Some(Self { id, sps_id, output_flag_present, extra_slice_bits })
        };
        read().ok_or(H265Error::Malformed { what: "picture parameter set", bytes: nal.len() })
    }
}

fn payload_of(nal: &[u8]) -> Result<Vec<u8>, H265Error> {
    if nal.len() > MAX_PARAMETER_SET {
        return Err(H265Error::ParameterSetSize { bytes: nal.len() });
    }
    Ok(unescape(nal, HEADER, MAX_PARAMETER_SET))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAIN: &str =
        "42010101600000030090000003000003003fa005020171f2e5ba4a4c2f0168080000030008000003007840";

    #[test]
    fn parameter_sets_of_x265() {
        // Settings, the NAL unit, profile, level, width, height, sps_max_num_reorder_pics.
        let cases = [
            ("main", MAIN, (1, 63), (640, 360), 0),
            (
                "B-frames",
                "420101016000000300900000030000030078a003c0801107cb965644a4c2f0168080000003008000000784",
                (1, 120),
                (1920, 1080),
                2,
            ),
            (
                "main 10, cropped",
                "42010102200000030090000003000003005da00280802d1f4d96e92930bc05a020000003002000000301e1",
                (2, 93),
                (1280, 718),
                0,
            ),
            (
                "4:2:2",
                "4201010408000003009d0800000300005db00288802d1c45e5ba4a4c2f0168080000030008000003007840",
                (4, 93),
                (1282, 718),
                0,
            ),
            (
                "4:4:4",
                "4201010408000003009e0800000300005d9000501005a3a932dd25261780b4040000030004000003003c20",
                (4, 93),
                (1279, 717),
                0,
            ),
            (
                "with HRD",
                "42010101600000030090000003000003003fa005020171f2e5ba4a4c2f0168080000030008000003007b00a4a270007a12000f4244",
                (1, 63),
                (640, 360),
                0,
            ),
        ];
        for (name, nal, (profile, level), (width, height), reordered) in cases {
            let sps = Sps::parse(&bytes(nal)).unwrap();
            let expected = VideoFormat { profile, high_tier: false, level, width, height };
            assert_eq!(sps.format, expected, "{name}");
            assert_eq!(sps.max_num_reorder_pics, reordered, "{name}");
            assert_eq!((sps.id, sps.vps_id, sps.order_bits), (0, 0, 8), "{name}");
        }
    }

    #[test]
    fn temporal_layers_with_profiles_of_their_own_are_passed_over() {
        // Two layers below the highest: one with profile and level, one with nothing.
        let mut bits = Bits::default();
        bits.fixed(4, 3).fixed(3, 2).fixed(1, 1); // vps 3, three layers
        bits.fixed(3, 1).fixed(5, 1).fixed(40, 0).fixed(40, 0).fixed(8, 90); // high tier
        bits.fixed(2, 3).fixed(2, 0).fixed(12, 0);
        bits.fixed(44, 0).fixed(44, 0).fixed(8, 60);
        bits.unsigned(2).unsigned(1).unsigned(320).unsigned(184); // sps 2, 4:2:0
        bits.fixed(1, 1).unsigned(0).unsigned(0).unsigned(0).unsigned(2); // cropped
        bits.unsigned(0).unsigned(0).unsigned(12).fixed(1, 1); // 16 bits of order
        for reordered in [0, 1, 2] {
            bits.unsigned(4).unsigned(reordered).unsigned(0);
        }

        let sps = Sps::parse(&bits.nal(33)).unwrap();

        let expected =
            VideoFormat { profile: 1, high_tier: true, level: 90, width: 320, height: 180 };
        assert_eq!(sps.format, expected);
        assert_eq!((sps.id, sps.vps_id, sps.order_bits), (2, 3, 16));
        assert_eq!(sps.max_num_reorder_pics, 2);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let sized = |width: u32, crop: u32| {
            let mut bits = Bits::default();
            bits.fixed(8, 1).fixed(44, 0).fixed(44, 0).fixed(8, 90).unsigned(0).unsigned(1);
            bits.unsigned(width).unsigned(64).fixed(1, 1);
            bits.unsigned(crop).unsigned(0).unsigned(0).unsigned(0);
            bits.unsigned(0).unsigned(0).unsigned(4).fixed(1, 1);
            bits.unsigned(0).unsigned(0).unsigned(0);
            Sps::parse(&bits.nal(33)).map(|sps| sps.format.width)
        };
        assert_eq!(sized(64, 0), Ok(64));
        assert_eq!(sized(16_384, 0), Ok(16_384));
        for (width, crop) in [(16_385, 0), (64, 32), (0, 0), (8, u32::MAX - 1)] {
            let expected = i64::from(width) - 2 * i64::from(crop);
            assert_eq!(
                sized(width, crop),
                Err(H265Error::PictureSize { width: expected, height: 64 })
            );
        }
        let large = vec![0x42; MAX_PARAMETER_SET + 1];
        assert_eq!(Sps::parse(&large), Err(H265Error::ParameterSetSize { bytes: large.len() }));
    }

    #[test]
    fn picture_and_video_parameter_sets() {
        let mut bits = Bits::default();
        bits.unsigned(63).unsigned(15).fixed(2, 0b01).fixed(3, 5);
        let expected = Pps { id: 63, sps_id: 15, output_flag_present: true, extra_slice_bits: 5 };
        assert_eq!(Pps::parse(&bits.nal(34)), Ok(expected));
        let mut bits = Bits::default();
        bits.unsigned(64).unsigned(0).fixed(5, 0);
        assert!(Pps::parse(&bits.nal(34)).is_err());
        assert_eq!(vps_id(&[0x40, 1, 0x5c]), Ok(5));
        assert!(vps_id(&[0x40, 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(nal in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sps::parse(&nal);
            let _ = Pps::parse(&nal);
            let _ = vps_id(&nal);
        }

        #[test]
        fn a_damaged_parameter_set_is_read_without_panic(at in 2..43_usize, flip in 1..=255_u8) {
            let mut nal = bytes(MAIN);
            nal[at] ^= flip;
            if let Ok(sps) = Sps::parse(&nal) {
                prop_assert!((1..=16_384).contains(&sps.format.width));
                prop_assert!((1..=16_384).contains(&sps.format.height));
                prop_assert!((4..=16).contains(&sps.order_bits));
            }
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Writes the syntax elements of a parameter set.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn fixed(&mut self, count: u32, value: u64) -> &mut Self {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn unsigned(&mut self, value: u32) -> &mut Self {
            let code = u64::from(value) + 1;
            self.fixed(2 * code.ilog2() + 1, code)
        }

        /// With header, stop bit and emulation prevention.
        fn nal(&mut self, kind: u8) -> Vec<u8> {
            self.fixed(1, 1);
            let mut nal = vec![kind << 1, 1];
            let mut zeros = 0;
            for byte in self.0.chunks(8).map(|bits| {
                bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))
            }) {
                if zeros == 2 && byte <= 3 {
                    nal.push(3);
                    zeros = 0;
                }
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                nal.push(byte);
            }
            nal
        }
    }
}
