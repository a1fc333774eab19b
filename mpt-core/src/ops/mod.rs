//! Tensor-level operations with their backward passes, one file an op.
//!
//! An op is a function that checks shapes and calls the [`Backend`] of its tensors' device; its backward pass is a function beside
//! it. Nothing is recorded: the caller of an op calls its backward pass too. All tensors are f32; `rows` are all dimensions but
//! the last.
//!
//! A new device implements the trait [`Backend`], and nothing else.

mod activation;
mod arguments;
mod attention;
mod backend;
mod bias;
mod clip;
mod cpu;
mod cross_entropy;
mod device;
mod dropout;
mod elementwise;
mod embedding;
mod linear;
mod norm;
mod optimizer;
mod paged_attention;
mod rotate;
mod skinny;
mod soft_cap;

pub use activation::{activation, activation_backward, glu, glu_backward};
pub use arguments::{
    AttentionInputs, AttentionOutputs, CrossEntropyInputs, IGNORE_LABEL, LogitScaling, LossAndGrads,
    NeedsGrad, NormParams, ScoreParams,
};
pub use attention::{attention, attention_backward};
pub use backend::Backend;
pub use bias::{add_bias, column_sum};
pub use clip::{ClipMask, clip, clip_backward};
pub use cross_entropy::cross_entropy;
pub use device::check_device;
pub use dropout::dropout;
pub use elementwise::{add, scale};
pub use embedding::{embedding, embedding_backward};
pub use linear::{linear, linear_backward, weight_gradient};
pub use norm::{norm, norm_backward};
pub(crate) use optimizer::overwrite;
pub use optimizer::{adamw_step, lion_step, square_norm};
pub use paged_attention::{append_kv, paged_attention};
pub use rotate::{rotate, rotate_backward};
pub use skinny::{skinny_gradient, skinny_linear, skinny_linear_add};
pub use soft_cap::soft_cap;

pub use crate::dtype::Precision;
pub use crate::kernels::cpu::norm::NormKind;
pub use crate::kernels::cpu::optim::{AdamWStep, LionStep};
pub use crate::rng::Dropout;
