//! The MPT model, from token ids to logits: embedding, blocks, norm, head. Layers are in [`nn`](crate::nn).
//!
//! What is peculiar to MPT: positions enter as ALiBi's linear bias on scores, not as embeddings; one fused projection
//! `Wqkv` holds all queries, then all keys, then all values, and may be clipped; no biases; GELU is the exact one; the
//! output projection is the embedding, padded to a multiple of 128 rows.
//!
//! Legend of shapes: b batch, s seq, d d_model, v vocab_size; tokens are b * s.

use std::sync::Arc;

use candle_core::Tensor;

use crate::cache::KvCache;
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::mask::AttnMask;
use crate::nn::{Block, BlockSource, Embedding, Head, KeyValues, Norm};
use crate::params::Module;
use crate::source::{ParamBuilder, ParameterSource};

/// The language model.
#[derive(Clone, Debug)]
pub struct CausalLm {
    config: MptConfig,
    embedding: Embedding,
    blocks: Arc<dyn BlockSource>,
    norm_f: Norm,
    head: Head,
}

impl CausalLm {
    /// Reads all parameters of the model.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, source: &dyn ParameterSource) -> Result<Self> {
        let block = |layer| Block::new(config, source, layer);
        let blocks: Vec<Block> = (0..config.n_layers).map(block).collect::<Result<_>>()?;
        Self::with_blocks(config, source, Arc::new(blocks))
    }

    /// Reads the parameters outside blocks; `blocks` gives a block whenever it is needed.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape, or there are not `n_layers` blocks.
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

    /// The configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// The embedding.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &dyn BlockSource {
        &*self.blocks
    }

    /// The norm behind the last block.
    pub fn norm_f(&self) -> &Norm {
        &self.norm_f
    }

    /// The output projection.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Hidden states `[b, s, d]` after the last norm of a batch of rows of token ids.
    ///
    /// With a cache, its tokens come before those of `tokens`, and it holds both afterwards; `mask` counts new tokens,
    /// and pads them on the right, where [`KvCache::truncate`] cuts them off.
    ///
    /// # Errors
    /// [`Error::TokenId`], [`Error::TooLong`] and [`Error::Shape`].
    pub fn hidden<R: AsRef<[u32]>>(
        &self,
        tokens: &[R],
        mask: &AttnMask,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let (b, s) = mask.dims();
        let start = cache.as_ref().map_or(vec![0; b], |cache| cache.lens().to_vec());
        if let Some(cache) = &cache {
            cache.expect_room(b, s)?;
            expect_no_left_padding(mask)?;
        }
        let mut x = self.embedding.forward(&flat(tokens, mask)?, &mask.positions(&start))?;
        for layer in 0..self.blocks.num_blocks() {
            self.blocks.with_block(layer, &mut |block| {
                let keys = match cache.as_mut() {
                    Some(cache) => KeyValues::Cached(mask, cache.layer(layer)),
                    None => KeyValues::Own(mask),
                };
                x = block.forward(&x, keys)?;
                Ok(())
            })?;
        }
        if let Some(cache) = cache {
            cache.advance(s);
        }
        Ok(self.norm_f.forward(&x)?.reshape((b, s, self.config.d_model))?)
    }

    /// Logits `[.., v]` of hidden states `[.., d]`. Slice `hidden` first where only some positions matter.
    ///
    /// # Errors
    /// When the width of `hidden` is not `d`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }

    /// The sum of -log p(label) in nats over the labels that are not [`IGNORE_LABEL`](crate::IGNORE_LABEL), one label a
    /// token of `hidden` `[.., d]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the count of labels is not that of tokens, [`Error::TokenId`] for a label outside the
    /// vocabulary.
    pub fn loss_sum(&self, hidden: &Tensor, labels: &[u32]) -> Result<f64> {
        self.head.loss(hidden, labels)
    }
}

/// The ids of `tokens`, rows as `mask` has them, one after another.
pub(crate) fn flat<R: AsRef<[u32]>>(tokens: &[R], mask: &AttnMask) -> Result<Vec<u32>> {
    let (b, s) = mask.dims();
    let ids: Vec<u32> = tokens.iter().flat_map(|row| row.as_ref()).copied().collect();
    if tokens.len() == b && tokens.iter().all(|row| row.as_ref().len() == s) {
        return Ok(ids);
    }
    let (actual, expected) =
        (format!("{} rows, {} ids", tokens.len(), ids.len()), format!("{b} rows of {s} ids"));
    Err(Error::Shape { op: "embed", argument: "tokens", actual, expected })
}

