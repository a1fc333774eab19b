//! What rounding changed.

use rayon::prelude::*;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::dequantize::dequantize;

/// Values whose sums are one, a whole number of blocks of every form.
const PIECE: usize = 1 << 13;

/// Sum of squares of `values`, and of their differences from what `bytes` hold in `format`. Pieces add up in their order, so
/// that the numbers do not depend on threads.
pub(super) fn squares(format: WeightDtype, values: &[f32], bytes: &[u8]) -> (f64, f64) {
    let piece_bytes = PIECE / format.block_len() * format.block_bytes();
    let pieces = values.par_chunks(PIECE).zip(bytes.par_chunks(piece_bytes));
    let sums: Vec<(f64, f64)> = pieces
        .map_init(
            || vec![0f32; PIECE],
            |wide, (values, bytes)| {
                let wide = &mut wide[..values.len()];
                dequantize(format, bytes, wide);
                let square = |x: f32| f64::from(x) * f64::from(x);
                let pairs = values.iter().zip(wide);
                pairs.fold((0.0, 0.0), |(all, off), (&x, y)| (all + square(x), off + square(x - *y)))
            },
        )
        .collect();
    sums.into_iter().fold((0.0, 0.0), |(all, off), (x, y)| (all + x, off + y))
}
