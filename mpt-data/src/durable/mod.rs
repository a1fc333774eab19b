//! Files and folders that are there whole or not at all, whatever happens: written aside by one process at a time, synced,
//! renamed, synced.

mod place_lock;
#[cfg(feature = "remote")]
mod shared;
mod staging;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use self::place_lock::claim;
#[cfg(feature = "remote")]
pub(crate) use self::shared::write_shared;
pub use self::staging::Staging;
use crate::error::{Error, Result};

/// Writes a file whole or not at all; one that is there already is replaced. Missing parent folders are made.
///
/// # Errors
/// [`Error::Io`] naming the file, [`Error::Busy`] where another process is writing it.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io(path, "writing"))?;
    file.commit()
}

/// Gives the finished folder `from` its name `to`, after everything in it has reached the disk.
///
/// Both must lie in the same file system, and `to` must not exist, or be an empty folder.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub fn commit_dir(from: &Path, to: &Path) -> Result<()> {
    sync_tree(from)?;
    make_parent(to)?;
    fs::rename(from, to).map_err(Error::io(to, "renaming a folder to this name"))?;
    sync_dir(parent(to))
}

/// Gives the finished file `from` its name `to`, after it has reached the disk; a file of that name is replaced.
///
/// Both must lie in the same file system.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn commit_file(from: &Path, to: &Path) -> Result<()> {
    let file = File::open(from).map_err(Error::io(from, "opening"))?;
    file.sync_all().map_err(Error::io(from, "syncing"))?;
    fs::rename(from, to).map_err(Error::io(to, "renaming a file to this name"))?;
    sync_dir(parent(to))
}

/// A file being written aside; it takes its name only by [`AtomicFile::commit`].
///
/// Its temporary name is fixed (`.NAME.tmp` beside it), so that what a killed process left is overwritten. The file is
/// locked until it has its name. A link that is there stays, and the file that it leads to is replaced. Devices and pipes are
/// not replaced but written to at once.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    aside: PathBuf,
    out: BufWriter<File>,
}

impl AtomicFile {
    /// Starts to write what will be `path`. Missing parent folders are made.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file, [`Error::Busy`] where another process is writing it.
    pub fn create(path: &Path) -> Result<Self> {
        let (path, aside, file) = if is_stream(path) {
            let file = File::options().write(true).open(path).map_err(Error::io(path, "opening"))?;
            (path.to_owned(), path.to_owned(), file)
        } else {
            let path = behind_links(path);
            make_parent(&path)?;
            let aside = hidden(&path, ".tmp");
            let file = claim(&aside)?.ok_or_else(|| Error::Busy { path: path.clone() })?;
            file.set_len(0).map_err(Error::io(&aside, "emptying"))?;
            (path, aside, file)
        };
        Ok(Self { path, aside, out: BufWriter::with_capacity(1 << 18, file) })
    }

    /// Where the bytes are until [`AtomicFile::commit`]; call `flush` before reading them.
    pub fn aside(&self) -> &Path {
        &self.aside
    }

    /// Makes the file appear under its name, synced.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn commit(self) -> Result<()> {
        let file = self.out.into_inner().map_err(|error| Error::Io {
            path: self.path.clone(),
            action: "writing",
            source: error.into_error(),
        })?;
        if self.aside == self.path {
            return Ok(());
        }
        file.sync_all().map_err(Error::io(&self.path, "syncing"))?;
        fs::rename(&self.aside, &self.path).map_err(Error::io(&self.path, "renaming"))?;
        sync_dir(parent(&self.path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Makes a folder and its parents, and lets them reach the disk.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub fn make_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_parent(path)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io(path, "creating the folder")(error));
        }
        _ => {}
    }
    sync_dir(parent(path))
}

/// Takes the lock of a file, which is made if need be; `None` where another process holds it. The lock goes with the
/// process, however it ends.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn lock(path: &Path) -> Result<Option<File>> {
    locked(path, File::try_lock)
}

/// The same for one of many that exclude only those who take [`lock`].
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn lock_shared(path: &Path) -> Result<Option<File>> {
    locked(path, File::try_lock_shared)
}

