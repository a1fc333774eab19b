//! Deterministic listing of folders.

use std::path::{Path, PathBuf};

/// Files below a folder, sorted, without hidden files and links.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path != folder && (hidden || path.is_symlink()) {
            continue;
        }
        match path.is_dir() {
            true => open.extend(sorted_entries(&path).into_iter().rev()),
            false => files.push(path),
        }
    }
    files
}

/// Entries of a folder, sorted; empty if it cannot be read.
pub(super) fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
