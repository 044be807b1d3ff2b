//! What answers may list: every codec that is passed on, each picture with its retransmissions.
//!
//! Payload types are ours only until the offer's own numbers replace them.

use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::Frequency;

/// H.264, always with packetization-mode 1: payload type, that of its retransmissions, profile.
/// Constrained baseline, baseline, main and high are what browsers offer; the level is no reason to
/// refuse.
const H264: [(u8, u8, u32); 4] =
    [(108, 109, 0x42_e01f), (127, 121, 0x42_001f), (123, 119, 0x4d_001f), (114, 115, 0x64_001f)];

/// H.265: payload type, that of its retransmissions, profile-id (1 Main, 2 Main 10). Main tier, which
/// is what cameras send.
const H265: [(u8, u8, u8); 2] = [(102, 103, 1), (35, 36, 2)];

/// Level 6.0 (level-id is thirty times the level): the viewer's own is lower and counts.
const H265_LEVEL: u8 = 180;

/// VP9: payload type and that of its retransmissions.
const VP9: (u8, u8) = (98, 99);

/// All of them, picture before sound, H.264 first: what most cameras send and most viewers take.
pub(super) fn add_all(config: &mut CodecConfig) {
    for (payload_type, rtx, profile_level_id) in H264 {
        config.add_h264(payload_type.into(), Some(rtx.into()), true, profile_level_id);
    }
    for (payload_type, rtx, profile) in H265 {
        config.add_h265(payload_type.into(), Some(rtx.into()), profile, 0, H265_LEVEL);
    }
    config.enable_vp8(true);
    add_vp9(config);
    config.enable_av1(true);
    config.enable_opus(true, false);
    config.enable_pcmu(true, false);
    config.enable_pcma(true, false);
}

/// Profile 0 alone: which one a frame has is not known where its payload type is chosen.
pub(super) fn add_vp9(config: &mut CodecConfig) {
    let (payload_type, rtx) = VP9;
    let format = FormatParams { profile_id: Some(0), ..FormatParams::default() };
    config.add_config(
        payload_type.into(),
        Some(rtx.into()),
        Codec::Vp9,
        Frequency::NINETY_KHZ,
        None,
        format,
    );
}
