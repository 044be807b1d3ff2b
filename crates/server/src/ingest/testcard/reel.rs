//! One group of pictures of a known bit rate, encoded once and shown over and over: what a generator of
//! many cameras sends, whose encoding would otherwise cost more than what is measured.
//!
//! The strip tells which picture of the group it is; its time is that of encoding.

use std::time::SystemTime;

use media::h264::AccessUnit;

use super::canvas::{Canvas, Rect};
use super::card::Card;
use super::encoder::{EncodeError, PictureKind, VideoEncoder};
use super::strip;

/// How near the bit rate comes to what was asked for, in percent.
const TOLERANCE_PERCENT: u64 = 5;

/// Encodings until it is near enough. The area of noise is halved between bounds each time: ten give
/// a thousandth of the picture.
const TRIES: usize = 10;

/// Side of a block of noise, in pixels. Larger ones cost fewer bits, smaller ones more CPU.
const BLOCK: usize = 4;

/// What a reel is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReelSettings {
    /// In pixels.
    pub(crate) width: usize,
    /// In pixels.
    pub(crate) height: usize,
    /// Pictures a second.
    pub(crate) fps: u32,
    /// Pictures of the group.
    pub(crate) pictures: u32,
    /// Bits a second that it should have.
    pub(crate) bitrate: u64,
}

/// A group of pictures that can be repeated.
pub(crate) struct Reel {
    /// The first is a keyframe.
    pub(crate) units: Vec<AccessUnit>,
    /// Bits a second that it has.
    pub(crate) bitrate: u64,
}

/// Encodes a reel with as much noise as gives the bit rate, or comes nearest to it.
pub(crate) fn record(settings: ReelSettings) -> Result<Reel, EncodeError> {
    // Noise in thousandths of the picture.
    let (mut least, mut most) = (0, 1_000);
    let mut best = encode(settings, least)?;
    for _ in 0..TRIES {
        let noise = (least + most).div_ceil(2);
        let reel = encode(settings, noise)?;
        if reel.bitrate < settings.bitrate {
            least = noise;
        } else {
            most = noise;
        }
        if reel.bitrate.abs_diff(settings.bitrate) < best.bitrate.abs_diff(settings.bitrate) {
            best = reel;
        }
        let allowed = settings.bitrate * TOLERANCE_PERCENT / 100;
        if best.bitrate.abs_diff(settings.bitrate) <= allowed {
            break;
        }
    }
    Ok(best)
}

fn encode(settings: ReelSettings, noise: usize) -> Result<Reel, EncodeError> {
    let ReelSettings { width, height, fps, pictures, .. } = settings;
    let mut card = Card::new("bars", width, height);
    let mut encoder = VideoEncoder::new(fps)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let begin_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    let mut units = Vec::new();
    for number in 0..pictures {
        let shown_ms = begin_ms + u64::from(number) * 1_000 / u64::from(fps);
        let mut picture = card.draw(number, shown_ms).clone();
        scatter(&mut picture, noise, &mut random);
        let kind = if number == 0 { PictureKind::Key } else { PictureKind::Delta };
        units.extend(encoder.encode(&picture, kind)?);
    }
    let bytes: usize = units.iter().flat_map(|unit| &unit.units).map(|nal| nal.len()).sum();
    let bitrate = bytes as u64 * 8 * u64::from(fps) / u64::from(pictures.max(1));
    Ok(Reel { units, bitrate })
}

/// Fills so many thousandths of the picture with noise, from below; never the strip.
fn scatter(picture: &mut Canvas, thousandths: usize, random: &mut Random) {
    let (width, height) = (picture.width(), picture.height());
    let free = height - (strip::cell(width) * strip::ROWS).next_multiple_of(16).min(height);
    let blocks = width.div_ceil(BLOCK) * (free / BLOCK) * thousandths / 1_000;
    for block in 0..blocks {
        let column = block % width.div_ceil(BLOCK);
        let row = block / width.div_ceil(BLOCK) + 1;
        let y = height.saturating_sub(row * BLOCK);
        let rect = Rect { x: column * BLOCK, y, width: BLOCK, height: BLOCK };
        picture.y.fill(rect, 64 + (random.next() % 128) as u8);
    }
}

/// Xorshift (Marsaglia 2003): the same noise each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reel_has_the_bit_rate_that_was_asked_for_and_begins_with_a_keyframe() {
        let settings =
            ReelSettings { width: 320, height: 192, fps: 20, pictures: 10, bitrate: 1_000_000 };
        let reel = record(settings).unwrap();
        let keyframes: Vec<bool> = reel.units.iter().map(|unit| unit.keyframe).collect();
        assert!(keyframes[0] && keyframes.len() == 10 && !keyframes[1..].contains(&true));
        assert!(reel.bitrate.abs_diff(1_000_000) <= 50_000, "{} bit/s", reel.bitrate);
    }
}
