//! Products of up to 16 rows with the matrix unit.
//!
//! The roles are those of a matrix product the other way round: rows of the weight are rows of the left tiles, as they lie, rows
//! of `x` are columns of the right ones. Values of the weight are split into bf16 parts some steps ahead of their products, a few
//! rows between two products, so that splitting and multiplying overlap; what is read from memory was asked for one block of rows
//! ahead. Elements add up the products of parts in the order of [`split`](crate::kernels::cpu::gemm), in the same chunks.

#![expect(unsafe_code, reason = "tile and vector instructions over memory whose bounds were checked")]

mod parts;
mod tiles;

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use parts::{Bf16, F16, F32, Nf4, Parts};
use tiles::{
    clear_sums, finish, first_times_first, first_times_second, first_times_third, load_x, second_times_first,
    second_times_second, third_times_first,
};

use crate::dtype::WeightDtype;
use crate::kernels::cpu::amx::Tiles;
use crate::kernels::cpu::gemm::{SIDE, Tile, split_chunk_steps};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;
use crate::storage::StoredTensor;

/// Panels of 16 rows of the weight whose sums are in tiles at once.
const PANELS: usize = 2;

/// Rows of the weight whose sums are in tiles at once.
const ROWS: usize = PANELS * SIDE;

/// Values of a step.
const STEP: usize = 2 * SIDE;

/// Steps of a pass: those of two passes stay in the first-level cache.
const DEPTH: usize = 2;

/// Slices in which a step is split: as many rows as are split between two products.
const SLICES: usize = 8;

/// Rows of a slice.
const SLICE_ROWS: usize = ROWS / SLICES;

/// Bytes of the largest block of rows that is asked for as a whole while the one before it is multiplied: with that one it stays
/// in the second-level cache.
const BLOCK_BYTES: usize = 400 << 10;

/// Bytes that are asked for ahead in each row of a larger block.
const AHEAD: usize = 1024;

/// The parts of one step of all panels: tiles `[row][word]`.
type Step = [[Tile; 3]; PANELS];

/// The parts of the steps of a pass.
type Pass = [Step; DEPTH];

/// `y` `[n, m]` = the products of the weight's rows with those of `x` `[m, k]`, at most 16.
pub(super) fn products(y: &mut [f32], x: &[f32], weight: &StoredTensor) {
    let m = x.len() / weight.row_len();
    let x = Columns::new(x, m);
    let tasks = pool::shrinking(weight.num_rows().div_ceil(ROWS), 1, 1);
    pool::run_ranges(y, &tasks, ROWS * m, |task, y| {
        let _tiles = Tiles::of_columns(m);
        let mut room = [[[[Tile::ZERO; 3]; PANELS]; DEPTH]; 2];
        let blocks = tasks[task].clone();
        for (block, y) in blocks.clone().zip(y.chunks_mut(ROWS * m)) {
            let rows = block * ROWS..block * ROWS + y.len() / m;
            of_rows(y, &x, weight, rows, block + 1 < blocks.end, &mut room);
        }
    });
}

/// `y` `[rows, m]` = the products of some rows, at most [`ROWS`], with tiles in use; `is_followed` by as many in memory that are
/// multiplied next.
fn of_rows(
    y: &mut [f32],
    x: &Columns,
    weight: &StoredTensor,
    rows: Range<usize>,
    is_followed: bool,
    room: &mut [Pass; 2],
) {
    match weight.dtype() {
        WeightDtype::F32 => of_bytes::<F32>(y, x, weight.row_range(rows), is_followed, room),
        WeightDtype::F16 => of_bytes::<F16>(y, x, weight.row_range(rows), is_followed, room),
        WeightDtype::BF16 => of_bytes::<Bf16>(y, x, weight.row_range(rows), is_followed, room),
        WeightDtype::Nf4 => of_bytes::<Nf4>(y, x, weight.row_range(rows), is_followed, room),
        _ => {
            let mut wide = Scratch::take(rows.len() * x.inner, 0f32);
            weight.widen_rows(rows, &mut wide);
            of_bytes::<F32>(y, x, bytemuck::cast_slice(&wide), false, room);
        }
    }
}

