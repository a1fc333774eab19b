//! Lookup of complete downloads without a network (`HF_HUB_OFFLINE=1`), by this or another client.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::CliError;
use crate::hub::destination::{INCOMPLETE_SUFFIX, ref_path, repo_dir, snapshot_dir};
use crate::hub::disk;
use crate::hub::listing::{is_index, is_weights, select_files};
use crate::hub::name::is_hex;
use crate::hub::{PullOptions, Snapshot, SnapshotFile};

/// Snapshot that `options` name, from the local disk.
///
/// # Errors
/// Exit status 3 for a revision that was not downloaded, or not completely.
pub(crate) fn find(options: &PullOptions, cache: &Path) -> Result<Snapshot, CliError> {
    let (path, revision) = match &options.dir {
        Some(dir) => (dir.clone(), None),
        None => cached_snapshot(options, cache)?,
    };
    let files =
        model_files(&path).map_err(|what| unavailable(options, &format!("{}: {what}", path.display())))?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    Ok(Snapshot { path, revision, files, bytes })
}

/// Snapshot folder of a revision in the cache, and its commit.
fn cached_snapshot(options: &PullOptions, cache: &Path) -> Result<(PathBuf, Option<String>), CliError> {
    let repo = repo_dir(cache, &options.repo);
    let commit = if options.revision.is_commit() {
        options.revision.as_str().to_owned()
    } else {
        let path = ref_path(&repo, &options.revision);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                unavailable(options, &format!("it is not in the cache {}", cache.display()))
            }
            _ => disk::io_error(&path, error),
        })?;
        let commit = text.trim().to_owned();
        if !is_hex(&commit, 40) {
            return Err(unavailable(options, &format!("{}: it holds no commit", path.display())));
        }
        commit
    };
    Ok((snapshot_dir(&repo, &commit), Some(commit)))
}

/// Files of a folder that mpt reads. The error names the missing one.
fn model_files(dir: &Path) -> Result<Vec<SnapshotFile>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    if let Some((name, _)) = found.iter().find(|(name, _)| name.ends_with(INCOMPLETE_SUFFIX)) {
        return Err(format!("{name} is a download that was not finished"));
    }
    let files = select_files(found);
    if !files.iter().any(|(name, _)| is_weights(name)) {
        return Err("there are no weights in it".to_owned());
    }
    for (name, path) in files.iter().filter(|(name, _)| is_index(name)) {
        check_shards(name, path, &files)?;
    }
    files.into_iter().map(snapshot_file).collect()
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

fn check_shards(name: &str, path: &Path, files: &[(String, PathBuf)]) -> Result<(), String> {
    let text = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let index: ShardIndex = serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?;
    let missing = index.weight_map.values().find(|shard| !files.iter().any(|(name, _)| name == *shard));
    missing.map_or(Ok(()), |shard| Err(format!("{shard} is missing")))
}

fn snapshot_file((name, path): (String, PathBuf)) -> Result<SnapshotFile, String> {
    match fs::metadata(&path) {
        Ok(data) if data.is_file() => Ok(SnapshotFile { bytes: data.len(), name }),
        Ok(_) => Err(format!("{name} is not a file")),
        Err(_) => Err(format!("{name} leads to a file that is missing")),
    }
}

fn unavailable(options: &PullOptions, what: &str) -> CliError {
    CliError::data(format!("{} at {}, offline: {what}", options.repo, options.revision))
        .help("unset HF_HUB_OFFLINE and run the same command again to download it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("writable");
        }
        dir
    }

    #[test]
    fn a_folder_with_all_shards_is_complete() {
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        let mut files = vec![("config.json", "{}"), ("model.safetensors.index.json", index)];
        files.extend([("model-1.safetensors", "1"), ("pytorch_model.bin.index.json", "never read")]);
        assert_eq!(model_files(folder(&files).path()), Err("model-2.safetensors is missing".to_owned()));
        files.push(("model-2.safetensors", "22"));
        let found = model_files(folder(&files).path()).expect("complete");
        let names: Vec<_> = found.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        let index = ("model.safetensors.index.json", index.len() as u64);
        assert_eq!(
            names,
            [("config.json", 2), index, ("model-1.safetensors", 1), ("model-2.safetensors", 2)]
        );
    }

    #[test]
    fn a_folder_without_weights_or_with_a_partial_file_is_not() {
        assert!(model_files(folder(&[("config.json", "{}")]).path()).is_err());
        let files = [("model.safetensors", "1"), ("config.json.incomplete", "")];
        assert!(
            model_files(folder(&files).path()).is_err_and(|what| what.contains("config.json.incomplete"))
        );
    }
}
