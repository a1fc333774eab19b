//! The macro-kernel of the matrix unit: the order in which one task computes its micro-tiles of 32 x 32 elements.
//!
//! Two panels of B stay in the first-level cache for a pass while the rows of the task, whose tiles stay in the second-level
//! cache, go by; accumulators wait in memory between passes. A KC block is several passes, and C is written once a KC block.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use super::{PackedGemm, even_block};
use crate::kernels::cpu::amx::TileGuard;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::gemm::Beta;
use crate::kernels::cpu::gemm::micro_kernel::amx::{self as micro_kernel, AmxArgs};
use crate::kernels::cpu::gemm::pack::{PackFormat, PackedMatrix, TILE_DIM, Tile};
use crate::kernels::cpu::scratch::Scratch;

/// Rows and columns of a micro-tile.
pub(in super::super) const MICRO_TILE: usize = 2 * TILE_DIM;

/// Rows of a task at most.
pub(in super::super) const MC: usize = 256;

/// Tiles of a panel in one KC block: those of a task's rows are half of the second-level cache.
const KC_TILES: usize = 64;

/// Steps of one pass at most: those of two panels of B stay in the first-level cache.
fn max_pass_steps(format: PackFormat) -> usize {
    match format {
        PackFormat::Bf16x3 => 2,
        PackFormat::Bf16 | PackFormat::F32 => 8,
    }
}

/// Steps of one KC block of an inner dimension of `all` steps.
fn kc_steps(all: usize, format: PackFormat) -> usize {
    even_block(all, KC_TILES / format.step_tiles())
}

/// Steps of one KC block of [`PackFormat::Bf16x3`] operands whose inner dimension has `all` steps.
pub(crate) fn bf16x3_kc_steps(all: usize) -> usize {
    kc_steps(all, PackFormat::Bf16x3)
}

/// A pass: some steps of a KC block.
struct KPass {
    steps: Range<usize>,
    /// First pass of its KC block.
    is_first: bool,
    /// Last pass of its KC block.
    is_last: bool,
    /// Use of C when the KC block is done.
    beta: Beta,
}

