//! What a synthetic camera shows: a calm ground, a name, something that moves, date and time, the
//! number of the frame, and the machine-readable strip.
//!
//! The ground is painted once. For every frame only what changes is painted again.

use std::time::{Duration, UNIX_EPOCH};

use super::canvas::{Canvas, Colour, Rect};
use super::{font, strip};

/// Luma of the panel behind the date and time.
const PANEL: u8 = 30;
/// Longest name that fits beside the margins.
const MAX_LABEL: usize = 24;

/// What distinguishes one synthetic camera from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// A dial with a hand that goes round once a minute, on blue.
    Clock,
    /// A line that sweeps over muted colour bars.
    Bars,
    /// A ball that bounces, on green.
    Ball,
    /// A light that walks through a grid, on grey.
    Grid,
}

impl Pattern {
    fn named(name: &str) -> Self {
        match name {
            "bars" => Self::Bars,
            "ball" => Self::Ball,
            "grid" => Self::Grid,
            _ => Self::Clock,
        }
    }

    fn ground(self) -> Colour {
        match self {
            Self::Clock => Colour { y: 66, u: 150, v: 112 },
            Self::Bars => Colour { y: 90, u: 124, v: 132 },
            Self::Ball => Colour { y: 84, u: 112, v: 112 },
            Self::Grid => Colour::grey(76),
        }
    }

    fn accent(self) -> Colour {
        match self {
            Self::Clock => Colour { y: 196, u: 84, v: 150 },
            Self::Bars => Colour::grey(222),
            Self::Ball => Colour { y: 170, u: 76, v: 176 },
            Self::Grid => Colour { y: 170, u: 156, v: 96 },
        }
    }
}

/// Paints the frames of one synthetic camera.
pub(super) struct Card {
    pattern: Pattern,
    /// What all frames have in common.
    ground: Canvas,
    canvas: Canvas,
    /// Side of the layout's grid in pixels: the picture is at least 160 by 90 of them.
    unit: usize,
    /// Where things move.
    stage: Rect,
    /// What moved in the last frame, to be wiped away.
    moved: Vec<Rect>,
}

impl Card {
    /// A card of the named pattern (`clock`, `bars`, `ball`, `grid`; other names look like `clock`)
    /// with that name on it.
    pub(super) fn new(name: &str, width: usize, height: usize) -> Self {
        let pattern = Pattern::named(name);
        let mut ground = Canvas::new(width, height);
        let (width, height) = (ground.width(), ground.height());
        let unit = (width / 160).min(height / 90).max(1);
        let label = strip::cell(width) * strip::ROWS + 2 * unit;
        let top = label + (font::HEIGHT + 2) * unit;
        let panel = height.saturating_sub(27 * unit);
        let stage = Rect {
            x: 4 * unit,
            y: top,
            width: width.saturating_sub(8 * unit),
            height: panel.saturating_sub(top + 2 * unit),
        };
        let all = Rect { x: 0, y: 0, width, height };
        ground.fill(all, pattern.ground());
        paint_scenery(&mut ground, pattern, stage, unit);
        ground.fill(Rect { y: panel, height: height - panel, ..all }, Colour::grey(PANEL));
        ground.fill(Rect { height: strip::cell(width) * strip::ROWS, ..all }, Colour::grey(16));
        let name: String = name.chars().take(MAX_LABEL).collect();
        font::write(&mut ground.y, (4 * unit, label), unit, pattern.ground().y, &name);
        Self { pattern, canvas: ground.clone(), ground, unit, stage, moved: Vec::new() }
    }

    /// Paints frame number `frame`, made at `unix_ms` milliseconds since the Unix epoch.
    pub(super) fn draw(&mut self, frame: u32, unix_ms: u64) -> &Canvas {
        for rect in self.moved.drain(..) {
            self.canvas.restore(&self.ground, rect);
        }
        self.moved = moving(self.pattern, self.stage, self.unit, unix_ms);
        for rect in &self.moved {
            self.canvas.fill(*rect, self.pattern.accent());
        }
        self.write_time(frame, unix_ms);
        let width = self.canvas.width();
        strip::draw(&mut self.canvas.y, width, frame, unix_ms);
        &self.canvas
    }

