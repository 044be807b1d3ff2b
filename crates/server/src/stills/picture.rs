//! A keyframe made a JPEG: decode, shrink, encode. Pure functions that take milliseconds of CPU.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType, SamplingFactor};
use media::h264::Depacketiser;
use media::{NalPayloadError, PacketisedFrame};
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig};
use openh264::formats::YUVSource;

/// JPEG quality: above it files grow faster than they look better.
const QUALITY: u8 = 80;

/// Most pixels of a picture: 8K. Its planes take 50 MB while it is made.
const PIXELS_MAX: usize = 7_680 * 4_320;

/// Why no picture could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PictureError {
    /// The frame's own packets do not fit together.
    #[error("the keyframe cannot be read: {0}")]
    Frame(#[from] NalPayloadError),
    /// A profile that the decoder does not know, or a broken frame.
    #[error("the keyframe cannot be decoded: {0}")]
    Decode(#[from] openh264::Error),
    /// It waits for more than the keyframe.
    #[error("the keyframe alone does not make a picture")]
    NoPicture,
    /// More than 8K.
    #[error("a picture of {width}x{height} pixels is too large")]
    TooLarge {
        /// In pixels.
        width: usize,
        /// In pixels.
        height: usize,
    },
    /// Cannot happen with such sizes.
    #[error("the picture cannot be written: {0}")]
    Encode(#[from] EncodingError),
}

/// A JPEG of an H.264 keyframe, at most `width_max` pixels wide.
pub(super) fn jpeg(
    keyframe: &PacketisedFrame,
    width_max: Option<u32>,
) -> Result<Vec<u8>, PictureError> {
    let stream = annex_b(keyframe)?;
    let config = DecoderConfig::new().debug(false);
    let mut decoder = Decoder::with_api_config(OpenH264API::from_source(), config)?;
    // Bound twice, since the decoder lends its picture.
    if let Some(picture) = decoder.decode(&stream)? {
        return encode(&Planes::of(&picture)?, width_max);
    }
    let late = decoder.flush_remaining()?;
    let picture = late.first().ok_or(PictureError::NoPicture)?;
    encode(&Planes::of(picture)?, width_max)
}

/// NAL units with start codes, as the decoder takes them (ITU-T H.264 annex B).
fn annex_b(keyframe: &PacketisedFrame) -> Result<Vec<u8>, NalPayloadError> {
    let mut depacketiser = Depacketiser::default();
    let mut stream = Vec::with_capacity(keyframe.payload_bytes() + 64);
    for payload in keyframe.payloads() {
        for nal in depacketiser.handle_payload(payload)? {
            stream.extend_from_slice(&[0, 0, 0, 1]);
            stream.extend_from_slice(&nal);
        }
    }
    depacketiser.handle_end_of_frame()?;
    Ok(stream)
}

/// A picture in 4:2:0, limited range.
struct Planes {
    y: Plane,
    u: Plane,
    v: Plane,
}

/// Samples row by row without gaps.
struct Plane {
    samples: Vec<u8>,
    width: usize,
    height: usize,
}

impl Planes {
    fn of(picture: &DecodedYUV<'_>) -> Result<Self, PictureError> {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 || width.saturating_mul(height) > PIXELS_MAX {
            return Err(PictureError::TooLarge { width, height });
        }
        let (strides, half) = (picture.strides(), (width.div_ceil(2), height.div_ceil(2)));
        Ok(Self {
            y: Plane::of(picture.y(), strides.0, width, height),
            u: Plane::of(picture.u(), strides.1, half.0, half.1),
            v: Plane::of(picture.v(), strides.2, half.0, half.1),
        })
    }

    fn shrunk(&self, width: usize, height: usize) -> Self {
        let half = (width.div_ceil(2), height.div_ceil(2));
        Self {
            y: self.y.shrunk(width, height),
            u: self.u.shrunk(half.0, half.1),
            v: self.v.shrunk(half.0, half.1),
        }
    }
}

impl Plane {
    fn of(samples: &[u8], stride: usize, width: usize, height: usize) -> Self {
        let rows = samples.chunks(stride.max(1)).take(height);
        let samples = rows.flat_map(|row| row.iter().take(width)).copied().collect();
        Self { samples, width, height }
    }

    /// Each sample the mean of those that it stands for. Both sizes are at most those of the plane.
    fn shrunk(&self, width: usize, height: usize) -> Self {
        let mut samples = Vec::with_capacity(width * height);
        for row in 0..height {
            let rows = row * self.height / height..((row + 1) * self.height).div_ceil(height);
            for column in 0..width {
                let from = column * self.width / width;
                let to = ((column + 1) * self.width).div_ceil(width);
                let area = rows.clone().flat_map(|row| self.row(row).get(from..to)).flatten();
                let (sum, count) = area.fold((0_u32, 0_u32), |(sum, count), sample| {
                    (sum + u32::from(*sample), count + 1)
                });
                samples.push(u8::try_from(sum / count.max(1)).unwrap_or(u8::MAX));
            }
        }
        Self { samples, width, height }
    }

    fn row(&self, row: usize) -> &[u8] {
        let start = row.min(self.height.saturating_sub(1)) * self.width;
        self.samples.get(start..start + self.width).unwrap_or_default()
    }
}

fn encode(planes: &Planes, width_max: Option<u32>) -> Result<Vec<u8>, PictureError> {
    let (width, height) = (planes.y.width, planes.y.height);
    let wanted = width_max.map_or(width, |most| usize::try_from(most).unwrap_or(width));
    let shrunk = (wanted < width).then(|| {
        let shrunk_height = (height * wanted / width).max(1);
        planes.shrunk(wanted, shrunk_height)
    });
    let image = Image::of(shrunk.as_ref().unwrap_or(planes))?;
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(image)?;
    Ok(jpeg)
}

/// The planes as JFIF has them: full range, chroma where it was.
struct Image<'p> {
    planes: &'p Planes,
    width: u16,
    height: u16,
}

