//! Layers: a linear map, a table of embeddings and a norm, each with its parameters.

use candle_core::Tensor;

use crate::config::{MptConfig, NormType};
use crate::error::Result;
use crate::kernels::cpu::norm::NormKind;
use crate::lora::Lora;
use crate::ops::{self, Products};
use crate::source::{ParamBuilder, Parameter};

/// A linear map with a weight stored `[out, in]`, an optional bias and an optional adapter.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Option<Tensor>,
    lora: Option<Lora>,
    products: Products,
}

impl Linear {
    /// Reads `weight` `[d_out, d_in]` and, where `with_bias`, `bias` `[d_out]` at the place of `pb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(d_in: usize, d_out: usize, with_bias: bool, pb: ParamBuilder<'_>) -> Result<Self> {
        let weight = pb.matrix("weight", d_out, d_in)?;
        let bias = with_bias.then(|| pb.vector("bias", d_out)).transpose()?;
        Ok(Self { weight, bias, lora: pb.lora(), products: pb.products() })
    }

    /// The weight, where it is a tensor and all there is.
    pub(crate) fn plain(&self) -> Option<&Tensor> {
        match (&self.weight, &self.bias, &self.lora) {
            (Parameter::Tensor(weight), None, None) => Some(weight),
            _ => None,
        }
    }

    /// `x` `[.., d_in]` to `[.., d_out]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d_in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = product(x, &self.weight, self.products)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(match &self.lora {
            Some(lora) => (y + lora.forward(x, self.products)?)?,
            None => y,
        })
    }
}

/// `x W^T` for a weight in any form.
pub(crate) fn product(x: &Tensor, weight: &Parameter, products: Products) -> Result<Tensor> {
    match weight {
        Parameter::Tensor(weight) => ops::linear(x, weight, None, products),
        Parameter::Stored(weight) => ops::stored_linear(x, weight),
    }
}

/// The rows `ids` of a table in any form, `[ids, d]`.
pub(crate) fn rows(table: &Parameter, ids: &[u32]) -> Result<Tensor> {
    match table {
        Parameter::Tensor(table) => ops::embedding(table, ids),
        Parameter::Stored(table) => ops::stored_embedding(table, ids),
    }
}

/// A norm over the last dimension.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    kind: NormType,
    eps: f64,
}

impl Norm {
    /// Reads `weight` `[width]` and, for a layer norm of a model with biases, `bias` `[width]` at the place of `pb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(width: usize, config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let with_bias = !config.no_bias && config.norm_type == NormType::LayerNorm;
        let bias = with_bias.then(|| pb.vector("bias", width)).transpose()?;
        Ok(Self { weight: pb.vector("weight", width)?, bias, kind: config.norm_type, eps: config.norm_eps })
    }

    /// Kind, weight and epsilon, where that is all there is.
    pub(crate) fn plain(&self) -> Option<(NormKind, &Tensor, f32)> {
        let kind = match self.kind {
            NormType::LayerNorm => NormKind::Layer,
            NormType::RmsNorm => NormKind::Rms,
        };
        self.bias.is_none().then_some((kind, &self.weight, self.eps as f32))
    }

    /// `x` `[.., width]` to the same shape.
    ///
    /// # Errors
    /// When the last dimension of `x` is not `width`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.kind {
            NormType::LayerNorm => ops::layer_norm(x, &self.weight, self.bias.as_ref(), self.eps),
            NormType::RmsNorm => ops::rms_norm(x, &self.weight, self.eps),
        }
    }
}