    fn write_time(&mut self, frame: u32, unix_ms: u64) {
        let (unit, height) = (self.unit, self.canvas.height());
        let moment = UNIX_EPOCH + Duration::from_millis(unix_ms.min(MAX_UNIX_MS));
        // 2026-11-22T09:05:19.123Z
        let text = humantime::format_rfc3339_millis(moment).to_string();
        let (date, time) = text.split_once('T').unwrap_or((&text, ""));
        let upper = format!("{date} UTC #{frame:<10}");
        let plane = &mut self.canvas.y;
        let line = height.saturating_sub(24 * unit);
        font::write(plane, (4 * unit, line), unit, PANEL, &upper);
        let line = height.saturating_sub(14 * unit);
        let time = time.trim_end_matches('Z');
        font::write(plane, (4 * unit, line), (unit * 3).div_ceil(2), PANEL, time);
    }
}

/// The last moment that the date is written for: 9999-12-31T23:59:59.999Z.
const MAX_UNIX_MS: u64 = 253_402_300_799_999;

/// Paints what stands still behind the moving thing.
fn paint_scenery(canvas: &mut Canvas, pattern: Pattern, stage: Rect, unit: usize) {
    match pattern {
        Pattern::Clock => {
            for hour in 0..12 {
                let mark = on_dial(stage, unit, f64::from(hour) / 12.0, 1.0);
                canvas.fill(mark, Colour { y: 130, u: 140, v: 120 });
            }
        }
        Pattern::Bars => {
            let width = stage.width.div_ceil(BARS.len());
            for (index, colour) in BARS.into_iter().enumerate() {
                canvas.fill(Rect { x: stage.x + index * width, width, ..stage }, colour);
            }
        }
        Pattern::Ball => {
            let floor = Rect { y: stage.y + stage.height, height: unit, ..stage };
            canvas.fill(floor, Colour { y: 110, u: 112, v: 112 });
        }
        Pattern::Grid => {
            let side = grid_side(unit);
            let (width, height) = (stage.width / side * side + 2, stage.height / side * side + 2);
            for x in (0..width).step_by(side) {
                let line = Rect { x: stage.x + x, width: 2, height, ..stage };
                canvas.fill(line, Colour::grey(104));
            }
            for y in (0..height).step_by(side) {
                let line = Rect { y: stage.y + y, width, height: 2, ..stage };
                canvas.fill(line, Colour::grey(104));
            }
        }
    }
}

/// Muted, so that they are easy on the eye and on the encoder.
const BARS: [Colour; 7] = [
    Colour { y: 150, u: 128, v: 128 },
    Colour { y: 140, u: 84, v: 138 },
    Colour { y: 122, u: 144, v: 84 },
    Colour { y: 112, u: 100, v: 94 },
    Colour { y: 90, u: 156, v: 162 },
    Colour { y: 78, u: 112, v: 172 },
    Colour { y: 62, u: 172, v: 118 },
];

/// The rectangles that make up the moving thing.
fn moving(pattern: Pattern, stage: Rect, unit: usize, unix_ms: u64) -> Vec<Rect> {
    match pattern {
        Pattern::Clock => {
            let turn = (unix_ms % 60_000) as f64 / 60_000.0;
            (0..24).map(|dot| on_dial(stage, unit, turn, f64::from(dot) / 26.0)).collect()
        }
        Pattern::Bars => {
            let width = 2 * unit;
            let way = stage.width.saturating_sub(width) as u64;
            let x = stage.x + (way * (unix_ms % 4_000) / 4_000) as usize;
            vec![Rect { x, width, ..stage }]
        }
        Pattern::Ball => ball(stage, unit, unix_ms),
        Pattern::Grid => {
            let side = grid_side(unit);
            let (columns, rows) = ((stage.width / side).max(1), (stage.height / side).max(1));
            let at = (unix_ms / 250) as usize % (columns * rows);
            let (x, y) = (stage.x + at % columns * side, stage.y + at / columns * side);
            vec![Rect { x: x + 2, y: y + 2, width: side - 2, height: side - 2 }]
        }
    }
}

