//! Activation functions of the feed-forward layer and their derivatives, in place.
//!
//! The arithmetic of an element is long, and the processor sees few loads ahead, so callers pass blocks that lie in the
//! first-level cache (`elementwise::map_blocks`).
//!
//! Errors in units in the last place: GELU 5; its derivative 5 of the larger of its two terms. Results below 1e-37 may be 0. At
//! the infinities results are the limits; the tanh and sigmoid approximations stay within 1e-34 of them at the left end. NaN
//! stays NaN.

use super::dispatch::for_each_level;
use super::gelu;
use super::math::exp;
use super::pool;
use crate::config::Activation;

/// Replaces every `x` of `values` by `act(x)`.
pub(crate) fn forward(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu(values),
        Activation::GeluTanh => gelu_tanh(values),
        Activation::QuickGelu => silu(1.702, values),
        Activation::Silu => silu(1.0, values),
        Activation::Relu => relu(values),
    }
}

/// Replaces every `x` of `values` by `dy * act'(x)`.
pub(crate) fn backward(activation: Activation, dy: &[f32], values: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu_derivative(values),
        Activation::GeluTanh => gelu_tanh_derivative(values),
        Activation::QuickGelu => silu_derivative(1.702, values),
        Activation::Silu => silu_derivative(1.0, values),
        Activation::Relu => relu_derivative(values),
    }
    multiply(values, dy);
}

/// [`backward`] on all threads.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn backward_parallel(activation: Activation, dy: &[f32], values: &mut [f32]) {
    assert_eq!(dy.len(), values.len(), "a gradient for every value");
    pool::run_chunks(values, CHUNK, |task, values| {
        backward(activation, &dy[task * CHUNK..][..values.len()], values);
    });
}

/// Values of a task: they fit the first-level cache.
const CHUNK: usize = 4096;

/// sqrt(2 / pi).
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// Coefficient of `x^3` in the tanh approximation of GELU.
const CUBIC: f32 = 0.044_715;

/// Bound of the argument of sigmoid forms: beyond it they are constant, and products with an infinity would be NaN.
const SIGMOID_LIMIT: f32 = 90.0;
/// Bound of the argument of the tanh approximation, whose exponent is cubic.
const TANH_LIMIT: f32 = 10.0;

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// The larger of both; NaN when `x` is.
#[inline(always)]
fn max_or_nan(min: f32, x: f32) -> f32 {
    if x < min { min } else { x }
}

for_each_level! {
    /// `x * Phi(x)`
    fn gelu(values: &mut [f32]) {
        for x in values {
            *x = gelu::gelu(*x);
        }
    }

    /// `Phi(x) + x * phi(x)`
    fn gelu_derivative(values: &mut [f32]) {
        for x in values {
            *x = gelu::gelu_derivative(*x);
        }
    }

    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, which is `x * sigmoid` of twice the inner term.
    fn gelu_tanh(values: &mut [f32]) {
        for value in values {
            let x = max_or_nan(-TANH_LIMIT, *value);
            *value = x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
        }
    }

    /// Derivative of [`gelu_tanh`].
    fn gelu_tanh_derivative(values: &mut [f32]) {
        for value in values {
            let x = value.clamp(-TANH_LIMIT, TANH_LIMIT);
            let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            let inner = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
            *value = s + x * s * (1.0 - s) * inner;
        }
    }

    /// `x * sigmoid(beta x)`
    fn silu(beta: f32, values: &mut [f32]) {
        for value in values {
            let x = max_or_nan(-SIGMOID_LIMIT, *value);
            *value = x * sigmoid(beta * x);
        }
    }

    /// Derivative of [`silu`].
    fn silu_derivative(beta: f32, values: &mut [f32]) {
        for value in values {
            let x = value.clamp(-SIGMOID_LIMIT, SIGMOID_LIMIT);
            let s = sigmoid(beta * x);
            *value = s + beta * x * s * (1.0 - s);
        }
    }

    /// `max(x, 0)`
    fn relu(values: &mut [f32]) {
        for x in values {
            *x = max_or_nan(0.0, *x);
        }
    }

    /// 0 or 1; 1 at NaN, which the forward pass keeps.
    fn relu_derivative(values: &mut [f32]) {
        for x in values {
            *x = if *x <= 0.0 { 0.0 } else { 1.0 };
        }
    }

    /// `values *= by`, a separate loop so that the loads of `by` run ahead.
    fn multiply(values: &mut [f32], by: &[f32]) {
        for (value, by) in values.iter_mut().zip(by) {
            *value *= by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Relu, Activation::Silu];

    /// Value and derivative in f64.
    fn exact(activation: Activation, x: f64) -> (f64, f64) {
        let silu = |beta: f64, x: f64| {
            let s = 1.0 / (1.0 + (-beta * x).exp());
            (x * s, s + beta * x * s * (1.0 - s))
        };
        match activation {
            Activation::Gelu => {
                let (tail, density) = (gelu::exact::tail(-x), gelu::exact::density(x));
                (x * tail, tail + x * density)
            }
            Activation::GeluTanh => {
                let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
                let s = 1.0 / (1.0 + (-scale * (x + 0.044715 * x.powi(3))).exp());
                (x * s, s + x * s * (1.0 - s) * scale * (1.0 + 3.0 * 0.044715 * x * x))
            }
            Activation::QuickGelu => silu(1.702, x),
            Activation::Silu => silu(1.0, x),
            Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
        }
    }

    proptest! {
        /// Any length, with values far into both tails.
        #[test]
        fn agree_with_f64(values in proptest::collection::vec(-30f32..30.0, 1..100)) {
            for activation in ALL {
                let (mut y, mut dx) = (values.clone(), values.clone());
                forward(activation, &mut y);
                backward(activation, &vec![1.0; values.len()], &mut dx);
                for ((&x, y), dx) in values.iter().zip(y).zip(dx) {
                    let (value, slope) = exact(activation, x.into());
                    let close = |found: f32, exact: f64| {
                        (f64::from(found) - exact).abs() <= 2e-6 * exact.abs().max(0.1)
                    };
                    prop_assert!(close(y, value), "{activation:?}({x}) = {y}, expected {value}");
                    prop_assert!(close(dx, slope), "{activation:?}'({x}) = {dx}, expected {slope}");
                }
            }
        }
    }

    #[test]
    fn extreme_values_give_the_limits() {
        let tiny = f32::from_bits(1);
        let left = [f32::NEG_INFINITY, f32::MIN, -1e38, -1e4];
        let right = [1e4, 1e38, f32::MAX, f32::INFINITY];
        for activation in ALL {
            let value = |x: f32| {
                let (mut y, mut dx) = ([x], [x]);
                forward(activation, &mut y);
                backward(activation, &[1.0], &mut dx);
                (y[0], dx[0])
            };
            for x in left {
                let (y, dx) = value(x);
                assert!(y.abs() < 1e-34 && dx.abs() < 1e-34, "{activation:?} at {x}: {y}, {dx}");
            }
            for x in right {
                assert_eq!(value(x), (x, 1.0), "{activation:?}");
            }
            for x in [0.0, -0.0, tiny, -tiny, f32::MIN_POSITIVE / 2.0] {
                let (y, dx) = value(x);
                assert!(y.abs() <= x.abs() && dx.is_finite(), "{activation:?} at {x}: {y}, {dx}");
            }
            let (y, dx) = value(f32::NAN);
            assert!(y.is_nan() && (dx.is_nan() || activation == Activation::Relu), "{activation:?}");
        }
    }
}
