//! GEMV on the matrix unit, for up to 16 rows of `x`.
//!
//! The operands are swapped: rows of the weight are rows of A, in their order in memory, and rows of `x` are columns of B. Weight
//! values are split into bf16 parts one pass ahead of their products, a few rows between two products, so that splitting and
//! multiplying overlap. Memory is prefetched one block of rows ahead. Each element adds up the products of parts in the order of
//! `gemm`'s BF16x3 micro-kernel, in the same KC blocks.

#![expect(unsafe_code, reason = "tile and vector instructions over memory whose bounds were checked")]

mod split;
mod tile_ops;

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use split::{SplitBf16, SplitF16, SplitF32, SplitNf4, SplitWeight};
use tile_ops::{
    load_x, mul_high_high, mul_high_low, mul_high_middle, mul_low_high, mul_middle_high, mul_middle_middle,
    store_acc, zero_acc,
};

use crate::dtype::WeightDtype;
use crate::kernels::cpu::amx::TileGuard;
use crate::kernels::cpu::gemm::{TILE_DIM, Tile, bf16x3_kc_steps};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;
use crate::storage::StoredTensor;

/// Panels of 16 rows of the weight with accumulators in tiles at once.
const PANELS: usize = 2;

/// Rows of the weight with accumulators in tiles at once.
const ROWS: usize = PANELS * TILE_DIM;

/// Values of a step.
const STEP: usize = 2 * TILE_DIM;

/// Steps of a pass: the parts of two passes stay in the first-level cache.
const PASS_STEPS: usize = 2;

/// Slices of a step: one is split into parts between two products.
const SLICES: usize = 8;

/// Rows of a slice.
const SLICE_ROWS: usize = ROWS / SLICES;

/// Largest block of rows, in bytes, that is prefetched whole while the block before it is multiplied: both fit the second-level
/// cache.
const MAX_PREFETCH_BLOCK: usize = 400 << 10;

/// Bytes from a load to the prefetch beside it, within a row of a larger block.
const PREFETCH_BYTES: usize = 1024;

/// Parts of one step of all panels: tiles `[row][word]`.
type StepParts = [[Tile; 3]; PANELS];

/// Parts of the steps of a pass.
type PassParts = [StepParts; PASS_STEPS];

/// `y = W x^T` for `x` `[m, k]` and `y` `[n, m]`; `m` is at most 16.
pub(super) fn gemv(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let m = x.len() / weight.row_len();
    let x = PackedX::new(x, m);
    let tasks = pool::guided_ranges(weight.num_rows().div_ceil(ROWS), 1, 1);
    pool::run_ranges(y, &tasks, ROWS * m, |task, y| {
        let _tiles = TileGuard::for_gemv(m);
        let mut buffers = [[[[Tile::ZERO; 3]; PANELS]; PASS_STEPS]; 2];
        let blocks = tasks[task].clone();
        for (block, y) in blocks.clone().zip(y.chunks_mut(ROWS * m)) {
            let rows = block * ROWS..block * ROWS + y.len() / m;
            multiply_rows(y, &x, weight, rows, block + 1 < blocks.end, &mut buffers);
        }
    });
}

/// `y` `[rows, m]`: the products of up to [`ROWS`] rows, with tiles configured.
///
/// `is_followed` says that as many rows lie behind them and are multiplied next.
fn multiply_rows(
    y: &mut [f32],
    x: &PackedX,
    weight: &StoredTensor,
    rows: Range<usize>,
    is_followed: bool,
    buffers: &mut [PassParts; 2],
) {
    match weight.dtype() {
        WeightDtype::F32 => multiply_bytes::<SplitF32>(y, x, weight.row_range(rows), is_followed, buffers),
        WeightDtype::F16 => multiply_bytes::<SplitF16>(y, x, weight.row_range(rows), is_followed, buffers),
        WeightDtype::BF16 => multiply_bytes::<SplitBf16>(y, x, weight.row_range(rows), is_followed, buffers),
        WeightDtype::Nf4 => multiply_bytes::<SplitNf4>(y, x, weight.row_range(rows), is_followed, buffers),
        _ => {
            let mut values = Scratch::take(rows.len() * x.k, 0f32);
            weight.dequantize_rows(rows, &mut values);
            multiply_bytes::<SplitF32>(y, x, bytemuck::cast_slice(&values), false, buffers);
        }
    }
}

