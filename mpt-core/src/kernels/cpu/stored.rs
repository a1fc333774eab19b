//! Products with a stored matrix: in integers where it lies in panels (`quant`), of factors rounded to bf16 where it lies in tiles;
//! else few rows go through `gemv`, which reads the weight once, and more through `gemm`, for which it is packed block by block.
//!
//! A row of the result has the same bits whatever the number of rows.

use std::ops::Range;

use rayon::prelude::*;

use super::dispatch::{Level, level};
use super::gemm::{Form, Mat, MatMut, Packed, Threads, Write, matmul, matmul_at, matmul_by_blocks};
use super::{gemv, quant};
use crate::dtype::Precision;
use crate::storage::StoredTensor;

/// Values of a block of the weight: split for the matrix unit they are 96 MiB. With half as many, products of f32 were 5 to 9 % slower.
const BLOCK_VALUES: usize = 1 << 24;

/// Rows of a block at least, so that threads share it.
const BLOCK_ROWS: usize = 256;

/// Values of a panel, 4 MiB of f32.
const PANEL_VALUES: usize = 1 << 20;

/// Rows of a panel of a matrix whose rows have `len` values.
fn panel_rows(len: usize) -> usize {
    (PANEL_VALUES / len.max(1)).clamp(8, 256)
}

/// `y = x W^T` for `x` `[m, k]` and `weight` `[n, k]`; `y` `[m, n]` is row-major.
///
/// A row of `y` depends on the same row of `x` alone, to the last bit.
pub(crate) fn times_transposed(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    times_transposed_at(level(), y, x, weight);
}

fn times_transposed_at(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let (n, k) = (weight.num_rows(), weight.row_len());
    let m = x.len() / k;
    if let Some(panels) = weight.panels() {
        return quant::times_transposed(level, y, x, &panels);
    }
    if let Some(tiles) = weight.tiles() {
        let y = MatMut::new(y, m, n, n);
        return matmul_at(level, y, Mat::new(x, m, k, k), &tiles, Write::Overwrite, Threads::Pool);
    }
    if y.is_empty() {
        return;
    }
    if m <= gemv::most_rows(level) {
        return gemv::times_transposed(level, y, x, weight);
    }
    let form = Form::of(level, Precision::F32, Threads::Pool);
    let block = (BLOCK_VALUES / k).max(BLOCK_ROWS);
    let (y, x) = (MatMut::new(y, m, n, n), Mat::new(x, m, k, k));
    matmul_by_blocks(level, y, x, form, block, |rows| packed(weight, rows, form));
}

