//! Tensor-level operations with their backward passes. One file per op.
//!
//! An op is a function that checks shapes and hands over to the [`backend`](Backend) of its tensors' device; its backward
//! pass is a function beside it. Nothing is recorded: who calls an op forward calls its backward pass too. All tensors
//! are f32; `rows` are all dimensions but the last.
//!
//! What a new device must implement is the trait [`Backend`], and nothing else.

mod activation;
mod attention;
mod backend;
mod bias;
mod clip;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod host;
mod linear;
mod norm;
mod optimizer;
mod paged_attention;
mod rotate;
mod soft_cap;

pub use activation::{activation, activation_backward, glu, glu_backward};
pub use attention::{AttentionInputs, AttentionOutputs, Scores, attention, attention_backward};
pub use backend::{Backend, check_device};
pub use bias::{add_bias, column_sum};
pub use clip::{ClipMask, clip, clip_backward};
pub use cross_entropy::{CrossEntropy, HeadGradients, IGNORE_LABEL, LogitForm, WantedGradients, cross_entropy};
pub use dropout::dropout;
pub use elementwise::{add, scale};
pub use embedding::{embedding, embedding_backward};
pub(crate) use host::host_slice;
pub use linear::{linear, linear_add, linear_backward, weight_gradient};
pub use norm::{NormKind, NormWeights, norm, norm_backward};
pub use optimizer::{AdamWStep, LionStep, adamw_step, lion_step, square_norm};
pub(crate) use optimizer::overwrite;
pub use paged_attention::paged_attention;
pub use rotate::{rotate, rotate_backward};
pub use soft_cap::soft_cap;

pub use crate::dtype::Precision;
pub use crate::rng::Dropout;