fn locked(path: &Path, take: fn(&File) -> Result<(), fs::TryLockError>) -> Result<Option<File>> {
    let file = File::create(path).map_err(Error::io(path, "creating"))?;
    match take(&file) {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(Error::io(path, "locking")(error)),
    }
}

/// Whether a device, pipe or socket is at `path`: what is no place for a file.
fn is_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// What a link leads to; `path` itself where it is none, or leads nowhere.
fn behind_links(path: &Path) -> PathBuf {
    let link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let target = if link { fs::canonicalize(path).ok() } else { None };
    target.unwrap_or_else(|| path.to_owned())
}

/// `.NAME` with an ending beside `path`; names need not be text.
fn hidden(path: &Path, ending: &str) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(ending);
    path.with_file_name(hidden)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_dir(parent),
        _ => Ok(()),
    }
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "listing"))? {
        let entry = entry.map_err(Error::io(dir, "listing"))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io(&path, "looking at"))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).map_err(Error::io(&path, "opening"))?;
            file.sync_all().map_err(Error::io(&path, "syncing"))?;
        }
    }
    sync_dir(dir)
}

/// A rename has happened for good only when the folder holding the name is synced.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> Result<()> {
    let handle = File::open(dir).map_err(Error::io(dir, "opening"))?;
    handle.sync_all().map_err(Error::io(dir, "syncing"))
}

/// Folders cannot be opened for syncing here; the file system journals renames.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of the superuser that renames a file to `/dev/null` breaks the machine.
    #[cfg(unix)]
    #[test]
    fn pipes_are_written_to_and_links_stay() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let dir = tempfile::tempdir().expect("a temporary folder");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("a command of every Unix");
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).expect("readable")
        });
        write_file(&pipe, b"whole").expect("written");
        assert_eq!(reader.join().expect("ends"), b"whole");
        assert!(fs::symlink_metadata(&pipe).expect("there").file_type().is_fifo());

        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").expect("writable");
        symlink("file", &link).expect("a link");
        write_file(&link, b"new").expect("written");
        assert_eq!(fs::read(&file).expect("readable"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    fn a_file_appears_only_when_committed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/er/file.bin");
        let mut file = AtomicFile::create(&path).expect("creatable");
        file.write_all(b"half").expect("writable");
        file.flush().expect("writable");
        assert!(!path.exists());
        drop(file);
        write_file(&path, b"whole").expect("what was left is overwritten");
        assert_eq!(fs::read(&path).expect("readable"), b"whole");
        let names: Vec<_> = fs::read_dir(path.parent().expect("has one")).expect("listable").collect();
        assert_eq!(names.len(), 1, "nothing stays aside");
    }

    #[test]
    fn a_file_has_one_writer_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("file");
        let first = AtomicFile::create(&path).expect("free");
        assert!(matches!(AtomicFile::create(&path), Err(Error::Busy { .. })));
        first.commit().expect("named");
        write_file(&path, b"second").expect("the first is done");
        assert_eq!(fs::read(&path).expect("readable"), b"second");
    }

    #[test]
    fn a_folder_takes_its_name_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (from, to) = (dir.path().join("x.tmp"), dir.path().join("made/x"));
        write_file(&from.join("sub/a"), b"a").expect("writable");
        commit_dir(&from, &to).expect("renamed");
        assert_eq!(fs::read(to.join("sub/a")).expect("readable"), b"a");
        assert!(!from.exists());
        write_file(&from.join("b"), b"b").expect("writable");
        let error = commit_dir(&from, &to).expect_err("a full folder is not replaced");
        assert!(error.to_string().contains("renaming a folder"), "{error}");
        assert_eq!(fs::read(to.join("sub/a")).expect("still there"), b"a");
    }

    #[test]
    fn the_file_is_named_in_errors() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let in_the_way = dir.path().join("file");
        write_file(&in_the_way, b"x").expect("writable");
        let error = write_file(&in_the_way.join("below"), b"y").expect_err("a file is no folder");
        assert!(error.to_string().contains(&*in_the_way.to_string_lossy()), "{error}");
    }
}
