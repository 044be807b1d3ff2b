//! The parameter sets: what of them decides whether and how a picture can be forwarded.

use crate::bits::{BitReader, unescape};
use crate::frame::{MAX_PICTURE_SIDE, PictureSize};
use crate::h264::error::H264Error;

/// Largest parameter set that is read or kept, in bytes. The largest that the syntax allows (all
/// scaling lists, two HRDs of 32 entries) stays under 2 KiB.
pub(super) const MAX_PARAMETER_SET: usize = 4096;

/// As [`MAX_PICTURE_SIDE`], for arithmetic that may go below zero.
const MAX_SIDE: i64 = MAX_PICTURE_SIDE as i64;

/// What a sequence parameter set says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoFormat {
    /// profile_idc, constraint flags, level_idc: the `profile-level-id` of RFC 6184 §8.1.
    pub profile_level_id: [u8; 3],
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

/// A sequence parameter set (ITU-T H.264 §7.3.2.1.1), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps {
    /// seq_parameter_set_id, 0 to 31.
    pub id: u8,
    /// Profile, level and size.
    pub format: VideoFormat,
    /// pic_order_cnt_type, 0 to 2. With 2, pictures are shown in decoding order (§8.2.1.3).
    pub pic_order_cnt_type: u8,
    /// max_num_reorder_frames of the VUI; `None` when it is not said. Cameras without B-frames may
    /// still claim some here, so it is for people, not for decisions.
    pub max_num_reorder_frames: Option<u32>,
}

impl Sps {
    /// Reads a whole NAL unit of type 7. A broken VUI is passed over, since many cameras send one
    /// and nothing needed stands in it.
    pub fn parse(nal: &[u8]) -> Result<Self, H264Error> {
        if nal.len() > MAX_PARAMETER_SET {
            return Err(H264Error::ParameterSetSize { bytes: nal.len() });
        }
        let payload = unescape(nal, 1, MAX_PARAMETER_SET);
        let mut reader = BitReader::new(&payload);
        let malformed = H264Error::Malformed { what: "sequence parameter set", bytes: nal.len() };
        let head = Head::read(&mut reader).ok_or_else(|| malformed.clone())?;
        let (width, height) = head.chroma.read_size(&mut reader).ok_or(malformed)?;
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(H264Error::PictureSize { width, height });
        }
        let format = VideoFormat {
            profile_level_id: head.profile_level_id,
            width: width as u32,
            height: height as u32,
        };
        Ok(Self {
            id: head.id,
            format,
            pic_order_cnt_type: head.pic_order_cnt_type,
            max_num_reorder_frames: read_max_num_reorder_frames(&mut reader).flatten(),
        })
    }
}

/// A picture parameter set (ITU-T H.264 §7.3.2.2): only who it is and what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pps {
    /// pic_parameter_set_id, 0 to 255.
    pub(super) id: u8,
    /// seq_parameter_set_id, 0 to 31.
    pub(super) sps_id: u8,
}

impl Pps {
    /// Reads a whole NAL unit of type 8.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, H264Error> {
        if nal.len() > MAX_PARAMETER_SET {
            return Err(H264Error::ParameterSetSize { bytes: nal.len() });
        }
        // Two Exp-Golomb numbers of at most 17 and 11 bits.
        let payload = unescape(nal, 1, 8);
        let mut reader = BitReader::new(&payload);
        let mut read = || {
            let id = reader.unsigned_up_to(255)? as u8;
            let sps_id = reader.unsigned_up_to(31)? as u8;
            Some(Self { id, sps_id })
        };
        read().ok_or(H264Error::Malformed { what: "picture parameter set", bytes: nal.len() })
    }
}

/// The fields of a sequence parameter set up to the picture's size.
struct Head {
    profile_level_id: [u8; 3],
    id: u8,
    chroma: Chroma,
    pic_order_cnt_type: u8,
}

