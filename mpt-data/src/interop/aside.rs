//! A folder made aside: it takes its name when it is complete, so that nothing half done is ever found under it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::{Error, Result};

const LOCK: &str = "lock";

/// A folder being made. Dropped before [`Aside::commit`], it goes; what a killed process left is cleared by the next.
#[derive(Debug)]
pub(super) struct Aside {
    out: PathBuf,
    dir: PathBuf,
    _lock: File,
}

impl Aside {
    /// Starts what will be `out`, which must be new or an empty folder.
    pub(super) fn begin(out: &Path) -> Result<Self> {
        let name = out.file_name().ok_or_else(|| Error::NotOurs { path: out.to_owned() })?;
        let dir = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        durable::make_dir(&dir)?;
        let lock = durable::lock(&dir.join(LOCK))?.ok_or_else(|| Error::Busy { path: out.to_owned() })?;
        let aside = Self { out: out.to_owned(), dir, _lock: lock };
        if !is_free(out)? {
            return Err(Error::NotOurs { path: out.to_owned() });
        }
        aside.clear()?;
        Ok(aside)
    }

    /// Where to write until then.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives the folder its name, after all of it has reached the disk.
    pub(super) fn commit(self) -> Result<()> {
        let lock = self.dir.join(LOCK);
        fs::remove_file(&lock).map_err(Error::io(&lock, "removing"))?;
        durable::commit_dir(&self.dir, &self.out)
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir, "listing"))? {
            let entry = entry.map_err(Error::io(&self.dir, "listing"))?;
            let (path, is_dir) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if entry.file_name() != LOCK {
                let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(Error::io(&path, "removing"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a commit there is nothing left; else the next run clears what cannot be removed now.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether nothing, or an empty folder, has this name.
fn is_free(out: &Path) -> Result<bool> {
    if !out.exists() {
        return Ok(true);
    }
    Ok(out.is_dir() && fs::read_dir(out).map_err(Error::io(out, "listing"))?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_the_name_until_all_is_there() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("made");
        let left = dir.path().join(".made.partial/old");
        fs::create_dir_all(&left).expect("creatable");
        let aside = Aside::begin(&out).expect("begun");
        assert!(!left.exists(), "what a killed process left is cleared");
        assert!(matches!(Aside::begin(&out), Err(Error::Busy { .. })));
        fs::write(aside.dir().join("file"), "x").expect("writable");
        assert!(!out.exists());
        aside.commit().expect("committed");
        let names: Vec<_> =
            fs::read_dir(&out).expect("there").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(names, ["file"]);
        assert!(matches!(Aside::begin(&out), Err(Error::NotOurs { .. })));
        assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 1, "nothing stays aside");
    }
}
