//! Linear maps by a stored weight of any dtype and layout, forward and for the gradient of the input.
//!
//! The weight decides the kernel: int8 products (`quant`) for int8 panels, bf16 products (`gemm`) for bf16 tiles. A row-major
//! weight goes through `gemv` for a few rows of `x`, and through `gemm`, packed block by block, for more. A row of the result has
//! the same bits whatever the number of rows.

use std::ops::Range;

use rayon::prelude::*;

use super::dispatch::{Level, level};
use super::gemm::{
    Beta, MatMut, MatRef, PackFormat, PackedMatrix, Parallelism, matmul, matmul_at_level,
    matmul_in_column_blocks,
};
use super::{gemv, quant};
use crate::dtype::Precision;
use crate::storage::StoredTensor;

/// Values of a block of the weight: packed for the matrix unit they are 96 MiB. At half the size, f32 products were 5 to 9 %
/// slower.
const BLOCK_VALUES: usize = 1 << 24;

/// Rows of a block at least, so that all threads have work.
const BLOCK_ROWS: usize = 256;

/// Values of a dequantized block in [`backward_input`]: 4 MiB of f32.
const BACKWARD_BLOCK_VALUES: usize = 1 << 20;

/// Rows of a dequantized block for rows of `len` values.
fn backward_block_rows(len: usize) -> usize {
    (BACKWARD_BLOCK_VALUES / len.max(1)).clamp(8, 256)
}

/// `y = x W^T` for `x` `[m, k]`, `weight` `[n, k]` and `y` `[m, n]`, row-major.
///
/// The bits of a row of `y` depend on that row of `x` alone.
pub(crate) fn forward(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    forward_at_level(level(), y, x, weight);
}

/// [`forward`] with the kernels of `level`.
fn forward_at_level(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = x.len() / k;
    if let Some(panels) = weight.int8_panels() {
        return quant::matmul_nt(level, y, x, &panels);
    }
    if let Some(packed) = weight.bf16_tiles() {
        let y = MatMut::new(y, m, n, n);
        return matmul_at_level(level, y, MatRef::new(x, m, k, k), &packed, Beta::Zero, Parallelism::Pool);
    }
    if y.is_empty() {
        return;
    }
    if m <= gemv::max_rows(level) {
        return gemv::matmul_nt(level, y, x, weight);
    }
    let format = PackFormat::for_level(level, Precision::F32, Parallelism::Pool);
    let block = (BLOCK_VALUES / k).max(BLOCK_ROWS);
    let (y, x) = (MatMut::new(y, m, n, n), MatRef::new(x, m, k, k));
    matmul_in_column_blocks(level, y, x, format, block, |rows| pack_rows(weight, rows, format));
}

/// Packs the rows `rows` of a weight as columns of B.
fn pack_rows(weight: &StoredTensor, rows: Range<usize>, format: PackFormat) -> PackedMatrix<'static> {
    let k = weight.row_len();
    if let Some(values) = weight.as_f32s() {
        let columns = MatRef::new(&values[rows.start * k..rows.end * k], rows.len(), k, k);
        return PackedMatrix::pack_b_as(columns.t(), format, Parallelism::Pool);
    }
    let read = |part: Range<usize>, out: &mut [f32]| {
        weight.dequantize_rows(rows.start + part.start..rows.start + part.end, out);
    };
    PackedMatrix::pack_b_columns(rows.len(), k, format, read)
}

