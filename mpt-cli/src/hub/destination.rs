//! Destination of downloads: the cache that all clients of the hub share, or a plain folder.
//!
//! The cache stores each file once, named by its hash, and has a folder of links for each commit:
//!
//! ```text
//! models--org--name/blobs/<hash>
//! models--org--name/snapshots/<commit>/config.json -> ../../blobs/<hash>
//! models--org--name/refs/main                      the commit of a branch or tag
//! .locks/models--org--name/<hash>.lock             held while a file is downloaded
//! ```
//!
//! A file in `refs` is written last, so the commit it names is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mpt_data::durable;

use crate::exit::CliError;
use crate::hub::client::Client;
use crate::hub::disk;
use crate::hub::listing::RemoteFile;
use crate::hub::name::Revision;
use crate::hub::retry::{check_interrupt, sleep};
use crate::hub::{PullOptions, RepoId};

/// Interval between attempts to take a lock that another process holds.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Destination of the files of one commit.
#[derive(Debug)]
pub(crate) enum Destination {
    /// Shared cache.
    Cache {
        /// Folder of the repository's locks.
        locks: PathBuf,
        /// Folder of the repository.
        repo: PathBuf,
        /// Commit, 40 hexadecimal digits.
        commit: String,
    },
    /// Plain folder of the files themselves.
    Folder(PathBuf),
}

impl Destination {
    /// Destination of `commit` that `options` ask for.
    pub(crate) fn new(options: &PullOptions, cache: &Path, commit: &str) -> Self {
        match &options.dir {
            Some(dir) => Self::Folder(dir.clone()),
            None => Self::Cache {
                locks: cache.join(".locks").join(options.repo.cache_dir_name()),
                repo: repo_dir(cache, &options.repo),
                commit: commit.to_owned(),
            },
        }
    }

    /// Folder of the files under their own names.
    pub(crate) fn dir(&self) -> PathBuf {
        match self {
            Self::Cache { repo, commit, .. } => snapshot_dir(repo, commit),
            Self::Folder(dir) => dir.clone(),
        }
    }

    /// Creates the folders.
    pub(crate) fn create_dirs(&self) -> Result<(), CliError> {
        let make = |dir: &Path| durable::make_dir(dir).map_err(disk::durable_error);
        if let Self::Cache { locks, repo, .. } = self {
            make(locks)?;
            make(&repo.join("blobs"))?;
        }
        make(&self.dir())
    }

    /// Path of a complete file.
    pub(crate) fn final_path(&self, file: &RemoteFile) -> PathBuf {
        match self {
            Self::Cache { repo, .. } => repo.join("blobs").join(file.digest.hex()),
            Self::Folder(dir) => dir.join(&file.name),
        }
    }

    /// Path of an incomplete file.
    pub(crate) fn incomplete_path(&self, file: &RemoteFile) -> PathBuf {
        let mut path = self.final_path(file).into_os_string();
        path.push(INCOMPLETE_SUFFIX);
        path.into()
    }

    /// Whether the complete file exists. A file of the cache was verified when it was downloaded; a file in a folder is
    /// hashed now.
    pub(crate) fn contains(&self, file: &RemoteFile, stop: &AtomicBool) -> Result<bool, CliError> {
        let target = self.final_path(file);
        if !fs::metadata(&target).is_ok_and(|data| data.is_file() && data.len() == file.size) {
            return Ok(false);
        }
        if matches!(self, Self::Cache { .. }) {
            return Ok(true);
        }
        let matches = file.digest.matches(&target, file.size, || check_interrupt(stop).is_ok());
        let matches = matches.map_err(|error| disk::io_error(&target, error))?;
        check_interrupt(stop)?;
        Ok(matches == Some(true))
    }

    /// Takes the lock of a file's download. Returns it, and whether another process held it before.
    pub(crate) fn lock(&self, file: &RemoteFile, client: &Client<'_>) -> Result<(File, bool), CliError> {
        let path = match self {
            Self::Cache { locks, .. } => locks.join(format!("{}.lock", file.digest.hex())),
            Self::Folder(dir) => dir.join(".mpt-pull.lock"),
        };
        let mut waited = false;
        loop {
            if let Some(lock) = durable::lock(&path).map_err(disk::durable_error)? {
                return Ok((lock, waited));
            }
            if !waited {
                client
                    .log()
                    .info(format_args!("{}: waiting for another process that downloads it", file.name));
            }
            waited = true;
            sleep(LOCK_POLL_INTERVAL, client.stop())?;
        }
    }

    /// Links a downloaded file into the snapshot under its own name.
    pub(crate) fn create_link(&self, file: &RemoteFile) -> Result<(), CliError> {
        let Self::Cache { repo, commit, .. } = self else { return Ok(()) };
        let name = snapshot_dir(repo, commit).join(&file.name);
        let blob = Path::new("../../blobs").join(file.digest.hex());
        if fs::read_link(&name).is_ok_and(|to| to == blob) {
            return Ok(());
        }
        // two processes may create the same link: each uses a temporary name of its own
        let folder = name.parent().unwrap_or(Path::new(""));
        let temporary = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .make_in(folder, |temporary| symlink(&blob, temporary));
        let linked = temporary.and_then(|temporary| temporary.persist(&name).map_err(|error| error.error));
        linked.map_err(|error| disk::io_error(&name, error))
    }

    /// Writes the commit of `revision`, which marks it as complete and lets it be found offline.
    pub(crate) fn write_ref(&self, revision: &Revision) -> Result<(), CliError> {
        let Self::Cache { repo, commit, .. } = self else { return Ok(()) };
        let path = ref_path(repo, revision);
        let known = fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit);
        if known || revision.as_str() == commit {
            return Ok(());
        }
        durable::write_file(&path, commit.as_bytes()).map_err(disk::durable_error)
    }
}

/// Suffix of an incomplete file's name.
pub(crate) const INCOMPLETE_SUFFIX: &str = ".incomplete";

/// Folder of a repository in the cache.
pub(crate) fn repo_dir(cache: &Path, repo: &RepoId) -> PathBuf {
    cache.join(repo.cache_dir_name())
}

/// Folder of a commit's files.
pub(crate) fn snapshot_dir(repo_dir: &Path, commit: &str) -> PathBuf {
    repo_dir.join("snapshots").join(commit)
}

/// File with the commit of a branch or tag.
pub(crate) fn ref_path(repo_dir: &Path, revision: &Revision) -> PathBuf {
    repo_dir.join("refs").join(revision.as_str())
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

/// Hard link in place of a symbolic link, which needs special rights on this system.
#[cfg(not(unix))]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    fs::hard_link(at.with_file_name(to), at)
}
