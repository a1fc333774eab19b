//! The MPT model, from token ids to logits: embedding, blocks, norm, head. Layers are in [`nn`](crate::nn).
//!
//! Peculiar to MPT: positions enter as ALiBi's linear bias on scores, not as embeddings; one fused projection `Wqkv` has
//! all queries, then all keys, then all values, and may be clipped; linears have no bias; GELU is exact; the output
//! projection is the embedding, padded to a multiple of 128 rows.
//!
//! Legend of shapes: b batch, s seq, d d_model, v vocab_size; tokens are b * s.

use std::sync::Arc;

use candle_core::Tensor;

use crate::batch::Batch;
use crate::cache::KvPool;
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::mask::AttnMask;
use crate::nn::{Block, BlockSource, Embedding, Head, KeyValues, Norm};
use crate::params::Module;
use crate::source::{ParamBuilder, ParameterSource};

/// MPT with its language-model head.
#[derive(Clone, Debug)]
pub struct CausalLm {
    config: MptConfig,
    embedding: Embedding,
    blocks: Arc<dyn BlockSource>,
    norm_f: Norm,
    head: Head,
}

impl CausalLm {
    /// Builds the model from all of its parameters.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, source: &dyn ParameterSource) -> Result<Self> {
        let block = |layer| Block::new(config, source, layer);
        let blocks: Vec<Block> = (0..config.n_layers).map(block).collect::<Result<_>>()?;
        Self::with_blocks(config, source, Arc::new(blocks))
    }

    /// Builds the model around `blocks`, which may gather a block when it is needed; reads the parameters outside blocks.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape, or `blocks` has not `n_layers` blocks.
    pub fn with_blocks(
        config: &MptConfig,
        source: &dyn ParameterSource,
        blocks: Arc<dyn BlockSource>,
    ) -> Result<Self> {
        if blocks.num_blocks() != config.n_layers {
            let (actual, expected) = (blocks.num_blocks().to_string(), format!("{}", config.n_layers));
            return Err(Error::Shape { op: "model", argument: "blocks", actual, expected });
        }
        let pb = ParamBuilder::of_model(source);
        let embedding = Embedding::new(config, pb)?;
        let norm_f = Norm::new(Module::NormF, config.d_model, config, pb)?;
        let head = Head::new(config, embedding.wte(), pb)?;
        Ok(Self { config: config.clone(), embedding, blocks, norm_f, head })
    }

    /// Configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// Embedding.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// Blocks, first to last.
    pub fn blocks(&self) -> &dyn BlockSource {
        &*self.blocks
    }

    /// Norm after the last block.
    pub fn norm_f(&self) -> &Norm {
        &self.norm_f
    }

    /// Output projection.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Forward pass over a ragged batch with a KV cache. Returns hidden states `[tokens, d]`, f32, after `norm_f`.
    ///
    /// The new tokens are added to `pool`; on error `pool` is unchanged. The bits of a token depend on its own sequence
    /// alone, not on the batch or on how a prompt is split into chunks.
    ///
    /// # Errors
    /// [`Error::TokenId`], [`Error::TooLong`] past learned positions, [`Error::PoolFull`], and [`Error::Shape`].
    pub fn forward(&self, batch: &Batch, pool: &mut KvPool) -> Result<Tensor> {
        pool.begin(batch)?;
        let hidden = self.forward_layers(batch, pool);
        match &hidden {
            Ok(_) => pool.commit(batch)?,
            Err(_) => pool.rollback(),
        }
        hidden
    }

    fn forward_layers(&self, batch: &Batch, pool: &mut KvPool) -> Result<Tensor> {
        let positions = &pool.positions(batch)?[..];
        let mut x = self.embedding.forward(batch.tokens(), positions)?;
        for layer in 0..self.blocks.num_blocks() {
            self.blocks.with_block(layer, &mut |block| {
                x = block.forward(&x, KeyValues::Paged { pool: &mut *pool, batch, positions })?;
                Ok(())
            })?;
        }
        self.norm_f.forward(&x)
    }

    /// Forward pass over rows of token ids without a cache. Returns hidden states `[b, s, d]`, f32, after `norm_f`.
    ///
    /// # Errors
    /// [`Error::TokenId`], [`Error::TooLong`] past learned positions, and [`Error::Shape`].
    pub fn hidden<R: AsRef<[u32]>>(&self, tokens: &[R], mask: &AttnMask) -> Result<Tensor> {
        let (b, s) = mask.dims();
        let mut x = self.embedding.forward(&flatten_ids(tokens, mask)?, &mask.positions())?;
        for layer in 0..self.blocks.num_blocks() {
            self.blocks.with_block(layer, &mut |block| {
                x = block.forward(&x, KeyValues::Uncached(mask))?;
                Ok(())
            })?;
        }
        Ok(self.norm_f.forward(&x)?.reshape((b, s, self.config.d_model))?)
    }

    /// Logits `[.., v]` of hidden states `[.., d]`. Slice `hidden` first when few positions are needed.
    ///
    /// # Errors
    /// When the width of `hidden` is not `d`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }

    /// Cross-entropy summed over labels, in nats. `hidden` is `[.., d]`; `labels` has one id per token, and
    /// [`IGNORE_LABEL`](crate::IGNORE_LABEL) is skipped.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::TokenId`] for a label outside the vocabulary.
    pub fn loss_sum(&self, hidden: &Tensor, labels: &[u32]) -> Result<f64> {
        self.head.loss(hidden, labels)
    }
}

