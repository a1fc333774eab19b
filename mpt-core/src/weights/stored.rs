//! A tensor as it lies in a file: read-only, shared, widened to f32 where it is used.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use memmap2::{Mmap, MmapMut};
use rayon::prelude::*;

use super::format::Format;
use super::mmap;
use crate::error::{Error, Result};
use crate::kernels::cpu::gemm::{Mat, Packed, SIDE, Tile, column_of_pairs, fill_right_pairs, tiles_of_pairs};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::quant::{self, LANES, Panels};
use crate::kernels::cpu::quantize::nf4::Nf4;
use crate::kernels::cpu::quantize::{self, Refusal};
use crate::kernels::cpu::scratch::Scratch;
use crate::kernels::cpu::{narrow, widen};

/// Bytes of a tensor: a part of a mapped file, or memory of its own, mapped or not.
#[derive(Clone)]
enum Bytes {
    File(Arc<Mmap>, Range<usize>),
    Mapped(Arc<Mmap>),
    Owned(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map, range) => &map[range.clone()],
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Says that they were copied: a file's pages need not count as this process's, and come back if they are read again.
    fn copied(&self) {
        if let Self::File(map, range) = self {
            mmap::leave(map, range);
        }
    }
}

/// In which order the bytes of a matrix lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Row after row, as in files.
    Rows,
    /// Panels of 16 rows, as the kernels for quantized weights read them; rows that do not exist are zero.
    Panels,
    /// Tiles of 16 rows of bf16 pairs, as the kernels for products of bf16 read them.
    Tiles,
}

/// A tensor in the form it was stored in. Cloning shares its bytes.
#[derive(Clone)]
pub struct StoredTensor {
    bytes: Bytes,
    format: Format,
    shape: Box<[usize]>,
    order: Order,
}

/// Fresh memory, in large pages where the system has them: weights are read from end to end for every token.
fn room(len: usize) -> Result<MmapMut> {
    let room =
        MmapMut::map_anon(len).map_err(|error| Error::Memory { bytes: len, reason: error.to_string() })?;
    #[cfg(target_os = "linux")]
    // small pages do as well, only slower
    let _ = room.advise(memmap2::Advice::HugePage);
    Ok(room)
}

impl fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTensor({} {:?})", self.format, self.shape)
    }
}

impl StoredTensor {
    /// The bytes `range` of a mapped file, which the caller has checked to be those of a tensor of this form.
    pub(crate) fn mapped(map: &Arc<Mmap>, range: Range<usize>, format: Format, shape: &[usize]) -> Self {
        Self { bytes: Bytes::File(Arc::clone(map), range), format, shape: shape.into(), order: Order::Rows }
    }

    /// Bytes in memory of their own, which are those of a tensor of this form.
    pub(crate) fn owned(bytes: Vec<u8>, format: Format, shape: &[usize]) -> Self {
        Self { bytes: Bytes::Owned(bytes.into()), format, shape: shape.into(), order: Order::Rows }
    }

    /// All values of a tensor in memory of their own, rounded to a form whose blocks fill the rows.
    ///
    /// # Errors
    /// When the form is quantized and a value does not go into it.
    pub(crate) fn from_f32(values: &[f32], shape: &[usize], format: Format) -> Result<Self, Refusal> {
        let bytes = match format {
            Format::F32 | Format::F16 | Format::BF16 => narrow::narrow(format, values),
            Format::Nf4 => Nf4::of(values)?.blocks(),
            _ => quantize::quantize(format, values)?,
        };
        Ok(Self::owned(bytes, format, shape))
    }

    /// The same tensor in the order in which the kernels multiply it, where its form has one; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system gives no room for the copy.
    pub fn in_panels(self) -> Result<Self> {
        if self.shape.len() != 2 || self.order != Order::Rows || !quant::in_integers(self.format) {
            return Ok(self);
        }
        let row_bytes = self.bytes.len() / self.num_rows().max(1);
        let panel_bytes = LANES * row_bytes;
        let len = self.num_rows().div_ceil(LANES) * panel_bytes;
        if len == 0 {
            return Ok(self);
        }
        let mut panels = room(len)?;
        pool::run_chunks(&mut panels, panel_bytes, |index, panel| {
            let rows = &self.bytes[index * panel_bytes..((index + 1) * panel_bytes).min(self.bytes.len())];
            quant::pack_panel(self.format, rows, row_bytes, panel);
        });
        self.holding(panels, Order::Panels)
    }

    /// A matrix of bf16 in the order in which its rounded factors are multiplied; other tensors stay as they are.
    ///
    /// # Errors
    /// [`Error::Memory`] when the system gives no room for the copy.
    pub fn in_tiles(self) -> Result<Self> {
        let (n, k) = (self.num_rows(), self.row_len());
        if self.shape.len() != 2 || self.order != Order::Rows || self.format != Format::BF16 || n * k == 0 {
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
        let room =
            room.make_read_only().map_err(|error| Error::Memory { bytes: len, reason: error.to_string() })?;
        self.bytes.copied();
        Ok(Self { bytes: Bytes::Mapped(Arc::new(room)), order: Order::Tiles, ..self })
    }

    /// The transpose of a matrix that lies in tiles, as a right operand.
    pub(crate) fn tiles(&self) -> Option<Packed<'_>> {
        let tiles = (self.order == Order::Tiles).then(|| bytemuck::cast_slice::<u8, Tile>(&self.bytes))?;
        Some(Packed::kept_pairs(tiles, self.num_rows(), self.row_len()))
    }

