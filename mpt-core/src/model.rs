//! The MPT model, from token ids to logits: attention, feed-forward, block, language model.
//!
//! What is peculiar to MPT: positions enter as ALiBi's linear bias on scores, not as embeddings; one fused projection
//! `Wqkv` holds all queries, then all keys, then all values, and may be clipped; no biases; GELU is the exact one; the
//! output projection is the embedding, padded to a multiple of 128 rows.
//!
//! Legend of shapes: b batch, s seq, d d_model, h n_heads, g kv_n_heads, e head_dim, v vocab_size.

mod plain_block;

use candle_core::Tensor;
pub use plain_block::{BlockGradients, BlockPass, PlainBlock};

use crate::bias::{AttnMask, alibi_slopes};
use crate::cache::{KvCache, LayerCache};
use crate::config::{Activation, FfnType, MptConfig};
use crate::error::{Error, Result};
use crate::nn::{Linear, Norm, product, rows};
use crate::ops::{self, LogitForm, Products, Scores};
use crate::rope::Rope;
use crate::source::{ParamBuilder, Parameter, ParameterSource};

/// Causal self-attention.
#[derive(Clone, Debug)]
pub struct Attention {
    projection: Projection,
    out_proj: Linear,
    /// Norms of queries and keys, over all heads (`qk_ln`) or over each (`qk_gn`).
    qk_norms: Option<(Norm, Norm)>,
    norm_each_head: bool,
    clip_qkv: Option<f64>,
    rope: Option<Rope>,
    scores: Scores,
    window: Option<usize>,
    n_heads: usize,
    kv_n_heads: usize,
    head_dim: usize,
}

/// The projections to queries, keys and values.
#[derive(Clone, Debug)]
enum Projection {
    /// One linear for all queries, then all keys, then all values.
    Fused(Linear),
    /// One linear for each.
    Split([Linear; 3]),
}

