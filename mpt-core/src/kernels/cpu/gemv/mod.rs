//! Products of few rows with a stored matrix, which read the matrix from memory once and keep nothing of it.
//!
//! Every element has the bits that a matrix product of many rows (`gemm`) gives it: with vectors it is one sum in the order of
//! the inner dimension, with the matrix unit (`amx`) it adds the same products of bf16 parts up in the same chunks.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

use rayon::prelude::*;

use super::dispatch::Level;
use super::gemm::SIDE;
use super::pool;
use super::scratch::Scratch;
use super::widen::widen;
use crate::storage::StoredTensor;

/// Rows of the weight of one task.
const TASK_ROWS: usize = 4 * SIDE;

/// Values of each of 16 rows that are widened at once: 32 KiB of f32, which the first-level cache holds beside `x`.
const PIECE: usize = 512;

/// Rows of `x` whose sums vectors hold.
const VECTOR_ROWS: usize = 4;

/// Rows of `x` that [`times_transposed`] takes at most.
pub(crate) fn most_rows(level: Level) -> usize {
    if level == Level::Amx { SIDE } else { VECTOR_ROWS }
}

/// `y = x W^T` for `x` `[m, k]` with `m` at most [`most_rows`] and `weight` `[n, k]` in rows; `y` `[m, n]` is row-major.
pub(crate) fn times_transposed(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let m = x.len() / weight.row_len();
    assert!(m <= most_rows(level), "more rows than there are sums for");
    let mut transposed = Scratch::take(y.len(), 0f32);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx => amx::products(&mut transposed, x, weight),
        _ => products(level, &mut transposed, x, weight),
    }
    if m == 1 { y.copy_from_slice(&transposed) } else { transpose(y, &transposed, m) }
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

/// Rows of values, zeros after them up to a multiple of [`SIDE`].
struct Padded {
    values: Vec<f32>,
    rows: usize,
}

impl Padded {
    fn new(x: &[f32], rows: usize) -> Self {
        let k = x.len() / rows;
        let padded = k.next_multiple_of(SIDE);
        let mut values = vec![0f32; rows * padded];
        for (to, from) in values.chunks_exact_mut(padded).zip(x.chunks_exact(k)) {
            to[..k].copy_from_slice(from);
        }
        Self { values, rows }
    }

    /// The values `from..from + len` of row `i`.
    fn part(&self, i: usize, from: usize, len: usize) -> &[f32] {
        &self.values[self.values.len() / self.rows * i + from..][..len]
    }
}

/// `y` `[n, m]` = the products of the weight's rows with those of `x` `[m, k]`, with vectors.
fn products(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let k = weight.row_len();
    let m = x.len() / k;
    let x = Padded::new(x, m);
    pool::run_chunks(y, TASK_ROWS * m, |task, y| {
        let mut wide = Scratch::take(SIDE * PIECE, 0f32);
        for (panel, y) in y.chunks_mut(SIDE * m).enumerate() {
            let first = task * TASK_ROWS + panel * SIDE;
            let mut sums = [[0f32; SIDE]; VECTOR_ROWS];
            for from in (0..k).step_by(PIECE) {
                let rows = piece(weight, first, y.len() / m, from, &mut wide);
                add_products(level, &mut sums[..m], &x, from, &rows);
            }
            for (lane, y) in y.chunks_exact_mut(m).enumerate() {
                y.iter_mut().zip(&sums).for_each(|(y, sums)| *y = sums[lane]);
            }
        }
    });
}

/// Up to [`PIECE`] values from `from` on of the 16 rows from `first` on, padded with zeros to a multiple of [`SIDE`]. They lie in
/// the weight itself or in `wide`. Of the 16, `rows` exist; the last one stands for the others.
fn piece<'a>(
    weight: &'a StoredTensor,
    first: usize,
    rows: usize,
    from: usize,
    wide: &'a mut [f32],
) -> [&'a [f32]; SIDE] {
    let (k, format) = (weight.row_len(), weight.dtype());
    let len = PIECE.min(k - from);
    if let Some(values) = weight.as_f32s()
        && len.is_multiple_of(SIDE)
    {
        return std::array::from_fn(|i| &values[(first + i.min(rows - 1)) * k + from..][..len]);
    }
    let padded = len.next_multiple_of(SIDE);
    let bytes = |values: usize| values / format.block_len() * format.block_bytes();
    for (i, wide) in wide.chunks_exact_mut(padded).take(rows).enumerate() {
        let row = weight.row_range(first + i..first + i + 1);
        widen(format, &row[bytes(from)..bytes(from + len)], &mut wide[..len]);
        wide[len..].fill(0.0);
    }
    let wide = &*wide;
    std::array::from_fn(|i| &wide[i.min(rows - 1) * padded..][..padded])
}

/// Adds to `sums[i]` the products of row `i` of `x`, from value `from` on, with each of `rows`.
fn add_products(level: Level, sums: &mut [[f32; SIDE]], x: &Padded, from: usize, rows: &[&[f32]; SIDE]) {
    match sums.len() {
        1 => add::<1>(level, sums, x, from, rows),
        2 => add::<2>(level, sums, x, from, rows),
        3 => add::<3>(level, sums, x, from, rows),
        _ => add::<VECTOR_ROWS>(level, sums, x, from, rows),
    }
}

fn add<const M: usize>(
    level: Level,
    sums: &mut [[f32; SIDE]],
    x: &Padded,
    from: usize,
    rows: &[&[f32]; SIDE],
) {
    let sums: &mut [[f32; SIDE]; M] = sums.try_into().expect("a sum for every row");
    let len = rows[0].len();
    let x: [&[f32]; M] = std::array::from_fn(|i| x.part(i, from, len));
    assert!(len.is_multiple_of(SIDE) && rows.iter().all(|row| row.len() == len), "rows are whole and alike");
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx | Level::Avx512Bf16 | Level::Avx512 => {
            #[expect(unsafe_code, reason = "the call needs features and lengths that were checked")]
            // SAFETY: the processor has the level; all rows have one length, a multiple of 16.
            unsafe {
                avx512::add(sums, x, rows);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            #[expect(unsafe_code, reason = "the call needs features and lengths that were checked")]
            // SAFETY: the processor has the level; all rows have one length, a multiple of 16.
            unsafe {
                avx2::add(sums, x, rows);
            }
        }
        _ => plain::add(sums, x, rows),
    }
}
