//! The machine-readable band in the upper left corner: which frame this is and when it was made.
//!
//! 2 rows of 48 square cells, a cell being `width / 48` pixels, 1 as luma 235 and 0 as luma 16:
//!
//! ```text
//! row 0 | sync 0xb2 (8) | frame number (32)         | CRC-8 (8) |
//! row 1 | capture time, milliseconds since the Unix epoch (48)  |
//! ```
//!
//! Most significant bit first. The CRC (polynomial 0x07, start 0) is over the 4 bytes of the frame
//! number and the 6 bytes of the time.

use super::canvas::{Plane, Rect};

/// Cells in a row.
const COLUMNS: usize = 48;
/// Height of the strip in cells.
pub(super) const ROWS: usize = 2;
const SYNC: u8 = 0b1011_0010;
const ONE: u8 = 235;
const ZERO: u8 = 16;

/// Side of a cell in pixels.
pub(super) const fn cell(width: usize) -> usize {
    width / COLUMNS
}

/// Paints the strip into the luma plane of a picture of `width` pixels. Of the time, the lower 48
/// bits are shown, which last until the year 10889.
pub(super) fn draw(plane: &mut Plane, width: usize, frame: u32, unix_ms: u64) {
    let cell = cell(width);
    let rows = [
        u64::from(SYNC) << 40 | u64::from(frame) << 8 | u64::from(checksum(frame, unix_ms)),
        unix_ms,
    ];
    for (row, bits) in rows.into_iter().enumerate() {
        for column in 0..COLUMNS {
            let one = bits >> (COLUMNS - 1 - column) & 1 == 1;
            let rect = Rect { x: column * cell, y: row * cell, width: cell, height: cell };
            plane.fill(rect, if one { ONE } else { ZERO });
        }
    }
}

/// CRC-8 of the frame number and the lower 48 bits of the time.
fn checksum(frame: u32, unix_ms: u64) -> u8 {
    let time = unix_ms.to_be_bytes();
    frame.to_be_bytes().into_iter().chain(time.into_iter().skip(2)).fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| crc << 1 ^ if crc & 0x80 == 0 { 0 } else { 0x07 })
    })
}

/// What a strip says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The picture's number.
    pub(crate) frame: u32,
    /// When it was made.
    pub(crate) unix_ms: u64,
}

/// Reads the strip from a luma plane whose rows begin every `stride` samples; `None` if there is
/// none or it is damaged.
pub(crate) fn read(luma: &[u8], stride: usize, width: usize) -> Option<Reading> {
    let row = |row: usize| {
        (0..COLUMNS).try_fold(0_u64, |bits, column| {
            Some(bits << 1 | u64::from(mean(luma, stride, cell(width), column, row)? > 128))
        })
    };
    let (head, unix_ms) = (row(0)?, row(1)?);
    let frame = (head >> 8) as u32;
    let sound = head >> 40 == u64::from(SYNC) && head as u8 == checksum(frame, unix_ms);
    sound.then_some(Reading { frame, unix_ms })
}

/// Mean of the central half of a cell.
fn mean(luma: &[u8], stride: usize, cell: usize, column: usize, row: usize) -> Option<usize> {
    let inner = cell / 4..cell - cell / 4;
    let mut sum = 0;
    for y in inner.clone() {
        let start = (row * cell + y) * stride + column * cell;
        let samples = luma.get(start + inner.start..start + inner.end)?;
        sum += samples.iter().map(|sample| usize::from(*sample)).sum::<usize>();
    }
    sum.checked_div(inner.len() * inner.len())
}

#[cfg(test)]
mod tests {
    use super::super::canvas::Canvas;
    use super::*;

    #[test]
    fn what_is_drawn_is_read() {
        for (width, frame, unix_ms) in [
            (640, 0, 0),
            (640, u32::MAX, (1 << 48) - 1),
            (1920, 0x1234_5678, 1_795_000_000_123),
            (200, 7, 1),
        ] {
            let mut canvas = Canvas::new(width, 200);
            draw(&mut canvas.y, width, frame, unix_ms);
            let reading = read(canvas.y.samples(), width, width);
            assert_eq!(reading, Some(Reading { frame, unix_ms }));
        }
    }

    #[test]
    fn a_damaged_strip_is_refused() {
        let mut canvas = Canvas::new(640, 360);
        assert_eq!(read(canvas.y.samples(), 640, 640), None);
        assert_eq!(read(&[0; 640], 640, 640), None);
        for column in 0..COLUMNS {
            for row in 0..ROWS {
                draw(&mut canvas.y, 640, 77, 1_795_000_000_123);
                let at = row * 13 * 640 + column * 13;
                let flipped = 251 - canvas.y.samples()[at];
                let cell = Rect { x: column * 13, y: row * 13, width: 13, height: 13 };
                canvas.y.fill(cell, flipped);
                assert_eq!(read(canvas.y.samples(), 640, 640), None, "cell {column},{row}");
            }
        }
    }

    #[test]
    fn the_checksum_is_the_plain_crc_8() {
        // "123456789" has the check value 0xf4; here it fills the last nine of the ten bytes, and
        // a leading zero changes nothing.
        let frame = u32::from_be_bytes([0, b'1', b'2', b'3']);
        let time = u64::from_be_bytes([0, 0, b'4', b'5', b'6', b'7', b'8', b'9']);
        assert_eq!(checksum(frame, time), 0xf4);
    }
}
