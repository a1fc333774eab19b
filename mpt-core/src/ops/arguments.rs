//! Arguments and results of ops, shared with backends.

use std::sync::Arc;

use candle_core::Tensor;

use crate::dtype::Precision;
use crate::kernels::cpu::norm::NormKind;
use crate::parameter::Parameter;
use crate::rng::Dropout;

/// Parameters of attention scores: `cap * tanh(scale * q k / cap) - slope * distance`.
#[derive(Clone, Debug)]
pub struct ScoreParams {
    /// Factor of the products.
    pub scale: f64,
    /// Soft cap of the scaled products.
    pub cap: Option<f64>,
    /// ALiBi slopes, `[n_heads]`; zeros without ALiBi.
    pub slopes: Arc<[f32]>,
    /// Rounding of factors of matrix products.
    pub precision: Precision,
}

/// Inputs of attention.
#[derive(Clone, Debug)]
pub struct AttentionInputs {
    /// Queries, `[batch, seq, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys, `[batch, seq, kv_n_heads, head_dim]`.
    pub k: Tensor,
    /// Values, `[batch, seq, kv_n_heads, head_dim]`.
    pub v: Tensor,
    /// First visible key of each query, `[batch, seq]`; key 0 where absent. Query `i` sees the keys `first_key[i] ..= i`.
    pub first_key: Option<Arc<[u32]>>,
    /// Dropout of the attention weights, in training.
    pub dropout: Option<Dropout>,
}

/// Results of attention, which its backward pass reads.
#[derive(Clone, Debug)]
pub struct AttentionOutputs {
    /// Weighted values, `[batch, seq, n_heads, head_dim]`.
    pub out: Tensor,
    /// Logarithms of the softmax denominators, `[batch, seq, n_heads]`.
    pub lse: Tensor,
}

/// Label of a token without a target.
pub const IGNORE_LABEL: u32 = u32::MAX;

/// Scaling of logits: `cap * tanh(scale * product / cap)` of the products of the output projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitScaling {
    /// Factor of the products.
    pub scale: f64,
    /// Soft cap of the scaled products.
    pub cap: Option<f64>,
}

impl Default for LogitScaling {
    /// No scaling and no cap.
    fn default() -> Self {
        Self { scale: 1.0, cap: None }
    }
}

/// Inputs of the cross-entropy of a batch.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyInputs<'a> {
    /// Hidden states after the last norm, `[.., d]`.
    pub hidden: &'a Tensor,
    /// Output projection, `[vocab, d]`.
    pub weight: &'a Parameter,
    /// One id a token; [`IGNORE_LABEL`] for a token without a target.
    pub labels: &'a [u32],
    /// Scaling of the logits.
    pub scaling: LogitScaling,
    /// Rounding of the factors of products with an f32 weight.
    pub precision: Precision,
}

/// Gradients to compute.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeedsGrad {
    /// Gradient of `hidden`.
    pub hidden: bool,
    /// Gradient of `weight`; a stored weight has none.
    pub weight: bool,
}

/// Loss with the gradients asked for by [`NeedsGrad`].
#[derive(Clone, Debug)]
pub struct LossAndGrads {
    /// Summed loss, in nats.
    pub loss: f64,
    /// Gradient of `hidden`, in its shape.
    pub hidden: Option<Tensor>,
    /// Gradient of `weight`, `[vocab, d]`.
    pub weight: Option<Tensor>,
}

/// Parameters of a norm.
#[derive(Clone, Copy, Debug)]
pub struct NormParams<'a> {
    /// Layer or root-mean-square norm.
    pub kind: NormKind,
    /// Scale `[d]`, f32.
    pub weight: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}