fn of_bytes<P: Parts>(y: &mut [f32], x: &Columns, bytes: &[u8], is_followed: bool, room: &mut [Pass; 2]) {
    let source = Rows::<P>::new(bytes, y.len() / x.count, x.inner, is_followed);
    // SAFETY: tiles are in use, so this processor has the level of the matrix unit; rows are as long as those of `x`.
    unsafe { passes(y, x, &source, room) };
}

/// Rows of `x` as columns of right tiles: `[step][part][word][column]`.
struct Columns {
    words: Vec<u32>,
    count: usize,
    inner: usize,
}

impl Columns {
    fn new(x: &[f32], count: usize) -> Self {
        let inner = x.len() / count;
        let step_words = 3 * SIDE * count;
        let mut words = vec![0; inner.div_ceil(STEP) * step_words];
        for (column, x) in x.chunks_exact(inner).enumerate() {
            for (values, words) in x.chunks(STEP).zip(words.chunks_exact_mut(step_words)) {
                let mut padded = [0f32; STEP];
                padded[..values.len()].copy_from_slice(values);
                // SAFETY: products are asked for only where the level is that of the matrix unit, which has all of AVX-512.
                let parts = unsafe { split_values(&padded) };
                let places = words[column..].iter_mut().step_by(count);
                places.zip(parts.as_flattened()).for_each(|(place, &word)| *place = word);
            }
        }
        Self { words, count, inner }
    }

    fn steps(&self) -> usize {
        self.inner.div_ceil(STEP)
    }

    fn step(&self, step: usize) -> &[u32] {
        let len = 3 * SIDE * self.count;
        &self.words[step * len..][..len]
    }
}

/// The words of the parts of 32 values.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn split_values(values: &[f32; STEP]) -> [[u32; SIDE]; 3] {
    let mut parts = [[0; SIDE]; 3];
    // SAFETY: the caller's promise; values are 128 bytes, a part is 64.
    unsafe {
        for (part, words) in parts.iter_mut().zip(F32::row_words(values.as_ptr().cast(), 0)) {
            _mm512_storeu_si512(part.as_mut_ptr().cast(), words);
        }
    }
    parts
}

/// Rows of a weight, read step by step.
struct Rows<P> {
    /// The first byte of each row; the last row stands for those that do not exist.
    rows: [[*const u8; SIDE]; PANELS],
    /// Steps that lie in the rows as a whole.
    whole: usize,
    /// The last step of each row, padded with zeros, where it is not whole.
    edge: Vec<u8>,
    /// Bytes from what is split to what is asked for.
    ahead: usize,
    parts: PhantomData<P>,
}

impl<P: Parts> Rows<P> {
    fn new(bytes: &[u8], count: usize, inner: usize, is_followed: bool) -> Self {
        let len = bytes.len() / count;
        let row = |i: usize| &bytes[i.min(count - 1) * len..][..len];
        let whole = inner / STEP;
        let mut edge = Vec::new();
        if !inner.is_multiple_of(STEP) {
            edge.resize(ROWS * P::STEP_BYTES, 0);
            for (i, edge) in edge.chunks_exact_mut(P::STEP_BYTES).enumerate() {
                let rest = &row(i)[P::offset(whole)..];
                edge[..rest.len()].copy_from_slice(rest);
            }
        }
        let ahead = match ROWS * len {
            block if block > BLOCK_BYTES => AHEAD,
            block if is_followed => block,
            _ => 0,
        };
        let rows = std::array::from_fn(|panel| std::array::from_fn(|i| row(panel * SIDE + i).as_ptr()));
        Self { rows, whole, edge, ahead, parts: PhantomData }
    }

    /// Splits one of the slices of the step `index` of a pass: some rows of a panel, panel after panel.
    ///
    /// # Safety
    /// The processor has AVX-512 with BF16, and `steps` lie in the rows.
    #[inline(always)]
    unsafe fn split(&self, pass: &mut Pass, steps: &Range<usize>, index: usize, slice: usize) {
        if index >= steps.len() {
            return;
        }
        let (panel, first) = (slice * SLICE_ROWS / SIDE, slice * SLICE_ROWS % SIDE);
        let (step, tiles) = (steps.start + index, &mut pass[index][panel]);
        for i in (first..first + SLICE_ROWS).step_by(2) {
            // SAFETY: the step lies in the rows, or in the padded rests of them.
            let words = unsafe { self.words(step, panel, i) };
            for (row, words) in words.iter().enumerate() {
                for (tile, &words) in tiles.iter_mut().zip(words).take(P::COUNT) {
                    // SAFETY: a row of a tile is 64 bytes, on a boundary of as many.
                    unsafe { _mm512_store_si512(tile.0[i + row].as_mut_ptr().cast(), words) };
                }
            }
        }
    }