impl<'p> Image<'p> {
    fn of(planes: &'p Planes) -> Result<Self, PictureError> {
        let (width, height) = (planes.y.width, planes.y.height);
        let too_large = |_| PictureError::TooLarge { width, height };
        Ok(Self {
            planes,
            width: u16::try_from(width).map_err(too_large)?,
            height: u16::try_from(height).map_err(too_large)?,
        })
    }
}

impl ImageBuffer for Image<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let row = usize::from(y);
        let [luma, blue, red, _] = buffers;
        luma.extend(self.planes.y.row(row).iter().map(|sample| full_luma(*sample)));
        for (plane, buffer) in [(&self.planes.u, blue), (&self.planes.v, red)] {
            let doubled = plane.row(row / 2).iter().flat_map(|sample| [full_chroma(*sample); 2]);
            buffer.extend(doubled.take(usize::from(self.width)));
        }
    }
}

/// Luma 16 to 235 on 0 to 255.
fn full_luma(sample: u8) -> u8 {
    let above = i32::from(sample) - 16;
    (above * 255 / 219).clamp(0, 255) as u8
}

/// Chroma 16 to 240 around 128 on 1 to 255.
fn full_chroma(sample: u8) -> u8 {
    let beside = i32::from(sample) - 128;
    (beside * 255 / 224 + 128).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, height: usize, sample: impl Fn(usize, usize) -> u8) -> Plane {
        let samples = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Plane { samples: samples.map(|(x, y)| sample(x, y)).collect(), width, height }
    }

    #[test]
    fn shrinking_keeps_the_mean_and_takes_odd_sizes() {
        let halves = plane(100, 60, |x, _| if x < 50 { 20 } else { 220 });
        for (width, height) in [(10, 6), (2, 1), (33, 17), (99, 59)] {
            let small = halves.shrunk(width, height);
            assert_eq!((small.samples.len(), small.row(0)[0]), (width * height, 20));
            assert_eq!(small.row(height - 1)[width - 1], 220, "{width}x{height}");
        }
    }

    #[test]
    fn limited_range_becomes_full() {
        assert_eq!([16, 235, 0, 255].map(full_luma), [0, 255, 0, 255]);
        assert_eq!([128, 16, 240].map(full_chroma), [128, 1, 255]);
    }

    #[test]
    fn a_picture_of_any_size_becomes_a_jpeg() {
        for (width, height) in [(16_usize, 16_usize), (17, 9), (1, 1), (640, 360)] {
            let half = (width.div_ceil(2), height.div_ceil(2));
            let grey = |_: usize, _: usize| 128;
            let planes = Planes {
                y: plane(width, height, grey),
                u: plane(half.0, half.1, grey),
                v: plane(half.0, half.1, grey),
            };
            let jpeg = encode(&planes, Some(100)).unwrap();
            assert_eq!(
                (&jpeg[..2], &jpeg[jpeg.len() - 2..]),
                (&[0xff, 0xd8][..], &[0xff, 0xd9][..])
            );
        }
    }
}