impl Head {
    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let profile_level_id =
            [reader.bits(8)? as u8, reader.bits(8)? as u8, reader.bits(8)? as u8];
        let id = reader.unsigned_up_to(31)? as u8;
        let chroma = match profile_level_id[0] {
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135 => {
                Chroma::read(reader)?
            }
            _ => Chroma::Subsampled420,
        };
        reader.unsigned_up_to(12)?; // log2_max_frame_num_minus4
        let pic_order_cnt_type = reader.unsigned_up_to(2)? as u8;
        match pic_order_cnt_type {
            0 => {
                reader.unsigned_up_to(12)?; // log2_max_pic_order_cnt_lsb_minus4
            }
            1 => skip_order_cycle(reader)?,
            _ => {}
        }
        reader.unsigned()?; // max_num_ref_frames
        reader.flag()?; // gaps_in_frame_num_value_allowed_flag
        Some(Self { profile_level_id, id, chroma, pic_order_cnt_type })
    }
}

/// The fields of pic_order_cnt_type 1.
fn skip_order_cycle(reader: &mut BitReader<'_>) -> Option<()> {
    reader.flag()?; // delta_pic_order_always_zero_flag
    reader.signed()?; // offset_for_non_ref_pic
    reader.signed()?; // offset_for_top_to_bottom_field
    for _ in 0..reader.unsigned_up_to(255)? {
        reader.signed()?; // offset_for_ref_frame
    }
    Some(())
}

/// How chroma is sampled, which decides the unit of cropping (ITU-T H.264 table 6-1).
#[derive(Clone, Copy)]
enum Chroma {
    /// Monochrome, or three planes coded apart: ChromaArrayType 0.
    None,
    Subsampled420,
    Subsampled422,
    Full444,
}

