//! Input files of a run: hashes of the sources' files, and of the files that filters name.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::unit::InputFile;
use crate::config::SourceConfig;
use crate::error::{Error, Result};
use crate::file_digest::{FileDigest, sha256_file};
use crate::filter;
use crate::progress::{Phase, Progress, Shared, advance};
use crate::remote;

/// Hashes the files of each source; each file is given by its path and its name.
pub(crate) fn hash_inputs(
    found: Vec<Vec<(PathBuf, String)>>,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<InputFile>>> {
    let total =
        found.iter().flatten().filter_map(|(path, _)| path.metadata().ok()).map(|data| data.len()).sum();
    progress.start(Phase::Hash, total);
    let shared: Shared<'_, '_> = Mutex::new(&mut *progress);
    let hashed = |(path, name): (PathBuf, String)| {
        let on_read = |bytes| advance(&shared, bytes);
        let (sha256, bytes) = if remote::is_remote(&path) {
            remote::planned_identity(&path, on_read)
        } else {
            sha256_file(&path, on_read)
        }?;
        Ok(InputFile { path, file: FileDigest { name, bytes, sha256 } })
    };
    let inputs = found.into_par_iter().map(|files| files.into_par_iter().map(hashed).collect()).collect();
    progress.finish();
    inputs
}

/// Hashes the files that the filters of a source name.
pub(super) fn hash_lists(source: &SourceConfig, folder: &Path) -> Result<Vec<FileDigest>> {
    let list = |file: String| {
        let (sha256, bytes) = sha256_file(&folder.join(&file), |_| Ok(()))?;
        Ok(FileDigest { name: filter::file_name(&file), bytes, sha256 })
    };
    source.filters.iter().flat_map(filter::Filter::files).map(list).collect()
}

/// Checks that the files of the filters are still those that were hashed before.
///
/// # Errors
/// [`Error::InputChanged`] naming the file.
pub(super) fn check_lists(source: &SourceConfig, folder: &Path, hashed: &[FileDigest]) -> Result<()> {
    let files = source.filters.iter().flat_map(filter::Filter::files);
    for ((file, now), earlier) in files.zip(hash_lists(source, folder)?).zip(hashed) {
        if now != *earlier {
            return Err(Error::InputChanged { path: folder.join(file) });
        }
    }
    Ok(())
}
