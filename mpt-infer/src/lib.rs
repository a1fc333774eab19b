//! Text out of an MPT model: greedy and sampled generation with a key/value cache, token by token.

mod error;
mod generate;
mod sampler;
mod stop;

pub use error::{Error, Result};
pub use generate::{FinishReason, GenerateParams, Generation, generate};
pub use sampler::{Sampler, SamplingParams};
pub use stop::{StopStrings, stop_ids};