/// Token ids `[b * s]` of rows that match the dimensions of `mask`.
pub(crate) fn flatten_ids<R: AsRef<[u32]>>(tokens: &[R], mask: &AttnMask) -> Result<Vec<u32>> {
    let (b, s) = mask.dims();
    let ids: Vec<u32> = tokens.iter().flat_map(|row| row.as_ref()).copied().collect();
    if tokens.len() == b && tokens.iter().all(|row| row.as_ref().len() == s) {
        return Ok(ids);
    }
    let (actual, expected) =
        (format!("{} rows, {} ids", tokens.len(), ids.len()), format!("{b} rows of {s} ids"));
    Err(Error::Shape { op: "embed", argument: "tokens", actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SeqId;
    use crate::kv_dtype::KvDtype;
    use crate::testing::{assert_close, tiny_model};

    fn model() -> CausalLm {
        let (config, params) = tiny_model(1);
        CausalLm::new(&config, &params).unwrap()
    }

    fn pool(model: &CausalLm, dtype: KvDtype) -> KvPool {
        KvPool::new(model.config(), 256, dtype).unwrap()
    }

    fn ids(n: usize, seed: u32) -> Vec<u32> {
        (0..n as u32).map(|i| (i * i * 7 + seed) % 50).collect()
    }

    /// Hidden states `[tokens, d]` of new tokens of one sequence.
    fn run(model: &CausalLm, pool: &mut KvPool, sequence: SeqId, tokens: &[u32]) -> Tensor {
        let mut batch = Batch::new();
        batch.push(sequence, tokens).unwrap();
        model.forward(&batch, pool).unwrap()
    }

    #[test]
    fn decoding_token_by_token_equals_prefill() {
        let model = model();
        let tokens = ids(40, 3); // beyond max_seq_len, as ALiBi allows
        let whole = model.hidden(&[&tokens], &AttnMask::causal(1, 40)).unwrap().squeeze(0).unwrap();
        let mut pool = pool(&model, KvDtype::F32);
        let sequence = pool.add();
        let first = run(&model, &mut pool, sequence, &tokens[..7]);
        assert_close(&first, &whole.narrow(0, 0, 7).unwrap(), 1e-5);
        for at in 7..40 {
            let next = run(&model, &mut pool, sequence, &tokens[at..=at]);
            assert_close(&next, &whole.narrow(0, at, 1).unwrap(), 1e-5);
        }
    }

    #[test]
    fn a_cache_that_rounds_gives_almost_the_same() {
        let model = model();
        let tokens = ids(40, 3);
        let whole = model.hidden(&[&tokens], &AttnMask::causal(1, 40)).unwrap().squeeze(0).unwrap();
        for dtype in [KvDtype::Bf16, KvDtype::Int8] {
            let mut pool = pool(&model, dtype);
            let sequence = pool.add();
            for piece in tokens.chunks(13) {
                let at = pool.len(sequence);
                let found = run(&model, &mut pool, sequence, piece);
                let off = (found - whole.narrow(0, at, piece.len()).unwrap()).unwrap();
                let mean_square = off.sqr().and_then(|x| x.mean_all()?.to_scalar::<f32>()).unwrap();
                // hidden states behind the last norm have a mean square of 1
                assert!(mean_square.sqrt() < 1e-2, "{dtype}: {}", mean_square.sqrt());
            }
        }
    }

    #[test]
    fn a_pass_that_fails_leaves_the_pool_as_it_was() {
        let model = model();
        let mut pool = pool(&model, KvDtype::F32);
        let sequence = pool.add();
        run(&model, &mut pool, sequence, &ids(5, 1));
        let mut batch = Batch::new();
        batch.push(sequence, &[1, 50]).unwrap();
        let used = pool.used_pages();
        let error = model.forward(&batch, &mut pool).unwrap_err();
        assert!(error.to_string().starts_with("token id 50 at position 1"), "{error}");
        assert_eq!((pool.len(sequence), pool.used_pages()), (5, used));
    }

    #[test]
    fn padding_on_either_side_changes_nothing() {
        let model = model();
        let tokens = ids(5, 9);
        let alone = model.hidden(&[&tokens], &AttnMask::causal(1, 5)).unwrap();
        for left in [0, 3] {
            let mut padded = vec![0; 8];
            let mut mask = vec![0; 8];
            padded[left..left + 5].copy_from_slice(&tokens);
            mask[left..left + 5].fill(1);
            let mask = AttnMask::padded(&mask, 1, 8).unwrap();
            let hidden = model.hidden(&[padded], &mask).unwrap();
            assert_close(&hidden.narrow(1, left, 5).unwrap(), &alone, 1e-5);
        }
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let error = model().hidden(&[[1, 50]], &AttnMask::causal(1, 2)).unwrap_err();
        assert!(error.to_string().starts_with("token id 50 at position 1"), "{error}");
    }
}
