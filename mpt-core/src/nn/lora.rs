//! LoRA branch of a linear layer.
//!
//! Source: Hu et al. 2021, section 4.1.

use candle_core::Tensor;

use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops;
use crate::params::{ModuleId, ParamKind};
use crate::source::LoraWeights;

/// Branch `scale * x A^T B^T`.
#[derive(Clone, Debug)]
pub(super) struct Lora {
    id: ModuleId,
    weights: LoraWeights,
}

impl Lora {
    /// Branch of the linear `id`.
    pub(super) fn new(id: ModuleId, weights: LoraWeights) -> Self {
        Self { id, weights }
    }

    /// Adds the branch for `x` `[.., in]` to `y` `[.., out]`, in place.
    pub(super) fn add_to(&self, y: &Tensor, x: &Tensor) -> Result<()> {
        ops::skinny_linear_add(y, &self.down_project(x)?, &self.weights.b.t()?)
    }

    /// Adds the gradient of `x` through the branch to `dx` `[.., in]`, in place; hands those of A and B to `sink`.
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
            sink.add(id_b, ops::skinny_gradient(&self.down_project(x)?, dy)?.t()?.contiguous()?)?;
        }
        let d_low = ops::skinny_linear(dy, &b.t()?)?;
        ops::scale(&d_low, *scale)?;
        if sink.wants(id_a) {
            sink.add(id_a, ops::skinny_gradient(&d_low, x)?)?;
        }
        ops::skinny_linear_add(dx, &d_low, a)
    }

    /// Down projection `scale * x A^T`, `[.., rank]`.
    fn down_project(&self, x: &Tensor) -> Result<Tensor> {
        let low = ops::skinny_linear(x, &self.weights.a)?;
        ops::scale(&low, self.weights.scale)?;
        Ok(low)
    }
}