impl Attention {
    /// Reads `Wqkv` (or `Wq`, `Wk`, `Wv`), `out_proj` and where configured `q_ln` and `k_ln` at the place of `pb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let attn = &config.attn_config;
        let (d, e) = (config.d_model, config.head_dim);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let linear = |name, width| Linear::new(d, width, config.attention_bias, pb.pp(name));
        let projection = match attn.fused_qkv {
            true => Projection::Fused(linear("Wqkv", q_width + 2 * kv_width)?),
            false => {
                Projection::Split([linear("Wq", q_width)?, linear("Wk", kv_width)?, linear("Wv", kv_width)?])
            }
        };
        let norm_widths = match (attn.qk_ln, attn.qk_gn) {
            (true, _) => Some((q_width, kv_width)),
            (_, true) => Some((e, e)),
            _ => None,
        };
        let qk_norms = norm_widths
            .map(|(q, k)| {
                Ok::<_, Error>((Norm::new(q, config, pb.pp("q_ln"))?, Norm::new(k, config, pb.pp("k_ln"))?))
            })
            .transpose()?;
        let slopes = if attn.alibi {
            alibi_slopes(config.n_heads, attn.alibi_bias_max)
        } else {
            vec![0.0; config.n_heads]
        };
        Ok(Self {
            projection,
            out_proj: Linear::new(q_width, d, !config.no_bias, pb.pp("out_proj"))?,
            qk_norms,
            norm_each_head: attn.qk_gn,
            clip_qkv: attn.clip_qkv,
            rope: Rope::new(config),
            scores: Scores {
                scale: attn.softmax_scale,
                cap: attn.logit_softcapping,
                slopes: slopes.into(),
                products: pb.products(),
            },
            window: attn.sliding_window_size,
            n_heads: config.n_heads,
            kv_n_heads: attn.kv_n_heads,
            head_dim: e,
        })
    }

    /// `x` `[b, s, d]` to `[b, s, d]`; with a cache, its tokens come before those of `x`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor, mask: &AttnMask, cache: Option<LayerCache<'_>>) -> Result<Tensor> {
        let (b, s, _) = x.dims3()?;
        let start = cache.as_ref().map_or(vec![0; b], |cache| cache.lens().to_vec());
        let [q, k, v] = self.heads(x)?;
        let q = self.rotated(&q, mask, &start)?;
        // keys whose angles change with the length of the sequence are kept as they are and rotated at use
        let late = self.rope.as_ref().is_some_and(Rope::depends_on_length);
        let k = if late { k } else { self.rotated(&k, mask, &start)? };
        let first_key = mask.first_keys(self.window, &start);
        let seen = |k: &Tensor, v: &Tensor| {
            let k = if late { self.rotated_keys(k, mask, &start)? } else { k.clone() };
            ops::attention([&q, &k, v], &self.scores, &start, first_key.as_ref())
        };
        let out = match cache {
            Some(mut cache) => {
                cache.append(&k, &v)?;
                if late {
                    let (k, v) = cache.tensors(s)?; // [b, t, g, e]
                    seen(&k, &v)?
                } else {
                    ops::cached_attention(&q, &cache, &self.scores, first_key.as_ref())?
                }
            }
            None => seen(&k, &v)?,
        };
        self.out_proj.forward(&out.reshape((b, s, self.n_heads * self.head_dim))?)
    }

    /// Queries `[b, s, h, e]`, keys and values `[b, s, g, e]` of `x` `[b, s, d]`.
    fn heads(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let (b, s, _) = x.dims3()?;
        let (h, g) = (self.n_heads, self.kv_n_heads);
        let clipped = |x: Tensor| match self.clip_qkv {
            Some(bound) => ops::clip(&x, bound),
            None => Ok(x),
        };
        let [q, k, v] = match &self.projection {
            Projection::Fused(wqkv) => {
                let qkv = clipped(wqkv.forward(x)?)?.reshape((b, s, h + 2 * g, self.head_dim))?;
                [qkv.narrow(2, 0, h)?, qkv.narrow(2, h, g)?, qkv.narrow(2, h + g, g)?]
            }
            Projection::Split([wq, wk, wv]) => {
                let heads = |linear: &Linear, n| {
                    Ok::<_, Error>(clipped(linear.forward(x)?)?.reshape((b, s, n, self.head_dim))?)
                };
                [heads(wq, h)?, heads(wk, g)?, heads(wv, g)?]
            }
        };
        match &self.qk_norms {
            Some((q_ln, k_ln)) => Ok([self.normalize(q_ln, &q)?, self.normalize(k_ln, &k)?, v]),
            None => Ok([q, k, v]),
        }
    }

    fn normalize(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        if self.norm_each_head {
            return norm.forward(x);
        }
        let flat = x.flatten_from(2)?; // [b, s, heads * e]
        Ok(norm.forward(&flat)?.reshape(x.dims())?)
    }

    /// New heads `[b, s, heads, e]`, rotated where the model has RoPE.
    fn rotated(&self, x: &Tensor, mask: &AttnMask, start: &[usize]) -> Result<Tensor> {
        let Some(rope) = &self.rope else { return Ok(x.clone()) };
        let positions = mask.positions(start);
        let rows = positions.chunks_exact(mask.dims().1).zip(mask.lengths(start));
        let angles: Vec<f32> =
            rows.flat_map(|(row, length)| rope.angles(row.iter().copied(), length)).collect();
        ops::rotate(x, &angles)
    }

    /// All keys `[b, t, g, e]`, cached and new, rotated by the angles of their row's whole length.
    fn rotated_keys(&self, keys: &Tensor, mask: &AttnMask, start: &[usize]) -> Result<Tensor> {
        let Some(rope) = &self.rope else { return Ok(keys.clone()) };
        let t = keys.dims()[1];
        let rows = mask.paddings().into_iter().zip(mask.lengths(start));
        let angles: Vec<f32> = rows
            .flat_map(|(padding, length)| {
                rope.angles((0..t as u32).map(|key| key.saturating_sub(padding)), length)
            })
            .collect();
        ops::rotate(keys, &angles)
    }
}