/// Padding within a cache would be seen by the tokens that follow.
fn expect_no_left_padding(mask: &AttnMask) -> Result<()> {
    if !mask.is_padded_left() {
        return Ok(());
    }
    Err(Error::Shape {
        op: "cached forward pass",
        argument: "mask",
        actual: "padded on the left".to_owned(),
        expected: "padding on the right, to be cut off with `KvCache::truncate`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KvDtype;
    use crate::testing::{assert_close, tiny_model};

    fn model() -> CausalLm {
        let (config, params) = tiny_model(1);
        CausalLm::new(&config, &params).unwrap()
    }

    fn ids(n: usize, seed: u32) -> Vec<u32> {
        (0..n as u32).map(|i| (i * i * 7 + seed) % 50).collect()
    }

    #[test]
    fn decoding_token_by_token_equals_prefill() {
        let model = model();
        let tokens = ids(40, 3); // beyond max_seq_len, as ALiBi allows
        let whole = model.hidden(&[&tokens], &AttnMask::causal(1, 40), None).unwrap();
        let mut cache = KvCache::new(model.config(), 1, 40, KvDtype::F32).unwrap();
        let first = model.hidden(&[&tokens[..7]], &AttnMask::causal(1, 7), Some(&mut cache)).unwrap();
        assert_close(&first, &whole.narrow(1, 0, 7).unwrap(), 1e-5);
        for at in 7..40 {
            let next = model.hidden(&[&tokens[at..=at]], &AttnMask::causal(1, 1), Some(&mut cache)).unwrap();
            assert_close(&next, &whole.narrow(1, at, 1).unwrap(), 1e-5);
        }
        let error = model.hidden(&[[1]], &AttnMask::causal(1, 1), Some(&mut cache)).unwrap_err();
        assert!(error.to_string().contains("a sequence of 41 tokens does not fit a cache of 40"), "{error}");
    }

    #[test]
    fn a_cache_that_rounds_gives_almost_the_same() {
        let model = model();
        let tokens = ids(40, 3);
        let whole = model.hidden(&[&tokens], &AttnMask::causal(1, 40), None).unwrap();
        for dtype in [KvDtype::Bf16, KvDtype::Int8] {
            let mut cache = KvCache::new(model.config(), 1, 40, dtype).unwrap();
            for piece in tokens.chunks(13) {
                let at = cache.len(0);
                let mask = AttnMask::causal(1, piece.len());
                let found = model.hidden(&[piece], &mask, Some(&mut cache)).unwrap();
                let off = (found - whole.narrow(1, at, piece.len()).unwrap()).unwrap();
                let mean_square = off.sqr().and_then(|x| x.mean_all()?.to_scalar::<f32>()).unwrap();
                // hidden states behind the last norm have a mean square of 1
                assert!(mean_square.sqrt() < 1e-2, "{dtype}: {}", mean_square.sqrt());
            }
        }
    }

    #[test]
    fn unequal_rows_of_a_cache_do_not_see_each_other() {
        let model = model();
        let (short, long) = (ids(4, 1), ids(9, 2));
        let mut padded = short.clone();
        padded.resize(9, 0);
        let mut cache = KvCache::new(model.config(), 2, 12, KvDtype::F32).unwrap();
        model.hidden(&[&padded, &long], &AttnMask::causal(2, 9), Some(&mut cache)).unwrap();
        cache.truncate(0, 4);
        let next = model.hidden(&[[11], [12]], &AttnMask::causal(2, 1), Some(&mut cache)).unwrap();
        for (row, (mut alone, token)) in [(short, 11), (long, 12)].into_iter().enumerate() {
            alone.push(token);
            let n = alone.len();
            let hidden = model.hidden(&[alone], &AttnMask::causal(1, n), None).unwrap();
            let (found, expected) = (next.narrow(0, row, 1).unwrap(), hidden.narrow(1, n - 1, 1).unwrap());
            assert_close(&found, &expected, 1e-5);
        }
    }

    #[test]
    fn padding_on_either_side_changes_nothing() {
        let model = model();
        let tokens = ids(5, 9);
        let alone = model.hidden(&[&tokens], &AttnMask::causal(1, 5), None).unwrap();
        for left in [0, 3] {
            let mut padded = vec![0; 8];
            let mut mask = vec![0; 8];
            padded[left..left + 5].copy_from_slice(&tokens);
            mask[left..left + 5].fill(1);
            let mask = AttnMask::padded(&mask, 1, 8).unwrap();
            let hidden = model.hidden(&[padded], &mask, None).unwrap();
            assert_close(&hidden.narrow(1, left, 5).unwrap(), &alone, 1e-5);
        }
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let error = model().hidden(&[[1, 50]], &AttnMask::causal(1, 2), None).unwrap_err();
        assert!(error.to_string().starts_with("token id 50 at position 1"), "{error}");
    }
}
