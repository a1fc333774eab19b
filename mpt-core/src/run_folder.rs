//! Run folders of a training: the checkpoints in them, found by name. A checkpoint's contents are a model folder and, for
//! resuming, the trainer's affair.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Checkpoints of a run folder, `checkpoints/step-N`, with their steps, ascending. Empty where `run_dir` is no run folder.
///
/// # Errors
/// [`Error::Io`] where `checkpoints` cannot be listed.
pub fn run_checkpoints(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let dir = run_dir.join("checkpoints");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| Error::Io { path: dir.clone(), action: "listing", source };
    let mut checkpoints = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse().ok());
        checkpoints.extend(step.map(|step| (step, dir.join(name))));
    }
    checkpoints.sort();
    Ok(checkpoints)
}

/// Checkpoint of the highest step in a run folder; `None` where `run_dir` is no run folder or has none yet.
///
/// # Errors
/// Those of [`run_checkpoints`].
pub fn latest_checkpoint(run_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(run_checkpoints(run_dir)?.pop().map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_checkpoint_is_the_folder_of_the_highest_step() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path();
        assert_eq!(latest_checkpoint(path).unwrap(), None);
        fs::create_dir(path.join("checkpoints")).unwrap();
        assert_eq!(latest_checkpoint(path).unwrap(), None);
        for name in ["step-9", "step-00000010", ".step-00000011.partial", "step-x", "other"] {
            fs::create_dir(path.join("checkpoints").join(name)).unwrap();
        }
        assert_eq!(latest_checkpoint(path).unwrap(), Some(path.join("checkpoints/step-00000010")));
        assert_eq!(latest_checkpoint(Path::new("model.gguf")).unwrap(), None);
    }
}
