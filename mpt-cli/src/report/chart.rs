//! Line charts as inline SVG.

use std::fmt::Write as _;

use super::escape;

/// Chart of series over common axes.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    /// Label of the x axis.
    pub(crate) x_label: &'static str,
    /// Label of the y axis, with the unit.
    pub(crate) y_label: &'static str,
    /// Series; later ones are drawn on top.
    pub(crate) series: Vec<Series>,
}

/// Series of points.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Name in the legend.
    pub(crate) label: String,
    /// Mark.
    pub(crate) mark: Mark,
    /// Points in order of x. Points that are not finite are left out.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Mark of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Smoothed line over a faint line through the points.
    Line,
    /// Dot per point, with a line between them.
    Dots,
    /// Dashed horizontal line at the y of the first point.
    Level,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 46.0;

impl Chart {
    /// Renders the chart and its legend.
    pub(crate) fn to_html(&self) -> String {
        let Some(scale) = Scale::of(&self.series) else {
            return "<p class=\"note\">No points to draw.</p>\n".to_owned();
        };
        let names: Vec<_> = self.series.iter().map(|series| escape(&series.label)).collect();
        let (x_label, y_label) = (escape(self.x_label), escape(self.y_label));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_label} over {x_label}: {}\">\n",
            names.join(", ")
        );
        svg += &scale.axes(&x_label, &y_label);
        for (index, series) in self.series.iter().enumerate() {
            svg += &series.draw(index, &scale);
        }
        svg + "</svg>\n" + &self.legend()
    }

    fn legend(&self) -> String {
        let mut html = String::from("<ul class=\"legend\">\n");
        for (index, series) in self.series.iter().enumerate() {
            let key = match series.mark {
                Mark::Line => format!("<path class=\"line s{index}\" d=\"M1 6H27\"/>"),
                Mark::Dots => format!("<circle class=\"dot s{index}\" cx=\"14\" cy=\"6\" r=\"5\"/>"),
                Mark::Level => format!("<path class=\"level s{index}\" d=\"M1 6H27\"/>"),
            };
            let label = escape(&series.label);
            let _ =
                writeln!(html, "<li><svg viewBox=\"0 0 28 12\" aria-hidden=\"true\">{key}</svg>{label}</li>");
        }
        html + "</ul>\n"
    }
}

impl Series {
    fn draw(&self, index: usize, scale: &Scale) -> String {
        let points = finite(&self.points);
        let Some(&(_, level)) = points.first() else { return String::new() };
        match self.mark {
            Mark::Level => {
                let ends = [(scale.x.low, level), (scale.x.high, level)];
                scale.path("level", index, &ends)
            }
            Mark::Line => {
                let smooth = smoothed(&points);
                scale.path("faint", index, &downsampled(&points))
                    + &scale.path("line", index, &downsampled(&smooth))
            }
            Mark::Dots => scale.path("faint", index, &points) + &self.dots(index, &points, scale),
        }
    }

    fn dots(&self, index: usize, points: &[(f64, f64)], scale: &Scale) -> String {
        let mut svg = String::new();
        for &(x, y) in points {
            let (cx, cy) = scale.project((x, y));
            let title = format!("{} at {x}: {y:.3}", escape(&self.label));
            let _ = writeln!(
                svg,
                "<circle class=\"dot s{index}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"5\"><title>{title}</title></circle>"
            );
        }
        svg
    }
}

/// Mapping of values to the page.
struct Scale {
    x: Axis,
    y: Axis,
}

impl Scale {
    fn of(series: &[Series]) -> Option<Self> {
        let points: Vec<_> = series.iter().flat_map(|series| finite(&series.points)).collect();
        // A level has no x of its own.
        let lines = series.iter().filter(|series| series.mark != Mark::Level);
        let xs = lines.flat_map(|series| finite(&series.points)).map(|(x, _)| x);
        Some(Self { x: Axis::tight(xs)?, y: Axis::round(points.iter().map(|&(_, y)| y))? })
    }

