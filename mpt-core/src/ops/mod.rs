//! Tensor-level operations: checks, dispatch to kernels, stated gradients. One file per op.
//!
//! Every op runs on f32 tensors on the CPU and has a gradient under candle's autograd. Gradients of arguments that
//! lead to no variable are not computed.

mod activation;
pub(crate) mod attention;
mod cached_attention;
mod clip;
mod cross_entropy;
mod embedding;
mod host;
pub(crate) use host::host_slice;
pub(crate) mod linear;
pub(crate) mod norm;
pub mod optim;
mod paged_attention;
mod rotate;
mod scale_gradient;
mod soft_cap;
mod stored;

pub use crate::kernels::cpu::gemm::Products;
pub use activation::activation;
pub use attention::{Scores, attention};
pub use cached_attention::cached_attention;
pub use clip::clip;
pub use cross_entropy::{IGNORE_LABEL, LogitForm, linear_cross_entropy};
pub use embedding::embedding;
pub use linear::linear;
pub use norm::{layer_norm, rms_norm};
pub use optim::square_norm;
pub use paged_attention::paged_attention;
pub use rotate::rotate;
pub use scale_gradient::scale_gradient;
pub use soft_cap::soft_cap;
pub use stored::{stored_embedding, stored_linear};
