//! Causal self-attention: QKV projection, norms and rotation of heads, attention, output projection.

use candle_core::Tensor;

use super::{DropoutSite, Linear, Norm, TrainContext};
use crate::alibi::alibi_slopes;
use crate::batch::{Batch, BatchSeq};
use crate::cache::KvPool;
use crate::config::MptConfig;
use crate::error::Result;
use crate::gradients::GradSink;
use crate::mask::AttnMask;
use crate::ops::{self, AttentionInputs, AttentionOutputs, ClipMask, ScoreParams};
use crate::params::Module;
use crate::rng::Dropout;
use crate::rope::Rope;
use crate::source::ParamBuilder;

/// Attention layer of a block.
///
/// Legend of shapes: b batch, s seq, h n_heads, g kv_n_heads, e head_dim, d d_model; tokens are b * s.
#[derive(Clone, Debug)]
pub struct Attention {
    layer: usize,
    projection: Projection,
    out_proj: Linear,
    /// Norms of queries and keys, over all heads (`qk_ln`) or per head (`qk_gn`).
    qk_norms: Option<[Norm; 2]>,
    norm_each_head: bool,
    clip_qkv: Option<f64>,
    rope: Option<Rope>,
    scores: ScoreParams,
    window: Option<usize>,
    /// Dropout rate of the attention weights.
    dropout: f64,
    n_heads: usize,
    kv_n_heads: usize,
    head_dim: usize,
}

/// QKV projection.
#[derive(Clone, Debug)]
enum Projection {
    /// `Wqkv`: all queries, then all keys, then all values.
    Fused(Linear),
    /// `Wq`, `Wk`, `Wv`.
    Split(Box<[Linear; 3]>),
}

/// Source of the keys and values.
#[derive(Debug)]
pub enum KeyValues<'a> {
    /// No cache: the keys and values of the tokens themselves, under a mask.
    Uncached(&'a AttnMask),
    /// Paged cache: the cached tokens of each sequence, then the new ones, which are appended.
    Paged {
        /// Cache with an open forward pass of `batch`.
        pool: &'a mut KvPool,
        /// New tokens.
        batch: &'a Batch,
        /// Position of each new token, `[tokens]`.
        positions: &'a [u32],
    },
}

/// Activations saved for the backward pass.
#[derive(Debug)]
pub struct AttentionSaved {
    projected: Projected,
    outputs: AttentionOutputs,
}

/// Queries `[b, s, h, e]`, keys and values `[b, s, g, e]`, projected and clipped, before norms and rotation.
#[derive(Debug)]
struct Projected {
    heads: [Tensor; 3],
    /// Clip mask of each linear of the projection; empty without `clip_qkv`.
    clipped: Vec<ClipMask>,
}