    fn project(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let right = LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM);
        (right, down)
    }

    fn path(&self, class: &str, index: usize, points: &[(f64, f64)]) -> String {
        let mut d = String::new();
        for (n, &point) in points.iter().enumerate() {
            let (x, y) = self.project(point);
            let _ = write!(d, "{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' });
        }
        format!("<path class=\"{class} s{index}\" d=\"{d}\"/>\n")
    }

    fn axes(&self, x_label: &str, y_label: &str) -> String {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let mut svg = String::new();
        for (value, label) in self.y.ticks() {
            let (_, y) = self.project((self.x.low, value));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let (at, y) = (LEFT - 8.0, y + 4.0);
            let _ = writeln!(svg, "<text x=\"{at}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>");
        }
        for (value, label) in self.x.ticks() {
            let (x, _) = self.project((value, self.y.low));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>");
            let y = bottom + 20.0;
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>");
        }
        let middle = (LEFT + right) / 2.0;
        let below = HEIGHT - 6.0;
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{x_label}</text>");
        let _ = writeln!(svg, "<text x=\"0\" y=\"14\">{y_label}</text>");
        svg
    }
}

/// Axis: its range, and a round distance between ticks.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Axis of exactly the values' range.
    fn tight(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values)?;
        let high = if high > low { high } else { low + 1.0 };
        Some(Self { low, high, step: nice_step((high - low) / 7.0) })
    }

    /// Axis widened to whole steps.
    fn round(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values)?;
        let step = nice_step((high - low).max(1e-3) / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Some(Self { low, high: if high > low { high } else { low + step }, step })
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 6.0) as usize;
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        let step = self.step;
        (first..=last).map(move |n| (n as f64 * step, format!("{:.decimals$}", n as f64 * step)))
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

fn finite(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

/// Running mean over a twentieth of the points.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / 40;
    let mean = |index: usize| {
        let reach = half.min(index).min(points.len() - 1 - index);
        let window = &points[index - reach..=index + reach];
        window.iter().map(|&(_, y)| y).sum::<f64>() / window.len() as f64
    };
    points.iter().enumerate().map(|(index, &(x, _))| (x, mean(index))).collect()
}

/// Downsamples to about 1,000 points; the page cannot resolve more.
fn downsampled(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(1000).max(1);
    let last = points.len().checked_sub(1);
    let sampled = points.iter().enumerate().filter(|(n, _)| n % every == 0 || Some(*n) == last);
    sampled.map(|(_, &point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let line = Series { label: "a".into(), mark: Mark::Line, points };
        let level = Series { label: "b".into(), mark: Mark::Level, points: vec![(0.0, 6.0)] };
        Chart { x_label: "step", y_label: "loss", series: vec![line, level] }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::round([3.17, 9.4].into_iter()).expect("values");
        let labels: Vec<_> = axis.ticks().map(|(_, label)| label).collect();
        assert_eq!(labels, ["2", "4", "6", "8", "10"]);
        let axis = Axis::tight([1.0, 300.0].into_iter()).expect("values");
        let labels: Vec<_> = axis.ticks().map(|(_, label)| label).collect();
        assert_eq!(labels, ["50", "100", "150", "200", "250", "300"]);
        let axis = Axis::round([0.013, 0.031].into_iter()).expect("values");
        assert_eq!(axis.ticks().next().map(|(_, label)| label), Some("0.010".to_owned()));
    }

    #[test]
    fn a_flat_or_single_point_has_room() {
        for points in [vec![(1.0, 4.0)], vec![(1.0, 4.0), (2.0, 4.0)]] {
            assert!(!chart(points).to_html().contains("NaN"));
        }
    }

    #[test]
    fn points_that_are_not_finite_are_left_out() {
        let html = chart(vec![(1.0, f64::NAN), (2.0, 5.0), (3.0, f64::INFINITY)]).to_html();
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        let none = Chart { series: Vec::new(), ..chart(Vec::new()) };
        assert!(none.to_html().contains("No points"));
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let points: Vec<_> = (0..12_345).map(|n| (f64::from(n), 0.0)).collect();
        let thin = downsampled(&points);
        assert!(thin.len() <= 1001, "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (points.first(), points.last()));
    }

    #[test]
    fn smoothing_keeps_a_straight_line() {
        let points: Vec<_> = (0..200).map(|n| (f64::from(n), f64::from(n) * 2.0)).collect();
        for ((_, y), (_, smooth)) in points.iter().zip(smoothed(&points)) {
            assert!((y - smooth).abs() < 1e-9);
        }
    }
}
