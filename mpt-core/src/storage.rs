//! Stored tensor: read-only host bytes with a weight dtype, a shape and a layout. Cloning shares the bytes.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::mmap;

/// Shared bytes of a tensor.
#[derive(Clone)]
enum TensorBytes {
    /// Range of a mapped file.
    File(Arc<Mmap>, Range<usize>),
    /// Anonymous map.
    Anonymous(Arc<Mmap>),
    /// Heap.
    Heap(Arc<[u8]>),
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map, range) => &map[range.clone()],
            Self::Anonymous(map) => map,
            Self::Heap(bytes) => bytes,
        }
    }
}

impl TensorBytes {
    /// Releases the resident pages of a mapped file after a copy; they are read again on access.
    fn release_pages(&self) {
        if let Self::File(map, range) = self {
            mmap::release_pages(map, range);
        }
    }
}

/// Memory layout of a weight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightLayout {
    /// Row-major, as in files.
    RowMajor,
    /// Panels of 16 rows for int8 kernels; missing rows are zero.
    Int8Panels,
    /// Tiles of 16 rows of bf16 pairs for bf16 kernels.
    Bf16Tiles,
}

/// Tensor in its stored dtype. Cloning shares the bytes.
#[derive(Clone)]
pub struct StoredTensor {
    bytes: TensorBytes,
    dtype: WeightDtype,
    shape: Box<[usize]>,
    layout: WeightLayout,
}

impl fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTensor({} {:?})", self.dtype, self.shape)
    }
}

impl StoredTensor {
    /// Tensor over the bytes `range` of a mapped file. The caller has checked that they have this dtype and shape.
    pub(crate) fn mapped(map: &Arc<Mmap>, range: Range<usize>, dtype: WeightDtype, shape: &[usize]) -> Self {
        Self {
            bytes: TensorBytes::File(Arc::clone(map), range),
            dtype,
            shape: shape.into(),
            layout: WeightLayout::RowMajor,
        }
    }

    /// Tensor over heap bytes of this dtype and shape.
    pub(crate) fn owned(bytes: Vec<u8>, dtype: WeightDtype, shape: &[usize]) -> Self {
        Self {
            bytes: TensorBytes::Heap(bytes.into()),
            dtype,
            shape: shape.into(),
            layout: WeightLayout::RowMajor,
        }
    }

    /// The same tensor over `memory`, which holds its values in `layout`; a mapped file's pages are released.
    pub(crate) fn in_memory(&self, memory: MmapMut, layout: WeightLayout) -> Result<Self> {
        let bytes = memory.len();
        let memory = memory.make_read_only().map_err(|source| Error::Memory { bytes, source })?;
        self.bytes.release_pages();
        let bytes = TensorBytes::Anonymous(Arc::new(memory));
        Ok(Self { bytes, dtype: self.dtype, shape: self.shape.clone(), layout })
    }

    /// Memory layout.
    pub(crate) fn layout(&self) -> WeightLayout {
        self.layout
    }

    /// Bytes in their layout.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Dtype.
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of bytes.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Length of a row: the last dimension.
    pub(crate) fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of the other dimensions.
    pub(crate) fn num_rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Bytes of a range of rows; the layout is row-major.
    pub(crate) fn row_range(&self, rows: Range<usize>) -> &[u8] {
        debug_assert!(self.layout == WeightLayout::RowMajor, "rows of panels are not together");
        let row = self.bytes.len() / self.num_rows().max(1);
        &self.bytes[rows.start * row..rows.end * row]
    }

    /// Values without a copy, when they are f32 and aligned to 4 bytes.
    pub(crate) fn as_f32s(&self) -> Option<&[f32]> {
        if self.dtype != WeightDtype::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.bytes).ok()
    }
}
