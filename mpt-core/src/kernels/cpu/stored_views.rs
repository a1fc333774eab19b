//! Stored tensors as kernels see them: panels, tiles, and rows of f32.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Packed, SIDE, Tile, column_of_pairs};
use super::quant::Panels;
use super::widen;
use crate::storage::{Order, StoredTensor};

impl StoredTensor {
    /// The transpose of a matrix that lies in tiles, as a right operand.
    pub(crate) fn tiles(&self) -> Option<Packed<'_>> {
        let tiles = (self.order() == Order::Tiles).then(|| bytemuck::cast_slice::<u8, Tile>(self.bytes()))?;
        Some(Packed::kept_pairs(tiles, self.num_rows(), self.row_len()))
    }

    /// The panels of a matrix that lies in them.
    pub(crate) fn panels(&self) -> Option<Panels<'_>> {
        let (n, k) = (self.num_rows(), self.row_len());
        (self.order() == Order::Panels).then(|| Panels { bytes: self.bytes(), format: self.dtype(), n, k })
    }

    /// Writes the rows `rows` to `out` as f32.
    pub(crate) fn widen_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        if let Some(packed) = self.tiles() {
            for (row, out) in rows.zip(out.chunks_exact_mut(self.row_len())) {
                let panel = row / SIDE * packed.panel_tiles();
                column_of_pairs(&packed.tiles()[panel..panel + packed.panel_tiles()], row % SIDE, out);
            }
            return;
        }
        let Some(panels) = self.panels() else {
            return widen::widen(self.dtype(), self.row_range(rows), out);
        };
        for (row, out) in rows.zip(out.chunks_exact_mut(panels.k)) {
            widen::widen(self.dtype(), &panels.row(row), out);
        }
    }

    /// All values as f32, row after row.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let len = self.row_len();
        let mut values = vec![0f32; self.num_rows() * len];
        if len > 0 {
            let widen = |(row, out): (usize, &mut [f32])| self.widen_rows(row..row + 1, out);
            values.par_chunks_mut(len).enumerate().for_each(widen);
        }
        values
    }
}
