//! A picture in the planes of 4:2:0, and the few ways in which a test card paints on it.

use openh264::formats::YUVSource;

/// A rectangle in luma pixels. Whatever of it lies outside the picture is not painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// A colour in limited-range BT.709: luma 16 to 235, chroma 16 to 240 around 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour {
    pub(super) y: u8,
    pub(super) u: u8,
    pub(super) v: u8,
}

impl Colour {
    /// A colour without hue.
    pub(super) const fn grey(y: u8) -> Self {
        Self { y, u: 128, v: 128 }
    }
}

/// One plane of samples, row by row without gaps.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    data: Vec<u8>,
    width: usize,
}

impl Plane {
    fn new(width: usize, height: usize) -> Self {
        Self { data: vec![128; width * height], width }
    }

    /// The samples; a row begins every `width` samples.
    #[cfg(test)]
    pub(super) fn samples(&self) -> &[u8] {
        &self.data
    }

    /// Sets every sample of the rectangle.
    pub(super) fn fill(&mut self, rect: Rect, value: u8) {
        let columns = columns(rect, self.width);
        for row in self.data.chunks_exact_mut(self.width).skip(rect.y).take(rect.height) {
            row[columns.clone()].fill(value);
        }
    }

    /// Takes the rectangle's samples from a plane of the same size.
    fn restore(&mut self, from: &Self, rect: Rect) {
        let columns = columns(rect, self.width);
        let rows = self.data.chunks_exact_mut(self.width).zip(from.data.chunks_exact(self.width));
        for (row, original) in rows.skip(rect.y).take(rect.height) {
            row[columns.clone()].copy_from_slice(&original[columns.clone()]);
        }
    }
}

fn columns(rect: Rect, width: usize) -> std::ops::Range<usize> {
    rect.x.min(width)..(rect.x + rect.width).min(width)
}

/// A picture of even width and height.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    /// Brightness, in full size.
    pub(super) y: Plane,
    u: Plane,
    v: Plane,
    height: usize,
}

impl Canvas {
    /// A grey picture. Odd sizes lose their last column or row.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width & !1, height & !1);
        let chroma = Plane::new(width / 2, height / 2);
        Self { y: Plane::new(width, height), u: chroma.clone(), v: chroma, height }
    }

    pub(super) fn width(&self) -> usize {
        self.y.width
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Paints a rectangle. Its chroma reaches to the next even pixel.
    pub(super) fn fill(&mut self, rect: Rect, colour: Colour) {
        self.y.fill(rect, colour.y);
        self.u.fill(halved(rect), colour.u);
        self.v.fill(halved(rect), colour.v);
    }

    /// Puts back what `from`, of the same size, has there.
    pub(super) fn restore(&mut self, from: &Self, rect: Rect) {
        self.y.restore(&from.y, even(rect));
        self.u.restore(&from.u, halved(rect));
        self.v.restore(&from.v, halved(rect));
    }
}

/// The rectangle grown to even borders: what a change of its chroma touches.
fn even(rect: Rect) -> Rect {
    let half = halved(rect);
    Rect { x: half.x * 2, y: half.y * 2, width: half.width * 2, height: half.height * 2 }
}

/// The rectangle in a chroma plane.
fn halved(rect: Rect) -> Rect {
    let (x, y) = (rect.x / 2, rect.y / 2);
    Rect {
        x,
        y,
        width: (rect.x + rect.width).div_ceil(2) - x,
        height: (rect.y + rect.height).div_ceil(2) - y,
    }
}

impl YUVSource for Canvas {
    fn dimensions(&self) -> (usize, usize) {
        (self.width(), self.height)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.y.width, self.u.width, self.v.width)
    }

    fn y(&self) -> &[u8] {
        &self.y.data
    }

    fn u(&self) -> &[u8] {
        &self.u.data
    }

    fn v(&self) -> &[u8] {
        &self.v.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn painting_outside_is_cut_off_and_restoring_undoes_it() {
        let clean = Canvas::new(20, 11);
        assert_eq!((clean.width(), clean.height()), (20, 10));
        let mut canvas = clean.clone();
        for (x, y) in [(0, 0), (3, 5), (19, 9), (25, 3), (4, 40)] {
            let rect = Rect { x, y, width: 7, height: 5 };
            canvas.fill(rect, Colour { y: 200, u: 90, v: 160 });
            canvas.restore(&clean, rect);
        }
        assert_eq!(canvas.y.data, clean.y.data);
        assert_eq!((canvas.u.data, canvas.v.data), (clean.u.data, clean.v.data));
    }
}