impl PackedGemm<'_> {
    /// Computes the block `[rows, cols]` of C, one KC block after the other.
    pub(in super::super) fn amx_task(&self, rows: Range<usize>, cols: Range<usize>) {
        let _tiles = TileGuard::full();
        let mut acc = Scratch::take(4 * rows.len().div_ceil(MICRO_TILE), Tile::ZERO);
        let (all, format) = (self.a.steps(), self.a.format());
        let kc = kc_steps(all, format);
        let pass_steps = even_block(kc, max_pass_steps(format));
        for from in (0..all).step_by(kc) {
            let end = (from + kc).min(all);
            let beta = if from == 0 { self.beta } else { Beta::One };
            for col in cols.clone().step_by(MICRO_TILE) {
                for step in (from..end).step_by(pass_steps) {
                    let steps = step..(step + pass_steps).min(end);
                    let next = if steps.end < end { (col, steps.end) } else { (col + MICRO_TILE, from) };
                    let pass = KPass { is_first: step == from, is_last: steps.end == end, steps, beta };
                    let micro_tiles = rows.clone().step_by(MICRO_TILE).zip(acc.chunks_exact_mut(4));
                    for (index, (row, acc)) in micro_tiles.enumerate() {
                        let prefetch = self.prefetch_address(next, pass.steps.len(), index);
                        self.amx_micro_tile(row..rows.end, col..cols.end, &pass, acc, prefetch);
                    }
                }
            }
        }
    }

    /// Adds one pass to the micro-tile at the start of `rows` and `cols`.
    fn amx_micro_tile(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        pass: &KPass,
        acc: &mut [Tile],
        prefetch: *const Tile,
    ) {
        let [m, n] = [rows.len().min(MICRO_TILE), cols.len().min(MICRO_TILE)];
        let is_direct = pass.is_last && m == MICRO_TILE && n == MICRO_TILE && pass.beta == Beta::Zero;
        if pass.is_last {
            self.prefetch_c(rows.start, cols.start, m);
        }
        let args = AmxArgs {
            a: panel_pair(self.a, rows.start, m, pass.steps.start),
            b: panel_pair(self.b, cols.start, n, pass.steps.start),
            steps: pass.steps.len(),
            acc: acc.as_mut_ptr(),
            resume: !pass.is_first,
            c: if is_direct { self.element(rows.start, cols.start) } else { std::ptr::null_mut() },
            ldc: self.ldc,
            prefetch,
        };
        #[expect(unsafe_code, reason = "tile instructions")]
        // SAFETY: tiles are configured; panels have the steps of the pass; `acc` is four tiles, and the elements of the
        // micro-tile lie inside C, as `MatMut` checked, and in no other task's block.
        unsafe {
            match self.a.format() {
                PackFormat::Bf16x3 => micro_kernel::bf16x3(&args),
                PackFormat::Bf16 | PackFormat::F32 => micro_kernel::bf16(&args),
            }
        }
        if pass.is_last && !is_direct {
            self.store_acc(acc, pass.beta, [rows.start, cols.start], [m, n]);
        }
    }

    /// Prefetches the lines of C that the micro-tile of `m` rows at row `row` and column `col` writes.
    fn prefetch_c(&self, row: usize, col: usize, m: usize) {
        for i in row..row + m {
            let line = self.element(i, col).cast::<i8>();
            #[expect(unsafe_code, reason = "vector instructions")]
            // SAFETY: a hint about an address, which need not be valid.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(line);
                _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(64));
            }
        }
    }

    /// Writes `[m, n]` accumulators to C, or adds them.
    fn store_acc(&self, acc: &[Tile], beta: Beta, [row, col]: [usize; 2], [m, n]: [usize; 2]) {
        for i in 0..m {
            #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
            // SAFETY: rows and columns below `m` and `n` belong to C and to this task.
            let c = unsafe { std::slice::from_raw_parts_mut(self.element(row + i, col), n) };
            let tiles = &acc[i / TILE_DIM * 2..];
            let acc = [tiles[0].0[i % TILE_DIM], tiles[1].0[i % TILE_DIM]];
            store_row(c, bytemuck::cast_ref(&acc), beta);
        }
    }

    /// Address in the next two panels of B that micro-tile `index` of a column prefetches: each takes a share of them.
    fn prefetch_address(&self, (col, step): (usize, usize), steps: usize, index: usize) -> *const Tile {
        let per_step = match self.a.format() {
            PackFormat::Bf16x3 => micro_kernel::BF16X3_PREFETCH_BYTES,
            PackFormat::Bf16 | PackFormat::F32 => micro_kernel::BF16_PREFETCH_BYTES,
        };
        let panel_bytes = steps * self.b.format().step_tiles() * size_of::<Tile>();
        let from = index * steps * per_step;
        let panel = col / TILE_DIM + from / panel_bytes;
        let tile = panel * self.b.panel_tiles() + step * self.b.format().step_tiles();
        let tiles = self.b.tiles().as_ptr().cast::<u8>();
        // an address only: nothing beyond the panels is read
        tiles.wrapping_add(tile * size_of::<Tile>() + from % panel_bytes).cast()
    }
}

for_each_level! {
    /// Writes a row of accumulators to C, or adds them.
    fn store_row(c: &mut [f32], acc: &[f32; MICRO_TILE], beta: Beta) {
        match beta {
            Beta::Zero => c.copy_from_slice(&acc[..c.len()]),
            Beta::One => c.iter_mut().zip(acc).for_each(|(c, acc)| *c += acc),
        }
    }
}

/// Addresses of step `step` in the panel that holds row, or column, `first`, and in the panel after it; twice the first one
/// where `len` rows need one panel.
fn panel_pair(packed: &PackedMatrix<'_>, first: usize, len: usize, step: usize) -> [*const Tile; 2] {
    let panel = |panel: usize| -> *const Tile {
        &raw const packed.tiles()[panel * packed.panel_tiles() + step * packed.format().step_tiles()]
    };
    let first = first / TILE_DIM;
    [panel(first), panel(if len > TILE_DIM { first + 1 } else { first })]
}
