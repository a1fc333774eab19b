//! Where the parameters of a model under construction come from: variables in training, mapped files in inference.

use std::collections::BTreeMap;
use std::fmt::Display;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::lora::Lora;
use crate::ops::Products;
use crate::weights::StoredTensor;

/// One parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// An f32 tensor, perhaps a variable.
    Tensor(Tensor),
    /// Values as they lie in a file, frozen, widened to f32 where they are used.
    Stored(StoredTensor),
}

/// Gives a model its parameters, under their checkpoint names.
pub trait ParameterSource {
    /// The parameter `name`, of exactly `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`].
    fn get(&self, name: &str, shape: &[usize]) -> Result<Parameter>;

    /// How factors of the model's matrix products are rounded.
    fn products(&self) -> Products {
        Products::F32
    }

    /// What an adapter adds to the linear `layer`, a checkpoint name without `.weight`.
    fn lora(&self, _layer: &str) -> Option<Lora> {
        None
    }
}

/// The parameters of another source for a model whose matrix products round their factors as `products` says.
pub struct WithProducts<'a> {
    /// Where the parameters come from.
    pub source: &'a dyn ParameterSource,
    /// How factors are rounded.
    pub products: Products,
}

impl std::fmt::Debug for WithProducts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithProducts").field("products", &self.products).finish_non_exhaustive()
    }
}

impl ParameterSource for WithProducts<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Parameter> {
        self.source.get(name, shape)
    }

    fn products(&self) -> Products {
        self.products
    }

    fn lora(&self, layer: &str) -> Option<Lora> {
        self.source.lora(layer)
    }
}

impl ParameterSource for BTreeMap<String, Tensor> {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Parameter> {
        let missing = || Error::MissingTensor { path: "tensors".into(), name: name.to_owned() };
        BTreeMap::get(self, name).cloned().map(Parameter::Tensor).ok_or_else(missing)
    }
}

/// A [`ParameterSource`] at a place in the model: names are relative to it.
#[derive(Clone)]
pub struct ParamBuilder<'a> {
    source: &'a dyn ParameterSource,
    prefix: String,
}

impl std::fmt::Debug for ParamBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParamBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<'a> ParamBuilder<'a> {
    /// The top of a model.
    pub fn new(source: &'a dyn ParameterSource) -> Self {
        Self { source, prefix: String::new() }
    }

    /// The part named `part` of this place.
    pub fn pp(&self, part: impl Display) -> Self {
        Self { source: self.source, prefix: self.path(part) }
    }

    /// The matrix `name` of `[rows, cols]`.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Parameter> {
        self.source.get(&self.path(name), &[rows, cols])
    }

    /// The vector `name` of `[n]`, f32.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn vector(&self, name: &str, n: usize) -> Result<Tensor> {
        match self.source.get(&self.path(name), &[n])? {
            Parameter::Tensor(tensor) => Ok(tensor),
            Parameter::Stored(stored) => stored.to_tensor(&Device::Cpu),
        }
    }

    /// How factors of the model's matrix products are rounded.
    pub fn products(&self) -> Products {
        self.source.products()
    }

    /// What an adapter adds to the linear at this place.
    pub fn lora(&self) -> Option<Lora> {
        self.source.lora(&self.prefix)
    }

    fn path(&self, part: impl Display) -> String {
        if self.prefix.is_empty() { part.to_string() } else { format!("{}.{part}", self.prefix) }
    }
}
