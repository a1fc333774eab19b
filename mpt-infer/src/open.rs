//! Opening a model by its path: a Hugging Face folder, a GGUF file, or the run folder of a training, which stands for its
//! latest checkpoint.

use std::path::{Path, PathBuf};

use mpt_core::{Adapter, CausalLm, Precision, WeightDtype, Weights, WithAdapter, latest_checkpoint};

use crate::error::Result;

/// Options of opening a model. The default is the model as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Dtype of the matrices in memory: wider ones are rounded to it. [`WeightDtype::F32`] keeps each as stored.
    pub weight_dtype: WeightDtype,
    /// Precision of matrix products; `None` takes [`WeightDtype::precision`] of `weight_dtype`.
    pub precision: Option<Precision>,
    /// Folder of a LoRA adapter, as peft writes it.
    pub adapter: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { weight_dtype: WeightDtype::F32, precision: None, adapter: None }
    }
}

/// Opens the weights at `path`, memory-mapped. Only headers are read.
///
/// # Errors
/// Those of [`Weights::open`], and of a run folder that cannot be listed.
pub fn open_weights(path: &Path) -> Result<Weights> {
    Ok(Weights::open(&model_path(path)?)?)
}

/// Opens the network at `path`, without tokenizer and templates. Returns it with the weights it is made of.
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

/// Path of the model that `path` stands for: the latest checkpoint of a run folder, else `path` itself.
///
/// # Errors
/// Those of [`latest_checkpoint`].
pub fn model_path(path: &Path) -> Result<PathBuf> {
    Ok(latest_checkpoint(path)?.unwrap_or_else(|| path.to_owned()))
}
