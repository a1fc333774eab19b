//! Weights in the layout that the kernels of a device read, made once when a model is loaded.

use memmap2::MmapMut;

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::kernels::cpu::gemm::{Mat, SIDE, Tile, fill_right_pairs, tiles_of_pairs};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::quant::{self, LANES};
use crate::kernels::cpu::scratch::Scratch;
use crate::storage::{Order, StoredTensor};

/// Fresh memory, in large pages where the system has them: weights are read from end to end for every token.
fn room(len: usize) -> Result<MmapMut> {
    let room = MmapMut::map_anon(len).map_err(|source| Error::Memory { bytes: len, source })?;
    #[cfg(target_os = "linux")]
    // small pages do as well, only slower
    let _ = room.advise(memmap2::Advice::HugePage);
    Ok(room)
}

impl StoredTensor {
    /// The same tensor in the order in which the kernels multiply it, where its form has one; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system gives no room for the copy.
    pub fn in_panels(self) -> Result<Self> {
        if self.shape().len() != 2 || self.order() != Order::Rows || !quant::in_integers(self.dtype()) {
            return Ok(self);
        }
        let row_bytes = self.bytes().len() / self.num_rows().max(1);
        let panel_bytes = LANES * row_bytes;
        let len = self.num_rows().div_ceil(LANES) * panel_bytes;
        if len == 0 {
            return Ok(self);
        }
        let mut panels = room(len)?;
        pool::run_chunks(&mut panels, panel_bytes, |index, panel| {
            let rows =
                &self.bytes()[index * panel_bytes..((index + 1) * panel_bytes).min(self.bytes().len())];
            quant::pack_panel(self.dtype(), rows, row_bytes, panel);
        });
        self.in_memory(panels, Order::Panels)
    }

    /// A matrix of bf16 in the order in which its rounded factors are multiplied; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system gives no room for the copy.
    pub fn in_tiles(self) -> Result<Self> {
        let (n, k) = (self.num_rows(), self.row_len());
        if self.shape().len() != 2
            || self.order() != Order::Rows
            || self.dtype() != WeightDtype::BF16
            || n * k == 0
        {
            return Ok(self);
        }
        let len = tiles_of_pairs(n, k) * size_of::<Tile>();
        let mut room = room(len)?;
        let panel = tiles_of_pairs(1, k);
        pool::run_chunks(bytemuck::cast_slice_mut::<u8, Tile>(&mut room), panel, |index, tiles| {
            let rows = index * SIDE..((index + 1) * SIDE).min(n);
            let mut wide = Scratch::take(rows.len() * k, 0f32);
            self.widen_rows(rows.clone(), &mut wide);
            fill_right_pairs(tiles, Mat::new(&wide, rows.len(), k, k));
        });
        self.in_memory(room, Order::Tiles)
    }

    /// The same values in memory of their own.
    ///
    /// # Errors
    /// [`Error::Memory`] when there is no room.
    pub(crate) fn copied(&self) -> Result<Self> {
        const PART: usize = 1 << 20;
        let len = self.bytes().len();
        if len == 0 {
            return Ok(self.clone());
        }
        let mut copy = room(len)?;
        pool::run_chunks(&mut copy, PART, |index, part| {
            part.copy_from_slice(&self.bytes()[index * PART..index * PART + part.len()]);
        });
        self.in_memory(copy, self.order())
    }
}
