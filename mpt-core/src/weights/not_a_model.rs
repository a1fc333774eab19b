//! Paths mistaken for a model: recognized kinds, with the command to run instead.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Refuses a path that is recognized as something other than a model.
///
/// # Errors
/// [`Error::NotAModel`].
pub(super) fn refuse(path: &Path) -> Result<()> {
    match recognize(path) {
        Some((found, instead)) => Err(Error::NotAModel { path: path.to_owned(), found, instead }),
        None => Ok(()),
    }
}

/// Kind of the path, and what to do instead; `None` when it may be a model.
fn recognize(path: &Path) -> Option<(&'static str, &'static str)> {
    let has = |name: &str| path.join(name).is_file();
    if path.is_file() {
        let extension = path.extension()?.to_str()?;
        let is_weights = matches!(extension, "safetensors" | "bin" | "pt" | "pth") && !is_gguf(path);
        return is_weights.then_some(("a weights file", "name the folder that holds it and its config.json"));
    }
    if !path.is_dir() {
        let parts: Vec<_> = path.iter().collect();
        let is_hub = !path.exists() && path.is_relative() && parts.len() == 2 && parts[0] != "..";
        let is_hub = is_hub && path.extension().is_none_or(|extension| extension != "gguf");
        let instead = "if it is the name of a model on a hub, run `mpt pull` with it and name the folder that it prints";
        return is_hub.then_some(("nothing on this machine", instead));
    }
    if has("config.json") {
        return None;
    }
    if has("adapter_config.json") {
        let instead =
            "name its base model here and the adapter with --adapter, or fold it in with `mpt merge`";
        return Some(("a LoRA adapter", instead));
    }
    if has("manifest.json") {
        return Some((
            "a data folder",
            "`mpt data inspect` shows it; a model is trained on it by `mpt train`",
        ));
    }
    let is_run = path.join("checkpoints").is_dir();
    let instead = "name one of its `checkpoints/step-…`; `mpt train` saves the first one";
    is_run.then_some(("a run folder", instead))
}

/// Whether a file starts with GGUF's magic, whatever its name.
fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && &magic == b"GGUF"
}