/// A square on the dial: `turn` clockwise from the top, `reach` from the centre to the rim.
fn on_dial(stage: Rect, unit: usize, turn: f64, reach: f64) -> Rect {
    let side = 2 * unit;
    let radius = stage.height.saturating_sub(side) as f64 / 2.0 * reach;
    let (sin, cos) = (turn * std::f64::consts::TAU).sin_cos();
    let x = (stage.x + stage.width / 2) as f64 + sin * radius;
    let y = (stage.y + stage.height / 2) as f64 - cos * radius;
    // A conversion from a float saturates, so a stage that is too small does no harm.
    let corner = |middle: f64| (middle - side as f64 / 2.0) as usize;
    Rect { x: corner(x), y: corner(y), width: side, height: side }
}

/// A disc out of rows two pixels high, on its way between the borders of the stage.
fn ball(stage: Rect, unit: usize, unix_ms: u64) -> Vec<Rect> {
    let radius = 6 * unit;
    let way = |length: usize, period: u64| {
        let phase = unix_ms % (2 * period);
        let there_and_back = phase.min(2 * period - phase);
        (length.saturating_sub(2 * radius) as u64 * there_and_back / period) as usize
    };
    let (left, top) = (stage.x + way(stage.width, 3_100), stage.y + way(stage.height, 1_700));
    (0..radius)
        .map(|row| {
            let rise = (2 * row + 1) as f64 - radius as f64;
            let half = ((radius * radius) as f64 - rise * rise).max(0.0).sqrt() as usize;
            Rect { x: left + radius - half, y: top + 2 * row, width: 2 * half, height: 2 }
        })
        .collect()
}

/// Side of a cell of the grid in pixels.
const fn grid_side(unit: usize) -> usize {
    8 * unit
}

#[cfg(test)]
mod tests {
    use openh264::formats::YUVSource;

    use super::*;

    #[test]
    fn nothing_is_left_behind_by_what_moves() {
        for name in ["clock", "bars", "ball", "grid"] {
            let mut used = Card::new(name, 320, 180);
            for frame in 0..50 {
                used.draw(frame, u64::from(frame) * 137);
            }
            let mut fresh = Card::new(name, 320, 180);
            let (used, fresh) = (used.draw(7, 99_000), fresh.draw(7, 99_000));
            assert!(used.y() == fresh.y() && used.u() == fresh.u() && used.v() == fresh.v());
        }
    }

    #[test]
    fn cards_look_different_and_move() {
        let mut seen = Vec::new();
        for name in ["clock", "bars", "ball", "grid", "gate-7"] {
            let mut card = Card::new(name, 640, 360);
            let first = card.draw(0, 0).y().to_vec();
            // Below the strip and the name, above the panel.
            let stage = 640 * 70..640 * 240;
            assert_ne!(first[stage.clone()], card.draw(0, 700).y()[stage], "{name} stands still");
            assert!(!seen.contains(&first));
            seen.push(first);
        }
    }

    #[test]
    fn any_size_can_be_painted() {
        for (width, height) in [(2, 2), (48, 48), (192, 96), (200, 1000), (3840, 480)] {
            for name in ["clock", "bars", "ball", "grid", "a name that is far too long for it"] {
                let mut card = Card::new(name, width, height);
                card.draw(u32::MAX, u64::MAX);
                card.draw(1, 1_795_000_000_123);
            }
        }
    }
}
