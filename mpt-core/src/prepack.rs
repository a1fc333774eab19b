//! Prepacking: weights in the memory layout of their kernels, made once when a model is loaded.
//!
//! The layouts are those of `kernels::cpu::quant` and `kernels::cpu::gemm`; dtypes do not change here.

use memmap2::MmapMut;

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::kernels::cpu::gemm::{MatRef, TILE_DIM, Tile, bf16_tiles, pack_b_panel_bf16};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::quant::{self, PANEL_ROWS};
use crate::kernels::cpu::scratch::Scratch;
use crate::storage::{StoredTensor, WeightLayout};

/// Fresh memory of `len` bytes, in huge pages where the system has them: every token reads the weights from end to end.
///
/// # Errors
/// [`Error::Memory`] when the system has no memory for it.
fn allocate(len: usize) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(len).map_err(|source| Error::Memory { bytes: len, source })?;
    #[cfg(target_os = "linux")]
    // without huge pages the kernels are slower, nothing else
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

impl StoredTensor {
    /// A quantized matrix in panels for int8 kernels; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no memory for the copy.
    pub fn prepack_int8(self) -> Result<Self> {
        if self.shape().len() != 2
            || self.layout() != WeightLayout::RowMajor
            || !quant::has_int8_kernel(self.dtype())
        {
            return Ok(self);
        }
        let row_bytes = self.bytes().len() / self.num_rows().max(1);
        let panel_bytes = PANEL_ROWS * row_bytes;
        let len = self.num_rows().div_ceil(PANEL_ROWS) * panel_bytes;
        if len == 0 {
            return Ok(self);
        }
        let mut panels = allocate(len)?;
        pool::run_chunks(&mut panels, panel_bytes, |index, panel| {
            let rows =
                &self.bytes()[index * panel_bytes..((index + 1) * panel_bytes).min(self.bytes().len())];
            quant::pack_panel(self.dtype(), rows, row_bytes, panel);
        });
        self.in_memory(panels, WeightLayout::Int8Panels)
    }

    /// A bf16 matrix in tiles for bf16 kernels; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no memory for the copy.
    pub fn prepack_bf16(self) -> Result<Self> {
        let (n, k) = (self.num_rows(), self.row_len());
        if self.shape().len() != 2
            || self.layout() != WeightLayout::RowMajor
            || self.dtype() != WeightDtype::BF16
            || n * k == 0
        {
            return Ok(self);
        }
        let len = bf16_tiles(n, k) * size_of::<Tile>();
        let mut tiles = allocate(len)?;
        let panel_tiles = bf16_tiles(1, k);
        pool::run_chunks(bytemuck::cast_slice_mut::<u8, Tile>(&mut tiles), panel_tiles, |index, panel| {
            let rows = index * TILE_DIM..((index + 1) * TILE_DIM).min(n);
            let mut values = Scratch::take(rows.len() * k, 0f32);
            self.dequantize_rows(rows.clone(), &mut values);
            pack_b_panel_bf16(panel, MatRef::new(&values, rows.len(), k, k));
        });
        self.in_memory(tiles, WeightLayout::Bf16Tiles)
    }

    /// A copy in memory of its own.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system has no memory for it.
    pub(crate) fn copied(&self) -> Result<Self> {
        const CHUNK: usize = 1 << 20;
        let len = self.bytes().len();
        if len == 0 {
            return Ok(self.clone());
        }
        let mut copy = allocate(len)?;
        pool::run_chunks(&mut copy, CHUNK, |index, chunk| {
            chunk.copy_from_slice(&self.bytes()[index * CHUNK..index * CHUNK + chunk.len()]);
        });
        self.in_memory(copy, self.layout())
    }
}
