//! MPT models as tensors: configuration, weights, forward pass and the ops beneath.
//!
//! ```no_run
//! use std::path::Path;
//! use mpt_core::{AttnMask, CausalLm, Weights};
//!
//! # fn main() -> mpt_core::Result<()> {
//! let weights = Weights::open(Path::new("mpt-30b"))?;
//! let model = CausalLm::new(weights.config(), &weights)?;
//! let hidden = model.hidden(&[[510, 2003]], &AttnMask::causal(1, 2))?; // [batch, seq, d_model]
//! let logits = model.logits(&hidden)?; // [batch, seq, vocab_size]
//! # Ok(())
//! # }
//! ```

mod batch;
mod config;
mod dtype;
mod error;
mod gradients;
mod init;
mod kernels;
mod kv;
mod kv_dtype;
mod lora;
mod mask;
mod model;
pub mod nn;
pub mod ops;
mod parameter;
mod params;
pub mod rng;
mod rope;
mod source;
pub mod testing;
mod threads;
mod training;
mod variables;
mod weights;

pub use batch::{Batch, Part, SeqId};
pub use config::{
    Activation, AttnConfig, DropoutRates, EmbeddingInit, FfnType, InitConfig, InitScheme, MptConfig, NormType,
    PRESETS, RopeConfig, RopeScaling,
};
pub use dtype::Precision;
pub use error::{Error, Result};
pub use gradients::{GradSink, Gradients};
pub use kernels::cpu::dispatch::check_cpu_level;
pub use kv::KvPool;
pub use kv_dtype::KvDtype;
pub use lora::{Adapted, Adapter, LoraConfig};
pub use mask::{AttnMask, alibi_slopes};
pub use model::CausalLm;
pub use nn::{Block, BlockSource, StepDropout};
pub use ops::{IGNORE_LABEL, check_device};
pub use parameter::Parameter;
pub use params::{Module, ModuleId, ParamId, ParamKind, UnknownParam};
pub use source::{LoraWeights, ParamBuilder, ParameterSource, WithPrecision};
pub use threads::set_threads;
pub use training::{Recompute, TrainBatch};
pub use variables::Params;
pub use weights::{
    ConvertOptions, Converted, Drawn, Format, GgufWriter, MetaArray, MetaValue, Metadata, OnBytes,
    SafetensorsWriter, StoredTensor, TensorInfo, Weights, Written, config_json, write_drawn, write_gguf,
    write_hf, write_safetensors,
};
