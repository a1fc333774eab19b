//! Output folder of a build: who may write to it, and what it holds already.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::plan::PlannedRun;
use super::plan_changes::changes;
use crate::durable;
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, Manifest, UNITS};
use crate::progress::{Note, Progress};

/// Name of the lock in the folder of units.
pub(super) const LOCK: &str = "lock";

/// State of an output folder.
pub(super) enum OutputState {
    /// Complete data of the same plan.
    Finished(Manifest),
    /// Folder of units, and the lock, which is held as long as the file is open.
    Locked(PathBuf, File),
}

/// Opens the output folder. Another process may be finishing it at this moment, so its content is checked under the lock.
pub(super) fn open_output(
    out: &Path,
    planned: &PlannedRun<'_>,
    progress: &mut dyn Progress,
) -> Result<OutputState> {
    loop {
        if let Some(manifest) = finished(out, planned, progress)? {
            return Ok(OutputState::Finished(manifest));
        }
        let units = match claim(out) {
            Err(Error::NotOurs { .. }) if out.join(MANIFEST).exists() => continue,
            units => units?,
        };
        let path = units.join(LOCK);
        let lock = match durable::lock(&path) {
            Err(Error::Io { .. }) if !units.exists() => continue,
            lock => lock?.ok_or_else(|| Error::Busy { path: out.to_owned() })?,
        };
        // A process that finished removed the folder of units, with the lock that this one may have waited for.
        if is_same_file(&lock, &path) && !out.join(MANIFEST).exists() {
            return Ok(OutputState::Locked(units, lock));
        }
    }
}

#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
    file.metadata().map(identity).ok() == path.metadata().map(identity).ok()
}

/// An open file cannot be removed on other systems.
#[cfg(not(unix))]
fn is_same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Complete data in the folder. Data whose files are missing becomes an interrupted build, which makes them again.
///
/// # Errors
/// [`Error::Changed`] for data of another plan.
pub(super) fn finished(
    out: &Path,
    planned: &PlannedRun<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<Manifest>> {
    if !out.join(MANIFEST).exists() {
        return Ok(None);
    }
    let manifest = Manifest::open(out)?;
    let changes = changes(manifest.plan(), &planned.plan);
    if !changes.is_empty() {
        return Err(Error::Changed { path: out.to_owned(), changes });
    }
    if let Some(file) = manifest.first_incomplete() {
        progress.note(&Note::Incomplete { file });
        durable::make_dir(&out.join(UNITS))?;
        let removed = std::fs::remove_file(out.join(MANIFEST));
        ignore_missing(removed).map_err(Error::io(out, "removing the manifest"))?;
        return Ok(None);
    }
    remove_units(out)?;
    progress.note(&Note::AlreadyBuilt);
    Ok(Some(manifest))
}

/// Claims the output folder: a new or empty one, or one in which a build began. Returns the folder of units.
pub(super) fn claim(out: &Path) -> Result<PathBuf> {
    let units = out.join(UNITS);
    if !units.is_dir() && out.exists() {
        let mut entries = std::fs::read_dir(out).map_err(Error::io(out, "listing"))?;
        if entries.next().is_some() {
            return Err(Error::NotOurs { path: out.to_owned() });
        }
    }
    durable::make_dir(&units)?;
    Ok(units)
}

/// Removes the folder of units.
pub(super) fn remove_units(out: &Path) -> Result<()> {
    let units = out.join(UNITS);
    ignore_missing(std::fs::remove_dir_all(&units)).map_err(Error::io(&units, "removing"))
}

/// Another process may have removed the same at the same moment.
fn ignore_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
