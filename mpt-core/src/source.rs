//! Parameter sources of a model under construction: variables in training, mapped files in inference.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{Device, Tensor};

use crate::dtype::Precision;
use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::params::{Module, ModuleId, ParamId, ParamKind};

/// Source of a model's parameters.
pub trait ParameterSource {
    /// Parameter `id`, of exactly `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`].
    fn get(&self, id: ParamId, shape: &[usize]) -> Result<Parameter>;

    /// Precision of the model's matmuls.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// LoRA matrices of a linear; `None` without an adapter.
    fn lora(&self, _module: ModuleId) -> Option<LoraWeights> {
        None
    }
}

/// LoRA matrices of one linear, which adds `scale * x A^T B^T`.
#[derive(Clone, Debug)]
pub struct LoraWeights {
    /// `[rank, in]`
    pub a: Tensor,
    /// `[out, rank]`
    pub b: Tensor,
    /// `alpha / rank`, or `alpha / sqrt(rank)` for rank-stabilized LoRA.
    pub scale: f64,
}

/// Parameter source with another precision of the matmuls.
pub struct WithPrecision<'a> {
    /// Parameters.
    pub source: &'a dyn ParameterSource,
    /// Precision of the matmuls.
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

/// Tensors by checkpoint name; shapes are not checked.
impl ParameterSource for BTreeMap<String, Tensor> {
    fn get(&self, id: ParamId, _shape: &[usize]) -> Result<Parameter> {
        let name = id.to_string();
        let missing = || Error::MissingTensor { path: "tensors".into(), name: name.clone() };
        BTreeMap::get(self, &name).cloned().map(Parameter::Tensor).ok_or_else(missing)
    }
}

/// [`ParameterSource`] at a block or outside blocks, like candle's `VarBuilder`.
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
    /// Builder of the modules outside blocks.
    pub fn of_model(source: &'a dyn ParameterSource) -> Self {
        Self { source, layer: None }
    }

    /// Builder of the modules of block `layer`.
    pub fn of_block(source: &'a dyn ParameterSource, layer: usize) -> Self {
        Self { source, layer: Some(layer) }
    }

    /// Id of `module`.
    pub fn id(&self, module: Module) -> ModuleId {
        ModuleId { layer: self.layer, module }
    }

    /// Weight of `module`, `[rows, cols]`.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn matrix(&self, module: Module, rows: usize, cols: usize) -> Result<Parameter> {
        self.source.get(self.id(module).param(ParamKind::Weight), &[rows, cols])
    }

    /// Vector of `module`, `[n]`, f32.
    ///
    /// # Errors
    /// As [`ParameterSource::get`].
    pub fn vector(&self, module: Module, kind: ParamKind, n: usize) -> Result<Tensor> {
        self.source.get(self.id(module).param(kind), &[n])?.to_tensor(&Device::Cpu)
    }

    /// Precision of the model's matmuls.
    pub fn precision(&self) -> Precision {
        self.source.precision()
    }

    /// LoRA matrices of `module`; `None` without an adapter.
    pub fn lora(&self, module: Module) -> Option<LoraWeights> {
        self.source.lora(self.id(module))
    }
}
