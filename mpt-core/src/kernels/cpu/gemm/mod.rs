//! Matrix products of strided f32 views (GEMM), with factors in f32 or rounded to bf16 and sums in f32.
//!
//! As in BLIS: operands are packed into panels of tiles (`pack`), the product is blocked into tasks (`blocking`), a task loops
//! over its block of C (`macro_kernel`), and the innermost loops are those of an instruction set (`micro_kernel`). An operand
//! of several products is packed once ([`PackedMatrix`]). Products with weights in other dtypes are `linear`.

mod blocking;
mod macro_kernel;
mod mat;
mod micro_kernel;
mod pack;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(crate) use macro_kernel::amx::bf16x3_kc_steps;
pub(crate) use mat::{MatMut, MatRef};
pub(crate) use micro_kernel::mul_add;
#[cfg(target_arch = "x86_64")]
pub(crate) use pack::transpose_16x16;
pub(crate) use pack::{
    PackFormat, PackedMatrix, TILE_DIM, Tile, bf16_tiles, pack_b_panel_bf16, unpack_bf16_column,
};

use crate::dtype::Precision;

use super::dispatch::{Level, level};

/// Factor of C in `C = A B + beta C`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beta {
    /// C is overwritten and may hold anything.
    Zero,
    /// The product is added to C.
    One,
}

/// Threads of a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parallelism {
    /// The calling thread alone, for products inside a parallel loop.
    Serial,
    /// All threads of the pool.
    Pool,
}

/// `C = A B + beta C`.
///
/// `a` `[m, k]`, `b` `[k, n]`, `c` `[m, n]`. Each element is a sum in the order of the inner dimension; other rows and columns
/// and the number of threads do not change its bits.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul(
    c: MatMut<'_>,
    a: MatRef<'_>,
    b: MatRef<'_>,
    precision: Precision,
    beta: Beta,
    parallelism: Parallelism,
) {
    assert_eq!((c.rows, c.cols, a.cols), (a.rows, b.cols, b.rows), "shapes of a matrix product disagree");
    let b = PackedMatrix::pack_b_as(b, PackFormat::for_level(level(), precision, parallelism), parallelism);
    matmul_at_level(level(), c, a, &b, beta, parallelism);
}

/// `A B` in a new row-major vector, on all threads.
///
/// # Panics
/// When the shapes of `a` `[m, k]` and `b` `[k, n]` disagree.
pub(crate) fn matmul_new(a: MatRef<'_>, b: MatRef<'_>, precision: Precision) -> Vec<f32> {
    let (rows, cols) = (a.rows, b.cols);
    let mut out = Vec::with_capacity(rows * cols);
    let c = MatMut::from_uninit(&mut out.spare_capacity_mut()[..rows * cols], rows, cols);
    matmul(c, a, b, precision, Beta::Zero, Parallelism::Pool);
    #[expect(unsafe_code, reason = "zeroing a vector that is written whole costs a pass over memory")]
    // SAFETY: the capacity is at least `rows * cols`, and the product wrote every element.
    unsafe {
        out.set_len(rows * cols);
    }
    out
}

/// [`matmul`] on all threads with B packed before; factors are rounded as B was.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul_packed(c: MatMut<'_>, a: MatRef<'_>, b: &PackedMatrix<'_>, beta: Beta) {
    matmul_at_level(level(), c, a, b, beta, Parallelism::Pool);
}

/// [`matmul_packed`] with the kernels of `level`.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul_at_level(
    level: Level,
    c: MatMut<'_>,
    a: MatRef<'_>,
    b: &PackedMatrix<'_>,
    beta: Beta,
    parallelism: Parallelism,
) {
    assert_eq!((c.rows, c.cols, a.cols), (a.rows, b.rows(), b.k()), "shapes of a matrix product disagree");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if beta == Beta::Zero {
            c.fill_zero();
        }
        return;
    }
    let a = PackedMatrix::pack_a_as(a, b.format(), parallelism);
    blocking::gemm(c, &a, b, micro_kernel::select(level, b.format()), beta, parallelism);
}