/// [`multiply_rows`] for rows stored as `bytes` in the dtype of `P`.
fn multiply_bytes<P: SplitWeight>(
    y: &mut [f32],
    x: &PackedX,
    bytes: &[u8],
    is_followed: bool,
    buffers: &mut [PassParts; 2],
) {
    let rows = WeightRows::<P>::new(bytes, y.len() / x.m, x.k, is_followed);
    // SAFETY: tiles are configured, so this processor has the level of the matrix unit; rows are as long as those of `x`.
    unsafe { run_passes(y, x, &rows, buffers) };
}

/// Rows of `x` packed as columns of B: `[step][part][word][row of x]`.
struct PackedX {
    words: Vec<u32>,
    /// Rows of `x`.
    m: usize,
    /// Values of a row.
    k: usize,
}

impl PackedX {
    fn new(x: &[f32], m: usize) -> Self {
        let k = x.len() / m;
        let step_words = 3 * TILE_DIM * m;
        let mut words = vec![0; k.div_ceil(STEP) * step_words];
        for (column, x) in x.chunks_exact(k).enumerate() {
            for (values, words) in x.chunks(STEP).zip(words.chunks_exact_mut(step_words)) {
                let mut padded = [0f32; STEP];
                padded[..values.len()].copy_from_slice(values);
                // SAFETY: this module runs only at the level of the matrix unit, which has all of AVX-512.
                let parts = unsafe { split_values(&padded) };
                let slots = words[column..].iter_mut().step_by(m);
                slots.zip(parts.as_flattened()).for_each(|(slot, &word)| *slot = word);
            }
        }
        Self { words, m, k }
    }

    /// Steps of the inner dimension.
    fn steps(&self) -> usize {
        self.k.div_ceil(STEP)
    }

    /// Words of one step.
    fn step(&self, step: usize) -> &[u32] {
        let len = 3 * TILE_DIM * self.m;
        &self.words[step * len..][..len]
    }
}

/// Words of the three parts of 32 values.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn split_values(values: &[f32; STEP]) -> [[u32; TILE_DIM]; 3] {
    let mut parts = [[0; TILE_DIM]; 3];
    // SAFETY: as the caller promises; values are 128 bytes, a part is 64.
    unsafe {
        for (part, words) in parts.iter_mut().zip(SplitF32::row_words(values.as_ptr().cast(), 0)) {
            _mm512_storeu_si512(part.as_mut_ptr().cast(), words);
        }
    }
    parts
}

/// Rows of a weight, split into parts step by step.
struct WeightRows<P> {
    /// First byte of each row; the last row stands for missing ones.
    rows: [[*const u8; TILE_DIM]; PANELS],
    /// Whole steps of a row.
    whole_steps: usize,
    /// Partial last step of each row, padded with zeros; empty when there is none.
    edge: Vec<u8>,
    /// Bytes from a load to its prefetch.
    prefetch_offset: usize,
    dtype: PhantomData<P>,
}

impl<P: SplitWeight> WeightRows<P> {
    fn new(bytes: &[u8], count: usize, k: usize, is_followed: bool) -> Self {
        let len = bytes.len() / count;
        let row = |i: usize| &bytes[i.min(count - 1) * len..][..len];
        let whole_steps = k / STEP;
        let mut edge = Vec::new();
        if !k.is_multiple_of(STEP) {
            edge.resize(ROWS * P::STEP_BYTES, 0);
            for (i, edge) in edge.chunks_exact_mut(P::STEP_BYTES).enumerate() {
                let rest = &row(i)[P::offset(whole_steps)..];
                edge[..rest.len()].copy_from_slice(rest);
            }
        }
        let prefetch_offset = match ROWS * len {
            block if block > MAX_PREFETCH_BLOCK => PREFETCH_BYTES,
            block if is_followed => block,
            _ => 0,
        };
        let rows = std::array::from_fn(|panel| std::array::from_fn(|i| row(panel * TILE_DIM + i).as_ptr()));
        Self { rows, whole_steps, edge, prefetch_offset, dtype: PhantomData }
    }

    /// Splits one slice of step `index` of a pass: [`SLICE_ROWS`] rows, panel after panel.
    ///
    /// # Safety
    /// The processor has AVX-512 with BF16, and `steps` lie in the rows.
    #[inline(always)]
    unsafe fn split(&self, pass: &mut PassParts, steps: &Range<usize>, index: usize, slice: usize) {
        if index >= steps.len() {
            return;
        }
        let (panel, first) = (slice * SLICE_ROWS / TILE_DIM, slice * SLICE_ROWS % TILE_DIM);
        let (step, tiles) = (steps.start + index, &mut pass[index][panel]);
        for i in (first..first + SLICE_ROWS).step_by(2) {
            // SAFETY: the step lies in the rows, or in their padded edges.
            let words = unsafe { self.words(step, panel, i) };
            for (row, words) in words.iter().enumerate() {
                for (tile, &words) in tiles.iter_mut().zip(words).take(P::PARTS) {
                    // SAFETY: a row of a tile is 64 bytes, on a boundary of 64.
                    unsafe { _mm512_store_si512(tile.0[i + row].as_mut_ptr().cast(), words) };
                }
            }
        }
    }