impl Attention {
    /// Reads `Wqkv` (or `Wq`, `Wk`, `Wv`), `out_proj` and, where configured, `q_ln` and `k_ln`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: &MptConfig, pb: ParamBuilder<'_>) -> Result<Self> {
        let attn = &config.attn_config;
        let (d, q_width, kv_width) = (config.d_model, config.q_width(), config.kv_width());
        let linear = |module, widths| Linear::new(module, widths, config, pb);
        let projection = match attn.fused_qkv {
            true => Projection::Fused(linear(Module::Wqkv, [d, q_width + 2 * kv_width])?),
            false => Projection::Split(Box::new([
                linear(Module::Wq, [d, q_width])?,
                linear(Module::Wk, [d, kv_width])?,
                linear(Module::Wv, [d, kv_width])?,
            ])),
        };
        let norm = |module, width| Norm::new(module, width, config, pb);
        let qk_norms = match config.qk_norm_widths() {
            Some([q, k]) => Some([norm(Module::QLn, q)?, norm(Module::KLn, k)?]),
            None => None,
        };
        let slopes = if attn.alibi {
            alibi_slopes(config.n_heads, attn.alibi_bias_max)
        } else {
            vec![0.0; config.n_heads]
        };
        let scores = ScoreParams {
            scale: attn.softmax_scale,
            cap: attn.logit_softcapping,
            slopes: slopes.into(),
            precision: pb.precision(),
        };
        Ok(Self {
            layer: pb.id(Module::OutProj).layer.unwrap_or(0),
            projection,
            out_proj: linear(Module::OutProj, [q_width, d])?,
            qk_norms,
            norm_each_head: attn.qk_gn,
            clip_qkv: attn.clip_qkv,
            rope: Rope::new(config),
            scores,
            window: attn.sliding_window_size,
            dropout: config.dropout.attention,
            n_heads: config.n_heads,
            kv_n_heads: attn.kv_n_heads,
            head_dim: config.head_dim,
        })
    }

    /// Output `[tokens, d]` for `x` `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(&self, x: &Tensor, kv: KeyValues<'_>) -> Result<Tensor> {
        match kv {
            KeyValues::Uncached(mask) => Ok(self.forward_train(x, TrainContext { mask, dropout: None })?.0),
            KeyValues::Paged { pool, batch, positions } => self.forward_paged(x, pool, batch, positions),
        }
    }

    fn forward_paged(
        &self,
        x: &Tensor,
        pool: &mut KvPool,
        batch: &Batch,
        positions: &[u32],
    ) -> Result<Tensor> {
        let [q, k, v] = self.project(x, (1, batch.len()))?.heads;
        let angles = self.rope.as_ref().map(|rope| paged_angles(rope, pool, batch, positions));
        // keys whose angles depend on the sequence length are cached unrotated and rotated at use
        let rotate_at_use = self.rope.as_ref().filter(|rope| rope.depends_on_length());
        let q = self.norm_and_rotate(0, &q, angles.as_deref())?.squeeze(0)?;
        let k =
            self.norm_and_rotate(1, &k, angles.as_deref().filter(|_| rotate_at_use.is_none()))?.squeeze(0)?;
        ops::append_kv(pool, self.layer, batch, [&k, &v.squeeze(0)?])?;
        let out = match rotate_at_use {
            None => ops::paged_attention(&q, pool, self.layer, batch, &self.scores, self.window)?,
            Some(rope) => {
                let rotated = pool.map_keys(self.layer, batch, |positions, keys| {
                    ops::rotate(keys, &rope.angles(positions.iter().copied(), positions.len()))
                })?;
                ops::paged_attention(&q, &rotated, 0, batch, &self.scores, self.window)?
            }
        };
        self.out_proj.forward(&out.flatten_from(1)?)
    }

    /// [`Attention::forward`] without a cache, and the activations for [`Attention::backward`].
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward_train(&self, x: &Tensor, context: TrainContext<'_>) -> Result<(Tensor, AttentionSaved)> {
        let projected = self.project(x, context.mask.dims())?;
        let angles = self.angles(context.mask);
        let inputs = self.inputs(&projected, angles.as_deref(), context)?;
        let outputs = ops::attention(&inputs, &self.scores)?;
        let y = self.out_proj.forward(&self.flat(&outputs.out)?)?;
        Ok((y, AttentionSaved { projected, outputs }))
    }

    /// Gradient of the input `x` `[tokens, d]`, from the gradient of the output, `dy` `[tokens, d]`.
    ///
    /// # Errors
    /// When shapes disagree, and those of `sink`.
    pub fn backward(
        &self,
        x: &Tensor,
        saved: AttentionSaved,
        dy: &Tensor,
        context: TrainContext<'_>,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        let AttentionSaved { projected, outputs } = saved;
        let d_out = self.out_proj.backward(&self.flat(&outputs.out)?, dy, sink)?;
        let angles = self.angles(context.mask);
        let inputs = self.inputs(&projected, angles.as_deref(), context)?;
        let d_qkv = ops::attention_backward(&inputs, &self.scores, &outputs, &d_out)?;
        drop((inputs, outputs, d_out));
        let d_qkv = self.norm_and_rotate_backward(&projected.heads, d_qkv, angles.as_deref(), sink)?;
        self.project_backward(x, &d_qkv, &projected.clipped, sink)
    }

    /// QKV heads of `x` `[b * s, d]`, clipped.
    fn project(&self, x: &Tensor, (b, s): (usize, usize)) -> Result<Projected> {
        let (h, g, e) = (self.n_heads, self.kv_n_heads, self.head_dim);
        let mut clipped = Vec::new();
        let mut heads = |linear: &Linear, heads: usize| {
            let y = linear.forward(x)?;
            if let Some(bound) = self.clip_qkv {
                clipped.push(ops::clip(&y, bound)?);
            }
            Ok::<_, crate::Error>(y.reshape((b, s, heads, e))?)
        };
        let heads = match &self.projection {
            Projection::Fused(wqkv) => {
                let qkv = heads(wqkv, h + 2 * g)?;
                [qkv.narrow(2, 0, h)?, qkv.narrow(2, h, g)?, qkv.narrow(2, h + g, g)?]
            }
            Projection::Split(linears) => {
                let [wq, wk, wv] = &**linears;
                [heads(wq, h)?, heads(wk, g)?, heads(wv, g)?]
            }
        };
        Ok(Projected { heads, clipped })
    }

    /// Gradient of `x` `[b * s, d]`, from the gradient of its heads, `d_qkv` `[b, s, h + 2 g, e]`.
    fn project_backward(
        &self,
        x: &Tensor,
        d_qkv: &Tensor,
        clipped: &[ClipMask],
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        let (h, g) = (self.n_heads, self.kv_n_heads);
        let mut backward = |index: usize, linear: &Linear, from: usize, heads: usize| {
            let dy = self.flat(&d_qkv.narrow(2, from, heads)?)?;
            if let Some(clipped) = clipped.get(index) {
                ops::clip_backward(&dy, clipped)?;
            }
            linear.backward(x, &dy, sink)
        };
        match &self.projection {
            Projection::Fused(wqkv) => backward(0, wqkv, 0, h + 2 * g),
            Projection::Split(linears) => {
                let [wq, wk, wv] = &**linears;
                let dx = backward(0, wq, 0, h)?;
                ops::add(&dx, &backward(1, wk, h, g)?)?;
                ops::add(&dx, &backward(2, wv, h + g, g)?)?;
                Ok(dx)
            }
        }
    }

    /// Inputs of the attention op: heads after norms and rotation, mask and dropout.
    fn inputs(
        &self,
        Projected { heads: [q, k, v], .. }: &Projected,
        angles: Option<&[f32]>,
        context: TrainContext<'_>,
    ) -> Result<AttentionInputs> {
        let mask = context.mask;
        let (_, s) = mask.dims();
        Ok(AttentionInputs {
            q: self.norm_and_rotate(0, q, angles)?,
            k: self.norm_and_rotate(1, k, angles)?,
            v: v.clone(),
            first_key: mask.first_keys(self.window),
            dropout: self.dropout(s, context),
        })
    }

    fn dropout(&self, s: usize, context: TrainContext<'_>) -> Option<Dropout> {
        let row_len = self.n_heads * s * s;
        context.dropout(self.dropout, DropoutSite::AttentionWeights(self.layer), row_len)
    }

    /// Norm and rotation of queries (`which` 0) or keys (1) `[b, s, heads, e]`, where configured.
    fn norm_and_rotate(&self, which: usize, heads: &Tensor, angles: Option<&[f32]>) -> Result<Tensor> {
        let x = match &self.qk_norms {
            Some(norms) => norms[which].forward(&self.norm_rows(heads)?)?.reshape(heads.dims())?,
            None => heads.clone(),
        };
        match angles {
            Some(angles) => per_token(&x, |x| ops::rotate(x, angles)),
            None => Ok(x),
        }
    }

    /// Gradient of the projected heads, from the gradient after norms and rotation, `d_qkv` `[b, s, h + 2 g, e]`.
    fn norm_and_rotate_backward(
        &self,
        heads: &[Tensor; 3],
        d_qkv: Tensor,
        angles: Option<&[f32]>,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        if self.qk_norms.is_none() && angles.is_none() {
            return Ok(d_qkv);
        }
        let (h, g) = (self.n_heads, self.kv_n_heads);
        let mut backward = |which: usize, from: usize, n: usize| {
            let dy = d_qkv.narrow(2, from, n)?;
            let dy = match angles {
                Some(angles) => per_token(&dy, |dy| ops::rotate_backward(dy, angles))?,
                None => dy,
            };
            match &self.qk_norms {
                Some(norms) => {
                    let x = self.norm_rows(&heads[which])?;
                    let dx = norms[which].backward(&x, &self.norm_rows(&dy)?, sink)?;
                    Ok::<_, crate::Error>(dx.reshape(dy.dims())?)
                }
                None => Ok(dy),
            }
        };
        Ok(Tensor::cat(&[backward(0, 0, h)?, backward(1, h, g)?, d_qkv.narrow(2, h + g, g)?], 2)?)
    }

    /// Heads `[b, s, heads, e]` as the rows of their norm: each head, or all heads of a token.
    fn norm_rows(&self, heads: &Tensor) -> Result<Tensor> {
        let heads = heads.contiguous()?;
        if self.norm_each_head { Ok(heads) } else { Ok(heads.flatten_from(2)?) }
    }

    /// RoPE angles `[b * s * e / 2]` of the tokens of a batch; `None` without RoPE.
    fn angles(&self, mask: &AttnMask) -> Option<Vec<f32>> {
        let rope = self.rope.as_ref()?;
        let positions = mask.positions();
        let rows = positions.chunks_exact(mask.dims().1).zip(mask.lengths());
        Some(rows.flat_map(|(row, length)| rope.angles(row.iter().copied(), length)).collect())
    }

    /// Heads `[b, s, heads, e]` as `[b * s, heads * e]`.
    fn flat(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, s, n, e) = heads.dims4()?;
        Ok(heads.reshape((b * s, n * e))?)
    }
}

/// RoPE angles `[tokens * e / 2]` of the new tokens of a batch at `positions` `[tokens]`.
fn paged_angles(rope: &Rope, pool: &KvPool, batch: &Batch, positions: &[u32]) -> Vec<f32> {
    let per_sequence = |seq: &BatchSeq| {
        let length = pool.len(seq.id()) + seq.token_range().len();
        rope.angles(positions[seq.token_range()].iter().copied(), length)
    };
    batch.sequences().iter().flat_map(per_sequence).collect()
}

/// Runs `op` on heads `[b, s, heads, e]` as `[b * s, heads, e]`.
fn per_token(heads: &Tensor, op: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (b, s, n, e) = heads.dims4()?;
    Ok(op(&heads.reshape((b * s, n, e))?)?.reshape((b, s, n, e))?)
}
