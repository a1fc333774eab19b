//! Rounding error of converted values.

use rayon::prelude::*;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::dequantize::dequantize;

/// Values per partial sum; a multiple of every block length.
const CHUNK_VALUES: usize = 1 << 13;

/// Squared L2 norms of `values` and of their difference from `bytes`, which hold them in `dtype`. Partial sums are added in
/// order, so the result does not depend on the number of threads.
pub(super) fn squared_norm_and_error(dtype: WeightDtype, values: &[f32], bytes: &[u8]) -> (f64, f64) {
    let chunk_bytes = CHUNK_VALUES / dtype.block_len() * dtype.block_bytes();
    let chunks = values.par_chunks(CHUNK_VALUES).zip(bytes.par_chunks(chunk_bytes));
    let sums: Vec<(f64, f64)> = chunks
        .map_init(
            || vec![0f32; CHUNK_VALUES],
            |wide, (values, bytes)| {
                let wide = &mut wide[..values.len()];
                dequantize(dtype, bytes, wide);
                let square = |x: f32| f64::from(x) * f64::from(x);
                let pairs = values.iter().zip(wide);
                pairs.fold((0.0, 0.0), |(all, off), (&x, y)| (all + square(x), off + square(x - *y)))
            },
        )
        .collect();
    sums.into_iter().fold((0.0, 0.0), |(all, off), (x, y)| (all + x, off + y))
}
