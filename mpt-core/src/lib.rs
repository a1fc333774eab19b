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
mod bounded_file;
mod cache;
mod config;
mod convert;
mod dtype;
mod dtype_policy;
mod error;
mod gradients;
mod host;
mod init;
mod kernels;
mod kv_dtype;
mod loading;
mod lora;
mod mask;
mod memory;
mod mmap;
mod model;
mod nf4;
pub mod nn;
pub mod ops;
mod parameter;
mod params;
mod prepack;
mod quoted;
mod random_init;
pub mod rng;
mod rope;
mod rounding;
mod run_folder;
mod source;
mod storage;
pub mod testing;
mod threads;
mod training;
mod variables;
mod weights;

pub use batch::{Batch, Part, SeqId};
pub use cache::KvPool;
pub use config::{
    Activation, AttnConfig, Defaults, DropoutRates, EmbeddingInit, FfnType, InitConfig, InitScheme,
    MptConfig, NormType, PRESETS, RopeConfig, RopeScaling,
};
pub use convert::{
    ConvertOptions, Converted, OnBytes, Written, config_json, write_drawn, write_gguf, write_hf,
};
pub use dtype::{Precision, UnknownDtype, WeightDtype};
pub use error::{Error, Result};
pub use gradients::{GradSink, Gradients};
pub use kernels::cpu::dispatch::check_cpu_level;
pub use kv_dtype::KvDtype;
pub use lora::{Adapted, Adapter, LoraConfig};
pub use mask::{AttnMask, alibi_slopes};
pub use memory::{StepMemory, expect_memory};
pub use model::CausalLm;
pub use nn::{Block, BlockSource, StepDropout};
pub use ops::{IGNORE_LABEL, check_device};
pub use parameter::Parameter;
pub use params::{Module, ModuleId, ParamId, ParamKind, UnknownParam};
pub use random_init::Drawn;
pub use run_folder::{latest_checkpoint, run_checkpoints};
pub use source::{LoraWeights, ParamBuilder, ParameterSource, WithPrecision};
pub use storage::StoredTensor;
pub use threads::set_threads;
pub use training::{Recompute, TrainBatch};
pub use variables::Params;
pub use weights::{
    GgufWriter, MetaArray, MetaValue, Metadata, SafetensorsWriter, TensorInfo, Weights, write_safetensors,
};
