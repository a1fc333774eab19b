//! A file mapped into memory, read-only, and the tensors found in it.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::format::Format;
use crate::error::{Error, Result};

/// Bytes of a configuration at most: MPT's have two thousand.
const LARGEST_CONFIG: u64 = 256 << 10;

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
    let file = open(path)?;
    #[expect(unsafe_code, reason = "mapping a file needs the promise that nobody truncates it meanwhile")]
    // SAFETY: the map is only read. Weights files are replaced by renaming, never truncated in place; a program that
    // does truncate one while it is mapped ends this process with a bus error, as it would any reader of maps.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io(path, "mapping"))
}

/// Lets the system take back the pages of a part of a map; they are read from the file again where they are used again.
pub(crate) fn leave(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        #[expect(
            unsafe_code,
            reason = "the same advice would lose what was written to memory that is no file's"
        )]
        // SAFETY: maps of files are read-only, so that their pages hold what the file does.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // pages that stay cost memory, nothing else
        let _ = advised;
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}

/// Opens a file, after a look at what it is: opening a pipe would wait for somebody to write to it.
fn open(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "opening"))?;
    if !found.is_file() {
        return Err(damaged(path, "a folder, a pipe or a device", "a file"));
    }
    File::open(path).map_err(Error::io(path, "opening"))
}

/// The text of a configuration.
pub(crate) fn read_config(path: &Path) -> Result<String> {
    read_text(path, LARGEST_CONFIG, "at most 256 KiB of JSON")
}

/// The text of a file of at most `most` bytes, which `expected` says in words.
pub(crate) fn read_text(path: &Path, most: u64, expected: &'static str) -> Result<String> {
    let mut text = String::new();
    open(path)?.take(most + 1).read_to_string(&mut text).map_err(Error::io(path, "reading"))?;
    if text.len() as u64 > most {
        return Err(damaged(path, format!("a file of more than {most} bytes"), expected));
    }
    Ok(text)
}

/// An error about the content of `path`.
pub(crate) fn damaged(path: &Path, found: impl Into<String>, expected: &'static str) -> Error {
    Error::WeightsFile { path: path.to_owned(), found: found.into(), expected }
}
