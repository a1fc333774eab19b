//! Arguments and results that ops share with backends.

use std::sync::Arc;

use candle_core::Tensor;

use crate::dtype::Precision;
use crate::kernels::cpu::norm::NormKind;
use crate::parameter::Parameter;
use crate::rng::Dropout;

/// How products of queries and keys become scores: `cap * tanh(scale * q k / cap) - slope * distance`.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Factor on the products.
    pub scale: f64,
    /// Soft bound on the scaled products; none where absent.
    pub cap: Option<f64>,
    /// ALiBi's slopes, `[n_heads]`; zeros without ALiBi.
    pub slopes: Arc<[f32]>,
    /// How factors of matrix products are rounded.
    pub precision: Precision,
}

/// What attention works on.
#[derive(Clone, Debug)]
pub struct AttentionInputs {
    /// Queries, `[batch, seq, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys, `[batch, seq, kv_n_heads, head_dim]`.
    pub k: Tensor,
    /// Values, `[batch, seq, kv_n_heads, head_dim]`.
    pub v: Tensor,
    /// First key that each query sees, `[batch, seq]`; 0 where absent. Query `i` sees the keys `first_key[i] ..= i`.
    pub first_key: Option<Arc<[u32]>>,
    /// Dropout of the weights, in training.
    pub dropout: Option<Dropout>,
}

/// What attention gives, which its backward pass needs again.
#[derive(Clone, Debug)]
pub struct AttentionOutputs {
    /// Weighted values, `[batch, seq, n_heads, head_dim]`.
    pub out: Tensor,
    /// Logarithms of the softmax denominators, `[batch, seq, n_heads]`.
    pub lse: Tensor,
}

/// The label of a token that has no target.
pub const IGNORE_LABEL: u32 = u32::MAX;

/// What becomes of the products of the output projection: `cap * tanh(scale * product / cap)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitForm {
    /// Factor on the products.
    pub scale: f64,
    /// Soft bound on the scaled products; none where absent.
    pub cap: Option<f64>,
}

impl Default for LogitForm {
    /// The products as they are.
    fn default() -> Self {
        Self { scale: 1.0, cap: None }
    }
}

/// What the loss of a batch is computed from.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// Hidden states behind the last norm, `[.., d]`.
    pub hidden: &'a Tensor,
    /// Output projection, `[vocab, d]`.
    pub weight: &'a Parameter,
    /// One id a token, [`IGNORE_LABEL`] where it has no target.
    pub labels: &'a [u32],
    /// What becomes of its products.
    pub form: LogitForm,
    /// How factors of an f32 weight are rounded.
    pub precision: Precision,
}

/// Which gradients the caller wants; others are not computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedGradients {
    /// That of `hidden`.
    pub hidden: bool,
    /// That of `weight`; a stored weight has none.
    pub weight: bool,
}

/// A loss with the gradients that were wanted.
#[derive(Clone, Debug)]
pub struct HeadGradients {
    /// The summed loss, in nats.
    pub loss: f64,
    /// Of `hidden`, in its shape.
    pub hidden: Option<Tensor>,
    /// Of `weight`, `[vocab, d]`.
    pub weight: Option<Tensor>,
}

/// What a norm is made of.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// Which statistics it uses.
    pub kind: NormKind,
    /// Scale `[d]`, f32.
    pub weight: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}