/// `dx = dy W` for `dy` `[m, n]`, `weight` `[n, k]` and `dx` `[m, k]`, row-major. Blocks of the weight add up in order.
pub(crate) fn backward_input(dx: &mut [f32], dy: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = dy.len() / n;
    if let Some(values) = weight.as_f32s() {
        let (dy, weight) = (MatRef::new(dy, m, n, n), MatRef::new(values, n, k, k));
        return matmul(MatMut::new(dx, m, k, k), dy, weight, Precision::F32, Beta::Zero, Parallelism::Pool);
    }
    let rows = backward_block_rows(k);
    let mut block = vec![0f32; rows * k];
    for from in (0..n).step_by(rows) {
        let rows = from..(from + rows).min(n);
        let block = &mut block[..rows.len() * k];
        block
            .par_chunks_mut(k)
            .enumerate()
            .for_each(|(i, out)| weight.dequantize_rows(rows.start + i..rows.start + i + 1, out));
        let d_rows = MatRef::new(&dy[rows.start..], m, rows.len(), n);
        let beta = if from == 0 { Beta::Zero } else { Beta::One };
        matmul(
            MatMut::new(dx, m, k, k),
            d_rows,
            MatRef::new(block, rows.len(), k, k),
            Precision::F32,
            beta,
            Parallelism::Pool,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::WeightDtype;
    use crate::kernels::cpu::dispatch::levels;
    use crate::rng::CounterRng;
    use crate::testing::largest;
    use proptest::prelude::*;

    /// Every dtype.
    const DTYPES: [WeightDtype; 9] = WeightDtype::ALL;

    fn weight(values: &[f32], shape: [usize; 2], dtype: WeightDtype, prepacked: bool) -> StoredTensor {
        let weight = StoredTensor::from_f32(values, &shape, dtype).unwrap();
        if prepacked { weight.prepack_int8().unwrap().prepack_bf16().unwrap() } else { weight }
    }

    fn run_forward(level: Level, x: &[f32], weight: &StoredTensor) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.row_len() * weight.num_rows()];
        forward_at_level(level, &mut y, x, weight);
        y
    }

    /// Bits of values, with one pattern for every NaN.
    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
    }

    /// Normal values, one in eight of them tiny or zero.
    fn values(rng: &mut CounterRng, len: usize) -> Vec<f32> {
        let scales = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, -0.0, 1e-18, 1e-34, 1e-37, 1e-38, 1e-41, 1e-44];
        (0..len).map(|_| rng.normal() * scales[rng.bits() as usize % scales.len()]).collect()
    }

    fn alone(threads: usize, work: impl FnOnce() -> Vec<f32> + Send) -> Vec<f32> {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The reference sums in f64. Each addition of f32 errs by at most 2^-24 of the sum so far, a split product by four
        /// times that; quantized weights meet `x` rounded to 8 bits, a 254th of the largest value of a group.
        #[test]
        fn a_row_has_the_same_bits_in_every_batch_and_is_near_the_sum_in_f64(
            index in 0usize..9, prepacked: bool, n in 1usize..150, len in 1usize..1500, m in 1usize..40, seed: u64
        ) {
            let dtype = DTYPES[index];
            let k = len.next_multiple_of(dtype.block_len());
            let mut rng = CounterRng::new(seed, 0);
            let weight = weight(&values(&mut rng, n * k), [n, k], dtype, prepacked);
            let x = values(&mut rng, m * k);
            let mut dense = vec![0f32; n * k];
            (0..n).zip(dense.chunks_exact_mut(k)).for_each(|(row, dense)| weight.dequantize_rows(row..row + 1, dense));
            for level in levels() {
                let all = run_forward(level, &x, &weight);
                prop_assert_eq!(bits(&all), bits(&alone(1, || run_forward(level, &x, &weight))), "{} {:?}", dtype, level);
                for (i, (x, y)) in x.chunks_exact(k).zip(all.chunks_exact(n)).enumerate() {
                    prop_assert_eq!(bits(y), bits(&run_forward(level, x, &weight)), "{} {:?}: row {}", dtype, level, i);
                    check_near(y, x, &dense, &weight)?;
                }
                let some = m.min(1 + seed as usize % 20);
                prop_assert_eq!(bits(&all[..some * n]), bits(&run_forward(level, &x[..some * k], &weight)), "{} {:?}: {} rows", dtype, level, some);
            }
        }

        #[test]
        fn gradients_of_inputs_are_near_the_sum_in_f64(
            index in 0usize..9, prepacked: bool, n in 1usize..600, len in 1usize..300, m in 1usize..20, seed: u64
        ) {
            let dtype = DTYPES[index];
            let k = len.next_multiple_of(dtype.block_len());
            let mut rng = CounterRng::new(seed, 0);
            let weight = weight(&values(&mut rng, n * k), [n, k], dtype, prepacked);
            let dy = values(&mut rng, m * n);
            let (mut dense, mut dx) = (vec![0f32; n * k], vec![f32::NAN; m * k]);
            (0..n).zip(dense.chunks_exact_mut(k)).for_each(|(row, dense)| weight.dequantize_rows(row..row + 1, dense));
            backward_input(&mut dx, &dy, &weight);
            prop_assert_eq!(bits(&dx), bits(&alone(1, || {
                let mut dx = vec![f32::NAN; m * k];
                backward_input(&mut dx, &dy, &weight);
                dx
            })));
            for (dy, dx) in dy.chunks_exact(n).zip(dx.chunks_exact(k)) {
                for (j, &found) in dx.iter().enumerate() {
                    let (sum, size) = sum(dy.iter().enumerate().map(|(i, &dy)| (dy, dense[i * k + j])));
                    let bound = size * (n + 5) as f64 * 2f64.powi(-24) + 1e-34;
                    prop_assert!((f64::from(found) - sum).abs() <= bound, "{}: {} {}", dtype, found, sum);
                }
            }
        }
    }

    /// Sum of products and of their absolute values.
    fn sum(factors: impl Iterator<Item = (f32, f32)>) -> (f64, f64) {
        let terms = factors.map(|(a, b)| f64::from(a) * f64::from(b));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    fn check_near(y: &[f32], x: &[f32], dense: &[f32], weight: &StoredTensor) -> Result<(), TestCaseError> {
        let k = x.len();
        let round = |x: f32| if weight.bf16_tiles().is_some() { half::bf16::from_f32(x).to_f32() } else { x };
        let top = largest(x.iter().copied());
        for (&found, row) in y.iter().zip(dense.chunks_exact(k)) {
            let (sum, size) = sum(x.iter().zip(row).map(|(&x, &w)| (round(x), w)));
            let rounding = if weight.int8_panels().is_some() {
                row.iter().map(|w| f64::from(w.abs())).sum::<f64>() * top / 250.0
            } else {
                0.0
            };
            let bound = size * (k + 5) as f64 * 2f64.powi(-24) + rounding + 1e-34;
            prop_assert!((f64::from(found) - sum).abs() <= bound, "{:?}: {} {}", weight, found, sum);
        }
        Ok(())
    }

    /// Infinities and NaN in the weight or in `x` give the same bits in every batch too.
    #[test]
    fn infinities_and_nan_are_the_same_in_every_batch() {
        let (n, k, m) = (37, 70, 20);
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::BF16] {
            let mut rng = CounterRng::new(7, 0);
            let mut weights = values(&mut rng, n * k);
            let mut x = values(&mut rng, m * k);
            (weights[3 * k + 5], weights[20 * k + 69], x[2 * k + 1], x[5 * k]) =
                (f32::INFINITY, f32::NAN, f32::NEG_INFINITY, f32::NAN);
            let weight = weight(&weights, [n, k], dtype, false);
            for level in levels() {
                let all = run_forward(level, &x, &weight);
                assert!(all[20].is_nan() && all[5 * n].is_nan() && !all[2 * n + 1].is_finite());
                for (x, y) in x.chunks_exact(k).zip(all.chunks_exact(n)) {
                    assert_eq!(bits(y), bits(&run_forward(level, x, &weight)), "{dtype} {level:?}");
                }
            }
        }
    }
}
