//! For a viewer that decodes: from packets to pictures to the strip in them, which says how late
//! they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use media::Codec;
use media::h264::Depacketiser;
use media::reception::Opened;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

use crate::ingest::strip;

/// Decodes one viewer's H.264; pictures with a gap before them are left out up to the next keyframe.
pub(super) struct StripReader {
    decoder: Decoder,
    depacketiser: Depacketiser,
    /// The access unit that is coming in, with start codes.
    unit: Vec<u8>,
    has_keyframe: bool,
    /// Something is missing: nothing can be decoded before the next keyframe.
    broken: bool,
}

impl StripReader {
    pub(super) fn new() -> Result<Self, openh264::Error> {
        Ok(Self {
            decoder: Decoder::new()?,
            depacketiser: Depacketiser::default(),
            unit: Vec::new(),
            has_keyframe: false,
            broken: true,
        })
    }

    /// The next packet; when it ends a picture with a strip, how long ago that was captured.
    pub(super) fn handle(&mut self, packet: &Opened<'_>) -> Option<Duration> {
        if packet.codec != Codec::H264 {
            return None;
        }
        if !packet.in_order {
            self.lose();
        }
        match self.depacketiser.handle_payload(packet.payload) {
            Ok(units) => {
                for unit in units {
                    self.has_keyframe |= unit.first().is_some_and(|header| header & 0x1f == 5);
                    self.unit.extend_from_slice(&[0, 0, 0, 1]);
                    self.unit.extend_from_slice(&unit);
                }
            }
            Err(_) => self.lose(),
        }
        if !packet.ends_picture {
            return None;
        }
        if self.depacketiser.handle_end_of_frame().is_err() {
            self.lose();
        }
        let unit = std::mem::take(&mut self.unit);
        self.broken &= !std::mem::take(&mut self.has_keyframe);
        if self.broken { None } else { self.decode(&unit) }
    }

    fn lose(&mut self) {
        self.unit.clear();
        self.has_keyframe = false;
        self.broken = true;
    }

    fn decode(&mut self, unit: &[u8]) -> Option<Duration> {
        let Ok(picture) = self.decoder.decode(unit) else {
            self.broken = true;
            return None;
        };
        let picture = picture?;
        let (width, _) = picture.dimensions();
        let reading = strip::read(picture.y(), picture.strides().0, width)?;
        let captured = UNIX_EPOCH + Duration::from_millis(reading.unix_ms);
        Some(SystemTime::now().duration_since(captured).unwrap_or_default())
    }
}
