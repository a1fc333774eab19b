//! From raw documents to resumable batches of tokens.

pub mod durable;
mod error;
pub mod runfile;

pub use error::{Damage, Error, Result};
