//! Read-only memory maps of files.

use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::bounded_file::open;
use crate::error::{Error, Result};

/// Maps the file at `path`.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = open(path)?;
    #[expect(unsafe_code, reason = "mapping a file needs the promise that nobody truncates it meanwhile")]
    // SAFETY: the map is only read. Weights files are replaced by renaming, never truncated in place; a program that
    // does truncate one while it is mapped ends this process with a bus error, as it would any reader of maps.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io(path, "mapping"))
}

/// Releases the pages of a range of a map; the next access reads them from the file again.
pub(crate) fn release_pages(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        #[expect(unsafe_code, reason = "the same advice would discard anonymous memory")]
        // SAFETY: maps of files are read-only, so their pages equal the file.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // pages that stay cost memory only
        let _ = advised;
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
