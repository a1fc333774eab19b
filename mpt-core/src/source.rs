//! Where the parameters of a model under construction come from: variables in training, mapped files in inference.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{Device, Tensor};

use crate::dtype::Precision;
use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::params::{Module, ModuleId, ParamId, ParamKind};

/// Gives a model its parameters.
pub trait ParameterSource {
    /// The parameter `id`, of exactly `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`].
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter>;

    /// How factors of the model's matrix products are rounded.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// What an adapter adds to a linear.
    fn lora(&self, _module: ModuleId) -> Option<LoraWeights> {
        None
    }
}

/// What an adapter adds to one linear: `scale * x A^T B^T`.
#[derive(Clone, Debug)]
pub struct LoraWeights {
    /// `[rank, in]`
    pub a: Tensor,
    /// `[out, rank]`
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / sqrt(rank)` where the rank is to be stabilized.
    pub scale: f64,
}

/// The parameters of another source for a model whose matrix products round their factors to `precision`.
pub struct WithPrecision<'a> {
    /// Where the parameters come from.
    pub source: &'a dyn ParameterSource,
    /// How factors are rounded.
    pub precision: Precision,
}

impl fmt::Debug for WithPrecision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithPrecision").field("precision", &self.precision).finish_non_exhaustive()
    }
}

impl ParameterSource for WithPrecision<'_> {
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter> {
        self.source.get(id, shape)
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn lora(&self, module: ModuleId) -> Option<LoraWeights> {
        self.source.lora(module)
    }
}

/// Tensors by checkpoint name.
impl ParameterSource for BTreeMap<String, Tensor> {
    fn get(&self, id: ParamId, _shape: &[usize]) -> Result<Parameter> {
        let name = id.to_string();
        let missing = || Error::MissingTensor { path: "tensors".into(), name: name.clone() };
        BTreeMap::get(self, &name).cloned().map(Parameter::Tensor).ok_or_else(missing)
    }
}

/// A [`ParameterSource`] at a block, or outside blocks.
#[derive(Clone, Copy)]
pub struct ParamBuilder<'a> {
    source: &'a dyn ParameterSource,
    layer: Option<usize>,
}

impl fmt::Debug for ParamBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParamBuilder").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl<'a> ParamBuilder<'a> {
    /// Modules outside blocks.
    pub fn of_model(source: &'a dyn ParameterSource) -> Self {
        Self { source, layer: None }
    }

    /// Modules of block `layer`.
    pub fn of_block(source: &'a dyn ParameterSource, layer: usize) -> Self {
        Self { source, layer: Some(layer) }
    }

    /// Place of `module` here.
    pub fn id(&self, module: Module) -> ModuleId {
        ModuleId { layer: self.layer, module }
    }

    /// The matrix of `module`, `[rows, cols]`.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn matrix(&self, module: Module, rows: usize, cols: usize) -> Result<Parameter> {
        self.source.get(self.id(module).param(ParamKind::Weight), &[rows, cols])
    }

    /// A vector of `module`, `[n]`, f32.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn vector(&self, module: Module, kind: ParamKind, n: usize) -> Result<Tensor> {
        self.source.get(self.id(module).param(kind), &[n])?.to_tensor(&Device::Cpu)
    }

    /// How factors of the model's matrix products are rounded.
    pub fn precision(&self) -> Precision {
        self.source.precision()
    }

    /// What an adapter adds to `module`.
    pub fn lora(&self, module: Module) -> Option<LoraWeights> {
        self.source.lora(self.id(module))
    }
}
