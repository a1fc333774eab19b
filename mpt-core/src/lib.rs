//! MPT models as tensors: configuration, weights, forward pass and the ops beneath.
//!
//! ```no_run
//! use std::path::Path;
//! use candle_core::{DType, Device};
//! use mpt_core::{AttnMask, CausalLm, Weights};
//!
//! # fn main() -> mpt_core::Result<()> {
//! let weights = Weights::open(Path::new("mpt-30b"))?;
//! let model = CausalLm::new(weights.config(), weights.var_builder(DType::F32, &Device::Cpu)?)?;
//! let hidden = model.hidden(&[[510, 2003]], &AttnMask::causal(1, 2), None)?; // [batch, seq, d_model]
//! let logits = model.logits(&hidden)?; // [batch, seq, vocab_size]
//! # Ok(())
//! # }
//! ```

mod bias;
mod cache;
mod config;
mod error;
mod kernels;
mod model;
mod nn;
pub mod ops;
mod params;
pub mod rng;
pub mod testing;
mod threads;
mod weights;

pub use bias::{AttnMask, alibi_slopes};
pub use cache::{KvCache, LayerCache};
pub use config::{AttnConfig, FfnType, InitConfig, MptConfig, NormType};
pub use error::{Error, Result};
pub use model::{Attention, Block, CausalLm, Ffn};
pub use nn::{Linear, Norm};
pub use ops::IGNORE_LABEL;
pub use params::Params;
pub use threads::set_threads;
pub use weights::{TensorInfo, Weights, write_safetensors};
