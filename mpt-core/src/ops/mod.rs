//! Tensor-level operations: checks, dispatch to kernels, stated gradients. One file per op.
//!
//! Every op runs on f32 tensors on the CPU and has a gradient under candle's autograd. Gradients of arguments that
//! lead to no variable are not computed.

mod attention;
mod clip;
mod cross_entropy;
mod embedding;
mod gelu;
mod host;
pub(crate) use host::host_slice;
mod linear;
mod norm;
pub mod optim;

pub use attention::attention;
pub use clip::clip;
pub use cross_entropy::{IGNORE_LABEL, linear_cross_entropy};
pub use embedding::embedding;
pub use gelu::gelu;
pub use linear::linear;
pub use norm::{layer_norm, rms_norm};
pub use optim::square_norm;
