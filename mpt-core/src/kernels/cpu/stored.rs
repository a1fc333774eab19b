//! Products with a stored matrix: a panel of its rows is widened to f32 and multiplied while it is in cache.

use rayon::prelude::*;

use super::gemm::{Mat, MatMut, Threads, Write, matmul};
use crate::weights::StoredTensor;

/// Values of a panel: 1 MiB of f32, which the second-level cache holds.
const PANEL_VALUES: usize = 1 << 18;

/// Rows of a panel of a matrix whose rows have `len` values.
fn panel_rows(len: usize) -> usize {
    (PANEL_VALUES / len.max(1)).clamp(8, 256)
}

/// `y = x W^T` for `x` `[m, k]` and `weight` `[n, k]`; `y` `[m, n]` is row-major.
pub(crate) fn times_transposed(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = x.len() / k;
    let x = Mat::new(x, m, k, k);
    if let Some(values) = weight.as_f32s() {
        let weight = Mat::new(values, n, k, k);
        return matmul(MatMut::new(y, m, n, n), x, weight.t(), Write::Overwrite, Threads::Pool);
    }
    if m == 1 {
        return panels(y, x, weight);
    }
    let mut transposed = vec![0f32; n * m];
    panels(&mut transposed, x, weight);
    y.par_chunks_exact_mut(n).enumerate().for_each(|(row, y)| {
        for (y, column) in y.iter_mut().zip(transposed.chunks_exact(m)) {
            *y = column[row];
        }
    });
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
            matmul(MatMut::new(y, rows.len(), m, m), panel, x.t(), Write::Overwrite, Threads::Caller);
        },
    );
}

/// `dx = dy W` for `dy` `[m, n]` and `weight` `[n, k]`; `dx` `[m, k]` is row-major. Panels add up in the order of rows.
pub(crate) fn times(dx: &mut [f32], dy: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = dy.len() / n;
    if let Some(values) = weight.as_f32s() {
        let (dy, weight) = (Mat::new(dy, m, n, n), Mat::new(values, n, k, k));
        return matmul(MatMut::new(dx, m, k, k), dy, weight, Write::Overwrite, Threads::Pool);
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
        matmul(MatMut::new(dx, m, k, k), d_rows, Mat::new(panel, rows.len(), k, k), write, Threads::Pool);
    }
}
