//! The loops around the matrix unit: which squares a task computes, in which order.
//!
//! Two panels of columns stay in the first-level cache for a pass while the rows of the task, whose tiles stay in the
//! second-level cache, go by; sums wait in tiles between passes. Chunks and passes depend on the length of the inner dimension
//! alone and are added up in order: bits depend neither on the number of threads nor on the other rows and columns.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::ops::Range;

use super::Write;
use super::pack::{Form, Packed, SIDE, Tile};
use super::plan::{Plan, equal_parts};
use super::tiles::amx::{self, Square};
use crate::kernels::cpu::amx::Tiles;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::scratch::Scratch;

/// Rows and columns of a square.
pub(super) const SQUARE: usize = 2 * SIDE;

/// Rows of a task.
pub(super) const TASK_ROWS: usize = 256;

/// Tiles of a panel in one chunk of the inner dimension, so that those of a task's rows are half of the second-level cache.
const CHUNK_TILES: usize = 64;

/// Steps of one pass of a chunk at most: those of two panels of columns stay in the first-level cache.
fn pass_steps(form: Form) -> usize {
    match form {
        Form::Split => 2,
        Form::Pairs | Form::Words => 8,
    }
}

/// Steps of one chunk of an inner dimension of `all` steps.
fn chunk_steps(all: usize, form: Form) -> usize {
    equal_parts(all, CHUNK_TILES / form.step_tiles())
}

/// Steps of split operands whose products are added up before the sum is added to the result, of `all` of them.
pub(crate) fn split_chunk_steps(all: usize) -> usize {
    chunk_steps(all, Form::Split)
}

/// Where a pass lies in the inner dimension, in steps.
struct Pass {
    steps: Range<usize>,
    /// Whether it is the first, or the last, of its chunk.
    first: bool,
    last: bool,
    /// What happens to the result when the chunk is done.
    write: Write,
}

impl Plan<'_> {
    /// Computes the squares of one task, chunk by chunk of the inner dimension.
    pub(super) fn squares(&self, rows: Range<usize>, cols: Range<usize>) {
        let _tiles = Tiles::full();
        let mut sums = Scratch::take(4 * rows.len().div_ceil(SQUARE), Tile::ZERO);
        let (all, form) = (self.left.steps(), self.left.form());
        let chunk = chunk_steps(all, form);
        let depth = equal_parts(chunk, pass_steps(form));
        for from in (0..all).step_by(chunk) {
            let end = (from + chunk).min(all);
            let write = if from == 0 { self.write } else { Write::Add };
            for col in cols.clone().step_by(SQUARE) {
                for step in (from..end).step_by(depth) {
                    let steps = step..(step + depth).min(end);
                    let next = if steps.end < end { (col, steps.end) } else { (col + SQUARE, from) };
                    let pass = Pass { first: step == from, last: steps.end == end, steps, write };
                    let squares = rows.clone().step_by(SQUARE).zip(sums.chunks_exact_mut(4));
                    for (index, (row, sums)) in squares.enumerate() {
                        let ahead = self.ahead(next, pass.steps.len(), index);
                        self.square(row..rows.end, col..cols.end, &pass, sums, ahead);
                    }
                }
            }
        }
    }

    /// Adds one pass to the square at the start of `rows` and `cols`.
    fn square(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        pass: &Pass,
        sums: &mut [Tile],
        ahead: *const Tile,
    ) {
        let [m, n] = [rows.len().min(SQUARE), cols.len().min(SQUARE)];
        let direct = pass.last && m == SQUARE && n == SQUARE && pass.write == Write::Overwrite;
        if pass.last {
            self.fetch(rows.start, cols.start, m);
        }
        let square = Square {
            left: panels(self.left, rows.start, m, pass.steps.start),
            right: panels(self.right, cols.start, n, pass.steps.start),
            steps: pass.steps.len(),
            sums: sums.as_mut_ptr(),
            resume: !pass.first,
            out: if direct { self.element(rows.start, cols.start) } else { std::ptr::null_mut() },
            out_step: self.out_step,
            ahead,
        };
        #[expect(unsafe_code, reason = "tile instructions")]
        // SAFETY: tiles are in use; panels have the steps of the pass; `sums` are four tiles, and the square's elements
        // lie inside the result, as `MatMut` checked, and in no other task's part.
        unsafe {
            match self.left.form() {
                Form::Split => amx::split(&square),
                Form::Pairs | Form::Words => amx::pairs(&square),
            }
        }
        if pass.last && !direct {
            self.finish(sums, pass.write, [rows.start, cols.start], [m, n]);
        }
    }

    /// Asks for the lines of the result that the square at row `row` and column `col` will write.
    fn fetch(&self, row: usize, col: usize, m: usize) {
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

    /// Writes or adds `m` rows of `n` sums to the result.
    fn finish(&self, sums: &[Tile], write: Write, [row, col]: [usize; 2], [m, n]: [usize; 2]) {
        for i in 0..m {
            #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
            // SAFETY: rows and columns below `m` and `n` belong to the result and to this task.
            let out = unsafe { std::slice::from_raw_parts_mut(self.element(row + i, col), n) };
            let tiles = &sums[i / SIDE * 2..];
            let sums = [tiles[0].0[i % SIDE], tiles[1].0[i % SIDE]];
            write_row(out, bytemuck::cast_ref(&sums), write);
        }
    }

    /// What the square with this index in its column should fetch of the two panels of columns that come next.
    fn ahead(&self, (col, step): (usize, usize), steps: usize, index: usize) -> *const Tile {
        let per_step = match self.left.form() {
            Form::Split => amx::AHEAD_OF_SPLIT,
            Form::Pairs | Form::Words => amx::AHEAD_OF_PAIRS,
        };
        let of_panel = steps * self.right.form().step_tiles() * size_of::<Tile>();
        let from = index * steps * per_step;
        let panel = col / SIDE + from / of_panel;
        let tile = panel * self.right.panel_tiles() + step * self.right.form().step_tiles();
        let tiles = self.right.tiles().as_ptr().cast::<u8>();
        // an address only: what lies beyond the panels is not read
        tiles.wrapping_add(tile * size_of::<Tile>() + from % of_panel).cast()
    }
}

for_each_level! {
    /// Writes or adds a row of sums to the result.
    fn write_row(out: &mut [f32], sums: &[f32; SQUARE], write: Write) {
        match write {
            Write::Overwrite => out.copy_from_slice(&sums[..out.len()]),
            Write::Add => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        }
    }
}

/// The first tiles, at step `step`, of the panel of row or column `first` and of the next one, where there is one.
fn panels(packed: &Packed<'_>, first: usize, len: usize, step: usize) -> [*const Tile; 2] {
    let panel = |panel: usize| -> *const Tile {
        &raw const packed.tiles()[panel * packed.panel_tiles() + step * packed.form().step_tiles()]
    };
    let first = first / SIDE;
    [panel(first), panel(if len > SIDE { first + 1 } else { first })]
}
