//! Bounded reading of untrusted files: regular files only, text up to a size limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result, damaged};

/// Prefix of a Git LFS pointer, the text that stands for a file that was not fetched.
const LFS_PREFIX: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Largest configuration in bytes; MPT's have about 2,000.
const MAX_CONFIG_BYTES: u64 = 256 << 10;

/// Opens a regular file. Others are refused first: opening a pipe would block until someone writes to it.
pub(crate) fn open(path: &Path) -> Result<File> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "opening"))?;
    if !found.is_file() {
        return Err(damaged(path, "a folder, a pipe or a device", "a file"));
    }
    File::open(path).map_err(Error::io(path, "opening"))
}

/// Refuses a Git LFS pointer.
///
/// # Errors
/// [`Error::NotFetched`] with what to do.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    if !bytes.starts_with(LFS_PREFIX) {
        return Ok(());
    }
    let expected = "the file itself; run `git lfs pull` in the folder, or fetch the model again";
    let found = "a Git LFS pointer, which stands for a file that was not fetched".to_owned();
    Err(Error::NotFetched { path: path.to_owned(), found, expected })
}

/// Text of a configuration file.
pub(crate) fn read_config(path: &Path) -> Result<String> {
    read_text(path, MAX_CONFIG_BYTES, "at most 256 KiB of JSON")
}

/// Text of a file of at most `max_bytes` bytes; `expected` states the limit in the error.
pub(crate) fn read_text(path: &Path, max_bytes: u64, expected: &'static str) -> Result<String> {
    let mut text = String::new();
    open(path)?.take(max_bytes + 1).read_to_string(&mut text).map_err(Error::io(path, "reading"))?;
    if text.len() as u64 > max_bytes {
        return Err(damaged(path, format!("a file of more than {max_bytes} bytes"), expected));
    }
    refuse_pointer(path, text.as_bytes())?;
    Ok(text)
}
