//! Precision with a stored matrix: in integers where it lies in panels (`quant`); else its rows are widened to f32 while they are in cache: piece by piece for the few rows
//! of decoding, which read the weights once and do little else, and in panels for a matrix product otherwise.

use rayon::prelude::*;

use super::dispatch::for_each_level;
use super::gemm::{Mat, MatMut, Threads, Write, matmul, matmul_packed};
use super::math::{dot, sum};
use super::quant;
use super::widen::widen;
use crate::dtype::Precision;
use crate::dtype::WeightDtype;
use crate::storage::StoredTensor;

/// Values of a panel, 4 MiB of f32: each panel packs `x` again, so that smaller ones cost a third of the rate.
const PANEL_VALUES: usize = 1 << 20;

/// Rows of `x` up to which the weights are read faster than a matrix product would be.
const FEW: usize = 4;

/// Values of a row that are widened at once: 8 KiB of f32, which the first-level cache holds beside `x`.
const PIECE: usize = 2048;

/// Rows of the weight that are one task.
const TASK_ROWS: usize = 64;

/// Rows of a panel of a matrix whose rows have `len` values.
fn panel_rows(len: usize) -> usize {
    (PANEL_VALUES / len.max(1)).clamp(8, 256)
}

/// `y = x W^T` for `x` `[m, k]` and `weight` `[n, k]`; `y` `[m, n]` is row-major.
pub(crate) fn times_transposed(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = x.len() / k;
    if let Some(panels) = weight.panels() {
        return quant::times_transposed(y, x, &panels);
    }
    if let Some(tiles) = weight.tiles() {
        let y = MatMut::new(y, m, n, n);
        return matmul_packed(y, Mat::new(x, m, k, k), &tiles, Write::Overwrite);
    }
    if m <= FEW {
        return few_rows(y, x, weight);
    }
    let x = Mat::new(x, m, k, k);
    if let Some(values) = weight.as_f32s() {
        let weight = Mat::new(values, n, k, k);
        return matmul(
            MatMut::new(y, m, n, n),
            x,
            weight.t(),
            Precision::F32,
            Write::Overwrite,
            Threads::Pool,
        );
    }
    let mut transposed = vec![0f32; n * m];
    panels(&mut transposed, x, weight);
    transpose(y, &transposed, m);
}

/// `y` `[m, n]` from `transposed` `[n, m]`.
fn transpose(y: &mut [f32], transposed: &[f32], m: usize) {
    let n = transposed.len() / m;
    y.par_chunks_exact_mut(n).enumerate().for_each(|(row, y)| {
        for (y, column) in y.iter_mut().zip(transposed.chunks_exact(m)) {
            *y = column[row];
        }
    });
}

/// The product for at most [`FEW`] rows of `x`, each row of the weight read once.
fn few_rows(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let k = weight.row_len();
    let m = x.len() / k;
    let mut transposed = vec![0f32; y.len()];
    transposed.par_chunks_mut(TASK_ROWS * m).enumerate().for_each_init(
        || vec![0f32; PIECE],
        |wide, (task, y)| {
            for (row, y) in y.chunks_exact_mut(m).enumerate() {
                let row = task * TASK_ROWS + row;
                row_products(y, x, weight.dtype(), weight.row_range(row..row + 1), wide);
            }
        },
    );
    if m == 1 { y.copy_from_slice(&transposed) } else { transpose(y, &transposed, m) }
}

/// `y[j]` = the product of one stored row with row `j` of `x`; `wide` is room for [`PIECE`] values.
fn row_products(y: &mut [f32], x: &[f32], format: WeightDtype, row: &[u8], wide: &mut [f32]) {
    let k = x.len() / y.len();
    let piece_bytes = PIECE / format.block_len() * format.block_bytes();
    for (from, bytes) in (0..k).step_by(PIECE).zip(row.chunks(piece_bytes)) {
        let wide = &mut wide[..PIECE.min(k - from)];
        widen(format, bytes, wide);
        for (y, x) in y.iter_mut().zip(x.chunks_exact(k)) {
            *y += piece_product(wide, &x[from..from + wide.len()]);
        }
    }
}

/// Sums that run side by side: enough that none waits for its last addition.
const LANES: usize = 64;

for_each_level! {
    /// The inner product of two slices of one length, summed in a fixed order.
    fn piece_product(a: &[f32], b: &[f32]) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut lanes = [0f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        sum(&lanes) + dot(a_rest, b_rest)
    }
}

/// `y = W x^T`, `[n, m]`.
fn panels(y: &mut [f32], x: Mat<'_>, weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let (rows, m) = (panel_rows(k), y.len() / n);
    y.par_chunks_mut(rows * m).enumerate().for_each_init(
        || vec![0f32; rows * k],
        |panel, (index, y)| {
            let rows = index * rows..index * rows + y.len() / m;
            let panel = &mut panel[..rows.len() * k];
            weight.widen_rows(rows.clone(), panel);
            let panel = Mat::new(panel, rows.len(), k, k);
            matmul(
                MatMut::new(y, rows.len(), m, m),
                panel,
                x.t(),
                Precision::F32,
                Write::Overwrite,
                Threads::Caller,
            );
        },
    );
}

/// `dx = dy W` for `dy` `[m, n]` and `weight` `[n, k]`; `dx` `[m, k]` is row-major. Panels add up in the order of rows.
pub(crate) fn times(dx: &mut [f32], dy: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = dy.len() / n;
    if let Some(values) = weight.as_f32s() {
        let (dy, weight) = (Mat::new(dy, m, n, n), Mat::new(values, n, k, k));
        return matmul(MatMut::new(dx, m, k, k), dy, weight, Precision::F32, Write::Overwrite, Threads::Pool);
    }
    let rows = panel_rows(k);
    let mut panel = vec![0f32; rows * k];
    for from in (0..n).step_by(rows) {
        let rows = from..(from + rows).min(n);
        let panel = &mut panel[..rows.len() * k];
        panel
            .par_chunks_mut(k)
            .enumerate()
            .for_each(|(i, out)| weight.widen_rows(rows.start + i..rows.start + i + 1, out));
        let d_rows = Mat::new(&dy[rows.start..], m, rows.len(), n);
        let write = if from == 0 { Write::Overwrite } else { Write::Add };
        matmul(
            MatMut::new(dx, m, k, k),
            d_rows,
            Mat::new(panel, rows.len(), k, k),
            Precision::F32,
            write,
            Threads::Pool,
        );
    }
}
