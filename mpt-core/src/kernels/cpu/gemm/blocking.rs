//! Blocking: a product cut into tasks of MC x NC elements, each a call of the macro-kernel.
//!
//! The loops inside a task are `macro_kernel`; packing is `pack`.

#[cfg(target_arch = "x86_64")]
use super::macro_kernel::amx;
use super::macro_kernel::{PackedGemm, even_block};
use super::micro_kernel::MicroKernel;
use super::pack::{PackedMatrix, TILE_DIM};
use super::{Beta, MatMut, Parallelism};
use crate::kernels::cpu::pool::{self, SharedPtr};

/// Rows of a task at most (MC): their packed tiles stay in the second-level cache while columns pass by.
const MC: usize = 512;

/// Columns of a task at most (NC).
const NC: usize = 1536;

/// `C = A B + beta C` for packed operands.
pub(super) fn gemm(
    c: MatMut<'_>,
    a: &PackedMatrix<'_>,
    b: &PackedMatrix<'_>,
    kernel: MicroKernel,
    beta: Beta,
    parallelism: Parallelism,
) {
    let [m, n] = [a.rows(), b.rows()];
    let threads = if parallelism == Parallelism::Pool { rayon::current_num_threads() } else { 1 };
    let [mc, nc] = match kernel {
        MicroKernel::Vector(kernel) => {
            task_size([m, n], MC, [TILE_DIM, kernel.col_panels * TILE_DIM], threads)
        }
        #[cfg(target_arch = "x86_64")]
        MicroKernel::Amx => task_size([m, n], amx::MC, [amx::MICRO_TILE; 2], threads),
    };
    let gemm = PackedGemm { a, b, c: SharedPtr(c.data), ldc: c.row_stride, beta };
    let [row_tasks, col_tasks] = [m.div_ceil(mc), n.div_ceil(nc)];
    let block = |index: usize, size: usize, all: usize| index * size..((index + 1) * size).min(all);
    let body = |task: usize| {
        let rows = block(task % row_tasks, mc, m);
        let cols = block(task / row_tasks, nc, n);
        match kernel {
            MicroKernel::Vector(kernel) => gemm.vector_task(&kernel, rows, cols),
            #[cfg(target_arch = "x86_64")]
            MicroKernel::Amx => gemm.amx_task(rows, cols),
        }
    };
    match parallelism {
        Parallelism::Pool => pool::run(row_tasks * col_tasks, body),
        Parallelism::Serial => (0..row_tasks * col_tasks).for_each(body),
    }
}

/// Rows and columns of a task: whole micro-tiles, small enough for the caches, with several tasks for each thread.
fn task_size([m, n]: [usize; 2], max_rows: usize, micro_tile: [usize; 2], threads: usize) -> [usize; 2] {
    let rows = even_block(m, max_rows).next_multiple_of(micro_tile[0]);
    let row_tasks = m.div_ceil(rows);
    let wanted = if threads > 1 { (4 * threads).div_ceil(row_tasks) } else { 1 };
    let cols = even_block(n, NC.min(n.div_ceil(wanted))).next_multiple_of(micro_tile[1]);
    [rows, cols]
}
