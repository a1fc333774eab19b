//! Exponential and reductions that vectorize.

use super::dispatch::for_each_level;

/// Partial sums of [`sum`] and [`dot`]; their order of addition is part of the result.
const LANES: usize = 16;

/// e^x within 2 units in the last place for `x` in `[-87, 88]`; constant beyond.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp_of_sum(x.clamp(-87.0, 88.0), -0.0) // adding -0 is free
}

/// e^(x + rest) for `x` in `[-87.3, 88]` and a `rest` below 1/16, the rounding error of `x`.
#[inline(always)]
pub(crate) fn exp_of_sum(x: f32, rest: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW + rest; // |r| <= ln 2 / 2 + |rest|
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let poly = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail))));
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    poly * f32::from_bits(exponent << 23)
}

/// Sum of `map` over the pairs of `a` and `b`, in a fixed order.
#[inline(always)]
fn reduce(a: &[f32], b: &[f32], map: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| map(x, y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += map(x[lane], y[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0] + tail
}

/// Sum of `values`.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    reduce(values, values, |x, _| x)
}

/// Dot product of two slices of one length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, |x, y| x * y)
}

/// Sum of squared deviations of `values` from `mean`.
#[inline(always)]
pub(crate) fn squared_deviation(values: &[f32], mean: f32) -> f32 {
    reduce(values, values, |x, _| (x - mean) * (x - mean))
}

/// Largest of `values`; negative infinity for none. NaN is ignored.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces `values` by e^(value - shift) and returns their sum.
#[inline(always)]
pub(crate) fn exp_shifted(values: &mut [f32], shift: f32) -> f32 {
    for value in values.iter_mut() {
        *value = exp(*value - shift);
    }
    sum(values)
}

for_each_level! {
    /// Sum of squares of `values`, accumulated in f64 over blocks of fixed size.
    pub(crate) fn square_sum(values: &[f32]) -> f64 {
        values.chunks(1024).map(|block| f64::from(dot(block, block))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_keeps_two_units_in_the_last_place() {
        for i in -8700..=8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}) is off by {error:e}");
        }
    }

    proptest! {
        #[test]
        fn sums_agree_with_f64(values in proptest::collection::vec(-1e3f32..1e3, 0..200)) {
            let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
            prop_assert!((f64::from(sum(&values)) - exact).abs() < 1e-2);
            let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            prop_assert!((square_sum(&values) - squares).abs() <= 1e-5 * squares + 1e-6);
            prop_assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
