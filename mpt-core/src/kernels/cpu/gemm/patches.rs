//! The loops around the innermost ones of vectors: which patches a task computes, in which order.
//!
//! The inner dimension is cut into passes of equal depth, which depends on its length alone, and every element of the
//! result adds its passes up in order: bits depend neither on the number of threads nor on the other rows and columns.

use std::ops::Range;

use super::Write;
use super::pack::{Packed, SIDE, Tile};
use super::plan::{Plan, equal_parts};
use super::tiles::{PATCH, Patch, Vector};

impl Plan<'_> {
    /// Computes one task's part of the result.
    pub(super) fn patches(&self, kernel: &Vector, rows: Range<usize>, cols: Range<usize>) {
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
