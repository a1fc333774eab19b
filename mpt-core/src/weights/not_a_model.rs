//! Paths mistaken for a model.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::mistaken::Mistaken;

/// Refuses a path that is recognized as something other than a model.
///
/// # Errors
/// [`Error::NotAModel`].
pub(super) fn refuse(path: &Path) -> Result<()> {
    match recognize(path) {
        Some(found) => Err(Error::NotAModel { path: path.to_owned(), found }),
        None => Ok(()),
    }
}

/// What the path is instead of a model; `None` when it may be a model.
fn recognize(path: &Path) -> Option<Mistaken> {
    let has = |name: &str| path.join(name).is_file();
    if path.is_file() {
        let extension = path.extension()?.to_str()?;
        let is_weights = matches!(extension, "safetensors" | "bin" | "pt" | "pth") && !is_gguf(path);
        return is_weights.then_some(Mistaken::WeightsFile);
    }
    if !path.is_dir() {
        return may_be_on_a_hub(path).then_some(Mistaken::Absent);
    }
    if has("config.json") {
        None
    } else if has("adapter_config.json") {
        Some(Mistaken::Adapter)
    } else if has("manifest.json") {
        Some(Mistaken::DataFolder)
    } else {
        path.join("checkpoints").is_dir().then_some(Mistaken::Run)
    }
}

/// Whether a path where nothing is has the form `owner/name`.
fn may_be_on_a_hub(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().collect();
    let is_name = !path.exists() && path.is_relative() && parts.len() == 2 && parts[0] != "..";
    is_name && path.extension().is_none_or(|extension| extension != "gguf")
}

/// Whether a file starts with GGUF's magic, whatever its name.
fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && &magic == b"GGUF"
}
