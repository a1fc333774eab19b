//! Activations of the feed-forward layer, and their derivatives.

use super::dispatch::for_each_level;
use super::math::{exp, normal_cdf, normal_pdf};
use crate::config::Activation;

/// `y = act(x)`.
pub(crate) fn forward(activation: Activation, x: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu(x, y),
        Activation::GeluTanh => gelu_tanh(x, y),
        Activation::QuickGelu => silu(1.702, x, y),
        Activation::Silu => silu(1.0, x, y),
        Activation::Relu => relu(x, y),
    }
}

/// `dx = dy * act'(x)`.
pub(crate) fn backward(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu_backward(x, dy, dx),
        Activation::GeluTanh => gelu_tanh_backward(x, dy, dx),
        Activation::QuickGelu => silu_backward(1.702, x, dy, dx),
        Activation::Silu => silu_backward(1.0, x, dy, dx),
        Activation::Relu => relu_backward(x, dy, dx),
    }
}

/// sqrt(2 / pi)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

for_each_level! {
    /// `x * Phi(x)`
    fn gelu(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * normal_cdf(x);
        }
    }

    /// `Phi(x) + x * phi(x)`
    fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = dy * (normal_cdf(x) + x * normal_pdf(x));
        }
    }

    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, which is `x * sigmoid` of twice the inner term.
    fn gelu_tanh(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
        }
    }

    fn gelu_tanh_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            let inner = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
            *dx = dy * (s + x * s * (1.0 - s) * inner);
        }
    }

    /// `x * sigmoid(beta x)`
    fn silu(beta: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * sigmoid(beta * x);
        }
    }

    fn silu_backward(beta: f32, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = sigmoid(beta * x);
            *dx = dy * (s + beta * x * s * (1.0 - s));
        }
    }

    fn relu(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x.max(0.0);
        }
    }

    fn relu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = if x > 0.0 { dy } else { 0.0 };
        }
    }
}
