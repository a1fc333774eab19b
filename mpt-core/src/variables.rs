//! Trainable parameters of a model, by checkpoint name.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};

use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::init::initial_values;
use crate::lora::Adapter;
use crate::memory::check_memory;
use crate::ops;
use crate::parameter::Parameter;
use crate::params::ParamId;
use crate::source::ParameterSource;
use crate::weights::{Weights, write_safetensors};

/// Parameters of a model as variables, like candle's `VarMap`.
///
/// A model built from these shares them: an optimizer step updates the model.
#[derive(Debug)]
pub struct Params {
    vars: BTreeMap<String, Var>,
}

impl Params {
    /// Randomly initialized parameters under the configuration's scheme. A value is a function of the seed, the parameter's
    /// name and its index.
    ///
    /// # Errors
    /// [`Error::Memory`] when memory is short, or [`Error::Config`] when the scheme lacks a value.
    pub fn init(config: &MptConfig, seed: u64, device: &Device) -> Result<Self> {
        check_memory(bytes(config))?;
        let init = |(id, shape): (ParamId, Vec<usize>)| {
            let values = initial_values(config, seed, id, &shape)?;
            let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?;
            Ok((id.to_string(), var))
        };
        let vars = config.parameters().map(init).collect::<Result<_>>()?;
        Ok(Self { vars })
    }

    /// Parameters of a checkpoint, widened to f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::Memory`].
    pub fn load(weights: &Weights, device: &Device) -> Result<Self> {
        check_memory(bytes(weights.config()))?;
        let load = |(name, shape): (String, Vec<usize>)| {
            let var = Var::from_tensor(&weights.tensor(&name, Some(&shape))?.to_tensor(device)?)?;
            Ok((name, var))
        };
        let vars = weights.config().parameter_shapes().into_iter().map(load).collect::<Result<_>>()?;
        Ok(Self { vars })
    }

    /// Variables of an adapter.
    pub fn from_adapter(adapter: &Adapter) -> Self {
        Self { vars: adapter.params().map(|(id, var)| (id.to_string(), var.clone())).collect() }
    }

    /// Checkpoint names and variables, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Variable by checkpoint name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// Total number of elements.
    pub fn num_elements(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// Overwrites the parameter `name` with `values`.
    ///
    /// # Errors
    /// When the name is unknown or the number of elements differs.
    pub fn set(&self, name: &str, values: &[f32]) -> Result<()> {
        let var = self
            .get(name)
            .ok_or_else(|| Error::MissingTensor { path: "parameters".into(), name: name.to_owned() })?;
        ops::overwrite(var, values)
    }

    /// Writes one safetensors file, f32, in the order of names. Equal values give equal bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        write_safetensors(path, self.vars.iter().map(|(name, var)| (name.as_str(), var.as_tensor())))
    }
}

/// Size of the parameters in f32, in bytes.
fn bytes(config: &MptConfig) -> u64 {
    config.num_parameters().saturating_mul(size_of::<f32>() as u64)
}

impl ParameterSource for Params {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        let name = id.to_string();
        let missing = || Error::MissingTensor { path: "parameters".into(), name: name.clone() };
        let tensor = self.get(&name).ok_or_else(missing)?.as_tensor().clone();
        if tensor.dims() != shape {
            let (actual, expected) = (tensor.dims().to_vec(), shape.to_vec());
            return Err(Error::TensorShape { path: "parameters".into(), name, actual, expected });
        }
        Ok(Parameter::Tensor(tensor))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::tiny_model;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |seed, name: &str| {
            let path = folder.path().join(name);
            tiny_model(seed).1.save(&path).unwrap();
            std::fs::read(path).unwrap()
        };
        assert_eq!(bytes(1, "a"), bytes(1, "b"));
        assert_ne!(bytes(1, "a"), bytes(2, "c"));
    }

    #[test]
    fn deviations_follow_the_scheme() {
        let (config, params) = tiny_model(5);
        let std = |name: &str| {
            let values: Vec<f32> = params.get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
        };
        let kaiming = (2.0 / 32f32).sqrt();
        assert!((std("transformer.blocks.0.attn.Wqkv.weight") / kaiming - 1.0).abs() < 0.05);
        assert!((std("transformer.blocks.0.attn.out_proj.weight") * 2.0 / kaiming - 1.0).abs() < 0.08);
        assert_eq!(params.num_elements() as u64, config.num_parameters());
        assert_eq!(std("transformer.norm_f.weight"), 1.0);
    }
}
