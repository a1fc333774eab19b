//! A file mapped into memory, read-only.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the file at `path`.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "opening"))?;
    #[expect(unsafe_code, reason = "mapping a file needs the promise that nobody truncates it meanwhile")]
    // SAFETY: the map is only read. Weights files are replaced by renaming, never truncated in place; a program that
    // does truncate one while it is mapped ends this process with a bus error, as it would any reader of maps.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io(path, "mapping"))
}