/// `C = A B` on all threads with the kernels of `level`, for a B that is packed one block of columns at a time: `pack_b` gives
/// the columns of a range in `format`, at most `block` of them.
///
/// # Panics
/// When the shapes of `a` `[m, k]`, a block of B and `c` `[m, n]` disagree.
pub(crate) fn matmul_in_column_blocks<'b>(
    level: Level,
    mut c: MatMut<'_>,
    a: MatRef<'_>,
    format: PackFormat,
    block: usize,
    pack_b: impl Fn(Range<usize>) -> PackedMatrix<'b>,
) {
    let (kernel, n) = (micro_kernel::select(level, format), c.cols);
    let packed_a = PackedMatrix::pack_a_as(a, format, Parallelism::Pool);
    for from in (0..n).step_by(block) {
        let cols = from..(from + block).min(n);
        let b = pack_b(cols.clone());
        let c = c.columns(cols);
        assert_eq!(
            (c.rows, c.cols, a.cols, format),
            (a.rows, b.rows(), b.k(), b.format()),
            "shapes of a matrix product disagree"
        );
        blocking::gemm(c, &packed_a, &b, kernel, Beta::Zero, Parallelism::Pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::dispatch::levels;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    /// Sum of the products and of their absolute values, in f64.
    fn reference(a: MatRef<'_>, b: MatRef<'_>, (i, j): (usize, usize), precision: Precision) -> (f64, f64) {
        let round = |x: f32| match precision {
            Precision::F32 => f64::from(x),
            Precision::Bf16 => half::bf16::from_f32(x).to_f64(),
        };
        let terms = (0..a.cols).map(|k| round(a.at(i, k)) * round(b.at(k, j)));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    /// Random values: one in eight is zero or tiny, or huge if `wide`, without overflow of products.
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
        fn every_level_agrees_with_the_sum_in_f64(m in 1usize..70, n in 1usize..110, k in 0usize..1100, pad in 0usize..5,
                                                 ta: bool, tb: bool, add: bool, pooled: bool, bf16: bool, wide: bool, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (a_rows, a_cols) = if ta { (k, m) } else { (m, k) };
            let (b_rows, b_cols) = if tb { (n, k) } else { (k, n) };
            let a = values(&mut rng, a_rows * (a_cols + pad), wide);
            let b = values(&mut rng, b_rows * (b_cols + pad), wide);
            let before = values(&mut rng, m * (n + pad), wide);
            let (a, b) = (MatRef::new(&a, a_rows, a_cols, a_cols + pad), MatRef::new(&b, b_rows, b_cols, b_cols + pad));
            let (a, b) = (if ta { a.t() } else { a }, if tb { b.t() } else { b });
            let beta = if add { Beta::One } else { Beta::Zero };
            let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
            let parallelism = if pooled { Parallelism::Pool } else { Parallelism::Serial };
            for level in levels() {
                let mut c = before.clone();
                let packed = PackedMatrix::pack_b_as(b, PackFormat::for_level(level, precision, parallelism), parallelism);
                matmul_at_level(level, MatMut::new(&mut c, m, n, n + pad), a, &packed, beta, parallelism);
                for i in 0..m {
                    for j in 0..n + pad {
                        let (found, old) = (f64::from(c[i * (n + pad) + j]), f64::from(before[i * (n + pad) + j]));
                        if j >= n {
                            prop_assert_eq!(found.to_bits(), old.to_bits(), "{:?}: beyond the result", level);
                            continue;
                        }
                        let (sum, size) = reference(a, b, (i, j), precision);
                        let (sum, size) = if add { (sum + old, size + old.abs()) } else { (sum, size) };
                        // each addition errs by at most 2^-24 of the sum so far, a split product by four times that; matrix
                        // units also flush values below 2^-126
                        let bound = size * (k + 5) as f64 * 2f64.powi(-24) + 1e-34;
                        prop_assert!((found - sum).abs() <= bound, "{:?} {:?}: {} {}", level, precision, found, sum);
                    }
                }
            }
        }

        #[test]
        fn a_new_matrix_is_written_whole(m in 1usize..70, n in 1usize..70, k in 0usize..70, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (a, b) = (values(&mut rng, m * k, false), values(&mut rng, n * k, false));
            let (a, b) = (MatRef::new(&a, m, k, k), MatRef::new(&b, k, n, n));
            let mut expected = vec![f32::NAN; m * n];
            let c = MatMut::new(&mut expected, m, n, n);
            matmul(c, a, b, Precision::F32, Beta::Zero, Parallelism::Pool);
            prop_assert_eq!(matmul_new(a, b, Precision::F32), expected);
        }

        #[test]
        fn a_row_has_the_same_bits_alone_and_among_others(m in 2usize..60, n in 1usize..100, k in 1usize..900,
                                                          row: usize, bf16: bool, seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (row, precision) = (row % m, if bf16 { Precision::Bf16 } else { Precision::F32 });
            let (a, b) = (values(&mut rng, m * k, true), values(&mut rng, n * k, true));
            let b = MatRef::new(&b, n, k, k).t();
            for level in levels() {
                let (mut all, mut alone) = (vec![0f32; m * n], vec![0f32; n]);
                let packed = PackedMatrix::pack_b_as(b, PackFormat::for_level(level, precision, Parallelism::Pool), Parallelism::Serial);
                let a_row = MatRef::new(&a[row * k..(row + 1) * k], 1, k, k);
                let a = MatRef::new(&a, m, k, k);
                matmul_at_level(level, MatMut::new(&mut all, m, n, n), a, &packed, Beta::Zero, Parallelism::Pool);
                matmul_at_level(level, MatMut::new(&mut alone, 1, n, n), a_row, &packed, Beta::Zero, Parallelism::Serial);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&all[row * n..(row + 1) * n]), bits(&alone), "{:?} {:?}", level, precision);
            }
        }
    }
}
