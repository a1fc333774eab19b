//! MPT models as tensors: configuration, weights, forward pass and the ops beneath.
//!
//! ```no_run
//! use std::path::Path;
//! use mpt_core::{AttnMask, CausalLm, Weights};
//!
//! # fn main() -> mpt_core::Result<()> {
//! let weights = Weights::open(Path::new("mpt-30b"))?;
//! let model = CausalLm::new(weights.config(), &weights)?;
//! let hidden = model.hidden(&[[510, 2003]], &AttnMask::causal(1, 2), None)?; // [batch, seq, d_model]
//! let logits = model.logits(&hidden)?; // [batch, seq, vocab_size]
//! # Ok(())
//! # }
//! ```

mod batch;
mod bias;
mod cache;
mod config;
mod error;
mod init;
mod kernels;
mod kv;
mod kv_dtype;
mod lora;
mod model;
mod nn;
pub mod ops;
mod params;
pub mod rng;
mod rope;
mod source;
pub mod testing;
mod threads;
mod weights;

pub use batch::{Batch, Part, SeqId};
pub use bias::{AttnMask, alibi_slopes};
pub use cache::{KvCache, LayerCache};
pub use config::{
    Activation, AttnConfig, Dropout, EmbeddingInit, FfnType, InitConfig, InitScheme, MptConfig, NormType,
    PRESETS, RopeConfig, RopeScaling,
};
pub use error::{Error, Result};
pub use kernels::cpu::dispatch::check_cpu_level;
pub use kv::KvPool;
pub use kv_dtype::KvDtype;
pub use lora::{Adapted, Adapter, Lora, LoraConfig};
pub use model::{Attention, Block, BlockGradients, BlockPass, CausalLm, Ffn, PlainBlock};
pub use nn::{Linear, Norm};
pub use ops::{IGNORE_LABEL, Products};
pub use params::Params;
pub use source::{ParamBuilder, Parameter, ParameterSource, WithProducts};
pub use threads::set_threads;
pub use weights::{
    ConvertOptions, Converted, Drawn, Format, GgufWriter, MetaArray, MetaValue, Metadata, OnBytes,
    SafetensorsWriter, StoredTensor, TensorInfo, Weights, Written, config_json, write_drawn, write_gguf,
    write_hf, write_safetensors,
};
