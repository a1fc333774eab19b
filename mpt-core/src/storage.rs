//! A tensor's bytes in main memory: part of a mapped file, or memory of their own; read-only and shared.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};
use crate::mmap;

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

/// A tensor in the form it was stored in. Cloning shares its bytes.
#[derive(Clone)]
pub struct StoredTensor {
    bytes: Bytes,
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
    /// The bytes `range` of a mapped file, which the caller has checked to be those of a tensor of this form.
    pub(crate) fn mapped(map: &Arc<Mmap>, range: Range<usize>, dtype: WeightDtype, shape: &[usize]) -> Self {
        Self {
            bytes: Bytes::File(Arc::clone(map), range),
            dtype,
            shape: shape.into(),
            layout: WeightLayout::RowMajor,
        }
    }

    /// Bytes in memory of their own, which are those of a tensor of this form.
    pub(crate) fn owned(bytes: Vec<u8>, dtype: WeightDtype, shape: &[usize]) -> Self {
        Self { bytes: Bytes::Owned(bytes.into()), dtype, shape: shape.into(), layout: WeightLayout::RowMajor }
    }

    /// This tensor in other memory and another order, which are read from now on.
    pub(crate) fn in_memory(&self, memory: MmapMut, layout: WeightLayout) -> Result<Self> {
        let bytes = memory.len();
        let memory = memory.make_read_only().map_err(|source| Error::Memory { bytes, source })?;
        self.bytes.copied();
        let bytes = Bytes::Mapped(Arc::new(memory));
        Ok(Self { bytes, dtype: self.dtype, shape: self.shape.clone(), layout })
    }

    /// Memory layout.
    pub(crate) fn layout(&self) -> WeightLayout {
        self.layout
    }

    /// The bytes as they lie.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How the values lie.
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
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
        debug_assert!(self.layout == WeightLayout::RowMajor, "rows of panels are not together");
        let row = self.bytes.len() / self.num_rows().max(1);
        &self.bytes[rows.start * row..rows.end * row]
    }

    /// The values themselves where they are f32 already and lie on a boundary of 4 bytes.
    pub(crate) fn as_f32s(&self) -> Option<&[f32]> {
        if self.dtype != WeightDtype::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.bytes).ok()
    }
}
