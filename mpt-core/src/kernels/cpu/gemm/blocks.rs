//! The loops around the innermost ones: which patches a task computes, in which order.
//!
//! The inner dimension is cut into passes of equal depth, which depends on its length alone, and every element of the
//! result adds its passes up in order: bits depend neither on the number of threads nor on the other rows and columns.

use std::ops::Range;

use super::pack::{Packed, SIDE, Tile};
use super::tiles::{Kernel, PATCH, Patch};
use super::{MatMut, Write};
use crate::kernels::cpu::pool::{self, Shared};

/// Rows of a task: their tiles stay in the second-level cache while columns pass by.
const TASK_ROWS: usize = 512;

/// Columns of a task at most.
const TASK_COLS: usize = 1536;

/// One product and how it is cut.
struct Plan<'a> {
    left: &'a Packed<'a>,
    right: &'a Packed<'a>,
    kernel: Kernel,
    out: Shared<f32>,
    out_step: usize,
    write: Write,
    /// Rows and columns of a task.
    task: [usize; 2],
}

/// `out = left right` or `out += left right`, on all threads where `pooled`.
pub(super) fn product(
    out: MatMut<'_>,
    left: &Packed<'_>,
    right: &Packed<'_>,
    kernel: Kernel,
    write: Write,
    pooled: bool,
) {
    let [m, n] = [left.rows(), right.rows()];
    let threads = if pooled { rayon::current_num_threads() } else { 1 };
    let task = task_size([m, n], kernel, threads);
    let out_step = out.row_stride;
    let plan = Plan { left, right, kernel, out: Shared(out.data.as_mut_ptr()), out_step, write, task };
    let [rows, cols] = [m.div_ceil(task[0]), n.div_ceil(task[1])];
    let body = |index: usize| plan.block(index % rows, index / rows);
    if pooled { pool::run(rows * cols, body) } else { (0..rows * cols).for_each(body) }
}

/// Whole patches, few enough to fit the caches and several for each thread.
fn task_size([m, n]: [usize; 2], kernel: Kernel, threads: usize) -> [usize; 2] {
    let [patch_rows, patch_cols] = [kernel.row_panels * SIDE, kernel.col_panels * SIDE];
    let rows = equal_parts(m, TASK_ROWS).next_multiple_of(patch_rows);
    let row_tasks = m.div_ceil(rows);
    let wanted = if threads > 1 { (4 * threads).div_ceil(row_tasks) } else { 1 };
    let cols = equal_parts(n, TASK_COLS.min(n.div_ceil(wanted))).next_multiple_of(patch_cols);
    [rows, cols]
}

/// The length of the fewest equal parts of `len`, none longer than `most`.
fn equal_parts(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most.max(1)))
}

impl Plan<'_> {
    /// Computes one task's part of the result.
    fn block(&self, row_task: usize, col_task: usize) {
        let part = |index: usize, size: usize, all: usize| index * size..((index + 1) * size).min(all);
        let rows = part(row_task, self.task[0], self.left.rows());
        let cols = part(col_task, self.task[1], self.right.rows());
        #[cfg(target_arch = "x86_64")]
        let _tiles = self.kernel.matrix_unit.then(crate::kernels::cpu::amx::Tiles::full);
        let all = self.left.panel_tiles();
        let depth = equal_parts(all, self.kernel.depth);
        for from in (0..all).step_by(depth) {
            let pass = from..(from + depth).min(all);
            for col in cols.clone().step_by(self.kernel.col_panels * SIDE) {
                for row in rows.clone().step_by(self.kernel.row_panels * SIDE) {
                    self.patch(row..rows.end, col..cols.end, pass.clone());
                }
            }
        }
    }

    /// Computes the patch at the start of `rows` and `cols` over the tiles `pass`.
    fn patch(&self, rows: Range<usize>, cols: Range<usize>, pass: Range<usize>) {
        let kernel = &self.kernel;
        let [m, n] = [rows.len().min(kernel.row_panels * SIDE), cols.len().min(kernel.col_panels * SIDE)];
        let panel = |packed: &Packed<'_>, first: usize| -> *const Tile {
            &raw const packed.tiles()[first / SIDE * packed.panel_tiles() + pass.start]
        };
        let mut patch = Patch {
            left: panel(self.left, rows.start),
            left_step: self.left.panel_tiles(),
            right: panel(self.right, cols.start),
            right_step: self.right.panel_tiles(),
            tiles: pass.len(),
            out: std::ptr::null_mut(),
            out_step: self.out_step,
            rows: m,
            col_panels: n.div_ceil(SIDE),
            add: pass.start > 0 || self.write == Write::Add,
        };
        let whole_rows = !kernel.whole || m == kernel.row_panels * SIDE;
        let whole_cols = if kernel.whole { n == kernel.col_panels * SIDE } else { n.is_multiple_of(SIDE) };
        #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
        // SAFETY: the patch's elements lie inside the result, as `MatMut` checked, and in no other task's part; its
        // tiles lie inside both operands, each panel of which has `panel_tiles` tiles.
        unsafe {
            patch.out = self.out.get().add(rows.start * self.out_step + cols.start);
            if whole_rows && whole_cols { (kernel.run)(&patch) } else { beside(kernel, patch, m, n) }
        }
    }
}

#[expect(unsafe_code, reason = "a patch holds pointers")]
/// Computes a patch in room beside the result and copies `m` rows of `n` elements there and back.
///
/// # Safety
/// As for the kernel, for the `m` x `n` elements of the result.
unsafe fn beside(kernel: &Kernel, patch: Patch, m: usize, n: usize) {
    let mut room = [0f32; PATCH];
    let step = kernel.col_panels * SIDE;
    let (out, out_step) = (patch.out, patch.out_step);
    // SAFETY: `room` holds the largest patch of any kernel; rows and columns below `m` and `n` belong to the result.
    unsafe {
        if patch.add {
            for i in 0..m {
                room[i * step..i * step + n]
                    .copy_from_slice(std::slice::from_raw_parts(out.add(i * out_step), n));
            }
        }
        (kernel.run)(&Patch { out: room.as_mut_ptr(), out_step: step, ..patch });
        for i in 0..m {
            let row = std::slice::from_raw_parts_mut(out.add(i * out_step), n);
            row.copy_from_slice(&room[i * step..i * step + n]);
        }
    }
}
