//! Which tasks a product is cut into: whole patches of vectors, or whole squares of the matrix unit.

use super::pack::{Packed, SIDE};
use super::plan::{Plan, equal_parts};
#[cfg(target_arch = "x86_64")]
use super::squares;
use super::tiles::Kernel;
use super::{MatMut, Threads, Write};
use crate::kernels::cpu::pool::{self, Shared};

/// Rows of a task: their tiles stay in the second-level cache while columns pass by.
const TASK_ROWS: usize = 512;

/// Columns of a task at most.
const TASK_COLS: usize = 1536;

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
