//! Pre-norm transformer block, and the source of a model's blocks.

use std::fmt;

use candle_core::Tensor;

use super::attention::AttentionSaved;
use super::ffn::FfnSaved;
use super::{Attention, DropoutSite, Ffn, KeyValues, Norm, TrainContext};
use crate::config::MptConfig;
use crate::error::Result;
use crate::gradients::GradSink;
use crate::ops;
use crate::params::Module;
use crate::source::{ParamBuilder, ParameterSource};

/// Attention and feed-forward layer, each after a norm and with a residual connection.
#[derive(Clone, Debug)]
pub struct Block {
    layer: usize,
    norm_1: Norm,
    attn: Attention,
    norm_2: Norm,
    ffn: Ffn,
    /// Dropout rate of the two residual branches.
    dropout: f64,
}

/// Activations saved for the backward pass.
#[derive(Debug)]
pub struct BlockSaved {
    /// `[tokens, d]`
    input: Tensor,
    attn: AttentionSaved,
    /// Residual stream between attention and feed-forward layer, `[tokens, d]`.
    middle: Tensor,
    ffn: FfnSaved,
}

/// Blocks of a model. In one process they are resident; under sharding a block is gathered, used and released.
pub trait BlockSource: fmt::Debug + Send + Sync {
    /// Number of blocks.
    fn num_blocks(&self) -> usize;

    /// Calls `body` with block `layer`.
    ///
    /// # Errors
    /// Those of gathering and of `body`.
    fn with_block(&self, layer: usize, body: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()>;
}

impl BlockSource for Vec<Block> {
    fn num_blocks(&self) -> usize {
        self.len()
    }

    fn with_block(&self, layer: usize, body: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()> {
        body(&self[layer])
    }
}

impl Block {
    /// Reads the parameters of block `layer`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, source: &dyn ParameterSource, layer: usize) -> Result<Self> {
        let pb = ParamBuilder::of_block(source, layer);
        Ok(Self {
            layer,
            norm_1: Norm::new(Module::Norm1, config.d_model, config, pb)?,
            attn: Attention::new(config, pb)?,
            norm_2: Norm::new(Module::Norm2, config.d_model, config, pb)?,
            ffn: Ffn::new(config, pb)?,
            dropout: config.dropout.residual,
        })
    }

    /// Output `[tokens, d]` for `x` `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor, kv: KeyValues<'_>) -> Result<Tensor> {
        let (_, middle) = self.attention_branch(x, kv)?;
        ops::add(&middle, x)?;
        let y = self.ffn.forward(&self.norm_2.forward(&middle)?)?;
        ops::add(&y, &middle)?;
        Ok(y)
    }

    /// `norm_1` of `x`, and the attention branch before its residual connection; all `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn attention_branch(&self, x: &Tensor, kv: KeyValues<'_>) -> Result<(Tensor, Tensor)> {
        let normed = self.norm_1.forward(x)?;
        let branch = self.attn.forward(&normed, kv)?;
        Ok((normed, branch))
    }

    /// [`Block::forward`] in training, and the activations for [`Block::backward`].
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward_train(&self, x: &Tensor, context: TrainContext<'_>) -> Result<(Tensor, BlockSaved)> {
        let (middle, attn) = self.attn.forward_train(&self.norm_1.forward(x)?, context)?;
        self.apply_dropout(&middle, DropoutSite::AttentionOutput(self.layer), context)?;
        ops::add(&middle, x)?;
        let (y, ffn) = self.ffn.forward_train(&self.norm_2.forward(&middle)?)?;
        self.apply_dropout(&y, DropoutSite::FfnOutput(self.layer), context)?;
        ops::add(&y, &middle)?;
        Ok((y, BlockSaved { input: x.clone(), attn, middle, ffn }))
    }

    /// Gradient of the input, from the gradient of the output, `dy`; both `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree, and those of `sink`.
    pub fn backward(
        &self,
        saved: BlockSaved,
        dy: &Tensor,
        context: TrainContext<'_>,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        let BlockSaved { input, attn, middle, ffn } = saved;
        let d_ffn = self.with_dropout(dy, DropoutSite::FfnOutput(self.layer), context)?;
        let d_normed = self.ffn.backward(&self.norm_2.forward(&middle)?, ffn, &d_ffn, sink)?;
        let d_middle = self.norm_2.backward(&middle, &d_normed, sink)?;
        drop((d_normed, middle));
        ops::add(&d_middle, dy)?;

        let d_attn = self.with_dropout(&d_middle, DropoutSite::AttentionOutput(self.layer), context)?;
        let d_normed = self.attn.backward(&self.norm_1.forward(&input)?, attn, &d_attn, context, sink)?;
        let dx = self.norm_1.backward(&input, &d_normed, sink)?;
        ops::add(&dx, &d_middle)?;
        Ok(dx)
    }

    /// Applies dropout to `x` `[tokens, d]` in place.
    fn apply_dropout(&self, x: &Tensor, site: DropoutSite, context: TrainContext<'_>) -> Result<()> {
        let row_len = context.mask.dims().1 * x.dim(1)?;
        match context.dropout(self.dropout, site, row_len) {
            Some(dropout) => ops::dropout(x, dropout),
            None => Ok(()),
        }
    }

    /// Copy of `x` with dropout applied; `x` itself when it is disabled.
    fn with_dropout(&self, x: &Tensor, site: DropoutSite, context: TrainContext<'_>) -> Result<Tensor> {
        if context.dropout.is_none() || self.dropout == 0.0 {
            return Ok(x.clone());
        }
        let x = x.copy()?;
        self.apply_dropout(&x, site, context)?;
        Ok(x)
    }
}
