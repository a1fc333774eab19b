//! Norm over the last dimension: layer norm or RMS norm.

use candle_core::Tensor;

use crate::config::{MptConfig, NormType};
use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops::{self, NormKind, NormParams};
use crate::params::{Module, ModuleId, ParamKind};
use crate::source::ParamBuilder;

/// Layer norm or RMS norm, with a scale and an optional bias.
#[derive(Clone, Debug)]
pub struct Norm {
    id: ModuleId,
    weight: Tensor,
    bias: Option<Tensor>,
    kind: NormKind,
    eps: f64,
}

impl Norm {
    /// Reads the scale `[width]` of `module` and, where configured, its bias `[width]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(module: Module, width: usize, config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let bias = config.has_bias(module).then(|| pb.vector(module, ParamKind::Bias, width)).transpose()?;
        let weight = pb.vector(module, ParamKind::Weight, width)?;
        let kind = match config.norm_type {
            NormType::LayerNorm => NormKind::Layer,
            NormType::RmsNorm => NormKind::Rms,
        };
        Ok(Self { id: pb.id(module), weight, bias, kind, eps: config.norm_eps })
    }

    /// Output `[.., width]` for `x` `[.., width]`.
    ///
    /// # Errors
    /// When the last dimension of `x` is not `width`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = ops::norm(x, self.weights())?;
        if let Some(bias) = &self.bias {
            ops::add_bias(&y, bias)?;
        }
        Ok(y)
    }

    /// Gradient of the input `x`, from the gradient of the output, `dy`; all `[.., width]`.
    ///
    /// # Errors
    /// When shapes disagree, and those of `sink`.
    pub fn backward(&self, x: &Tensor, dy: &Tensor, sink: &mut dyn GradSink) -> Result<Tensor> {
        let (dx, d_weight) = ops::norm_backward(x, self.weights(), dy)?;
        let (weight, bias) = (self.id.param(ParamKind::Weight), self.id.param(ParamKind::Bias));
        if sink.wants(weight) {
            sink.add(weight, d_weight)?;
        }
        if self.bias.is_some() && sink.wants(bias) {
            sink.add(bias, ops::column_sum(dy)?)?;
        }
        Ok(dx)
    }

    fn weights(&self) -> NormParams<'_> {
        NormParams { kind: self.kind, weight: &self.weight, eps: self.eps }
    }
}
