//! Kernel views of stored tensors: int8 panels, bf16 tiles, and rows dequantized to f32.

use std::ops::Range;

use rayon::prelude::*;

use super::dequantize::dequantize;
use super::gemm::{PackedMatrix, TILE_DIM, Tile, unpack_bf16_column};
use super::quant::QuantPanels;
use crate::storage::{StoredTensor, WeightLayout};

impl StoredTensor {
    /// A matrix in bf16 tiles as B, its transpose; `None` in other layouts.
    pub(crate) fn bf16_tiles(&self) -> Option<PackedMatrix<'_>> {
        let tiles = (self.layout() == WeightLayout::Bf16Tiles)
            .then(|| bytemuck::cast_slice::<u8, Tile>(self.bytes()))?;
        Some(PackedMatrix::from_bf16_tiles(tiles, self.num_rows(), self.row_len()))
    }

    /// A quantized matrix in int8 panels; `None` in other layouts.
    pub(crate) fn int8_panels(&self) -> Option<QuantPanels<'_>> {
        let (n, k) = (self.num_rows(), self.row_len());
        (self.layout() == WeightLayout::Int8Panels).then(|| QuantPanels {
            bytes: self.bytes(),
            dtype: self.dtype(),
            n,
            k,
        })
    }

    /// Writes the rows `rows` to `out` `[rows, k]` as f32.
    pub(crate) fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        if let Some(packed) = self.bf16_tiles() {
            for (row, out) in rows.zip(out.chunks_exact_mut(self.row_len())) {
                let panel = row / TILE_DIM * packed.panel_tiles();
                unpack_bf16_column(&packed.tiles()[panel..panel + packed.panel_tiles()], row % TILE_DIM, out);
            }
            return;
        }
        let Some(panels) = self.int8_panels() else {
            return dequantize(self.dtype(), self.row_range(rows), out);
        };
        for (row, out) in rows.zip(out.chunks_exact_mut(panels.k)) {
            dequantize(self.dtype(), &panels.row(row), out);
        }
    }

    /// All values as f32, row-major.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        let len = self.row_len();
        let mut values = vec![0f32; self.num_rows() * len];
        if len > 0 {
            let dequantize = |(row, out): (usize, &mut [f32])| self.dequantize_rows(row..row + 1, out);
            values.par_chunks_mut(len).enumerate().for_each(dequantize);
        }
        values
    }
}
