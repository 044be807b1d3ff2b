//! Simple plots as SVG: bars, curves, and the distribution of values. Readable on light and dark pages.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
/// Height of one panel.
const HEIGHT: f64 = 220.0;
/// Where the drawing of a panel begins and ends.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 180.0;

/// Panels, one below the other.
pub(crate) fn page(panels: &[String]) -> String {
    let height = HEIGHT * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<style>\n\
         text {{ fill: #24292f }} .mark {{ fill: #0b7285 }} .line {{ stroke: #0b7285; fill: none; \
         stroke-width: 2 }} .target {{ stroke: #c92a2a; stroke-dasharray: 4 3 }} .axis {{ stroke: \
         #8c959f }}\n@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .mark {{ fill: \
         #3bc9db }} .line {{ stroke: #3bc9db }} .target {{ stroke: #ff8787 }} }}\n</style>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        // Writing to a String does not fail.
        let _ =
            writeln!(svg, "<g transform=\"translate(0 {})\">\n{panel}</g>", HEIGHT * index as f64);
    }
    svg + "</svg>\n"
}

/// A horizontal bar each, with a line at the target if there is one.
pub(crate) fn bars(title: &str, values: &[(&str, f64)], target: Option<f64>) -> String {
    let scale = Scale::new(values.iter().map(|(_, value)| *value).chain(target));
    let mut panel = frame(title, &scale, target);
    let space = (BOTTOM - TOP) / values.len() as f64;
    for (index, (name, value)) in values.iter().enumerate() {
        let y = TOP + space * (index as f64 + 0.2);
        let (bar, middle) = (space * 0.6, y + space * 0.3 + 4.0);
        let end = scale.x(*value);
        let _ = writeln!(
            panel,
            "<rect class=\"mark\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{bar:.1}\"/>\
             <text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>\
             <text x=\"{:.1}\" y=\"{middle:.1}\">{value:.2}</text>",
            end - LEFT,
            LEFT - 8.0,
            end + 6.0,
        );
    }
    panel
}

/// The share of the values (ascending) up to each value, with a line at the target.
pub(crate) fn distribution(title: &str, sorted: &[f64], target: f64) -> String {
    let scale = Scale::new(sorted.iter().copied().chain([target]));
    let mut panel = frame(title, &scale, Some(target));
    let y = |share: f64| BOTTOM - (BOTTOM - TOP) * share;
    let mut path = format!("M{LEFT} {BOTTOM}");
    for (index, value) in sorted.iter().enumerate() {
        let share = (index + 1) as f64 / sorted.len() as f64;
        let _ = write!(path, " H{:.1} V{:.1}", scale.x(*value), y(share));
    }
    let _ = writeln!(panel, "<path class=\"line\" d=\"{path}\"/>");
    for share in [0.0, 0.5, 0.95] {
        let _ = writeln!(
            panel,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            LEFT - 8.0,
            y(share) + 4.0,
            share * 100.0,
        );
    }
    panel
}

/// From one line of text to the next, in pixels.
const LINE_HEIGHT: f64 = 14.0;

/// A line each through its points `(x, y)`; the horizontal axis is logarithmic, and marked at the
/// points of the first line. The names stand at the lines' ends.
pub(crate) fn curve(title: &str, lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let widest = points().map(|(x, _)| *x).fold(1.0, f64::max).ln();
    let highest = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.1;
    // The names need room on the right.
    let end = RIGHT - 120.0;
    let place = |(x, y): (f64, f64)| {
        (LEFT + (end - LEFT) * x.ln() / widest, BOTTOM - (BOTTOM - TOP) * y / highest)
    };
    let mut panel = heading(title);
    for (x, _) in lines.iter().take(1).flat_map(|(_, points)| points) {
        let (at, label) = (place((*x, 0.0)).0, BOTTOM + 18.0);
        let _ =
            writeln!(panel, "<text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\">{x}</text>");
    }
    let mut names: Vec<f64> = Vec::new();
    for (name, points) in lines {
        let path: Vec<String> = points
            .iter()
            .map(|point| place(*point))
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        let Some((last, (x, y))) = points.last().map(|last| (last.1, place(*last))) else {
            continue;
        };
        // Below those that it would cover.
        let label = names.iter().fold(y + 4.0, |at, other| {
            if (at - other).abs() < LINE_HEIGHT { other + LINE_HEIGHT } else { at }
        });
        names.push(label);
        let _ = writeln!(
            panel,
            "<path class=\"line\" d=\"M{}\"/><text x=\"{:.1}\" y=\"{label:.1}\">{name} {last:.2}</text>",
            path.join(" L"),
            x + 6.0,
        );
    }
    panel
}

/// One line from its first to its last point; both axes begin at 0.
pub(crate) fn timeline(title: &str, points: &[(f64, f64)]) -> String {
    let largest =
        |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (longest, highest) = (largest(|(x, _)| *x), largest(|(_, y)| *y));
    let end = RIGHT - 120.0;
    let place = |(x, y): (f64, f64)| {
        (LEFT + (end - LEFT) * x / longest, BOTTOM - (BOTTOM - TOP) * y / (highest * 1.1))
    };
    let path: Vec<String> =
        points.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let last = points.last().map_or(0.0, |(_, y)| *y);
    let (right, level) = place((longest, last));
    let label = BOTTOM + 18.0;
    heading(title)
        + &format!(
            "<text x=\"{LEFT}\" y=\"{label}\" text-anchor=\"middle\">0</text>\n\
             <text x=\"{right:.1}\" y=\"{label}\" text-anchor=\"middle\">{longest:.1} h</text>\n\
             <path class=\"line\" d=\"M{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{last:.1}</text>\n",
            path.join(" L"),
            right + 6.0,
            level + 4.0,
        )
}

/// Title and axis.
fn heading(title: &str) -> String {
    format!(
        "<text x=\"{LEFT}\" y=\"24\" font-weight=\"bold\">{title}</text>\n\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\"/>\n",
    )
}

/// Title, axis from 0 and the line of the target.
fn frame(title: &str, scale: &Scale, target: Option<f64>) -> String {
    let label = BOTTOM + 18.0;
    let zero = format!("<text x=\"{LEFT}\" y=\"{label}\" text-anchor=\"middle\">0</text>\n");
    let line = target.map_or_else(String::new, |target| {
        let at = scale.x(target);
        format!(
            "<line class=\"target\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{BOTTOM}\"/>\n\
             <text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\">target {target}</text>\n"
        )
    });
    heading(title) + &zero + &line
}

/// From values to places on the horizontal axis, which begins at 0.
struct Scale {
    largest: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        Self { largest: values.fold(0.0, f64::max) * 1.1 }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * value / self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_and_the_largest_value_are_both_inside() {
        for (values, target) in [(vec![1.0, 500.0], 80.0), (vec![1.0], 80.0)] {
            let scale = Scale::new(values.iter().copied().chain([target]));

            for value in values.into_iter().chain([target]) {
                assert!((LEFT..=RIGHT).contains(&scale.x(value)), "{value} at {}", scale.x(value));
            }
        }
    }

    #[test]
    fn every_value_is_drawn() {
        let panel = bars("egress", &[("Manifold", 1.5), ("floor", 1.2)], Some(1.9));

        assert!(
            panel.contains(">1.50<") && panel.contains(">1.20<") && panel.contains("target 1.9")
        );
        assert_eq!(distribution("joins", &[40.0, 50.0, 60.0], 80.0).matches(" H").count(), 3);
    }
}
