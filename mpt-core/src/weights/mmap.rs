//! A file mapped into memory, read-only, and the tensors found in it.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::format::Format;
use crate::error::{Error, Result};

/// Text files beside weights are read whole up to this size.
const LARGEST_TEXT: u64 = 64 << 20;

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
    pub(crate) format: Option<Format>,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// Maps the file at `path`.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "opening"))?;
    #[expect(unsafe_code, reason = "mapping a file needs the promise that nobody truncates it meanwhile")]
    // SAFETY: the map is only read. Weights files are replaced by renaming, never truncated in place; a program that
    // does truncate one while it is mapped ends this process with a bus error, as it would any reader of maps.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io(path, "mapping"))
}

/// The text of a configuration or an index.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "reading"))?.len();
    if size > LARGEST_TEXT {
        let found = format!("a file of {size} bytes");
        return Err(Error::WeightsFile { path: path.to_owned(), found, expected: "at most 64 MiB of JSON" });
    }
    std::fs::read_to_string(path).map_err(Error::io(path, "reading"))
}

/// An error about the content of `path`.
pub(crate) fn damaged(path: &Path, found: impl Into<String>, expected: &'static str) -> Error {
    Error::WeightsFile { path: path.to_owned(), found: found.into(), expected }
}
