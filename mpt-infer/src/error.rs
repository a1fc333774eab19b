//! Errors of generation and verification.

use std::path::PathBuf;

use mpt_core::ErrorKind;

use crate::tokenizer_problem::{TokenizerProblem, kind_of_text};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of another library below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of `mpt-infer`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model or its kernels.
    #[error(transparent)]
    Model(#[from] mpt_core::Error),
    /// Encoding, decoding or a chat template failed.
    #[error(transparent)]
    Text(#[from] mpt_tokenize::Error),
    /// Text was given or asked for, and the model has no usable tokenizer.
    #[error("{problem}; {}", .problem.remedy())]
    Tokenizer {
        /// Reason.
        #[from]
        problem: TokenizerProblem,
    },
    /// The model has no chat template.
    #[error("{}: the model has no chat template: {place}; name the one it was trained with", .path.display())]
    NoChatTemplate {
        /// The folder or GGUF file.
        path: PathBuf,
        /// File or key that was looked for.
        place: &'static str,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A parameter has an impossible value.
    #[error("`{field}` is {actual}, expected {expected}")]
    Parameter {
        /// The parameter.
        field: &'static str,
        /// Its value.
        actual: String,
        /// Values that are allowed.
        expected: &'static str,
    },
    /// The prompt leaves no room for a new token.
    #[error("the prompt has {tokens} tokens, and {limit} fit; shorten it, or raise `max_seq_len`")]
    PromptTooLong {
        /// Number of tokens of the prompt.
        tokens: usize,
        /// Largest number that leaves room for one new token.
        limit: usize,
    },
    /// The logits hold no finite number.
    #[error(
        "the logits after {tokens} tokens hold no finite number; the weights are damaged or the training diverged"
    )]
    NotFinite {
        /// Number of tokens of the context.
        tokens: usize,
    },
    /// A file that names stop tokens is unusable.
    #[error("{}: {problem}", .path.display())]
    StopFile {
        /// The file.
        path: PathBuf,
        /// Problem.
        problem: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// The model and its reference have different vocabulary sizes.
    #[error(
        "the model has a vocabulary of {actual} ids, and what it is compared with has {expected}; \
         expected the same: these are different models"
    )]
    Vocabulary {
        /// Vocabulary size of the model.
        actual: usize,
        /// Vocabulary size of the reference.
        expected: usize,
    },
    /// A fixture is unusable.
    #[error("{}: `{tensor}` {found}, expected {expected}", .path.display())]
    Fixture {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Problem.
        found: String,
        /// Property that is expected of it.
        expected: &'static str,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            Self::Text(error) => kind_of_text(error),
            Self::Tokenizer { problem } => problem.kind(),
            Self::Tensor(error) => error.into(),
            Self::Parameter { .. } | Self::PromptTooLong { .. } => ErrorKind::Usage,
            Self::NotFinite { .. } => ErrorKind::NotFinite,
            Self::NoChatTemplate { .. }
            | Self::StopFile { .. }
            | Self::Vocabulary { .. }
            | Self::Fixture { .. } => ErrorKind::Data,
        }
    }
}
