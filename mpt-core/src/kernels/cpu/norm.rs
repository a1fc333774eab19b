//! Layer and root-mean-square normalization of rows, without bias.

use super::dispatch::for_each_level;
use super::math::{dot, squared_deviation};

/// Kind of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
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
    (mean, 1.0 / (squared_deviation(x, mean) / n + eps).sqrt())
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

    /// Writes the gradient of the rows to `dx` `[rows, d]` and adds that of the weight to `dw` `[d]`.
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
            // sum of dx * (x - mean), without a second pass over the normalized row
            let projection = (dot(dx, x) - mean * mean_dx * n) * scale * scale / n;
            for j in 0..d {
                dx[j] = scale * (dx[j] - mean_dx - (x[j] - mean) * projection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Normalized row, gradient of the row and gradient of the weight in f64.
    fn exact(kind: NormKind, x: &[f32], weight: &[f32], eps: f32, dy: &[f32]) -> [Vec<f64>; 3] {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, weight, dy, n) = (wide(x), wide(weight), wide(dy), x.len() as f64);
        let is_layer = kind == NormKind::Layer;
        let mean = if is_layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (square + f64::from(eps)).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| (x - mean) * scale).collect();
        let inner: Vec<f64> = weight.iter().zip(&dy).map(|(w, dy)| w * dy).collect();
        let shift = if is_layer { inner.iter().sum::<f64>() / n } else { 0.0 };
        let projection = inner.iter().zip(&normal).map(|(a, b)| a * b).sum::<f64>() / n;
        let dx = inner.iter().zip(&normal).map(|(g, x)| scale * (g - shift - x * projection)).collect();
        let y = normal.iter().zip(&weight).map(|(x, w)| x * w).collect();
        [y, dx, normal.iter().zip(&dy).map(|(x, dy)| x * dy).collect()]
    }

    fn found(kind: NormKind, x: &[f32], weight: &[f32], eps: f32, dy: &[f32]) -> [Vec<f32>; 3] {
        let [mut y, mut dx, mut dw] = [(); 3].map(|()| vec![0f32; x.len()]);
        forward(kind, x, weight, eps, &mut y);
        backward(kind, x, weight, eps, dy, &mut dx, &mut dw);
        [y, dx, dw]
    }

    proptest! {
        #[test]
        fn agree_with_f64(row in proptest::collection::vec((-3f32..3.0, -2f32..2.0, -1f32..1.0), 1..90),
                          shift in -30f32..30.0) {
            let x: Vec<f32> = row.iter().map(|row| row.0 + shift).collect();
            let weight: Vec<f32> = row.iter().map(|row| row.1).collect();
            let dy: Vec<f32> = row.iter().map(|row| row.2).collect();
            for kind in [NormKind::Layer, NormKind::Rms] {
                let expected = exact(kind, &x, &weight, 0.1, &dy);
                for (found, expected) in found(kind, &x, &weight, 0.1, &dy).iter().zip(&expected) {
                    // the mean of numbers near 30 is known to 1e-6, a deviation is at least sqrt(eps)
                    for (found, expected) in found.iter().zip(expected) {
                        prop_assert!((f64::from(*found) - expected).abs() <= 1e-4 * expected.abs().max(1.0));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row() {
        let (weight, sound) = ([1f32; 5], [1.0, 2.0, -3.0, 0.5, 0.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38] {
            let rows = [[bad, 1.0, 2.0, 3.0, 4.0], sound].concat();
            let mut y = vec![0f32; 10];
            forward(NormKind::Layer, &rows, &weight, 1e-5, &mut y);
            let mut alone = vec![0f32; 5];
            forward(NormKind::Layer, &sound, &weight, 1e-5, &mut alone);
            assert_eq!(y[5..], alone, "{bad}");
            assert!(bad.abs() == 1e38 || y[..5].iter().any(|y| y.is_nan()), "{bad}: {y:?}");
        }
    }

    #[test]
    fn rows_without_a_deviation_give_zeros() {
        for value in [0.0, -0.0, f32::from_bits(1), f32::MIN_POSITIVE, 7.0] {
            let [y, ..] = found(NormKind::Layer, &[value; 8], &[1.0; 8], 1e-5, &[1.0; 8]);
            assert!(y.iter().all(|y| *y == 0.0), "{value}: {y:?}");
        }
    }
}
