//! What can go wrong while generating.

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
    /// A text could not be encoded or decoded, or a chat template failed.
    #[error(transparent)]
    Text(#[from] mpt_tokenize::Error),
    /// The model has no usable tokenizer, and text was given or asked for.
    #[error("{problem}; {}", .problem.remedy())]
    Tokenizer {
        /// What is wrong with it.
        #[from]
        problem: TokenizerProblem,
    },
    /// The model has no chat template.
    #[error("{}: the model has no chat template: {place}; name the one it was trained with", .path.display())]
    NoChatTemplate {
        /// The folder or GGUF file.
        path: PathBuf,
        /// Where it would be.
        place: &'static str,
    },
    /// A tensor operation.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A parameter has an impossible value.
    #[error("`{field}` is {actual}, expected {expected}")]
    Parameter {
        /// The parameter.
        field: &'static str,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The prompt leaves no room for a new token.
    #[error("the prompt has {tokens} tokens, and {limit} fit; shorten it, or raise `max_seq_len`")]
    PromptTooLong {
        /// Its tokens.
        tokens: usize,
        /// What fits with one new token.
        limit: usize,
    },
    /// The model gives no usable probabilities.
    #[error(
        "the logits after {tokens} tokens hold no finite number; the weights are damaged or the training diverged"
    )]
    NotFinite {
        /// Tokens before.
        tokens: usize,
    },
    /// A file that names stop tokens is unusable.
    #[error("{}: {problem}", .path.display())]
    StopFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// Two models, or a model and recorded numbers, differ in their number of ids.
    #[error(
        "the model has a vocabulary of {actual} ids, and what it is compared with has {expected}; \
         expected the same: these are different models"
    )]
    Vocabulary {
        /// The model's.
        actual: usize,
        /// What it is compared with.
        expected: usize,
    },
    /// Recorded numbers are unusable.
    #[error("{}: `{tensor}` {found}, expected {expected}", .path.display())]
    Fixture {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        found: String,
        /// What it should be.
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
