//! Layers: a linear map and a norm, each with its parameters.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::config::{MptConfig, NormType};
use crate::error::Result;
use crate::ops;

/// A linear map with a weight stored `[out, in]` and an optional bias.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[d_out, d_in]` and, where `with_bias`, `bias` `[d_out]` at the prefix of `vb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(d_in: usize, d_out: usize, with_bias: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get((d_out, d_in), "weight")?;
        let bias = with_bias.then(|| vb.get(d_out, "bias")).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `x` `[.., d_in]` to `[.., d_out]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d_in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// The weight, `[d_out, d_in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
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
    /// Reads `weight` `[width]` and, for a layer norm of a model with biases, `bias` `[width]` at the prefix of `vb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(width: usize, config: &MptConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let with_bias = !config.no_bias && config.norm_type == NormType::LayerNorm;
        let bias = with_bias.then(|| vb.get(width, "bias")).transpose()?;
        Ok(Self { weight: vb.get(width, "weight")?, bias, kind: config.norm_type, eps: config.norm_eps })
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
