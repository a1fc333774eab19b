//! Missing and unusable tokenizers, and their remedies.

use std::path::PathBuf;
use std::sync::Arc;

use mpt_core::ErrorKind;

/// Reason why a model has no usable tokenizer. Only work on text fails because of it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    /// The folder has no `tokenizer.json`.
    #[error("{}: there is no tokenizer.json", .dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// The `tokenizer.json` or the GGUF key that the error names is unusable.
    #[error(transparent)]
    Unusable(Arc<mpt_tokenize::Error>),
}

impl TokenizerProblem {
    /// Kind of the failure, which decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Data,
            Self::Unusable(error) => kind_of_text(error),
        }
    }

    /// Remedy, as an instruction to the user.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "put the model's tokenizer.json there, or give token ids instead of text",
            Self::Unusable(error) if matches!(**error, mpt_tokenize::Error::FromGguf { .. }) => {
                "convert the model again together with its tokenizer, or give token ids instead of text"
            }
            Self::Unusable(_) => {
                "replace it by the tokenizer.json that was published with the model, or give token ids instead of text"
            }
        }
    }
}

impl From<mpt_tokenize::Error> for TokenizerProblem {
    fn from(error: mpt_tokenize::Error) -> Self {
        Self::Unusable(Arc::new(error))
    }
}

/// Kind of an error of `mpt-tokenize`, which has kinds of its own.
pub(crate) fn kind_of_text(error: &mpt_tokenize::Error) -> ErrorKind {
    use mpt_tokenize::ErrorKind as K;
    match error.kind() {
        K::Usage => ErrorKind::Usage,
        K::Data => ErrorKind::Data,
        K::System => ErrorKind::System,
        K::Interrupted => ErrorKind::Interrupted,
        K::Bug => ErrorKind::Bug,
    }
}
