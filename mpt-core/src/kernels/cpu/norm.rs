//! Layer normalization and root-mean-square normalization of rows, without bias.

use super::dispatch::for_each_level;
use super::math::{deviation, dot};

/// Which statistics a norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Subtract the mean, divide by the standard deviation.
    Layer,
    /// Divide by the root of the mean square.
    Rms,
}

/// Mean and reciprocal deviation of a row; the mean is 0 for [`NormKind::Rms`].
#[inline(always)]
fn statistics(kind: NormKind, x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = match kind {
        NormKind::Layer => super::math::sum(x) / n,
        NormKind::Rms => 0.0,
    };
    (mean, 1.0 / (deviation(x, mean) / n + eps).sqrt())
}

for_each_level! {
    /// Normalizes the rows of `x` `[rows, d]` by `weight` `[d]` into `y` `[rows, d]`.
    pub(crate) fn forward(kind: NormKind, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let d = weight.len();
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let (mean, scale) = statistics(kind, x, eps);
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = (x - mean) * scale * w;
            }
        }
    }

    /// Writes the gradient of the rows, `dx` `[rows, d]`, and adds the gradient of the weight to `dw` `[d]`.
    pub(crate) fn backward(kind: NormKind, x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
        let d = weight.len();
        let n = d as f32;
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let (mean, scale) = statistics(kind, x, eps);
            for j in 0..d {
                dw[j] += dy[j] * (x[j] - mean) * scale;
                dx[j] = dy[j] * weight[j];
            }
            let mean_dx = match kind {
                NormKind::Layer => super::math::sum(dx) / n,
                NormKind::Rms => 0.0,
            };
            // sum of dx * (x - mean), written without a second pass over the normalized row
            let along = (dot(dx, x) - mean * mean_dx * n) * scale * scale / n;
            for j in 0..d {
                dx[j] = scale * (dx[j] - mean_dx - (x[j] - mean) * along);
            }
        }
    }
}
