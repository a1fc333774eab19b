//! Matrix products over strided f32 views, with factors of f32 or rounded to bf16 and sums of f32.
//!
//! Both operands are cut into tiles (`pack`), then tasks of the pool multiply them (`blocks`) with the innermost loop of the
//! processor's level (`tiles`). An operand that is used again is packed once ([`Packed`]).

mod blocks;
mod mat;
mod pack;
mod patches;
mod plan;
#[cfg(target_arch = "x86_64")]
mod squares;
mod tiles;

use std::ops::Range;

pub(crate) use mat::{Mat, MatMut};
#[cfg(target_arch = "x86_64")]
pub(crate) use pack::transposed;
pub(crate) use pack::{Form, Packed, SIDE, Tile, column_of_pairs, fill_right_pairs, tiles_of_pairs};
#[cfg(target_arch = "x86_64")]
pub(crate) use squares::split_chunk_steps;
pub(crate) use tiles::multiply_add;

use crate::dtype::Precision;

use super::dispatch::{Level, level};

/// What happens to the old content of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is overwritten.
    Overwrite,
    /// The product is added to it.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone, for products inside a parallel loop.
    Caller,
    /// All threads of the pool.
    Pool,
}

/// `c = a b` or `c += a b`.
///
/// Each element is a sum in the order of the inner dimension, which no other row or column and no thread changes.
///
/// # Panics
/// When the shapes of `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]` disagree.
pub(crate) fn matmul(
    c: MatMut<'_>,
    a: Mat<'_>,
    b: Mat<'_>,
    products: Precision,
    write: Write,
    threads: Threads,
) {
    assert_eq!((c.rows, c.cols, a.cols), (a.rows, b.cols, b.rows), "shapes of a matrix product disagree");
    let right = Packed::right_in(b, Form::of(level(), products, threads), threads);
    matmul_at(level(), c, a, &right, write, threads);
}

/// `a b` in a new vector, row-major, by all threads.
///
/// # Panics
/// When the shapes of `a` `[m, k]` and `b` `[k, n]` disagree.
pub(crate) fn matmul_new(a: Mat<'_>, b: Mat<'_>, products: Precision) -> Vec<f32> {
    let (rows, cols) = (a.rows, b.cols);
    let mut out = Vec::with_capacity(rows * cols);
    let c = MatMut::fresh(&mut out.spare_capacity_mut()[..rows * cols], rows, cols);
    matmul(c, a, b, products, Write::Overwrite, Threads::Pool);
    #[expect(unsafe_code, reason = "zeroing a vector that is written whole costs a pass over memory")]
    // SAFETY: the capacity is at least `rows * cols`, and the product wrote every element.
    unsafe {
        out.set_len(rows * cols);
    }
    out
}

/// [`matmul`] of all threads with the right operand packed already; factors are rounded as it was.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul_packed(c: MatMut<'_>, a: Mat<'_>, b: &Packed<'_>, write: Write) {
    matmul_at(level(), c, a, b, write, Threads::Pool);
}

/// [`matmul_packed`] at `level`, whatever the processor's own.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul_at(
    level: Level,
    c: MatMut<'_>,
    a: Mat<'_>,
    b: &Packed<'_>,
    write: Write,
    threads: Threads,
) {
    assert_eq!(
        (c.rows, c.cols, a.cols),
        (a.rows, b.rows(), b.inner()),
        "shapes of a matrix product disagree"
    );
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if write == Write::Overwrite {
            c.clear();
        }
        return;
    }
    let left = Packed::left_in(a, b.form(), threads);
    blocks::product(c, &left, b, tiles::kernel(level, b.form()), write, threads);
}

