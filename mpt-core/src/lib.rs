//! MPT models as tensors: configuration, weights, forward pass and the ops beneath.
//!
//! [`Weights::open`] maps a model's files, whatever their format: a Hugging Face folder of safetensors or PyTorch pickles, or a
//! GGUF file. [`CausalLm`] computes with them. It reads parameters from a [`ParameterSource`]: files, a
//! [`RandomInit`], or a base [`WithAdapter`].
//!
//! ```
//! use candle_core::Device;
//! use mpt_core::{AttnMask, CausalLm, MptConfig, Params};
//!
//! # fn main() -> mpt_core::Result<()> {
//! // The family's architecture at another size: width, layers, heads, vocabulary, positions.
//! let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
//! let params = Params::init(&config, 17, &Device::Cpu)?; // with a published model: Weights::open(path)?
//! let model = CausalLm::new(&config, &params)?;
//! let hidden = model.hidden(&[[5, 6, 7]], &AttnMask::causal(1, 3))?; // [batch, seq, d_model]
//! let logits = model.logits(&hidden)?;
//! assert_eq!(logits.dims(), [1, 3, 512]); // [batch, seq, vocab_size]
//! # Ok(())
//! # }
//! ```
//!
//! # From one format to another
//!
//! [`write_hf`] writes a folder that transformers loads, [`write_gguf`] a file for llama.cpp, and [`write_random_init`] a folder with
//! random weights. All three stream tensor by tensor, and ask a callback after each whether to go on. [`ConvertOptions`] has the
//! dtype of matrices; by default it is that of the source, and bf16 for quantized ones. A folder's
//! `config.json` is [`config_json`], which whoever writes the folder puts beside the weights.
//!
//! ```
//! use std::ops::ControlFlow;
//! use mpt_core::{ConvertOptions, MptConfig, WeightDtype, Weights, config_json, write_random_init, write_gguf, write_hf};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (drawn, gguf, out) = (dir.path().join("drawn"), dir.path().join("model.gguf"), dir.path().join("out"));
//! let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
//! std::fs::create_dir(&drawn)?;
//! let options = ConvertOptions::default();
//! let converted = write_random_init(&config, 17, &drawn, &options, &mut |_bytes| ControlFlow::Continue(()))?;
//! std::fs::write(drawn.join("config.json"), config_json(&config, &converted, None))?;
//!
//! // As llama.cpp reads it. The first callback adds metadata, such as the tokenizer's.
//! let f16 = ConvertOptions { dtype: Some(WeightDtype::F16), ..ConvertOptions::default() };
//! let model = Weights::open(&drawn)?;
//! write_gguf(&model, &gguf, "drawn", &f16, &mut |_| (), &mut |_bytes| ControlFlow::Continue(()))?;
//!
//! // And back: names, order and layout become those of a folder.
//! let model = Weights::open(&gguf)?;
//! std::fs::create_dir(&out)?;
//! let converted = write_hf(&model, &out, &options, &mut |_bytes| ControlFlow::Continue(()))?;
//! std::fs::write(out.join("config.json"), config_json(model.config(), &converted, None))?;
//! assert_eq!(Weights::open(&out)?.config().num_parameters(), config.num_parameters());
//! # Ok(())
//! # }
//! ```
//!
//! # What else
//!
//! - [`KvPool`] and [`Batch`]: text token by token, many sequences at a time. `mpt-infer` is built on them.
//! - [`TrainBatch`], [`Gradients`]: losses and gradients, block by block. `mpt-train` is built on them.
//! - [`LoraConfig`], [`Adapter`], [`WithAdapter`]: LoRA on a frozen base of any weight dtype.
//! - [`config`], [`params`], [`weights`], [`convert`]: keys of a configuration, names of parameters, headers of files, conversion.
//! - [`ops`] and [`nn`]: ops and layers, each with its own backward pass.
//! - [`Error::kind`]: whether the caller, the files or the machine is at fault.
//!
//! The feature `testing` adds the module of that name: tiny seeded models and tolerances, for tests in crates above.

mod alibi;
mod batch;
mod bounded_file;
mod cache;
pub mod config;
pub mod convert;
mod dtype;
mod dtype_policy;
mod error;
mod error_kind;
mod gradients;
mod host;
mod init;
mod kernels;
mod kv_dtype;
mod loading;
mod lora;
mod mask;
mod memory;
mod mistaken;
mod mmap;
mod model;
mod nf4;
pub mod nn;
pub mod ops;
mod parameter;
pub mod params;
mod prepack;
mod quoted;
mod random_init;
pub mod rng;
mod rope;
mod rounding;
mod run_folder;
mod source;
mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
mod training;
mod variables;
pub mod weights;

pub use alibi::alibi_slopes;
pub use batch::{Batch, BatchSeq, SeqId};
pub use cache::KvPool;
pub use config::MptConfig;
pub use convert::{ConvertOptions, ConvertedModel, config_json, write_gguf, write_hf, write_random_init};
pub use dtype::{Precision, UnknownDtype, WeightDtype};
pub use error::{Cause, Error, Result};
pub use error_kind::ErrorKind;
pub use gradients::{GradSink, Gradients};
pub use kernels::cpu::dispatch::check_cpu_level;
pub use kv_dtype::KvDtype;
pub use lora::{Adapter, LoraConfig, WithAdapter};
pub use mask::AttnMask;
pub use memory::{StepMemory, check_memory};
pub use mistaken::Mistaken;
pub use model::CausalLm;
pub use ops::IGNORE_LABEL;
pub use parameter::Parameter;
pub use quoted::quoted;
pub use random_init::RandomInit;
pub use run_folder::{latest_checkpoint, run_checkpoints};
pub use source::{LoraWeights, ParamBuilder, ParameterSource, WithPrecision};
pub use storage::StoredTensor;
pub use threads::set_threads;
pub use training::{Recompute, TrainBatch};
pub use variables::Params;
pub use weights::{SafetensorsWriter, TensorInfo, Weights, write_safetensors};
