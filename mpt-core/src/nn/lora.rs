//! What an adapter adds to a linear map.
//!
//! Source: Hu et al. 2021, section 4.1.

use candle_core::Tensor;

use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops::{self, Precision};
use crate::parameter::Parameter;
use crate::params::{ModuleId, ParamKind};
use crate::source::LoraWeights;

/// `scale * x A^T B^T`
#[derive(Clone, Debug)]
pub(super) struct Lora {
    id: ModuleId,
    weights: LoraWeights,
    precision: Precision,
}

impl Lora {
    pub(super) fn new(id: ModuleId, weights: LoraWeights, precision: Precision) -> Self {
        Self { id, weights, precision }
    }

    /// Adds to `y` `[.., out]` what the adapter makes of `x` `[.., in]`.
    pub(super) fn add_to(&self, y: &Tensor, x: &Tensor) -> Result<()> {
        ops::linear_add(y, &self.low(x)?, &self.weights.b, self.precision)
    }

    /// Adds to `dx` `[.., in]` the gradient of the input `x` that passes through the adapter.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: &Tensor,
        sink: &mut dyn GradSink,
    ) -> Result<()> {
        let LoraWeights { a, b, scale } = &self.weights;
        let (id_a, id_b) = (self.id.param(ParamKind::LoraA), self.id.param(ParamKind::LoraB));
        if sink.wants(id_b) {
            sink.add(id_b, ops::weight_gradient(dy, &self.low(x)?, self.precision)?)?;
        }
        let d_low = ops::linear_backward(dy, &Parameter::Tensor(b.clone()), self.precision)?;
        ops::scale(&d_low, *scale)?;
        if sink.wants(id_a) {
            sink.add(id_a, ops::weight_gradient(&d_low, x, self.precision)?)?;
        }
        ops::linear_add(dx, &d_low, &a.t()?, self.precision)
    }

    /// `scale * x A^T`, `[.., rank]`.
    fn low(&self, x: &Tensor) -> Result<Tensor> {
        let low = ops::linear(x, &Parameter::Tensor(self.weights.a.clone()), self.precision)?;
        ops::scale(&low, self.weights.scale)?;
        Ok(low)
    }
}
