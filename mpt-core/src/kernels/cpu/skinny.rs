//! Products with a factor of few rows, such as an adapter's: what reads or writes the long factor once is the cost.
//!
//! A matrix product would pack the long factor first, which takes longer than the product itself. Sums are f32 in an order
//! that depends on the shapes alone, and factors are not rounded.

use super::dispatch::for_each_level;
use super::pool;

/// Rows of a task.
const TASK_ROWS: usize = 32;

/// Columns of a task, and of a strip whose sums stay in registers.
const TASK_COLS: usize = 256;
const STRIP: usize = 64;

/// Sums of an inner product that run side by side.
const LANES: usize = 32;

/// `x w^T` for `x` `[m, k]` and `w` `[r, k]`: `[m, r]`.
pub(crate) fn dots(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let (m, r) = (x.len() / k, w.len() / k);
    let mut y = vec![0f32; m * r];
    pool::run_chunks(&mut y, TASK_ROWS * r, |task, y| {
        for (y, x) in y.chunks_exact_mut(r).zip(x[task * TASK_ROWS * k..].chunks_exact(k)) {
            row_dots(y, x, w);
        }
    });
    y
}

/// `y += a w` for `y` `[m, n]`, `a` `[m, r]` and `w` `[r, n]`.
pub(crate) fn add_combinations(y: &mut [f32], a: &[f32], w: &[f32], n: usize) {
    let r = w.len() / n;
    pool::run_chunks(y, TASK_ROWS * n, |task, y| {
        for (y, a) in y.chunks_exact_mut(n).zip(a[task * TASK_ROWS * r..].chunks_exact(r)) {
            add_rows(y, a, w);
        }
    });
}

/// `a^T x` for `a` `[m, r]` and `x` `[m, n]`: `[r, n]`, summed in the order of rows.
pub(crate) fn combinations(a: &[f32], x: &[f32], n: usize) -> Vec<f32> {
    let m = x.len() / n;
    let r = a.len() / m.max(1);
    let tasks = n.div_ceil(TASK_COLS);
    // a task's columns, row after row of the result
    let mut parts = vec![0f32; tasks * r * TASK_COLS];
    pool::run_chunks(&mut parts, r * TASK_COLS, |task, part| {
        let from = task * TASK_COLS;
        let width = TASK_COLS.min(n - from);
        for (row, a) in a.chunks_exact(r).enumerate() {
            add_outer(part, a, &x[row * n + from..][..width]);
        }
    });
    let mut y = vec![0f32; r * n];
    for (task, part) in parts.chunks_exact(r * TASK_COLS).enumerate() {
        let from = task * TASK_COLS;
        let width = TASK_COLS.min(n - from);
        for (row, part) in part.chunks_exact(TASK_COLS).enumerate() {
            y[row * n + from..][..width].copy_from_slice(&part[..width]);
        }
    }
    y
}

for_each_level! {
    /// Inner products of one row `x` `[k]` with the rows of `w` `[r, k]`.
    fn row_dots(y: &mut [f32], x: &[f32], w: &[f32]) {
        let (chunks, rest) = x.as_chunks::<LANES>();
        for (y, w) in y.iter_mut().zip(w.chunks_exact(x.len())) {
            let (w_chunks, w_rest) = w.as_chunks::<LANES>();
            let mut lanes = [0f32; LANES];
            for (x, w) in chunks.iter().zip(w_chunks) {
                for lane in 0..LANES {
                    lanes[lane] += x[lane] * w[lane];
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for lane in 0..width {
                    lanes[lane] += lanes[lane + width];
                }
                width /= 2;
            }
            *y = rest.iter().zip(w_rest).fold(lanes[0], |sum, (x, w)| sum + x * w);
        }
    }

    /// Adds to one row `y` `[n]` the rows of `w` `[r, n]`, each times its factor.
    fn add_rows(y: &mut [f32], a: &[f32], w: &[f32]) {
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

    /// Adds to each row of `part` `[r, TASK_COLS]` the row `x`, times the row's factor.
    fn add_outer(part: &mut [f32], a: &[f32], x: &[f32]) {
        for (part, a) in part.chunks_exact_mut(TASK_COLS).zip(a) {
            for (sum, x) in part.iter_mut().zip(x) {
                *sum += a * x;
            }
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
            prop_assert!(close(&dots(&x, &w, k), dot));
            let mut y = x.clone();
            add_combinations(&mut y, &a, &w, k);
            let sum = |at: usize| -> f64 { (0..r).map(|i| product(a[at / k * r + i], w[i * k + at % k])).sum() };
            prop_assert!(close(&y, |at| f64::from(x[at]) + sum(at)));
            let outer = |at: usize| (0..m).map(|i| product(a[i * r + at / k], x[i * k + at % k])).sum();
            prop_assert!(close(&combinations(&a, &x, k), outer));
        }
    }
}