/// Some rows of a weight as columns of a right operand.
fn packed(weight: &StoredTensor, rows: Range<usize>, form: Form) -> Packed<'static> {
    let k = weight.row_len();
    if let Some(values) = weight.as_f32s() {
        let columns = Mat::new(&values[rows.start * k..rows.end * k], rows.len(), k, k);
        return Packed::right_in(columns.t(), form, Threads::Pool);
    }
    let read = |part: Range<usize>, out: &mut [f32]| {
        weight.widen_rows(rows.start + part.start..rows.start + part.end, out);
    };
    Packed::right_of_columns(rows.len(), k, form, read)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::WeightDtype;
    use crate::kernels::cpu::dispatch::levels;
    use crate::rng::CounterRng;
    use crate::testing::largest;
    use proptest::prelude::*;

    /// Every form in the order of files, those with an order of their own in that too.
    const FORMATS: [WeightDtype; 9] = [
        WeightDtype::F32,
        WeightDtype::F16,
        WeightDtype::BF16,
        WeightDtype::Q8_0,
        WeightDtype::Q4_0,
        WeightDtype::Q4K,
        WeightDtype::Q5K,
        WeightDtype::Q6K,
        WeightDtype::Nf4,
    ];

    fn weight(values: &[f32], shape: [usize; 2], format: WeightDtype, reordered: bool) -> StoredTensor {
        let weight = StoredTensor::from_f32(values, &shape, format).unwrap();
        if reordered { weight.in_panels().unwrap().in_tiles().unwrap() } else { weight }
    }

    fn product(level: Level, x: &[f32], weight: &StoredTensor) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.row_len() * weight.num_rows()];
        times_transposed_at(level, &mut y, x, weight);
        y
    }

    /// The bits of values, one pattern for all that are no numbers.
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
        /// The reference adds up in f64. Each addition of f32 errs by at most 2^-24 of the sum so far, a split product by four
        /// times that; quantized weights meet `x` rounded to 8 bits, a 254th of the largest value of a group.
        #[test]
        fn a_row_has_the_same_bits_in_every_company_and_they_are_near(
            form in 0usize..9, reordered: bool, n in 1usize..150, len in 1usize..1500, m in 1usize..40, seed: u64
        ) {
            let format = FORMATS[form];
            let k = len.next_multiple_of(format.block_len());
            let mut rng = CounterRng::new(seed, 0);
            let weight = weight(&values(&mut rng, n * k), [n, k], format, reordered);
            let x = values(&mut rng, m * k);
            let mut wide = vec![0f32; n * k];
            (0..n).zip(wide.chunks_exact_mut(k)).for_each(|(row, wide)| weight.widen_rows(row..row + 1, wide));
            for level in levels() {
                let all = product(level, &x, &weight);
                prop_assert_eq!(bits(&all), bits(&alone(1, || product(level, &x, &weight))), "{} {:?}", format, level);
                for (i, (x, y)) in x.chunks_exact(k).zip(all.chunks_exact(n)).enumerate() {
                    prop_assert_eq!(bits(y), bits(&product(level, x, &weight)), "{} {:?}: row {}", format, level, i);
                    check_near(y, x, &wide, &weight)?;
                }
                let some = m.min(1 + seed as usize % 20);
                prop_assert_eq!(bits(&all[..some * n]), bits(&product(level, &x[..some * k], &weight)), "{} {:?}: {} rows", format, level, some);
            }
        }

        #[test]
        fn gradients_of_inputs_are_near(
            form in 0usize..9, reordered: bool, n in 1usize..600, len in 1usize..300, m in 1usize..20, seed: u64
        ) {
            let format = FORMATS[form];
            let k = len.next_multiple_of(format.block_len());
            let mut rng = CounterRng::new(seed, 0);
            let weight = weight(&values(&mut rng, n * k), [n, k], format, reordered);
            let dy = values(&mut rng, m * n);
            let (mut wide, mut dx) = (vec![0f32; n * k], vec![f32::NAN; m * k]);
            (0..n).zip(wide.chunks_exact_mut(k)).for_each(|(row, wide)| weight.widen_rows(row..row + 1, wide));
            times(&mut dx, &dy, &weight);
            prop_assert_eq!(bits(&dx), bits(&alone(1, || {
                let mut dx = vec![f32::NAN; m * k];
                times(&mut dx, &dy, &weight);
                dx
            })));
            for (dy, dx) in dy.chunks_exact(n).zip(dx.chunks_exact(k)) {
                for (j, &found) in dx.iter().enumerate() {
                    let (sum, size) = sum(dy.iter().enumerate().map(|(i, &dy)| (dy, wide[i * k + j])));
                    let bound = size * (n + 5) as f64 * 2f64.powi(-24) + 1e-34;
                    prop_assert!((f64::from(found) - sum).abs() <= bound, "{}: {} {}", format, found, sum);
                }
            }
        }
    }

    /// The sum of products, and of their absolute values.
    fn sum(factors: impl Iterator<Item = (f32, f32)>) -> (f64, f64) {
        let terms = factors.map(|(a, b)| f64::from(a) * f64::from(b));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    }

    fn check_near(y: &[f32], x: &[f32], wide: &[f32], weight: &StoredTensor) -> Result<(), TestCaseError> {
        let k = x.len();
        let round = |x: f32| if weight.tiles().is_some() { half::bf16::from_f32(x).to_f32() } else { x };
        let top = largest(x.iter().copied());
        for (&found, row) in y.iter().zip(wide.chunks_exact(k)) {
            let (sum, size) = sum(x.iter().zip(row).map(|(&x, &w)| (round(x), w)));
            let rounding = if weight.panels().is_some() {
                row.iter().map(|w| f64::from(w.abs())).sum::<f64>() * top / 250.0
            } else {
                0.0
            };
            let bound = size * (k + 5) as f64 * 2f64.powi(-24) + rounding + 1e-34;
            prop_assert!((f64::from(found) - sum).abs() <= bound, "{:?}: {} {}", weight, found, sum);
        }
        Ok(())
    }

    /// Infinities in the weight or in `x` give the same in every company too.
    #[test]
    fn what_is_no_number_is_none_in_every_company() {
        let (n, k, m) = (37, 70, 20);
        for format in [WeightDtype::F32, WeightDtype::F16, WeightDtype::BF16] {
            let mut rng = CounterRng::new(7, 0);
            let mut weights = values(&mut rng, n * k);
            let mut x = values(&mut rng, m * k);
            (weights[3 * k + 5], weights[20 * k + 69], x[2 * k + 1], x[5 * k]) =
                (f32::INFINITY, f32::NAN, f32::NEG_INFINITY, f32::NAN);
            let weight = weight(&weights, [n, k], format, false);
            for level in levels() {
                let all = product(level, &x, &weight);
                assert!(all[20].is_nan() && all[5 * n].is_nan() && !all[2 * n + 1].is_finite());
                for (x, y) in x.chunks_exact(k).zip(all.chunks_exact(n)) {
                    assert_eq!(bits(y), bits(&product(level, x, &weight)), "{format} {level:?}");
                }
            }
        }
    }
}
