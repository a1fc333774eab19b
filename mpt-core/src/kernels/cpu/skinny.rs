//! Skinny GEMM: products with a factor of few rows, such as those of LoRA. They read or write the long factor once.
//!
//! `gemm` would pack the long factor first, which takes longer than the product. Sums are f32 in an order that depends on the
//! shapes alone, and factors are not rounded. Products of few rows with stored weights are `gemv`.

use super::dispatch::for_each_level;
use super::pool;

/// Rows of a task.
const TASK_ROWS: usize = 32;

/// Columns of a task.
const TASK_COLS: usize = 256;

/// Columns of a strip, whose accumulators stay in registers.
const STRIP: usize = 64;

/// Rows of the short factor that are summed side by side.
const LANES: usize = 16;

/// Rows of the long factor that share loads of the short one.
const ROWS: usize = 8;

/// Columns of the long factor that share loads of the short one.
const COLS: usize = 4;

/// `x w^T` `[m, r]` for `x` `[m, k]` and `w` `[r, k]`, summed in the order of columns.
pub(crate) fn matmul_nt(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let (m, r) = (x.len() / k, w.len() / k);
    let panels: Vec<_> = w.chunks(LANES * k).map(|rows| transpose_panel(rows, k)).collect();
    let mut y = vec![0f32; m * r];
    pool::run_chunks(&mut y, TASK_ROWS * r, |task, y| {
        let x = &x[task * TASK_ROWS * k..][..y.len() / r * k];
        for (panel, w) in panels.iter().enumerate() {
            let mut sums = [[0f32; LANES]; TASK_ROWS];
            let (blocks, rest) = sums[..y.len() / r].as_chunks_mut::<ROWS>();
            let (x_blocks, x_rest) = x.split_at(blocks.len() * ROWS * k);
            blocks
                .iter_mut()
                .zip(x_blocks.chunks_exact(ROWS * k))
                .for_each(|(sums, x)| dot_block(sums, x, w));
            rest.iter_mut().zip(x_rest.chunks_exact(k)).for_each(|(sums, x)| dot_row(sums, x, w));
            for (y, sums) in y.chunks_exact_mut(r).zip(&sums) {
                let y = &mut y[panel * LANES..r.min((panel + 1) * LANES)];
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    });
    y
}

/// Transpose `[k, LANES]` of up to 16 rows of `k` values, padded with zeros.
fn transpose_panel(rows: &[f32], k: usize) -> Vec<[f32; LANES]> {
    let mut columns = vec![[0f32; LANES]; k];
    for (lane, row) in rows.chunks_exact(k).enumerate() {
        columns.iter_mut().zip(row).for_each(|(column, &value)| column[lane] = value);
    }
    columns
}

/// Dot products of R rows of `x` with the rows whose columns are `w` `[k, LANES]`.
#[inline(always)]
fn dot_rows<const R: usize>(sums: &mut [[f32; LANES]; R], x: &[f32], w: &[[f32; LANES]]) {
    let mut rows: [&[f32]; R] = [&[]; R];
    for i in 0..R {
        rows[i] = &x[i * w.len()..][..w.len()];
    }
    // local accumulators stay in registers
    let mut acc = [[0f32; LANES]; R];
    for (j, w) in w.iter().enumerate() {
        for i in 0..R {
            let value = rows[i][j];
            for lane in 0..LANES {
                acc[i][lane] += value * w[lane];
            }
        }
    }
    *sums = acc;
}

/// `y += a w` for `y` `[m, n]`, `a` `[m, r]` and `w` `[r, n]`.
pub(crate) fn matmul_nn_add(y: &mut [f32], a: &[f32], w: &[f32], n: usize) {
    let r = w.len() / n;
    pool::run_chunks(y, TASK_ROWS * n, |task, y| {
        for (y, a) in y.chunks_exact_mut(n).zip(a[task * TASK_ROWS * r..].chunks_exact(r)) {
            add_scaled_rows(y, a, w);
        }
    });
}

/// `a^T x` `[r, n]` for `a` `[m, r]` and `x` `[m, n]`, summed in the order of rows, [`TASK_ROWS`] rows at a time.
pub(crate) fn matmul_tn(a: &[f32], x: &[f32], n: usize) -> Vec<f32> {
    let m = x.len() / n;
    let r = a.len() / m.max(1);
    let panels: Vec<_> = (0..r).step_by(LANES).map(|from| column_panel(a, r, from)).collect();
    // [panel, n, lane]
    let mut sums = vec![[0f32; LANES]; panels.len() * n];
    for (sums, a) in sums.chunks_exact_mut(n.max(1)).zip(&panels) {
        pool::run_chunks(sums, TASK_COLS, |task, sums| {
            for (x, a) in x.chunks(TASK_ROWS * n).zip(a.chunks(TASK_ROWS)) {
                add_outer_products(sums, &x[task * TASK_COLS..], n, a);
            }
        });
    }
    let mut y = vec![0f32; r * n];
    for (row, y) in y.chunks_exact_mut(n.max(1)).enumerate() {
        let sums = &sums[row / LANES * n..][..n];
        y.iter_mut().zip(sums).for_each(|(y, sums)| *y = sums[row % LANES]);
    }
    y
}

/// Up to 16 columns of `a` `[m, r]` from `from` on, padded with zeros: `[m, LANES]`.
fn column_panel(a: &[f32], r: usize, from: usize) -> Vec<[f32; LANES]> {
    let width = LANES.min(r - from);
    let lanes = |row: &[f32]| {
        let mut lanes = [0f32; LANES];
        lanes[..width].copy_from_slice(&row[from..from + width]);
        lanes
    };
    a.chunks_exact(r).map(lanes).collect()
}

/// Adds to `sums[i]` the products of column `i` of `x`, whose rows are `n` values apart, with the columns of `a`.
#[inline(always)]
fn outer_product_block<const R: usize>(
    sums: &mut [[f32; LANES]; R],
    x: &[f32],
    n: usize,
    a: &[[f32; LANES]],
) {
    // a slice for each column; otherwise the compiler loads rows of `x` as vectors and takes them apart
    let len = (a.len() - 1) * n + 1;
    let mut columns: [&[f32]; R] = [&[]; R];
    for i in 0..R {
        columns[i] = &x[i..][..len];
    }
    // local accumulators stay in registers
    let mut acc = [[0f32; LANES]; R];
    for (j, a) in a.iter().enumerate() {
        for i in 0..R {
            let value = columns[i][j * n];
            for lane in 0..LANES {
                acc[i][lane] += value * a[lane];
            }
        }
    }
    for i in 0..R {
        for lane in 0..LANES {
            sums[i][lane] += acc[i][lane];
        }
    }
}

for_each_level! {
    /// Dot products of `x` `[ROWS, k]` with the rows whose columns are `w` `[k, LANES]`.
    fn dot_block(sums: &mut [[f32; LANES]; ROWS], x: &[f32], w: &[[f32; LANES]]) {
        dot_rows(sums, x, w);
    }

    /// [`dot_block`] for one row.
    fn dot_row(sums: &mut [f32; LANES], x: &[f32], w: &[[f32; LANES]]) {
        dot_rows(std::array::from_mut(sums), x, w);
    }

    /// `y += a w` for one row `y` `[n]`, `a` `[r]` and `w` `[r, n]`.
    fn add_scaled_rows(y: &mut [f32], a: &[f32], w: &[f32]) {
        let n = y.len();
        for from in (0..n / STRIP * STRIP).step_by(STRIP) {
            let mut sums = [0f32; STRIP];
            sums.copy_from_slice(&y[from..from + STRIP]);
            for (a, w) in a.iter().zip(w.chunks_exact(n)) {
                let w = &w[from..from + STRIP];
                for lane in 0..STRIP {
                    sums[lane] += a * w[lane];
                }
            }
            y[from..from + STRIP].copy_from_slice(&sums);
        }
        let from = n / STRIP * STRIP;
        for (a, w) in a.iter().zip(w.chunks_exact(n)) {
            for (y, w) in y[from..].iter_mut().zip(&w[from..]) {
                *y += a * w;
            }
        }
    }

    /// Adds to `sums[i]` the products of column `i` of `x`, whose rows are `n` values apart, with the columns of `a`.
    fn add_outer_products(sums: &mut [[f32; LANES]], x: &[f32], n: usize, a: &[[f32; LANES]]) {
        let (blocks, rest) = sums.as_chunks_mut::<COLS>();
        let first_of_rest = blocks.len() * COLS;
        for (block, sums) in blocks.iter_mut().enumerate() {
            outer_product_block(sums, &x[block * COLS..], n, a);
        }
        for (column, sums) in rest.iter_mut().enumerate() {
            outer_product_block(std::array::from_mut(sums), &x[first_of_rest + column..], n, a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = CounterRng::new(seed, 0);
        (0..len).map(|_| rng.normal()).collect()
    }

    fn close(found: &[f32], expected: impl Fn(usize) -> f64) -> bool {
        found.iter().enumerate().all(|(at, &x)| (f64::from(x) - expected(at)).abs() < 1e-3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Sums of up to 400 products of normal numbers: f32 errs by less than 1e-3.
        #[test]
        fn products_agree_with_f64(m in 1usize..90, r in 1usize..20, k in 1usize..400, seed: u32) {
            let seed = u64::from(seed);
            let (x, w, a) = (values(m * k, seed), values(r * k, seed + 1), values(m * r, seed + 2));
            let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
            let dot = |at: usize| (0..k).map(|i| product(x[at / r * k + i], w[at % r * k + i])).sum();
            prop_assert!(close(&matmul_nt(&x, &w, k), dot));
            let mut y = x.clone();
            matmul_nn_add(&mut y, &a, &w, k);
            let sum = |at: usize| -> f64 { (0..r).map(|i| product(a[at / k * r + i], w[i * k + at % k])).sum() };
            prop_assert!(close(&y, |at| f64::from(x[at]) + sum(at)));
            let outer = |at: usize| (0..m).map(|i| product(a[i * r + at / k], x[i * k + at % k])).sum();
            prop_assert!(close(&matmul_tn(&a, &x, k), outer));
        }
    }
}
