//! Adapter folder of peft: `adapter_config.json` and `adapter_model.safetensors` or `.bin`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use serde_json::json;

use super::config::RawAdapterConfig;
use super::{Adapter, LoraMatrices, block_linears};
use crate::config::MptConfig;
use crate::error::{Error, Result, damaged};
use crate::params::ModuleId;
use crate::storage::StoredTensor;
use crate::weights::{open_tensors, write_safetensors};

/// Prefix of peft's tensor names.
pub(super) const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Reads an adapter folder for a model of configuration `model`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::UnsupportedOption`] naming the key, and the errors of weights files: also for a
    /// tensor that is missing, unexpected, of another shape or rank, or not finite.
    pub fn open(dir: &Path, model: &MptConfig) -> Result<Self> {
        let raw = RawAdapterConfig::read(&dir.join("adapter_config.json"))?;
        let config = raw.lora_config();
        let path = weights_path(dir)?;
        let mut tensors = open_tensors(&path)?;
        let mut layers = Vec::new();
        for (layer, shape) in block_linears(model) {
            let Some(matrices) = take_matrices(&path, &mut tensors, layer, raw.is_target(layer))? else {
                continue;
            };
            let rank = check_matrices(&path, layer, &matrices, shape, raw.rank(&layer.to_string()))?;
            let scale = config.scale(rank, raw.alpha(&layer.to_string()));
            let [a, b] = [variable(&matrices[0])?, variable(&matrices[1])?];
            layers.push((layer, LoraMatrices { a, b, scale }));
        }
        if let Some(name) = tensors.into_keys().next() {
            let instead =
                "expected lora_A and lora_B of this model's linears; is this the adapter's base model?";
            return Err(Error::UnexpectedTensor { path, name, instead });
        }
        if layers.is_empty() {
            let expected = "lora_A and lora_B of this model's linears; save or fetch the adapter again";
            return Err(damaged(&path, "no tensor of an adapter", expected));
        }
        Ok(Self { config, layers })
    }

    /// Writes the adapter folder as peft reads it. `base_model` is the name or path of the base model.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path, base_model: &str) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "creating"))?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.config.r,
            "lora_alpha": self.config.lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": self.config.target_modules,
            "use_rslora": self.config.use_rslora,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        let path = dir.join("adapter_config.json");
        let text = serde_json::to_string_pretty(&config).expect("a JSON value can be printed") + "\n";
        std::fs::write(&path, text).map_err(Error::io(&path, "writing"))?;
        let tensors: Vec<(String, &Tensor)> =
            self.vars().map(|(name, var)| (name, var.as_tensor())).collect();
        write_safetensors(
            &dir.join("adapter_model.safetensors"),
            tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)),
        )
    }
}

/// Weights file of an adapter folder.
fn weights_path(dir: &Path) -> Result<PathBuf> {
    let paths = ["adapter_model.safetensors", "adapter_model.bin"].map(|name| dir.join(name));
    paths.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::NoWeights {
        path: dir.to_owned(),
        hint: "; an adapter has `adapter_model.safetensors`".to_owned(),
    })
}

/// peft's name of a matrix, `lora_A` or `lora_B`.
fn tensor_name(layer: ModuleId, matrix: &str) -> String {
    format!("{PREFIX}{layer}.{matrix}.weight")
}

/// Removes the matrices A and B of a layer from `tensors`; `None` when it has neither and is no target.
fn take_matrices(
    path: &Path,
    tensors: &mut BTreeMap<String, StoredTensor>,
    layer: ModuleId,
    is_target: bool,
) -> Result<Option<[StoredTensor; 2]>> {
    let mut take = |matrix: &str| tensors.remove(&tensor_name(layer, matrix));
    match (take("lora_A"), take("lora_B")) {
        (None, None) if !is_target => Ok(None),
        (Some(a), Some(b)) => Ok(Some([a, b])),
        (a, _) => {
            let name = tensor_name(layer, if a.is_some() { "lora_B" } else { "lora_A" });
            Err(Error::MissingTensor { path: path.to_owned(), name })
        }
    }
}

fn variable(tensor: &StoredTensor) -> Result<Var> {
    Ok(Var::from_tensor(&tensor.to_tensor(&Device::Cpu)?)?)
}

/// Checks shapes, rank and values of the matrices A and B of a linear `[rows, cols]`; returns the rank.
fn check_matrices(
    path: &Path,
    layer: ModuleId,
    [a, b]: &[StoredTensor; 2],
    [rows, cols]: [usize; 2],
    expected_rank: usize,
) -> Result<usize> {
    let rank = a.shape().first().copied().unwrap_or(0);
    for (matrix, tensor, shape) in [("lora_A", a, [rank, cols]), ("lora_B", b, [rows, rank])] {
        let name = tensor_name(layer, matrix);
        if tensor.shape() != shape || rank == 0 {
            let (actual, expected) = (tensor.shape().to_vec(), shape.to_vec());
            return Err(Error::TensorShape { path: path.to_owned(), name, actual, expected });
        }
        if rank != expected_rank {
            let found =
                format!("tensor `{name}` of rank {rank}, where adapter_config.json says {expected_rank}");
            let expected = "the rank of `r`, or of `rank_pattern` where it names the layer";
            return Err(damaged(path, found, expected));
        }
        if let Some(at) = tensor.first_non_finite() {
            let found = format!("tensor `{name}`, whose value {at} is not finite");
            let expected = "finite numbers; the training diverged, or the file is damaged";
            return Err(damaged(path, found, expected));
        }
    }
    Ok(rank)
}
