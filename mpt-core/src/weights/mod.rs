//! Opening and writing the weights of a model folder.

mod mmap;
mod open;
mod write;

pub use open::{TensorInfo, Weights};
pub use write::write_safetensors;
