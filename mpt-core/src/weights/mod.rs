//! Weights in every form MPT checkpoints come in, mapped into memory and used where they lie.
//!
//! Any sequence of bytes given as a file is read or refused by a typed [`Error`](crate::Error) that names the offset or
//! the tensor: lengths and offsets are checked against the file before use, nothing in a file is run, and nothing is
//! allocated beyond the size of the file and a constant.

mod file;
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

pub use gguf::{GgufWriter, MetaArray, MetaValue, Metadata};
pub(crate) use open::open_tensors;
pub use open::{TensorInfo, Weights};
pub use write::{SafetensorsWriter, write_safetensors};
