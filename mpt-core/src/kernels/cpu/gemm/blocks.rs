//! The loops around the innermost ones of vectors: which patches a task computes, in which order.
//!
//! The inner dimension is cut into passes of equal depth, which depends on its length alone, and every element of the
//! result adds its passes up in order: bits depend neither on the number of threads nor on the other rows and columns.

use std::ops::Range;

use super::pack::{Packed, SIDE, Tile};
#[cfg(target_arch = "x86_64")]
use super::squares;
use super::tiles::{Kernel, PATCH, Patch, Vector};
use super::{MatMut, Threads, Write};
use crate::kernels::cpu::pool::{self, Shared};

/// Rows of a task: their tiles stay in the second-level cache while columns pass by.
const TASK_ROWS: usize = 512;

/// Columns of a task at most.
const TASK_COLS: usize = 1536;

/// One product and how it is cut.
pub(super) struct Plan<'a> {
    pub(super) left: &'a Packed<'a>,
    pub(super) right: &'a Packed<'a>,
    out: Shared<f32>,
    pub(super) out_step: usize,
    pub(super) write: Write,
}

/// `out = left right` or `out += left right`.
pub(super) fn product(
    out: MatMut<'_>,
    left: &Packed<'_>,
    right: &Packed<'_>,
    kernel: Kernel,
    write: Write,
    threads: Threads,
) {
    let [m, n] = [left.rows(), right.rows()];
    let count = if threads == Threads::Pool { rayon::current_num_threads() } else { 1 };
    let [task_rows, task_cols] = match kernel {
        Kernel::Vector(kernel) => task_size([m, n], TASK_ROWS, [SIDE, kernel.col_panels * SIDE], count),
        #[cfg(target_arch = "x86_64")]
        Kernel::Matrix => task_size([m, n], squares::TASK_ROWS, [squares::SQUARE; 2], count),
    };
    let plan = Plan { left, right, out: Shared(out.data), out_step: out.row_stride, write };
    let [row_tasks, col_tasks] = [m.div_ceil(task_rows), n.div_ceil(task_cols)];
    let part = |index: usize, size: usize, all: usize| index * size..((index + 1) * size).min(all);
    let body = |index: usize| {
        let rows = part(index % row_tasks, task_rows, m);
        let cols = part(index / row_tasks, task_cols, n);
        match kernel {
            Kernel::Vector(kernel) => plan.patches(&kernel, rows, cols),
            #[cfg(target_arch = "x86_64")]
            Kernel::Matrix => plan.squares(rows, cols),
        }
    };
    match threads {
        Threads::Pool => pool::run(row_tasks * col_tasks, body),
        Threads::Caller => (0..row_tasks * col_tasks).for_each(body),
    }
}

/// Whole patches, few enough to fit the caches and several for each thread.
fn task_size([m, n]: [usize; 2], most_rows: usize, patch: [usize; 2], threads: usize) -> [usize; 2] {
    let rows = equal_parts(m, most_rows).next_multiple_of(patch[0]);
    let row_tasks = m.div_ceil(rows);
    let wanted = if threads > 1 { (4 * threads).div_ceil(row_tasks) } else { 1 };
    let cols = equal_parts(n, TASK_COLS.min(n.div_ceil(wanted))).next_multiple_of(patch[1]);
    [rows, cols]
}

/// The length of the fewest equal parts of `len`, none longer than `most`.
pub(super) fn equal_parts(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most.max(1)))
}

impl Plan<'_> {
    /// The element in row `i` and column `j` of the result.
    pub(super) fn element(&self, i: usize, j: usize) -> *mut f32 {
        self.out.get().wrapping_add(i * self.out_step + j)
    }

    /// Computes one task's part of the result.
    fn patches(&self, kernel: &Vector, rows: Range<usize>, cols: Range<usize>) {
        let all = self.left.panel_tiles();
        let depth = equal_parts(all, kernel.depth);
        for from in (0..all).step_by(depth) {
            let pass = from..(from + depth).min(all);
            for col in cols.clone().step_by(kernel.col_panels * SIDE) {
                for row in rows.clone().step_by(SIDE) {
                    self.patch(kernel, row..rows.end, col..cols.end, pass.clone());
                }
            }
        }
    }

    /// Computes the patch at the start of `rows` and `cols` over the tiles `pass`.
    fn patch(&self, kernel: &Vector, rows: Range<usize>, cols: Range<usize>, pass: Range<usize>) {
        let [m, n] = [rows.len().min(SIDE), cols.len().min(kernel.col_panels * SIDE)];
        let panel = |packed: &Packed<'_>, first: usize| -> *const Tile {
            &raw const packed.tiles()[first / SIDE * packed.panel_tiles() + pass.start]
        };
        let patch = Patch {
            left: panel(self.left, rows.start),
            right: panel(self.right, cols.start),
            right_step: self.right.panel_tiles(),
            tiles: pass.len(),
            out: self.element(rows.start, cols.start),
            out_step: self.out_step,
            rows: m,
            col_panels: n.div_ceil(SIDE),
            add: pass.start > 0 || self.write == Write::Add,
        };
        #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
        // SAFETY: the patch's elements lie inside the result, as `MatMut` checked, and in no other task's part; its
        // tiles lie inside both operands, each panel of which has `panel_tiles` tiles.
        unsafe {
            if n.is_multiple_of(SIDE) { (kernel.run)(&patch) } else { beside(kernel, patch, m, n) }
        }
    }
}

#[expect(unsafe_code, reason = "a patch holds pointers")]
/// Computes a patch in room beside the result and copies `m` rows of `n` elements there and back.
///
/// # Safety
/// As for the kernel, for the `m` x `n` elements of the result.
unsafe fn beside(kernel: &Vector, patch: Patch, m: usize, n: usize) {
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
