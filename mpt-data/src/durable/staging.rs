//! Output in the making: written beside its place under a hidden name, by one process at a time, and renamed when it is
//! whole and has reached the disk.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::place_lock::PlaceLock;
use super::{commit_dir, commit_file, hidden, make_dir, make_parent};
use crate::error::{Error, Result};

/// A folder or file in the making. The place is this process's from the beginning until after the renaming. Dropped before
/// [`Staging::commit`], it goes away; what a killed process left is cleared by the next.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    out: PathBuf,
    _lock: PlaceLock,
}

impl Staging {
    /// Begins a folder that will be `out`, where nothing is yet, or an empty folder.
    ///
    /// # Errors
    /// [`Error::Taken`] where there is something, [`Error::Busy`] where another process writes there, [`Error::Io`].
    pub fn folder(out: &Path) -> Result<Self> {
        let staging = Self::begin(out, |found| is_empty_dir(out, found))?;
        make_dir(&staging.path)?;
        Ok(staging)
    }

    /// Begins a file that will be `out`, where nothing is yet.
    ///
    /// # Errors
    /// As [`Staging::folder`].
    pub fn file(out: &Path) -> Result<Self> {
        Self::begin(out, |_| Ok(false))
    }

    /// Begins a file that will replace the file `out`.
    ///
    /// # Errors
    /// As [`Staging::folder`]; only a folder is in its way.
    pub fn replacement(out: &Path) -> Result<Self> {
        Self::begin(out, |found| Ok(!found.is_dir()))
    }

    /// Takes the place, where `may_go` says of what is there that it may be replaced.
    fn begin(out: &Path, may_go: impl FnOnce(&Metadata) -> Result<bool>) -> Result<Self> {
        let taken = || Error::Taken { path: out.to_owned() };
        if out.file_name().is_none() {
            return Err(taken());
        }
        make_parent(out)?;
        let lock = PlaceLock::take(hidden(out, ".lock"))?;
        let lock = lock.ok_or_else(|| Error::Busy { path: out.to_owned() })?;
        match fs::symlink_metadata(out) {
            Ok(found) if !may_go(&found)? => return Err(taken()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(out, "looking at")(error));
            }
            _ => {}
        }
        let staging = Self { path: hidden(out, ".partial"), out: out.to_owned(), _lock: lock };
        remove(&staging.path)?;
        Ok(staging)
    }

    /// Where to write until then.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what was written its name, after it has reached the disk.
    ///
    /// # Errors
    /// [`Error::Io`] naming the folder or file.
    pub fn commit(self) -> Result<()> {
        if self.path.is_dir() {
            commit_dir(&self.path, &self.out)
        } else {
            commit_file(&self.path, &self.out)
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // after a commit nothing is left; else the next process clears what cannot be removed now
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "removing")(error)),
        _ => Ok(()),
    }
}

/// Whether what was found at `out` is an empty folder.
fn is_empty_dir(out: &Path, found: &Metadata) -> Result<bool> {
    Ok(found.is_dir() && fs::read_dir(out).map_err(Error::io(out, "listing"))?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("one").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_place_is_one_writers_until_it_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let first = Staging::file(&out).expect("free");
        assert!(matches!(Staging::file(&out), Err(Error::Busy { .. })));
        assert!(matches!(Staging::replacement(&out), Err(Error::Busy { .. })));
        fs::write(first.path(), "whole").expect("writable");
        first.commit().expect("renamed");
        assert!(matches!(Staging::file(&out), Err(Error::Taken { .. })));
        assert_eq!(names(dir.path()), ["out"], "nothing stays beside it");
        drop(Staging::replacement(&out).expect("a file may be replaced"));
        assert_eq!(fs::read(&out).expect("readable"), b"whole");
    }

    #[test]
    fn a_folder_is_cleared_filled_and_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("made");
        let left = dir.path().join(".made.partial/old");
        fs::create_dir_all(&left).expect("creatable");
        let staging = Staging::folder(&out).expect("begun");
        assert!(!left.exists(), "what a killed process left is cleared");
        fs::write(staging.path().join("file"), "x").expect("writable");
        assert!(!out.exists());
        staging.commit().expect("committed");
        assert_eq!((names(&out), names(dir.path())), (vec!["file".into()], vec!["made".into()]));
        assert!(matches!(Staging::folder(&out), Err(Error::Taken { .. })));
    }

    #[test]
    fn what_is_not_committed_goes_away() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let staging = Staging::folder(&dir.path().join("new/out")).expect("free");
        fs::write(staging.path().join("a"), "half").expect("writable");
        drop(staging);
        assert!(names(&dir.path().join("new")).is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn names_that_lead_elsewhere_are_not_free() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        std::os::unix::fs::symlink("nowhere", &out).expect("a link");
        assert!(matches!(Staging::folder(&out), Err(Error::Taken { .. })));
        assert!(matches!(Staging::file(Path::new("/")), Err(Error::Taken { .. })));
        fs::create_dir(dir.path().join("empty")).expect("creatable");
        let empty = dir.path().join("empty");
        assert!(matches!(Staging::file(&empty), Err(Error::Taken { .. })));
        assert!(matches!(Staging::replacement(&empty), Err(Error::Taken { .. })));
        Staging::folder(&empty).expect("nothing is in it").commit().expect("named");
    }

    /// Whoever ends first, what stands there is what one of them wrote, and the others said why they did not.
    #[test]
    fn of_many_at_once_each_is_whole_or_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let write = |writer: u8| -> Result<()> {
            let staging = Staging::folder(&out)?;
            for name in ["a", "b", "c"] {
                fs::write(staging.path().join(name), [writer]).map_err(Error::io(&out, "writing"))?;
            }
            staging.commit()
        };
        for _ in 0..30 {
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
            let refused = |result: &Result<()>| {
                matches!(result, Err(Error::Busy { .. } | Error::Taken { .. }) | Ok(()))
            };
            assert!(results.iter().all(refused), "{results:?}");
            let read = |name: &str| fs::read(out.join(name)).expect("whole");
            assert_eq!((read("a"), read("a")), (read("b"), read("c")));
            fs::remove_dir_all(&out).expect("removable");
        }
        assert!(names(dir.path()).is_empty());
    }
}
