//! Products of a few rows with a stored weight, as decoding has them (GEMV and small batches of it).
//!
//! The weight is read from memory once and not packed. Each element has the bits that `gemm` gives it: on vector units one sum
//! in the order of the inner dimension, on the matrix unit (`amx`) the same products of bf16 parts in the same KC blocks.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use rayon::prelude::*;

use super::dequantize::dequantize;
use super::dispatch::Level;
use super::gemm::TILE_DIM;
use super::pool;
use super::scratch::Scratch;
use crate::storage::StoredTensor;

/// Rows of the weight of a task.
const TASK_ROWS: usize = 4 * TILE_DIM;

/// Values of each of 16 rows converted to f32 at once: 32 KiB, which the first-level cache holds beside `x`.
const K_BLOCK: usize = 512;

/// Rows of `x` whose accumulators fit vector registers.
const VECTOR_ROWS: usize = 4;

/// Rows of `x` that [`matmul_nt`] takes at most at `level`.
pub(crate) fn max_rows(level: Level) -> usize {
    if level == Level::Amx { TILE_DIM } else { VECTOR_ROWS }
}

/// `y = x W^T` for `x` `[m, k]`, `weight` `[n, k]` in row-major layout and `y` `[m, n]`; `m` is at most [`max_rows`].
///
/// # Panics
/// When `x` has more rows.
pub(crate) fn matmul_nt(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let m = x.len() / weight.row_len();
    assert!(m <= max_rows(level), "more rows than there are accumulators for");
    let mut transposed = Scratch::take(y.len(), 0f32);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx => amx::gemv(&mut transposed, x, weight),
        _ => gemv(level, &mut transposed, x, weight),
    }
    if m == 1 { y.copy_from_slice(&transposed) } else { transpose(y, &transposed, m) }
}

/// Transposes `transposed` `[n, m]` into `y` `[m, n]`.
fn transpose(y: &mut [f32], transposed: &[f32], m: usize) {
    let n = transposed.len() / m;
    y.par_chunks_exact_mut(n).enumerate().for_each(|(row, y)| {
        for (y, column) in y.iter_mut().zip(transposed.chunks_exact(m)) {
            *y = column[row];
        }
    });
}

/// Rows padded with zeros to a multiple of [`TILE_DIM`] values.
struct PaddedRows {
    values: Vec<f32>,
    rows: usize,
}

impl PaddedRows {
    fn new(x: &[f32], rows: usize) -> Self {
        let k = x.len() / rows;
        let padded = k.next_multiple_of(TILE_DIM);
        let mut values = vec![0f32; rows * padded];
        for (to, from) in values.chunks_exact_mut(padded).zip(x.chunks_exact(k)) {
            to[..k].copy_from_slice(from);
        }
        Self { values, rows }
    }

    /// Values `from..from + len` of row `i`.
    fn slice(&self, i: usize, from: usize, len: usize) -> &[f32] {
        &self.values[self.values.len() / self.rows * i + from..][..len]
    }
}

/// `y = W x^T` on vector units, for `x` `[m, k]` and `y` `[n, m]`.
fn gemv(level: Level, y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let k = weight.row_len();
    let m = x.len() / k;
    let x = PaddedRows::new(x, m);
    pool::run_chunks(y, TASK_ROWS * m, |task, y| {
        let mut buffer = Scratch::take(TILE_DIM * K_BLOCK, 0f32);
        for (panel, y) in y.chunks_mut(TILE_DIM * m).enumerate() {
            let first = task * TASK_ROWS + panel * TILE_DIM;
            let mut acc = [[0f32; TILE_DIM]; VECTOR_ROWS];
            for from in (0..k).step_by(K_BLOCK) {
                let rows = load_panel(weight, first, y.len() / m, from, &mut buffer);
                accumulate(level, &mut acc[..m], &x, from, &rows);
            }
            for (lane, y) in y.chunks_exact_mut(m).enumerate() {
                y.iter_mut().zip(&acc).for_each(|(y, acc)| *y = acc[lane]);
            }
        }
    });
}

/// Values `from .. from + K_BLOCK` of the 16 rows from `first` on, padded with zeros to a multiple of [`TILE_DIM`].
///
/// They lie in the weight itself where it is f32, else in `buffer`. When only `rows` of the 16 exist, the last one stands for
/// the others.
fn load_panel<'a>(
    weight: &'a StoredTensor,
    first: usize,
    rows: usize,
    from: usize,
    buffer: &'a mut [f32],
) -> [&'a [f32]; TILE_DIM] {
    let (k, dtype) = (weight.row_len(), weight.dtype());
    let len = K_BLOCK.min(k - from);
    if let Some(values) = weight.as_f32s()
        && len.is_multiple_of(TILE_DIM)
    {
        return std::array::from_fn(|i| &values[(first + i.min(rows - 1)) * k + from..][..len]);
    }
    let padded = len.next_multiple_of(TILE_DIM);
    let bytes = |values: usize| values / dtype.block_len() * dtype.block_bytes();
    for (i, buffer) in buffer.chunks_exact_mut(padded).take(rows).enumerate() {
        let row = weight.row_range(first + i..first + i + 1);
        dequantize(dtype, &row[bytes(from)..bytes(from + len)], &mut buffer[..len]);
        buffer[len..].fill(0.0);
    }
    let buffer = &*buffer;
    std::array::from_fn(|i| &buffer[i.min(rows - 1) * padded..][..padded])
}

/// Adds to `acc[i]` the products of row `i` of `x`, from value `from` on, with each of `rows`.
fn accumulate(
    level: Level,
    acc: &mut [[f32; TILE_DIM]],
    x: &PaddedRows,
    from: usize,
    rows: &[&[f32]; TILE_DIM],
) {
    match acc.len() {
        1 => accumulate_rows::<1>(level, acc, x, from, rows),
        2 => accumulate_rows::<2>(level, acc, x, from, rows),
        3 => accumulate_rows::<3>(level, acc, x, from, rows),
        _ => accumulate_rows::<VECTOR_ROWS>(level, acc, x, from, rows),
    }
}

/// [`accumulate`] for M rows, with the kernel of `level`.
fn accumulate_rows<const M: usize>(
    level: Level,
    acc: &mut [[f32; TILE_DIM]],
    x: &PaddedRows,
    from: usize,
    rows: &[&[f32]; TILE_DIM],
) {
    let acc: &mut [[f32; TILE_DIM]; M] = acc.try_into().expect("accumulators for every row");
    let len = rows[0].len();
    let x: [&[f32]; M] = std::array::from_fn(|i| x.slice(i, from, len));
    assert!(
        len.is_multiple_of(TILE_DIM) && rows.iter().all(|row| row.len() == len),
        "rows have one length, a multiple of 16"
    );
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Amx | Level::Avx512Bf16 | Level::Avx512 => {
            #[expect(unsafe_code, reason = "the call needs features and lengths that were checked")]
            // SAFETY: the processor has the level; all rows have one length, a multiple of 16.
            unsafe {
                avx512::accumulate_rows(acc, x, rows);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            #[expect(unsafe_code, reason = "the call needs features and lengths that were checked")]
            // SAFETY: the processor has the level; all rows have one length, a multiple of 16.
            unsafe {
                avx2::accumulate_rows(acc, x, rows);
            }
        }
        _ => scalar::accumulate_rows(acc, x, rows),
    }
}
