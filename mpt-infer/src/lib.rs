//! Text out of an MPT model: greedy and sampled generation with a key/value cache, token by token; and
//! proof that a model computes what it should ([`verify`]).

mod error;
mod generate;
mod sampler;
mod stop;
pub mod verify;

pub use error::{Error, Result};
pub use generate::{FinishReason, GenerateParams, Generation, generate};
pub use sampler::{Sampler, SamplingParams};
pub use stop::{StopStrings, stop_ids};
