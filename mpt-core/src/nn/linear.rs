//! Linear layer with optional bias and LoRA adapter.

use candle_core::Tensor;

use super::lora::Lora;
use crate::config::MptConfig;
use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops::{self, Precision};
use crate::parameter::Parameter;
use crate::params::{Module, ModuleId, ParamKind};
use crate::source::ParamBuilder;

/// Linear layer, weight `[out, in]`.
#[derive(Clone, Debug)]
pub struct Linear {
    id: ModuleId,
    weight: Parameter,
    bias: Option<Tensor>,
    lora: Option<Lora>,
    precision: Precision,
}

impl Linear {
    /// Reads the weight `[d_out, d_in]` of `module` and, where configured, its bias `[d_out]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(
        module: Module,
        [d_in, d_out]: [usize; 2],
        config: &MptConfig,
        pb: ParamBuilder<'_>,
    ) -> Result<Self> {
        let bias = config.has_bias(module).then(|| pb.vector(module, ParamKind::Bias, d_out)).transpose()?;
        let (id, precision) = (pb.id(module), pb.precision());
        let lora = pb.lora(module).map(|weights| Lora::new(id, weights));
        Ok(Self { id, weight: pb.matrix(module, d_out, d_in)?, bias, lora, precision })
    }

    /// Output `[.., d_out]` for `x` `[.., d_in]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d_in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = ops::linear(x, &self.weight, self.precision)?;
        if let Some(bias) = &self.bias {
            ops::add_bias(&y, bias)?;
        }
        if let Some(lora) = &self.lora {
            lora.add_to(&y, x)?;
        }
        Ok(y)
    }

    /// Gradient of the input `x` `[.., d_in]`, from the gradient of the output, `dy` `[.., d_out]`.
    ///
    /// # Errors
    /// When shapes disagree, and those of `sink`.
    pub fn backward(&self, x: &Tensor, dy: &Tensor, sink: &mut dyn GradSink) -> Result<Tensor> {
        let weight = self.id.param(ParamKind::Weight);
        if self.weight.trainable().is_some() && sink.wants(weight) {
            sink.add(weight, ops::weight_gradient(dy, x, self.precision)?)?;
        }
        let bias = self.id.param(ParamKind::Bias);
        if self.bias.is_some() && sink.wants(bias) {
            sink.add(bias, ops::column_sum(dy)?)?;
        }
        let dx = ops::linear_backward(dy, &self.weight, self.precision)?;
        if let Some(lora) = &self.lora {
            lora.backward(x, dy, &dx, sink)?;
        }
        Ok(dx)
    }
}