/// `c = a b` of all threads at `level` for a right operand that is packed block by block: `right` gives some of its columns in
/// `form`, at most `block` of them.
///
/// # Panics
/// When the shapes of `a` `[m, k]`, a block and `c` `[m, n]` disagree.
pub(crate) fn matmul_by_blocks<'b>(
    level: Level,
    mut c: MatMut<'_>,
    a: Mat<'_>,
    form: Form,
    block: usize,
    right: impl Fn(Range<usize>) -> Packed<'b>,
) {
    let (kernel, n) = (tiles::kernel(level, form), c.cols);
    let left = Packed::left_in(a, form, Threads::Pool);
    for from in (0..n).step_by(block) {
        let cols = from..(from + block).min(n);
        let right = right(cols.clone());
        let c = c.columns(cols);
        assert_eq!(
            (c.rows, c.cols, a.cols, form),
            (a.rows, right.rows(), right.inner(), right.form()),
            "shapes of a matrix product disagree"
        );
        blocks::product(c, &left, &right, kernel, Write::Overwrite, Threads::Pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::dispatch::levels;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    /// The sum of the products, and of their absolute values, in f64.
    fn plain(a: Mat<'_>, b: Mat<'_>, (i, j): (usize, usize), products: Precision) -> (f64, f64) {
        let round = |x: f32| match products {
            Precision::F32 => f64::from(x),
            Precision::Bf16 => half::bf16::from_f32(x).to_f64(),
        };
        let terms = (0..a.cols).map(|k| round(a.at(i, k)) * round(b.at(k, j)));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    /// Random values of which one in eight is zero or tiny, or huge where `wide`, so that no product overflows. Sums with a
    /// huge term say nothing about the others.
    fn values(rng: &mut CounterRng, len: usize, wide: bool) -> Vec<f32> {
        let tiny = [0.0, -0.0, 1e-18, -1e-12, 1e-30, -1e-34, 3e-39, 1e-45];
        let huge = [3e18, -1e10, 65504.0, -7e4];
        let mut value = |i: usize| match rng.bits() % 8 {
            0 if wide && i.is_multiple_of(2) => huge[i / 2 % 4],
            0 => tiny[i % 8],
            _ => rng.normal(),
        };
        (0..len).map(&mut value).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_level_agrees_with_the_plain_sum(m in 1usize..70, n in 1usize..110, k in 0usize..1100, pad in 0usize..5,
                                                 ta: bool, tb: bool, add: bool, pooled: bool, bf16: bool, wide: bool, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (a_rows, a_cols) = if ta { (k, m) } else { (m, k) };
            let (b_rows, b_cols) = if tb { (n, k) } else { (k, n) };
            let a = values(&mut rng, a_rows * (a_cols + pad), wide);
            let b = values(&mut rng, b_rows * (b_cols + pad), wide);
            let before = values(&mut rng, m * (n + pad), wide);
            let (a, b) = (Mat::new(&a, a_rows, a_cols, a_cols + pad), Mat::new(&b, b_rows, b_cols, b_cols + pad));
            let (a, b) = (if ta { a.t() } else { a }, if tb { b.t() } else { b });
            let write = if add { Write::Add } else { Write::Overwrite };
            let products = if bf16 { Precision::Bf16 } else { Precision::F32 };
            let threads = if pooled { Threads::Pool } else { Threads::Caller };
            for level in levels() {
                let mut c = before.clone();
                let packed = Packed::right_in(b, Form::of(level, products, threads), threads);
                matmul_at(level, MatMut::new(&mut c, m, n, n + pad), a, &packed, write, threads);
                for i in 0..m {
                    for j in 0..n + pad {
                        let (found, old) = (f64::from(c[i * (n + pad) + j]), f64::from(before[i * (n + pad) + j]));
                        if j >= n {
                            prop_assert_eq!(found.to_bits(), old.to_bits(), "{:?}: beyond the result", level);
                            continue;
                        }
                        let (sum, size) = plain(a, b, (i, j), products);
                        let (sum, size) = if add { (sum + old, size + old.abs()) } else { (sum, size) };
                        // each addition errs by at most 2^-24 of the sum so far, a split product by four times that; matrix
                        // units also drop what lies below 2^-126
                        let bound = size * (k + 5) as f64 * 2f64.powi(-24) + 1e-34;
                        prop_assert!((found - sum).abs() <= bound, "{:?} {:?}: {} {}", level, products, found, sum);
                    }
                }
            }
        }

        #[test]
        fn a_new_matrix_is_written_whole(m in 1usize..70, n in 1usize..70, k in 0usize..70, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (a, b) = (values(&mut rng, m * k, false), values(&mut rng, n * k, false));
            let (a, b) = (Mat::new(&a, m, k, k), Mat::new(&b, k, n, n));
            let mut expected = vec![f32::NAN; m * n];
            let c = MatMut::new(&mut expected, m, n, n);
            matmul(c, a, b, Precision::F32, Write::Overwrite, Threads::Pool);
            prop_assert_eq!(matmul_new(a, b, Precision::F32), expected);
        }

        #[test]
        fn a_row_has_the_same_bits_alone_and_among_others(m in 2usize..60, n in 1usize..100, k in 1usize..900,
                                                          row: usize, bf16: bool, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (row, products) = (row % m, if bf16 { Precision::Bf16 } else { Precision::F32 });
            let (a, b) = (values(&mut rng, m * k, true), values(&mut rng, n * k, true));
            let b = Mat::new(&b, n, k, k).t();
            for level in levels() {
                let (mut all, mut alone) = (vec![0f32; m * n], vec![0f32; n]);
                let packed = Packed::right_in(b, Form::of(level, products, Threads::Pool), Threads::Caller);
                let a_row = Mat::new(&a[row * k..(row + 1) * k], 1, k, k);
                let a = Mat::new(&a, m, k, k);
                matmul_at(level, MatMut::new(&mut all, m, n, n), a, &packed, Write::Overwrite, Threads::Pool);
                matmul_at(level, MatMut::new(&mut alone, 1, n, n), a_row, &packed, Write::Overwrite, Threads::Caller);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&all[row * n..(row + 1) * n]), bits(&alone), "{:?} {:?}", level, products);
            }
        }
    }
}
