//! Output projection to logits, and the loss.

use candle_core::Tensor;

use crate::config::MptConfig;
use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops::{self, CrossEntropyInputs, LogitScaling, NeedsGrad, Precision};
use crate::parameter::Parameter;
use crate::params::{Module, ParamId};
use crate::source::ParamBuilder;

/// Language-model head: tied to `wte`, or `lm_head`.
#[derive(Clone, Debug)]
pub struct Head {
    id: ParamId,
    weight: Parameter,
    scaling: LogitScaling,
    precision: Precision,
}

impl Head {
    /// Reads `lm_head` `[vocab_size, d]` when the head is not tied to `wte`.
    ///
    /// # Errors
    /// When the tensor is missing or has another shape.
    pub fn new(config: &MptConfig, wte: &Parameter, pb: ParamBuilder<'_>) -> Result<Self> {
        let (module, weight) = match config.tie_word_embeddings {
            true => (Module::Wte, wte.clone()),
            false => (Module::LmHead, pb.matrix(Module::LmHead, config.vocab_size, config.d_model)?),
        };
        let scale = config.logit_scale.unwrap_or(1.0);
        let scaling = LogitScaling { scale, cap: config.final_logit_softcapping };
        Ok(Self { id: ParamId::weight(module), weight, scaling, precision: pb.precision() })
    }

    /// Logits `[.., vocab_size]` of hidden states `[.., d]`.
    ///
    /// # Errors
    /// When the width of `hidden` is not `d`.
    pub fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = ops::linear(hidden, &self.weight, self.precision)?;
        ops::scale(&logits, self.scaling.scale)?;
        if let Some(cap) = self.scaling.cap {
            ops::soft_cap(&logits, cap)?;
        }
        Ok(logits)
    }

    /// Cross-entropy summed over labels, in nats; [`ops::IGNORE_LABEL`] is skipped.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when there is not one label per token,
    /// [`Error::TokenId`](crate::Error::TokenId) for a label outside the vocabulary.
    pub fn loss(&self, hidden: &Tensor, labels: &[u32]) -> Result<f64> {
        Ok(ops::cross_entropy(self.inputs(hidden, labels), NeedsGrad::default())?.loss)
    }

    /// [`Head::loss`], and its gradient with respect to `hidden`, of the same shape.
    ///
    /// # Errors
    /// As [`Head::loss`], and those of `sink`.
    pub fn loss_and_backward(
        &self,
        hidden: &Tensor,
        labels: &[u32],
        sink: &mut dyn GradSink,
    ) -> Result<(f64, Tensor)> {
        let needs = NeedsGrad { hidden: true, weight: sink.wants(self.id) };
        let found = ops::cross_entropy(self.inputs(hidden, labels), needs)?;
        if let Some(gradient) = found.weight {
            sink.add(self.id, gradient)?;
        }
        Ok((found.loss, found.hidden.expect("it was needed")))
    }

    fn inputs<'a>(&'a self, hidden: &'a Tensor, labels: &'a [u32]) -> CrossEntropyInputs<'a> {
        CrossEntropyInputs {
            hidden,
            weight: &self.weight,
            labels,
            scaling: self.scaling,
            precision: self.precision,
        }
    }
}
