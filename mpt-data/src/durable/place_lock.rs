//! The right to write to a place, which one process has at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A locked file beside a place; it goes away with the right.
#[derive(Debug)]
pub(super) struct PlaceLock {
    path: PathBuf,
    file: Option<File>,
}

impl PlaceLock {
    /// Takes the lock file `path`; `None` where another process has it.
    ///
    /// # Errors
    /// [`Error::Io`] naming the lock file.
    pub(super) fn take(path: PathBuf) -> Result<Option<Self>> {
        Ok(claim(&path)?.map(|file| Self { path, file: Some(file) }))
    }
}

impl Drop for PlaceLock {
    fn drop(&mut self) {
        // removed while it is locked, so that nobody loses a file of his own
        let _ = fs::remove_file(&self.path);
        self.file = None;
    }
}

/// The file `path`, made if need be and otherwise as it is, for this process alone until it is closed; `None` where another
/// process has it.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub(super) fn claim(path: &Path) -> Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path);
        let file = file.map_err(Error::io(path, "creating"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::io(path, "locking")(error)),
        }
        // whoever had it may have removed or renamed the file between the two
        if is_still(&file, path).map_err(Error::io(path, "looking at"))? {
            return Ok(Some(file));
        }
    }
}

/// Whether the file has this name still.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let here = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (here.dev(), here.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An open file can be neither removed nor renamed here.
#[cfg(not(unix))]
fn is_still(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}