impl Chroma {
    /// Reads the part of the high profiles, up to the scaling lists.
    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let format = reader.unsigned_up_to(3)?;
        let chroma = match format {
            0 => Self::None,
            1 => Self::Subsampled420,
            2 => Self::Subsampled422,
            _ if reader.flag()? => Self::None, // separate_colour_plane_flag
            _ => Self::Full444,
        };
        reader.unsigned_up_to(6)?; // bit_depth_luma_minus8
        reader.unsigned_up_to(6)?; // bit_depth_chroma_minus8
        reader.flag()?; // qpprime_y_zero_transform_bypass_flag
        if reader.flag()? {
            for list in 0..if format == 3 { 12 } else { 8 } {
                if reader.flag()? {
                    skip_scaling_list(reader, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Some(chroma)
    }

    /// Reads the size in macroblocks and the cropping; answers width and height in pixels.
    fn read_size(self, reader: &mut BitReader<'_>) -> Option<(i64, i64)> {
        let columns = i64::from(reader.unsigned()?) + 1;
        let rows = i64::from(reader.unsigned()?) + 1;
        let frames_only = reader.flag()?;
        if !frames_only {
            reader.flag()?; // mb_adaptive_frame_field_flag
        }
        reader.flag()?; // direct_8x8_inference_flag
        let fields = if frames_only { 1 } else { 2 };
        let (mut width, mut height) = (columns * 16, rows * 16 * fields);
        if reader.flag()? {
            let (horizontal, vertical) = match self {
                Self::None | Self::Full444 => (1, fields),
                Self::Subsampled422 => (2, fields),
                Self::Subsampled420 => (2, 2 * fields),
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
}

/// ITU-T H.264 §7.3.2.1.1.1: only as many deltas as the list needs are there.
fn skip_scaling_list(reader: &mut BitReader<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8_i32, 8_i32);
    for _ in 0..size {
        if next != 0 {
            let delta = reader.signed().filter(|delta| (-128..=127).contains(delta))?;
            next = (last + delta + 256) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Reads the VUI (ITU-T H.264 §E.1.1). The outer `None` means cut short, the inner one not said.
fn read_max_num_reorder_frames(reader: &mut BitReader<'_>) -> Option<Option<u32>> {
    if !reader.flag()? {
        return Some(None); // vui_parameters_present_flag
    }
    if reader.flag()? && reader.bits(8)? == 255 {
        reader.skip(32)?; // sar_width, sar_height
    }
    if reader.flag()? {
        reader.skip(1)?; // overscan_appropriate_flag
    }
    if reader.flag()? {
        reader.skip(4)?; // video_format, video_full_range_flag
        if reader.flag()? {
            reader.skip(24)?; // colour description
        }
    }
    if reader.flag()? {
        reader.unsigned()?; // chroma_sample_loc_type_top_field
        reader.unsigned()?; // chroma_sample_loc_type_bottom_field
    }
    if reader.flag()? {
        reader.skip(65)?; // timing
    }
    let nal_hrd = reader.flag()?;
    if nal_hrd {
        skip_hrd(reader)?;
    }
    let vcl_hrd = reader.flag()?;
    if vcl_hrd {
        skip_hrd(reader)?;
    }
    if nal_hrd || vcl_hrd {
        reader.skip(1)?; // low_delay_hrd_flag
    }
    reader.skip(1)?; // pic_struct_present_flag
    if !reader.flag()? {
        return Some(None); // bitstream_restriction_flag
    }
    reader.skip(1)?; // motion_vectors_over_pic_boundaries_flag
    for _ in 0..4 {
        reader.unsigned()?; // max_bytes_per_pic_denom to log2_max_mv_length_vertical
    }
    Some(Some(reader.unsigned()?))
}

/// ITU-T H.264 §E.1.2.
fn skip_hrd(reader: &mut BitReader<'_>) -> Option<()> {
    let count = reader.unsigned_up_to(31)? + 1;
    reader.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        reader.unsigned()?; // bit_rate_value_minus1
        reader.unsigned()?; // cpb_size_value_minus1
        reader.skip(1)?; // cbr_flag
    }
    reader.skip(20) // delays and time_offset_length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameter_sets_of_x264() {
        // Profile and settings, the NAL unit, width, height, max_num_reorder_frames.
        let cases = [
            ("baseline", "6742c016da0280bfe5c0440000030004000003007a3c58ba80", 640, 360, 0),
            ("high", "67640028acb200f0044fcb8088000003000800000300f078c19240", 1920, 1080, 0),
            (
                "high, B-frames",
                "67640028acd940780227e5c044000003000400000300783c60c658",
                1920,
                1080,
                2,
            ),
            ("main, interlaced", "674d401eeca05a126c0440000003004000000787c50a6580", 720, 576, 2),
            ("4:2:2", "677a001fbcd9405005bfbc0440000003004000000783c60c6580", 1280, 718, 2),
            ("4:4:4", "67f4001f919b280a00b7d4980880000003008000000f078c18cb", 1279, 717, 2),
            ("monochrome", "6764000cf3650507fef016c8000003000800000300f078a14cb0", 320, 238, 2),
            (
                "with HRD",
                "67640016acd940a02ff970110000030001000003001e602001e840007a1392ca01e2c5b2c0",
                640,
                360,
                2,
            ),
        ];
        for (name, nal, width, height, reordered) in cases {
            let nal = bytes(nal);
            let sps = Sps::parse(&nal).unwrap();
            let expected =
                VideoFormat { profile_level_id: [nal[1], nal[2], nal[3]], width, height };
            assert_eq!(sps.format, expected, "{name}");
            assert_eq!(sps.max_num_reorder_frames, Some(reordered), "{name}");
            assert_eq!(sps.id, 0, "{name}");
        }
    }

    #[test]
    fn scaling_lists_and_order_cycles_are_passed_over() {
        let mut bits = Bits::default();
        bits.fixed(8, 100).fixed(8, 0).fixed(8, 31).unsigned(3); // profile, level, id
        bits.unsigned(1).unsigned(0).unsigned(0).fixed(1, 0); // chroma, depths
        bits.fixed(1, 1); // scaling matrix: a full list, one that ends at once, six absent
        bits.fixed(1, 1);
        for _ in 0..16 {
            bits.unsigned(3); // +2
        }
        bits.fixed(1, 1).unsigned(16).fixed(6, 0); // -8: the rest repeats
        bits.unsigned(0).unsigned(1).fixed(1, 0); // frame_num, order count type 1
        bits.unsigned(1).unsigned(2).unsigned(3).unsigned(4).unsigned(5).unsigned(6);
        bits.unsigned(1).fixed(1, 0).unsigned(79).unsigned(44); // 1280x720
        bits.fixed(1, 1).fixed(1, 1).fixed(1, 0).fixed(1, 0); // no cropping, no VUI

        let sps = Sps::parse(&bits.nal()).unwrap();

        assert_eq!((sps.id, sps.pic_order_cnt_type), (3, 1));
        assert_eq!((sps.format.width, sps.format.height), (1280, 720));
        assert_eq!(sps.max_num_reorder_frames, None);
    }

    #[test]
    fn a_broken_vui_costs_nothing() {
        let whole = bytes("67640028acb200f0044fcb8088000003000800000300f078c19240");
        let sps = Sps::parse(&whole[..whole.len() - 8]).unwrap();
        assert_eq!((sps.format.width, sps.format.height), (1920, 1080));
        assert_eq!(sps.max_num_reorder_frames, None);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (columns, rows, crop, expected) in [
            (1025, 10, None, (16_400, 160)),
            (10, u32::MAX - 1, None, (160, 16 * 0xffff_fffe_i64)),
            (2, 2, Some(8), (16, 32)),
            (1, 1, Some(8), (0, 16)),
            (1, 1, Some(u32::MAX - 1), (16 - 2 * 0xffff_fffe_i64, 16)),
        ] {
            let result = Sps::parse(&baseline(columns, rows, crop));
            let (width, height) = expected;
            if (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height) {
                let format = result.unwrap().format;
                assert_eq!((i64::from(format.width), i64::from(format.height)), expected);
            } else {
                assert_eq!(result, Err(H264Error::PictureSize { width, height }));
            }
        }
        let large = vec![0x67; MAX_PARAMETER_SET + 1];
        assert_eq!(Sps::parse(&large), Err(H264Error::ParameterSetSize { bytes: large.len() }));
    }

    #[test]
    fn picture_parameter_sets() {
        assert_eq!(Pps::parse(&bytes("68ce0fc8")), Ok(Pps { id: 0, sps_id: 0 }));
        assert_eq!(
            Pps::parse(&[0x68, 0, 0x80]),
            Err(H264Error::Malformed { what: "picture parameter set", bytes: 3 })
        );
        let mut bits = Bits::default();
        bits.unsigned(255).unsigned(31);
        assert_eq!(Pps::parse(&bits.nal()), Ok(Pps { id: 255, sps_id: 31 }));
        let mut bits = Bits::default();
        bits.unsigned(256).unsigned(0);
        assert!(Pps::parse(&bits.nal()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(nal in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sps::parse(&nal);
            let _ = Pps::parse(&nal);
        }

        #[test]
        fn a_damaged_parameter_set_is_read_without_panic(at in 1..26_usize, flip in 1..=255_u8) {
            let mut nal = bytes("67640028acd940780227e5c044000003000400000300783c60c658");
            nal[at] ^= flip;
            if let Ok(sps) = Sps::parse(&nal) {
                prop_assert!((1..=16_384).contains(&sps.format.width));
                prop_assert!((1..=16_384).contains(&sps.format.height));
            }
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// A baseline parameter set of `columns` x `rows` macroblocks; `crop` at the left.
    fn baseline(columns: u32, rows: u32, crop: Option<u32>) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.fixed(8, 66).fixed(8, 0xc0).fixed(8, 30).unsigned(0).unsigned(0).unsigned(2);
        bits.unsigned(1).fixed(1, 0).unsigned(columns - 1).unsigned(rows - 1).fixed(2, 3);
        bits.fixed(1, u64::from(crop.is_some()));
        if let Some(left) = crop {
            bits.unsigned(left).unsigned(0).unsigned(0).unsigned(0);
        }
        bits.fixed(1, 0);
        bits.nal()
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

        /// With stop bit, header and emulation prevention.
        fn nal(&mut self) -> Vec<u8> {
            self.fixed(1, 1);
            let mut nal = vec![0x67];
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
