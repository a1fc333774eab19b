//! Read-only memory maps of our own files, whose bytes are used in the page cache without a copy.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::Mmap;

/// Bytes of a mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file, whose handle may be closed.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "mapping a file needs the promise that nobody truncates it meanwhile")]
        // SAFETY: the map is only read. Shards and units are written aside and renamed, never changed in place; a program
        // that does truncate one while it is mapped ends this process with a bus error, as it would any reader of maps; `mpt`
        // says then which file it was.
        let map = unsafe { Mmap::map(file) };
        map.map(Self)
    }

    /// Advises the system of random access, without read-ahead.
    #[cfg(unix)]
    pub(crate) fn advise_random(self) -> Self {
        // A refusal changes nothing.
        let _ = self.0.advise(memmap2::Advice::Random);
        self
    }

    /// Does nothing on other systems.
    #[cfg(not(unix))]
    pub(crate) fn advise_random(self) -> Self {
        self
    }

    /// `length` bytes from `offset` on, if the file has them.
    pub(crate) fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.0.get(range(offset, length)?)
    }

    /// Advises the system to read these bytes at once, and not page by page.
    #[cfg(unix)]
    pub(crate) fn advise_needed(&self, offset: u64, length: usize) {
        if let Some(range) = range(offset, length) {
            let _ = self.0.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
    }

    /// Does nothing on other systems.
    #[cfg(not(unix))]
    pub(crate) fn advise_needed(&self, _offset: u64, _length: usize) {}

    /// Prefetches these bytes into the processor's cache, where they are in memory.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn prefetch(&self, offset: u64, length: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        for line in self.get(offset, length).unwrap_or_default().chunks(LINE) {
            #[expect(unsafe_code, reason = "a hint to the processor")]
            // SAFETY: every processor of this architecture has it, and it reads nothing as far as the program can see.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
        }
    }

    /// Does nothing on other processors.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn prefetch(&self, _offset: u64, _length: usize) {}
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn range(offset: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_does_not_have_is_not_given() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let map = |bytes: &[u8]| {
            let path = dir.path().join(format!("{}", bytes.len()));
            std::fs::write(&path, bytes).expect("writable");
            MappedFile::new(&File::open(&path).expect("openable")).expect("mappable").advise_random()
        };
        let (empty, some) = (map(b""), map(b"bytes"));
        assert_eq!((empty.get(0, 0), empty.get(0, 1)), (Some(&b""[..]), None));
        assert_eq!((some.get(1, 4), some.get(1, 5)), (Some(&b"ytes"[..]), None));
        assert_eq!((some.get(u64::MAX, 1), some.get(1, usize::MAX)), (None, None));
        for map in [empty, some] {
            for (offset, length) in [(0, 0), (0, 5), (3, 9), (u64::MAX, 1)] {
                map.advise_needed(offset, length);
                map.prefetch(offset, length);
            }
        }
    }
}