    /// Splits a whole step.
    ///
    /// # Safety
    /// As for [`Rows::split`].
    #[inline(always)]
    unsafe fn split_all(&self, pass: &mut Pass, steps: &Range<usize>, index: usize) {
        for slice in 0..SLICES {
            // SAFETY: the caller's promise.
            unsafe { self.split(pass, steps, index, slice) };
        }
    }

    /// The words of step `step` of the rows `i` and `i + 1` of a panel.
    ///
    /// # Safety
    /// As for [`Rows::split`].
    #[inline(always)]
    unsafe fn words(&self, step: usize, panel: usize, i: usize) -> [[__m512i; 3]; 2] {
        // SAFETY: the caller's promise; the rest of a row is padded to a step.
        unsafe {
            if step < self.whole {
                let [first, second] = [self.rows[panel][i], self.rows[panel][i + 1]];
                P::prefetch(first.wrapping_add(self.ahead), step);
                P::prefetch(second.wrapping_add(self.ahead), step);
                P::words(first, second, step)
            } else {
                let rest = self.edge[(panel * SIDE + i) * P::STEP_BYTES..][..2 * P::STEP_BYTES].as_ptr();
                P::words(rest, rest.add(P::STEP_BYTES), 0)
            }
        }
    }
}

/// The steps from `from` on that are one pass, which ends with its chunk; none at the end.
fn pass_from(from: usize, all: usize, chunk: usize) -> Range<usize> {
    from..(from + DEPTH).min((from / chunk + 1) * chunk).min(all)
}

/// Computes `y` pass by pass: while one is multiplied the next one is split, into `room`.
///
/// # Safety
/// Tiles are in use, the processor has AVX-512 with BF16, and rows are as long as those of `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn passes<P: Parts>(y: &mut [f32], x: &Columns, source: &Rows<P>, room: &mut [Pass; 2]) {
    let all = x.steps();
    let chunk = split_chunk_steps(all);
    let [now, next] = room;
    let (mut now, mut next) = (now, next);
    let mut steps = pass_from(0, all, chunk);
    // SAFETY: the caller's promise; parts of a step are whole before it is multiplied.
    unsafe {
        for index in 0..DEPTH {
            source.split_all(now, &steps, index);
        }
        while !steps.is_empty() {
            let following = pass_from(steps.end, all, chunk);
            if steps.start.is_multiple_of(chunk) {
                clear_sums();
            }
            for (index, parts) in now.iter().enumerate() {
                if index < steps.len() {
                    load_x(x.step(steps.start + index), x.count);
                    multiply(parts, source, (&mut *next, &following, index));
                } else {
                    source.split_all(next, &following, index);
                }
            }
            if steps.end.is_multiple_of(chunk) || steps.end == all {
                finish(y, x.count, steps.end <= chunk);
            }
            steps = following;
            std::mem::swap(&mut now, &mut next);
        }
    }
}

/// Adds the products of a step's parts with those of `x`, and splits the step `index` of the pass after it meanwhile.
///
/// # Safety
/// As for [`passes`], with the parts of `x` loaded.
#[inline(always)]
unsafe fn multiply<P: Parts>(
    parts: &Step,
    source: &Rows<P>,
    (next, following, index): (&mut Pass, &Range<usize>, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        source.split(next, following, index, 0);
        if P::COUNT == 3 {
            third_times_first(parts);
        }
        source.split(next, following, index, 1);
        first_times_first(parts);
        source.split(next, following, index, 2);
        second_times_first(parts);
        source.split(next, following, index, 3);
        second_times_second();
        source.split(next, following, index, 4);
        source.split(next, following, index, 5);
        first_times_second(parts);
        source.split(next, following, index, 6);
        first_times_third();
        source.split(next, following, index, 7);
    }
}
