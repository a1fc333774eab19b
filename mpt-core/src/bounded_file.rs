//! Reading files that may be anything: what is no file is refused, and texts have a bound.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result, damaged};

/// What a pointer of Git LFS begins with: a small text that stands for a large file in a repository.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Bytes of a configuration at most: MPT's have two thousand.
const LARGEST_CONFIG: u64 = 256 << 10;

/// Opens a file, after a look at what it is: opening a pipe would wait for somebody to write to it.
pub(crate) fn open(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "opening"))?;
    if !found.is_file() {
        return Err(damaged(path, "a folder, a pipe or a device", "a file"));
    }
    File::open(path).map_err(Error::io(path, "opening"))
}

/// Refuses the pointer of Git LFS that stands for a file where it was not fetched.
///
/// # Errors
/// [`Error::NotFetched`] saying what to do.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    if !bytes.starts_with(LFS) {
        return Ok(());
    }
    let expected = "the file itself; run `git lfs pull` in the folder, or fetch the model again";
    let found = "a Git LFS pointer, which stands for a file that was not fetched".to_owned();
    Err(Error::NotFetched { path: path.to_owned(), found, expected })
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
    refuse_pointer(path, text.as_bytes())?;
    Ok(text)
}
