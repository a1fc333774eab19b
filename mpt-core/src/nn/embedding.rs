//! Embeddings of tokens and, where a model has them, of positions.

use candle_core::Tensor;

use super::{DropoutSite, TrainContext};
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::gradients::GradSink;
use crate::ops;
use crate::parameter::Parameter;
use crate::params::{Module, ParamId};
use crate::source::ParamBuilder;

/// The embedding at the bottom of a model.
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
    /// Reads `wte` `[vocab_size, d]` and where configured `wpe` `[max_seq_len, d]`.
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

    /// The table of tokens, which is the output projection too where the two are tied.
    pub fn wte(&self) -> &Parameter {
        &self.wte
    }

    /// Embeddings `[tokens, d]` of ids at `positions`, `[tokens]` each.
    ///
    /// # Errors
    /// [`Error::TokenId`], and [`Error::TooLong`] past learned positions.
    pub fn forward(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let x = ops::embedding(&self.wte, ids)?;
        if let Some(wpe) = &self.wpe {
            ops::add(&x, &ops::embedding(wpe, within(positions, wpe.dims()[0])?)?)?;
        }
        Ok(x)
    }

    /// [`Embedding::forward`] in training, where some of it is dropped.
    ///
    /// # Errors
    /// As [`Embedding::forward`].
    pub fn forward_train(&self, ids: &[u32], positions: &[u32], context: TrainContext<'_>) -> Result<Tensor> {
        let x = self.forward(ids, positions)?;
        self.drop(&x, context)?;
        Ok(x)
    }

    /// Hands the gradients of the tables to `sink`, given that of the result, `dx` `[tokens, d]`.
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
        self.drop(dx, context)?;
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

    fn drop(&self, x: &Tensor, context: TrainContext<'_>) -> Result<()> {
        let row_len = context.mask.dims().1 * x.dim(1)?;
        match context.dropout(self.dropout, DropoutSite::Embedding, row_len) {
            Some(dropout) => ops::dropout(x, dropout),
            None => Ok(()),
        }
    }
}

/// `positions`, all of which a table of `rows` learned ones has.
fn within(positions: &[u32], rows: usize) -> Result<&[u32]> {
    let longest = positions.iter().max().map_or(0, |&last| last as usize + 1);
    if longest <= rows {
        return Ok(positions);
    }
    let limit = format!("max_seq_len = {rows}");
    let instead = "shorten it: learned positions end there, unlike ALiBi";
    Err(Error::TooLong { actual: longest, limit, instead })
}
