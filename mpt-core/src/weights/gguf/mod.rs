//! GGUF, llama.cpp's file format: metadata, tensors, and the names and keys of MPT in it.
//!
//! Source: ggml's `docs/gguf.md`; llama.cpp's `llama-arch.cpp` and `llama-model.cpp`, architecture `mpt`.

mod config;
mod metadata;
mod names;
mod read;
mod reader;
mod types;
mod write;

pub(crate) use config::{metadata_of, read as read_config};
pub use metadata::{GgufArray, GgufMetadata, GgufValue};
pub(crate) use names::{from_gguf, to_gguf};
pub(crate) use read::{GgufFile, open};
pub use write::GgufWriter;
pub(crate) use write::padding;

/// Magic of a GGUF file.
const MAGIC: &[u8; 4] = b"GGUF";

/// Default alignment of tensor data in bytes.
const DEFAULT_ALIGNMENT: usize = 32;

/// Types of metadata values, `enum gguf_type`: `uint32`, `int32`, string, array.
const U32: u32 = 4;
const I32: u32 = 5;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
