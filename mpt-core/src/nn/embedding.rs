//! Token embedding, plus learned position embedding where configured.

use candle_core::Tensor;

use super::{DropoutSite, TrainContext};
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::gradients::GradSink;
use crate::ops;
use crate::parameter::Parameter;
use crate::params::{Module, ParamId};
use crate::source::ParamBuilder;

/// Embedding layer of a model.
#[derive(Clone, Debug)]
pub struct Embedding {
    wte: Parameter,
    wpe: Option<Parameter>,
    /// Factor on the gradient of the embeddings.
    ///
    /// Source: Zeng et al. 2022 (GLM-130B), section 2.2.
    fraction: f64,
    dropout: f64,
}

impl Embedding {
    /// Reads `wte` `[vocab_size, d]` and, where configured, `wpe` `[max_seq_len, d]`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let d = config.d_model;
        let wpe = config.learned_pos_emb.then(|| pb.matrix(Module::Wpe, config.max_seq_len, d));
        Ok(Self {
            wte: pb.matrix(Module::Wte, config.vocab_size, d)?,
            wpe: wpe.transpose()?,
            fraction: config.embedding_fraction,
            dropout: config.dropout.embedding,
        })
    }

    /// Token embedding, which a tied head shares.
    pub fn wte(&self) -> &Parameter {
        &self.wte
    }

    /// Embeddings `[tokens, d]`, f32, of `ids` at `positions`, each `[tokens]`.
    ///
    /// # Errors
    /// [`Error::TokenId`], and [`Error::TooLong`] past learned positions.
    pub fn forward(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let x = ops::embedding(&self.wte, ids)?;
        if let Some(wpe) = &self.wpe {
            ops::add(&x, &ops::embedding(wpe, check_positions(positions, wpe.dims()[0])?)?)?;
        }
        Ok(x)
    }

    /// [`Embedding::forward`] with dropout.
    ///
    /// # Errors
    /// As [`Embedding::forward`].
    pub fn forward_train(&self, ids: &[u32], positions: &[u32], context: TrainContext<'_>) -> Result<Tensor> {
        let x = self.forward(ids, positions)?;
        self.apply_dropout(&x, context)?;
        Ok(x)
    }

    /// Hands the gradients of the embeddings to `sink`, from the gradient of the output, `dx` `[tokens, d]`, which is changed.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn backward(
        &self,
        ids: &[u32],
        positions: &[u32],
        dx: &Tensor,
        context: TrainContext<'_>,
        sink: &mut dyn GradSink,
    ) -> Result<()> {
        self.apply_dropout(dx, context)?;
        ops::scale(dx, self.fraction)?;
        let tables = [(Module::Wte, Some(&self.wte), ids), (Module::Wpe, self.wpe.as_ref(), positions)];
        for (module, table, rows) in tables {
            let id = ParamId::weight(module);
            if let Some(table) = table.and_then(Parameter::trainable).filter(|_| sink.wants(id)) {
                sink.add_rows(id, table.dims()[0], rows, dx)?;
            }
        }
        Ok(())
    }

    fn apply_dropout(&self, x: &Tensor, context: TrainContext<'_>) -> Result<()> {
        let row_len = context.mask.dims().1 * x.dim(1)?;
        match context.dropout(self.dropout, DropoutSite::Embedding, row_len) {
            Some(dropout) => ops::dropout(x, dropout),
            None => Ok(()),
        }
    }
}

/// Checks that `positions` lie in a table of `rows` learned positions; returns them.
fn check_positions(positions: &[u32], rows: usize) -> Result<&[u32]> {
    let longest = positions.iter().max().map_or(0, |&last| last as usize + 1);
    if longest <= rows {
        return Ok(positions);
    }
    let limit = format!("max_seq_len = {rows}");
    let instead = "shorten it: learned positions end there, unlike ALiBi";
    Err(Error::TooLong { actual: longest, limit, instead })
}
