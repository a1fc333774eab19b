//! Exact GELU and its derivative, from the tail of the standard normal distribution.
//!
//! The tail has the precision of f32 and needs no branch and no table, so that loops over it vectorize.
//!
//! For `z >= 0` the tail is `1 - Phi(z) = e^(-z^2 / 2) M(z)`, where `M` falls smoothly from 1/2 like `1 / (z sqrt(2 pi))`.
//! `(z + 3) M(z)` is nearly constant, and a polynomial in `t = (z - 3) / (z + 3)`, which maps the half line to `[-1, 1)`.
//! The exponential takes `z^2` as a sum of two floats: the rounding error of one would cost as many units as the argument is large.

use super::math::exp_of_sum;

/// Largest `z` with a tail: beyond it e^(-z^2 / 2) is below the smallest normal number.
const MAX_Z: f32 = 13.2;

/// 1 / sqrt(2 pi)
const DENSITY_AT_0: f32 = 0.398_942_3;

/// Minimax fit of `(z + 3) M(z)` on `[0, 13.2]` in powers of `t`, lowest first; relative error 1.7e-8.
const RATIO_COEFFICIENTS: [f32; 10] = [
    0.729_083_7,
    -0.509_332_1,
    0.230_017_9,
    -0.047_258_77,
    -0.010_464_899,
    0.006_939_84,
    0.001_027_434_4,
    -0.000_946_572_3,
    -0.000_217_721_79,
    0.000_044_073_74,
];

/// `z = |x|` up to [`MAX_Z`], e^(-z^2 / 2) and `M(z)`. NaN stays NaN.
struct TailPoint {
    z: f32,
    exponential: f32,
    ratio: f32,
}

#[inline(always)]
fn tail_point(x: f32) -> TailPoint {
    let is_far = x.abs() > MAX_Z;
    let z = if is_far { MAX_Z } else { x.abs() };
    let high = f32::from_bits(z.to_bits() & 0xffff_f000); // 12 significant bits: its square is exact
    let rest = (z - high) * (z + high);
    let exponential = exp_of_sum(-0.5 * high * high, -0.5 * rest);
    let inverse = 1.0 / (z + 3.0);
    let t = (z - 3.0) * inverse;
    let mut ratio = RATIO_COEFFICIENTS[9];
    for &coefficient in RATIO_COEFFICIENTS[..9].iter().rev() {
        ratio = ratio * t + coefficient;
    }
    TailPoint { z, exponential: if is_far { 0.0 } else { exponential }, ratio: ratio * inverse }
}

/// `x Phi(x)`; 0 at negative infinity.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let TailPoint { z, exponential, ratio } = tail_point(x);
    let line = if x < 0.0 { 0.0 } else { x };
    line - z * (exponential * ratio)
}

/// The derivative of [`gelu`], `Phi(x) + x phi(x)`.
#[inline(always)]
pub(super) fn gelu_derivative(x: f32) -> f32 {
    let TailPoint { z, exponential, ratio } = tail_point(x);
    let left = exponential * (ratio - z * DENSITY_AT_0);
    if x < 0.0 { left } else { 1.0 - left }
}

/// References in f64.
#[cfg(test)]
pub(super) mod exact {
    /// Density of the standard normal distribution.
    pub(crate) fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    /// Probability of a value above `x`: a power series in the middle, a continued fraction in the tail.
    pub(crate) fn tail(x: f64) -> f64 {
        if x < 0.0 {
            return 1.0 - tail(-x);
        }
        if x > 3.0 {
            return density(x) / (1..150).rev().fold(x, |below, k| x + f64::from(k) / below);
        }
        let terms = (1..100).scan(x, |term, k| {
            *term *= x * x / f64::from(2 * k + 1);
            Some(*term)
        });
        0.5 - density(x) * (x + terms.sum::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of neighboring f32 at `x`, at least that of the smallest normal number.
    fn unit(x: f64) -> f64 {
        let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
        f64::from(x.next_up()) - f64::from(x)
    }

    #[test]
    fn the_reference_agrees_with_tables() {
        for (x, expected) in [(0.0, 0.5), (1.0, 0.158_655_253_931_457), (4.0, 3.167_124_183_311_99e-5)] {
            assert!((exact::tail(x) / expected - 1.0).abs() < 1e-13, "{x}: {}", exact::tail(x));
            assert!((exact::tail(-x) - (1.0 - expected)).abs() < 1e-15);
        }
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        for step in -130_000..=130_000 {
            let x = step as f32 * 1.001e-4;
            let (at, below) = (f64::from(x), exact::tail(-f64::from(x)));
            let (value, slope) = (at * below, at * exact::density(at));
            let error = (f64::from(gelu(x)) - value).abs() / unit(value);
            assert!(error <= 5.0, "gelu({x}) is off by {error} units");
            let error = (f64::from(gelu_derivative(x)) - below - slope).abs() / unit(below.max(slope.abs()));
            assert!(error <= 5.0, "the derivative at {x} is off by {error} units");
        }
    }
}