/// The feed-forward layer.
#[derive(Clone, Debug)]
pub struct Ffn {
    up_proj: Linear,
    gate_proj: Option<Linear>,
    down_proj: Linear,
    activation: Activation,
}

impl Ffn {
    /// Reads `up_proj`, `down_proj` and for the gated form `gate_proj` at the place of `pb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let (d, hidden, with_bias) = (config.d_model, config.ffn_hidden_size, !config.no_bias);
        let gate_proj = (config.ffn_type == FfnType::Glu)
            .then(|| Linear::new(d, hidden, with_bias, pb.pp("gate_proj")))
            .transpose()?;
        Ok(Self {
            up_proj: Linear::new(d, hidden, with_bias, pb.pp("up_proj"))?,
            gate_proj,
            down_proj: Linear::new(hidden, d, with_bias, pb.pp("down_proj"))?,
            activation: config.activation,
        })
    }

    /// `x` `[b, s, d]` to `[b, s, d]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up_proj.forward(x)?; // [b, s, ffn_hidden_size]
        let activated = match &self.gate_proj {
            Some(gate) => ops::activation(&gate.forward(x)?, self.activation)?.mul(&up)?,
            None => ops::activation(&up, self.activation)?,
        };
        self.down_proj.forward(&activated)
    }
}

/// One pre-norm block: attention and feed-forward, each added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    norm_1: Norm,
    attn: Attention,
    norm_2: Norm,
    ffn: Ffn,
}

impl Block {
    /// Reads the tensors of one block at the place of `pb`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        Ok(Self {
            norm_1: Norm::new(config.d_model, config, pb.pp("norm_1"))?,
            attn: Attention::new(config, pb.pp("attn"))?,
            norm_2: Norm::new(config.d_model, config, pb.pp("norm_2"))?,
            ffn: Ffn::new(config, pb.pp("ffn"))?,
        })
    }

    /// `x` `[b, s, d]` to `[b, s, d]`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor, mask: &AttnMask, cache: Option<LayerCache<'_>>) -> Result<Tensor> {
        let (_, attended) = self.attend(x, mask, cache)?;
        let x = (x + attended)?;
        let ffn = self.ffn.forward(&self.norm_2.forward(&x)?)?;
        Ok((x + ffn)?)
    }

    /// The first norm of `x`, and what attention adds to `x`; both `[b, s, d]`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn attend(
        &self,
        x: &Tensor,
        mask: &AttnMask,
        cache: Option<LayerCache<'_>>,
    ) -> Result<(Tensor, Tensor)> {
        let normed = self.norm_1.forward(x)?;
        let attended = self.attn.forward(&normed, mask, cache)?;
        Ok((normed, attended))
    }
}

/// The language model.
#[derive(Clone, Debug)]
pub struct CausalLm {
    config: MptConfig,
    wte: Parameter,
    wpe: Option<Parameter>,
    blocks: Vec<Block>,
    norm_f: Norm,
    /// `None` where the head is the embedding.
    lm_head: Option<Parameter>,
    products: Products,
}

