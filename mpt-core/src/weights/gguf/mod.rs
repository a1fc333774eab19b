//! GGUF, the file of llama.cpp: metadata, tensors, and how MPT stands in it.
//!
//! Source: ggml's `docs/gguf.md`; llama.cpp's `llama-arch.cpp` and `llama-model.cpp`, architecture `mpt`.

mod config;
mod metadata;
mod names;
mod read;
mod write;

pub(crate) use config::read as read_config;
pub use metadata::{MetaArray, MetaValue, Metadata};
pub(crate) use names::{from_gguf, to_gguf};
pub(crate) use read::{GgufFile, open};
pub use write::GgufWriter;
pub(crate) use write::{metadata_of, padding};

/// The file's first four bytes.
const MAGIC: &[u8; 4] = b"GGUF";

/// Where data is aligned to unless the file says otherwise.
const DEFAULT_ALIGNMENT: usize = 32;

/// Kinds of metadata: unsigned and signed numbers of 32 bits, text, arrays.
const U32: u32 = 4;
const I32: u32 = 5;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
