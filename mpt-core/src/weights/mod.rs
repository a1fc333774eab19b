//! Weights files of every format MPT checkpoints come in: safetensors, pickled `.bin` and GGUF, memory-mapped.
//!
//! Any bytes are read, or refused by a typed [`Error`](crate::Error) that names the offset or the tensor. Lengths and
//! offsets are checked against the file before use, no code in a file is run, and no allocation exceeds the size of the
//! file plus a constant. Kernels are not known here.

mod check;
mod file;
mod folder;
pub(crate) mod gguf;
mod index;
mod limits;
pub(crate) mod nf4;
mod not_a_model;
mod open;
mod pickle;
mod prefix;
mod safetensors;
mod tied;
pub(crate) mod write;

pub(crate) use folder::open_tensors;
pub use gguf::{GgufArray, GgufMetadata, GgufValue, GgufWriter};
pub use open::{TensorInfo, Weights};
pub use write::{SafetensorsWriter, write_safetensors};
