//! A weights file and the tensors found in it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;

use crate::dtype::WeightDtype;

/// A weights file: its bytes, and where its tensors lie in them.
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    pub(crate) map: Arc<Mmap>,
    pub(crate) tensors: Vec<FileTensor>,
}

/// A tensor of a file. `range` lies inside the file and has the bytes of `shape` in `format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileTensor {
    pub(crate) name: String,
    /// The file's own name for its dtype.
    pub(crate) dtype: String,
    /// `None` for a dtype that no weights of a model have, such as the integers of a buffer.
    pub(crate) format: Option<WeightDtype>,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}
