//! Mapped weights file and its tensors, common to all formats.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::dtype::WeightDtype;
use crate::error::{Error, Result};

/// Mapped weights file.
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    pub(crate) map: Arc<Mmap>,
    pub(crate) tensors: Vec<FileTensor>,
}

/// Index of a tensor: its file, and its position among the file's tensors.
pub(super) type TensorIndex = (usize, usize);

/// Tensor of a file. `range` lies inside the file and has the bytes of `shape` in the tensor's dtype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileTensor {
    pub(crate) name: String,
    /// Dtype as the file spells it.
    pub(crate) dtype_name: String,
    /// Weight dtype; `None` for dtypes of other tensors, such as an integer buffer.
    pub(crate) dtype: Option<WeightDtype>,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

impl FileTensor {
    /// Weight dtype; `path` is the file.
    ///
    /// # Errors
    /// [`Error::TensorDtype`] when it is none.
    pub(super) fn weight_dtype(&self, path: &Path) -> Result<WeightDtype> {
        self.dtype.ok_or_else(|| Error::TensorDtype {
            path: path.to_owned(),
            name: self.name.clone(),
            actual: self.dtype_name.clone(),
            expected: "F32, F16 or BF16",
        })
    }
}
