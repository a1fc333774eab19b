//! The macro-kernel of vector units: the order in which one task computes its micro-tiles.

use std::ops::Range;

use super::{PackedGemm, even_block};
use crate::kernels::cpu::gemm::Beta;
use crate::kernels::cpu::gemm::micro_kernel::{MAX_MICRO_TILE, MicroArgs, VectorKernel};
use crate::kernels::cpu::gemm::pack::{PackedMatrix, TILE_DIM, Tile};

impl PackedGemm<'_> {
    /// Computes the block `[rows, cols]` of C.
    pub(in super::super) fn vector_task(
        &self,
        kernel: &VectorKernel,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let k_tiles = self.a.panel_tiles();
        let kc = even_block(k_tiles, kernel.kc_tiles);
        for from in (0..k_tiles).step_by(kc) {
            let k_block = from..(from + kc).min(k_tiles);
            for col in cols.clone().step_by(kernel.col_panels * TILE_DIM) {
                for row in rows.clone().step_by(TILE_DIM) {
                    self.vector_micro_tile(kernel, row..rows.end, col..cols.end, k_block.clone());
                }
            }
        }
    }

    /// Computes the micro-tile at the start of `rows` and `cols` over the tiles `k_block` of the inner dimension.
    fn vector_micro_tile(
        &self,
        kernel: &VectorKernel,
        rows: Range<usize>,
        cols: Range<usize>,
        k_block: Range<usize>,
    ) {
        let [m, n] = [rows.len().min(TILE_DIM), cols.len().min(kernel.col_panels * TILE_DIM)];
        let panel = |packed: &PackedMatrix<'_>, first: usize| -> *const Tile {
            &raw const packed.tiles()[first / TILE_DIM * packed.panel_tiles() + k_block.start]
        };
        let args = MicroArgs {
            a: panel(self.a, rows.start),
            b: panel(self.b, cols.start),
            b_panel_stride: self.b.panel_tiles(),
            k_tiles: k_block.len(),
            c: self.element(rows.start, cols.start),
            ldc: self.ldc,
            rows: m,
            col_panels: n.div_ceil(TILE_DIM),
            accumulate: k_block.start > 0 || self.beta == Beta::One,
        };
        #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
        // SAFETY: the elements of the micro-tile lie inside C, as `MatMut` checked, and in no other task's block; its
        // tiles lie inside both operands, each panel of which has `panel_tiles` tiles.
        unsafe {
            if n.is_multiple_of(TILE_DIM) { (kernel.run)(&args) } else { run_edge(kernel, args, m, n) }
        }
    }
}

#[expect(unsafe_code, reason = "the arguments hold pointers")]
/// Computes a micro-tile that reaches over the edge of C, in a buffer of whole panels, and copies its `[m, n]` elements.
///
/// # Safety
/// As for the kernel, for the `[m, n]` elements of C.
unsafe fn run_edge(kernel: &VectorKernel, args: MicroArgs, m: usize, n: usize) {
    let mut buffer = [0f32; MAX_MICRO_TILE];
    let stride = kernel.col_panels * TILE_DIM;
    let (c, ldc) = (args.c, args.ldc);
    // SAFETY: `buffer` holds the largest micro-tile of any kernel; rows and columns below `m` and `n` belong to C.
    unsafe {
        if args.accumulate {
            for i in 0..m {
                buffer[i * stride..i * stride + n]
                    .copy_from_slice(std::slice::from_raw_parts(c.add(i * ldc), n));
            }
        }
        (kernel.run)(&MicroArgs { c: buffer.as_mut_ptr(), ldc: stride, ..args });
        for i in 0..m {
            let row = std::slice::from_raw_parts_mut(c.add(i * ldc), n);
            row.copy_from_slice(&buffer[i * stride..i * stride + n]);
        }
    }
}
