//! The exact GELU, x * Phi(x), and its derivative.

use super::dispatch::for_each_level;
use super::math::{normal_cdf, normal_pdf};

for_each_level! {
    /// `y = x * Phi(x)`.
    pub(crate) fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * normal_cdf(x);
        }
    }

    /// `dx = dy * (Phi(x) + x * phi(x))`.
    pub(crate) fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = dy * (normal_cdf(x) + x * normal_pdf(x));
        }
    }
}
