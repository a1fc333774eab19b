//! What a model's files say of text: the tokenizer, or why there is none that can be used, and the chat template.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpt_core::Weights;
use mpt_tokenize::{ChatTemplate, Tokenizer};

use crate::error::Error;
use crate::gguf_text;

/// Why a model has no tokenizer that can be used. It stops what needs text, nothing else.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    /// A folder has no `tokenizer.json`.
    #[error("{}: there is no tokenizer.json", .dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder's `tokenizer.json`, or a key of a GGUF file, which the error names.
    #[error(transparent)]
    Unusable(Arc<mpt_tokenize::Error>),
}

impl TokenizerProblem {
    /// What to do about it.
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

/// The tokenizer of an opened model.
///
/// # Errors
/// The problem, which names `tokenizer.json` or the key of the GGUF file.
pub fn tokenizer_of(weights: &Weights) -> Result<Tokenizer, TokenizerProblem> {
    match weights.metadata() {
        Some(metadata) => gguf_text::tokenizer(metadata, weights.path()),
        None => folder_tokenizer(weights.path()),
    }
}

/// The tokenizer in a folder, which need hold no weights.
///
/// # Errors
/// The problem, which names `tokenizer.json`.
pub fn folder_tokenizer(dir: &Path) -> Result<Tokenizer, TokenizerProblem> {
    let missing = |error: &mpt_tokenize::Error| matches!(error, mpt_tokenize::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    match Tokenizer::from_file(&dir.join("tokenizer.json")) {
        Err(error) if missing(&error) => Err(TokenizerProblem::Missing { dir: dir.to_owned() }),
        found => Ok(found?),
    }
}

/// The chat template of an opened model: of a folder that of [`folder_chat_template`], of a GGUF file its key
/// `tokenizer.chat_template`.
///
/// # Errors
/// [`Error::NoChatTemplate`] when there is none, [`Error::Text`] when it cannot be used.
pub fn chat_template_of(weights: &Weights) -> Result<ChatTemplate, Error> {
    let Some(metadata) = weights.metadata() else { return folder_chat_template(weights.path()) };
    let none = || Error::NoChatTemplate {
        path: weights.path().to_owned(),
        place: "the key `tokenizer.chat_template` is missing",
    };
    gguf_text::chat_template(metadata, weights.path())?.ok_or_else(none)
}

/// The chat template in a folder, which need hold no weights, as [`ChatTemplate::from_folder`] finds it.
///
/// # Errors
/// As [`chat_template_of`].
pub fn folder_chat_template(dir: &Path) -> Result<ChatTemplate, Error> {
    let none = || Error::NoChatTemplate {
        path: dir.to_owned(),
        place: "there is neither a chat_template.jinja nor `chat_template` in a tokenizer_config.json",
    };
    ChatTemplate::from_folder(dir)?.ok_or_else(none)
}
