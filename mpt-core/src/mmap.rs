//! Files mapped into memory, read-only.

use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::bounded_file::open;
use crate::error::{Error, Result};

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
