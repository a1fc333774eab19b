//! Text out of an MPT model: greedy and sampled generation with a key/value cache, token by token; and
//! proof that a model computes what it should ([`verify`]).
//!
//! [`Pipeline`] opens a model with everything that text needs:
//!
//! ```no_run
//! use mpt_infer::{CompletionParams, Pipeline, SamplingParams};
//!
//! # fn main() -> mpt_infer::Result<()> {
//! let pipe = Pipeline::open("mpt-7b")?;
//! let sampling = SamplingParams { temperature: 1.0, seed: 7, ..SamplingParams::default() };
//! let params = CompletionParams { max_new_tokens: 100, sampling, ..CompletionParams::default() };
//! println!("{}", pipe.generate("Here is a recipe for vegan banana bread:\n", &params)?.text);
//! # Ok(())
//! # }
//! ```
//!
//! `mpt-7b` is a folder with `config.json`, weights and `tokenizer.json`; it may as well be a GGUF file, or the run folder
//! of a training. By default a text is greedy: its most probable token each time. A chat model answers conversations, here shown
//! as the answer comes:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use mpt_infer::{ChatTemplate, CompletionParams, Message, Pipeline};
//!
//! # fn main() -> mpt_infer::Result<()> {
//! let pipe = Pipeline::open("mpt-30b-chat.gguf")?.with_chat_template(ChatTemplate::builtin("chatml")?);
//! let messages = [Message::new("user", "Why is the sky blue?")];
//! pipe.stream_chat(&messages, &CompletionParams::default(), &mut |text| {
//!     print!("{text}"); // whole characters; ControlFlow::Break ends the text
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! A model without a tokenizer takes ids and gives ids. Here is one with random weights, which [`mpt_core`] draws:
//!
//! ```
//! use std::ops::ControlFlow;
//! use mpt_core::{ConvertOptions, MptConfig, config_json, write_random_init};
//! use mpt_infer::{CompletionParams, FinishReason, Pipeline};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let config = MptConfig::mpt(64, 2, 4, 512, 128)?;
//! let converted = write_random_init(&config, 7, dir, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(()))?;
//! std::fs::write(dir.join("config.json"), config_json(&config, &converted, None))?;
//!
//! let params = CompletionParams { max_new_tokens: 8, ..CompletionParams::default() };
//! let generation = Pipeline::open(dir)?.generate_ids(&[5, 6, 7], &params)?;
//! assert_eq!(generation.ids.len(), 8);
//! assert_eq!(generation.finish_reason, FinishReason::Length);
//! # Ok(())
//! # }
//! ```
//!
//! Below it, [`generate()`] continues token ids with any [`CausalLm`](mpt_core::CausalLm).

mod error;
mod generate;
mod gguf_tokenizer;
mod open;
mod pipeline;
mod sampler;
mod stop;
mod text_files;
mod text_stream;
mod tokenizer_problem;
pub mod verify;

pub use error::{Cause, Error, Result};
pub use generate::{FinishReason, GenerateParams, Generation, generate};
pub use mpt_core::ErrorKind;
pub use mpt_tokenize::{ChatTemplate, Message};
pub use open::{OpenOptions, model_path, open_model, open_weights};
pub use pipeline::{Completion, CompletionParams, Pipeline};
pub use sampler::{Sampler, SamplingParams};
pub use stop::{StopStrings, stop_ids};
pub use text_files::{chat_template_of, folder_chat_template, folder_tokenizer, tokenizer_of};
pub use tokenizer_problem::TokenizerProblem;