impl CausalLm {
    /// Reads all parameters of the model under their checkpoint names.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, source: &dyn ParameterSource) -> Result<Self> {
        let (d, v) = (config.d_model, config.vocab_size);
        let top = ParamBuilder::new(source);
        let transformer = top.pp("transformer");
        let blocks = (0..config.n_layers)
            .map(|layer| Block::new(config, transformer.pp("blocks").pp(layer)))
            .collect::<Result<_>>()?;
        let wpe = config.learned_pos_emb.then(|| transformer.matrix("wpe.weight", config.max_seq_len, d));
        let lm_head = (!config.tie_word_embeddings).then(|| top.matrix("lm_head.weight", v, d));
        Ok(Self {
            config: config.clone(),
            wte: transformer.matrix("wte.weight", v, d)?,
            wpe: wpe.transpose()?,
            blocks,
            norm_f: Norm::new(d, config, transformer.pp("norm_f"))?,
            lm_head: lm_head.transpose()?,
            products: source.products(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &MptConfig {
        &self.config
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
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
        let mut x = self.embed(tokens, mask, &start)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let layer_cache = cache.as_mut().map(|cache| cache.layer(layer));
            x = block.forward(&x, mask, layer_cache)?;
        }
        if let Some(cache) = cache {
            cache.advance(s);
        }
        self.norm_f.forward(&x)
    }

    /// Embeddings `[b, s, d]` of rows of token ids; `start` holds each row's number of tokens before them.
    ///
    /// # Errors
    /// [`Error::Shape`] when rows are not `[b, s]`, [`Error::TokenId`], and [`Error::TooLong`] past learned positions.
    pub fn embed<R: AsRef<[u32]>>(&self, tokens: &[R], mask: &AttnMask, start: &[usize]) -> Result<Tensor> {
        let (b, s) = mask.dims();
        let ids: Vec<u32> = tokens.iter().flat_map(|row| row.as_ref()).copied().collect();
        if tokens.len() != b || tokens.iter().any(|row| row.as_ref().len() != s) {
            let actual = format!("{} rows, {} ids", tokens.len(), ids.len());
            return Err(Error::Shape {
                op: "embed",
                argument: "tokens",
                actual,
                expected: format!("{b} rows of {s} ids"),
            });
        }
        let x = rows(&self.wte, &ids)?;
        let x = match &self.wpe {
            Some(wpe) => (x + self.positions(wpe, mask, start)?)?,
            None => x,
        };
        let x = match self.config.embedding_fraction {
            1.0 => x,
            fraction => ops::scale_gradient(&x, fraction)?,
        };
        Ok(x.reshape((b, s, self.config.d_model))?)
    }

    fn positions(&self, wpe: &Parameter, mask: &AttnMask, start: &[usize]) -> Result<Tensor> {
        let positions = mask.positions(start);
        let longest = positions.iter().max().map_or(0, |&last| last as usize + 1);
        if longest > self.config.max_seq_len {
            let limit = format!("max_seq_len = {}", self.config.max_seq_len);
            let instead = "shorten it: learned positions end there, unlike ALiBi";
            return Err(Error::TooLong { actual: longest, limit, instead });
        }
        rows(wpe, &positions)
    }

    /// The norm behind the last block, `[b, s, d]` to `[b, s, d]`.
    ///
    /// # Errors
    /// When the width of `x` is not `d`.
    pub fn norm_f(&self, x: &Tensor) -> Result<Tensor> {
        self.norm_f.forward(x)
    }

    /// Logits `[.., v]` of hidden states `[.., d]`. Slice `hidden` first where only some positions matter.
    ///
    /// # Errors
    /// When the width of `hidden` is not `d`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let form = self.logit_form();
        let logits = product(hidden, self.head(), self.products)?;
        let logits = if form.scale == 1.0 { logits } else { (logits * form.scale)? };
        match form.cap {
            Some(cap) => ops::soft_cap(&logits, cap),
            None => Ok(logits),
        }
    }

    /// The sum of -log p(label) over the labels that are not [`ops::IGNORE_LABEL`], one label a token of `hidden` `[.., d]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the count of labels is not that of tokens, [`Error::TokenId`] for a label outside the vocabulary.
    pub fn loss_sum(&self, hidden: &Tensor, labels: &[u32]) -> Result<Tensor> {
        ops::linear_cross_entropy(hidden, self.head(), labels, self.logit_form(), self.products)
    }

    /// The output projection, `[v, d]`.
    fn head(&self) -> &Parameter {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    fn logit_form(&self) -> LogitForm {
        LogitForm { scale: self.config.logit_scale.unwrap_or(1.0), cap: self.config.final_logit_softcapping }
    }
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
    use crate::kv_dtype::KvDtype;
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
