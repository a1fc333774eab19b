//! Weights in every form MPT checkpoints come in, mapped into memory and used where they lie.
//!
//! Any sequence of bytes given as a file is read or refused by a typed [`Error`](crate::Error) that names the offset or
//! the tensor: lengths and offsets are checked against the file before use, nothing in a file is run, and nothing is
//! allocated beyond the size of the file and a constant.

mod convert;
mod drawn;
mod format;
mod forms;
mod gguf;
mod index;
mod limits;
mod mmap;
mod nf4;
mod open;
mod pickle;
mod safetensors;
mod stored;
mod write;

pub use convert::{
    ConvertOptions, Converted, OnBytes, Written, config_json, write_drawn, write_gguf, write_hf,
};
pub use drawn::Drawn;
pub use format::Format;
pub use gguf::{GgufWriter, MetaArray, MetaValue, Metadata};
pub(crate) use limits::quoted;
pub(crate) use mmap::read_config;
pub(crate) use open::open_tensors;
pub use open::{TensorInfo, Weights};
pub use stored::StoredTensor;
pub use write::{SafetensorsWriter, write_safetensors};
