//! What can go wrong between text and ids.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of `mpt-tokenize`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: reading failed: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is no tokenizer.
    #[error("{}: not a usable tokenizer.json: {problem}; expected the file that Hugging Face tokenizers write", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A text could not be encoded.
    #[error("cannot encode the text: {0}")]
    Encode(String),
    /// An id has no text.
    #[error("cannot decode id {id}: it is not in the vocabulary, whose ids are below {num_ids}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The highest known id and one more.
        num_ids: usize,
    },
    /// Ids could not be decoded.
    #[error("cannot decode the ids: {0}")]
    Decode(String),
    /// A tokenizer cannot be trained as asked.
    #[error("cannot train a tokenizer: `{field}` is {actual}, expected {expected}")]
    Config {
        /// The field of `TrainConfig`.
        field: &'static str,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A tokenizer has no place in a GGUF file.
    #[error("the tokenizer cannot be written to GGUF: {0}")]
    Gguf(String),
    /// Training failed.
    #[error("cannot train a tokenizer: {0}")]
    Train(String),
}