    /// Splits all slices of step `index` of a pass.
    ///
    /// # Safety
    /// As for [`WeightRows::split`].
    #[inline(always)]
    unsafe fn split_all(&self, pass: &mut PassParts, steps: &Range<usize>, index: usize) {
        for slice in 0..SLICES {
            // SAFETY: as the caller promises.
            unsafe { self.split(pass, steps, index, slice) };
        }
    }

    /// Words of step `step` of the rows `i` and `i + 1` of a panel.
    ///
    /// # Safety
    /// As for [`WeightRows::split`].
    #[inline(always)]
    unsafe fn words(&self, step: usize, panel: usize, i: usize) -> [[__m512i; 3]; 2] {
        // SAFETY: as the caller promises; the edge of a row is padded to a step.
        unsafe {
            if step < self.whole_steps {
                let [first, second] = [self.rows[panel][i], self.rows[panel][i + 1]];
                P::prefetch(first.wrapping_add(self.prefetch_offset), step);
                P::prefetch(second.wrapping_add(self.prefetch_offset), step);
                P::words(first, second, step)
            } else {
                let edge = self.edge[(panel * TILE_DIM + i) * P::STEP_BYTES..][..2 * P::STEP_BYTES].as_ptr();
                P::words(edge, edge.add(P::STEP_BYTES), 0)
            }
        }
    }
}

/// Steps of the pass that begins at `from` and ends with its KC block at the latest; empty at the end.
fn pass_from(from: usize, all: usize, kc: usize) -> Range<usize> {
    from..(from + PASS_STEPS).min((from / kc + 1) * kc).min(all)
}

/// Computes `y` pass by pass: while one pass is multiplied, the next one is split into the other buffer.
///
/// # Safety
/// Tiles are configured, the processor has AVX-512 with BF16, and rows are as long as those of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn run_passes<P: SplitWeight>(
    y: &mut [f32],
    x: &PackedX,
    rows: &WeightRows<P>,
    buffers: &mut [PassParts; 2],
) {
    let all = x.steps();
    let kc = bf16x3_kc_steps(all);
    let [current, next] = buffers;
    let (mut current, mut next) = (current, next);
    let mut steps = pass_from(0, all, kc);
    // SAFETY: as the caller promises; all parts of a step are split before it is multiplied.
    unsafe {
        for index in 0..PASS_STEPS {
            rows.split_all(current, &steps, index);
        }
        while !steps.is_empty() {
            let following = pass_from(steps.end, all, kc);
            if steps.start.is_multiple_of(kc) {
                zero_acc();
            }
            for (index, parts) in current.iter().enumerate() {
                if index < steps.len() {
                    load_x(x.step(steps.start + index), x.m);
                    multiply_step(parts, rows, (&mut *next, &following, index));
                } else {
                    rows.split_all(next, &following, index);
                }
            }
            if steps.end.is_multiple_of(kc) || steps.end == all {
                store_acc(y, x.m, steps.end <= kc);
            }
            steps = following;
            std::mem::swap(&mut current, &mut next);
        }
    }
}

/// Adds the products of the parts of a step and those of `x`, and splits step `index` of the next pass meanwhile.
///
/// # Safety
/// As for [`run_passes`], with the parts of `x` loaded.
#[inline(always)]
unsafe fn multiply_step<P: SplitWeight>(
    parts: &StepParts,
    rows: &WeightRows<P>,
    (next, following, index): (&mut PassParts, &Range<usize>, usize),
) {
    // SAFETY: as the caller promises.
    unsafe {
        rows.split(next, following, index, 0);
        if P::PARTS == 3 {
            mul_low_high(parts);
        }
        rows.split(next, following, index, 1);
        mul_high_high(parts);
        rows.split(next, following, index, 2);
        mul_middle_high(parts);
        rows.split(next, following, index, 3);
        mul_middle_middle();
        rows.split(next, following, index, 4);
        rows.split(next, following, index, 5);
        mul_high_middle(parts);
        rows.split(next, following, index, 6);
        mul_high_low();
        rows.split(next, following, index, 7);
    }
}