    /// The panels of a matrix that lies in them.
    pub(crate) fn panels(&self) -> Option<Panels<'_>> {
        let (n, k) = (self.num_rows(), self.row_len());
        (self.order == Order::Panels).then(|| Panels { bytes: &self.bytes, format: self.format, n, k })
    }

    /// The same values in memory of their own.
    ///
    /// # Errors
    /// [`Error::Memory`] when there is no room.
    pub(crate) fn copied(&self) -> Result<Self> {
        const PART: usize = 1 << 20;
        let len = self.bytes.len();
        if len == 0 {
            return Ok(self.clone());
        }
        let mut copy = room(len)?;
        pool::run_chunks(&mut copy, PART, |index, part| {
            part.copy_from_slice(&self.bytes[index * PART..index * PART + part.len()]);
        });
        self.holding(copy, self.order)
    }

    /// This tensor with other memory, which is read from now on.
    fn holding(&self, memory: MmapMut, order: Order) -> Result<Self> {
        let len = memory.len();
        let memory = memory
            .make_read_only()
            .map_err(|error| Error::Memory { bytes: len, reason: error.to_string() })?;
        self.bytes.copied();
        let bytes = Bytes::Mapped(Arc::new(memory));
        Ok(Self { bytes, format: self.format, shape: self.shape.clone(), order })
    }

    /// How the values lie.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of bytes.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Length of a row, the last dimension.
    pub(crate) fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the last.
    pub(crate) fn num_rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The bytes of some rows of a tensor whose rows follow each other.
    pub(crate) fn row_range(&self, rows: Range<usize>) -> &[u8] {
        debug_assert!(self.order == Order::Rows, "rows of panels are not together");
        let row = self.bytes.len() / self.num_rows().max(1);
        &self.bytes[rows.start * row..rows.end * row]
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
        let Some(panels) = self.panels() else { return widen::widen(self.format, self.row_range(rows), out) };
        for (row, out) in rows.zip(out.chunks_exact_mut(panels.k)) {
            widen::widen(self.format, &panels.row(row), out);
        }
    }

    /// The values themselves where they are f32 already and lie on a boundary of 4 bytes.
    pub(crate) fn as_f32s(&self) -> Option<&[f32]> {
        if self.format != Format::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.bytes).ok()
    }

    /// A copy as an f32 tensor.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.to_f32(), &*self.shape, device)?)
    }

    fn to_f32(&self) -> Vec<f32> {
        let len = self.row_len();
        let mut values = vec![0f32; self.num_rows() * len];
        if len > 0 {
            let widen = |(row, out): (usize, &mut [f32])| self.widen_rows(row..row + 1, out);
            values.par_chunks_mut(len).enumerate().for_each(widen);
        }
        values
    }

    /// The index of the first value that is infinite or not a number, counted along rows.
    pub fn first_non_finite(&self) -> Option<usize> {
        let len = self.row_len();
        let in_row = |row: usize| {
            let mut values = vec![0f32; len];
            self.widen_rows(row..row + 1, &mut values);
            values.iter().position(|value| !value.is_finite()).map(|at| row * len + at)
        };
        (0..self.num_rows()).into_par_iter().find_map_first(in_row)
    }

    /// The same tensor rounded to a form whose blocks fill its rows; itself where it has that form.
    ///
    /// # Errors
    /// When the form is quantized and a value does not go into it.
    pub(crate) fn rounded(self, format: Format) -> Result<Self, Refusal> {
        match format {
            _ if format == self.format => Ok(self),
            Format::F32 | Format::F16 | Format::BF16 | Format::Nf4 => {
                Self::from_f32(&self.to_f32(), &self.shape, format)
            }
            _ => self.quantized(format),
        }
    }

    /// The tensor in one of ggml's forms, row by row, so that only the result and a few rows are in memory.
    fn quantized(&self, format: Format) -> Result<Self, Refusal> {
        let len = self.row_len();
        let row_bytes = format.row_bytes(len).expect("blocks fill the rows");
        let mut bytes = vec![0; self.num_rows() * row_bytes];
        let row = |values: &mut Vec<f32>, (row, out): (usize, &mut [u8])| {
            self.widen_rows(row..row + 1, values);
            quantize::piece(format, values, out).err().map(|refusal| refusal.after(row * len))
        };
        let rows = bytes.par_chunks_mut(row_bytes.max(1)).enumerate();
        let refused = rows.map_init(|| vec![0f32; len], row).find_map_first(|refusal| refusal);
        refused.map_or_else(|| Ok(Self::owned(bytes, format, &self.shape)), Err)
    }
}
