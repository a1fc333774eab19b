//! Opening a model by its path: a Hugging Face folder, a GGUF file, or the run folder of a training, which stands for its
//! latest checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use mpt_core::{Adapter, CausalLm, Precision, WeightDtype, Weights, WithAdapter};

use crate::error::Result;

/// How a model is opened. By default as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Stored form of the matrices: wider ones are rounded to it. f32 leaves every matrix as it is.
    pub weight_dtype: WeightDtype,
    /// Precision of matrix products; `None` for that of `weight_dtype`, [`WeightDtype::precision`].
    pub precision: Option<Precision>,
    /// Folder of a LoRA adapter, as peft writes it.
    pub adapter: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { weight_dtype: WeightDtype::F32, precision: None, adapter: None }
    }
}

/// The weights at `path`, mapped; only headers are read.
///
/// # Errors
/// Those of [`Weights::open`], and of a run folder that cannot be listed.
pub fn open_weights(path: &Path) -> Result<Weights> {
    Ok(Weights::open(&model_path(path)?)?)
}

/// The model at `path` without anything that text needs, and the weights that it was made of.
///
/// # Errors
/// Those of [`open_weights`] and of the adapter's files.
pub fn open_model(path: &Path, options: &OpenOptions) -> Result<(CausalLm, Weights)> {
    let precision = options.precision.unwrap_or_else(|| options.weight_dtype.precision());
    let weights = open_weights(path)?.with_dtype(options.weight_dtype).with_precision(precision);
    let config = weights.config();
    let model = match &options.adapter {
        Some(dir) => {
            let adapter = Adapter::open(dir, config)?;
            CausalLm::new(config, &WithAdapter { base: &weights, adapter: &adapter })?
        }
        None => CausalLm::new(config, &weights)?,
    };
    Ok((model, weights))
}

/// The folder or file of a model: the latest checkpoint where `path` is a run folder, else `path` itself.
///
/// # Errors
/// Those of [`latest_checkpoint`].
pub fn model_path(path: &Path) -> Result<PathBuf> {
    Ok(latest_checkpoint(path)?.unwrap_or_else(|| path.to_owned()))
}

/// The checkpoint of the highest step in a run folder, a folder `checkpoints/step-…`; `None` where `path` is no run
/// folder or has none yet.
///
/// # Errors
/// An I/O error where `checkpoints` cannot be listed.
pub fn latest_checkpoint(path: &Path) -> Result<Option<PathBuf>> {
    let dir = path.join("checkpoints");
    if !dir.is_dir() {
        return Ok(None);
    }
    let failed = |source| mpt_core::Error::Io { path: dir.clone(), action: "listing", source };
    let mut latest = None;
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
        latest = latest.max(step.map(|step| (step, dir.join(name))));
    }
    Ok(latest.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_is_its_checkpoint_of_the_highest_step() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path();
        assert_eq!(model_path(path).unwrap(), path);
        fs::create_dir(path.join("checkpoints")).unwrap();
        assert_eq!(latest_checkpoint(path).unwrap(), None);
        for name in ["step-9", "step-00000010", ".step-00000011.partial", "step-x", "other"] {
            fs::create_dir(path.join("checkpoints").join(name)).unwrap();
        }
        assert_eq!(model_path(path).unwrap(), path.join("checkpoints/step-00000010"));
        assert_eq!(model_path(Path::new("model.gguf")).unwrap(), Path::new("model.gguf"));
    }
}
