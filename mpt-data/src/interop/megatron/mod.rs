//! Megatron's indexed datasets: `NAME.bin`, the tokens of all sequences, and `NAME.idx`, their offsets.
//!
//! ```text
//! index  "MMIDIDX\0\0" | u64 version = 1 | u8 type | u64 S | u64 D | i32 length[S] | i64 place in .bin[S] | i64 document[D]
//!        and, in multimodal data, i8 mode[S]
//! ```
//!
//! Document `d` is the sequences from `document[d]` up to `document[d + 1]`; there are `D - 1`. All numbers are
//! little-endian. Reading is one pass in little memory, however long the index.

mod reader;
mod writer;

use std::path::{Path, PathBuf};

use super::dtype::Dtype;

pub use reader::{DocumentReader, IndexedDataset};
pub use writer::MegatronWriter;

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
/// Bytes before the lengths.
const HEAD: u64 = 34;
/// Smallest vocabulary that Megatron stores in four bytes.
const WIDE_VOCAB: usize = 65_500;

/// Types with a code in an index.
const CODES: [(u8, Dtype); 8] = [
    (1, Dtype::U8),
    (2, Dtype::I8),
    (3, Dtype::I16),
    (4, Dtype::I32),
    (5, Dtype::I64),
    (6, Dtype::F64),
    (7, Dtype::F32),
    (8, Dtype::U16),
];

/// Type in which Megatron stores the tokens of a vocabulary.
pub fn dtype_for(vocab_size: usize) -> Dtype {
    if vocab_size < WIDE_VOCAB { Dtype::U16 } else { Dtype::I32 }
}

/// Path of a file of a dataset; the prefix may have dots of its own.
pub(crate) fn file(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
