//! Weights files of a model folder: one file, or those that an index names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::{FileTensor, MappedFile};
use super::{index, pickle, safetensors};
use crate::error::{Error, Result};
use crate::storage::StoredTensor;

/// Names of a single weights file, by precedence.
pub(super) const SINGLE_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Name of the index that replaces a single file.
pub(super) fn index_name(single: &str) -> String {
    format!("{single}.index.json")
}

/// Weights files of a folder, in the order of their names. safetensors takes precedence over `.bin`, and a single file over
/// its index.
///
/// # Errors
/// [`Error::NoWeights`], and those of the index.
pub(super) fn weights_files(dir: &Path) -> Result<Vec<PathBuf>> {
    for single in SINGLE_FILES {
        let (single, index) = (dir.join(single), dir.join(index_name(single)));
        if single.is_file() {
            return Ok(vec![single]);
        }
        if index.is_file() {
            return index::files(dir, &index);
        }
    }
    Err(Error::NoWeights { path: dir.to_owned(), hint: hint(dir) })
}

/// Hint for a folder without weights that holds a GGUF file.
fn hint(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).ok().into_iter().flatten().flatten().map(|entry| entry.path());
    match files.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).min() {
        Some(path) => format!("; did you mean the file {}?", path.display()),
        None => String::new(),
    }
}

/// Opens a weights file by its extension.
pub(super) fn open_file(path: &Path) -> Result<MappedFile> {
    match path.extension() {
        Some(extension) if extension == "bin" => pickle::open(path),
        _ => safetensors::open(path),
    }
}

/// Tensors of a weights file outside a model, such as an adapter.
///
/// # Errors
/// Those of the file, and [`Error::TensorDtype`].
pub(crate) fn open_tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let file = open_file(path)?;
    let stored = |tensor: &FileTensor| {
        let dtype = tensor.weight_dtype(path)?;
        let stored = StoredTensor::mapped(&file.map, tensor.range.clone(), dtype, &tensor.shape);
        Ok((tensor.name.clone(), stored))
    };
    file.tensors.iter().map(stored).collect()
}
