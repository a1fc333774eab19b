//! Tokenizer and chat template of a model, from its folder or GGUF file.

use std::path::Path;

use mpt_core::Weights;
use mpt_tokenize::{ChatTemplate, Tokenizer};

use crate::error::Error;
use crate::gguf_tokenizer;
use crate::tokenizer_problem::TokenizerProblem;

/// Tokenizer of an opened model.
///
/// # Errors
/// [`TokenizerProblem`], naming `tokenizer.json` or the key of the GGUF file.
pub fn tokenizer_of(weights: &Weights) -> Result<Tokenizer, TokenizerProblem> {
    match weights.metadata() {
        Some(metadata) => gguf_tokenizer::tokenizer(metadata, weights.path()),
        None => folder_tokenizer(weights.path()),
    }
}

/// Tokenizer of a folder, with or without weights.
///
/// # Errors
/// [`TokenizerProblem`], naming `tokenizer.json`.
pub fn folder_tokenizer(dir: &Path) -> Result<Tokenizer, TokenizerProblem> {
    let missing = |error: &mpt_tokenize::Error| matches!(error, mpt_tokenize::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    match Tokenizer::from_file(&dir.join("tokenizer.json")) {
        Err(error) if missing(&error) => Err(TokenizerProblem::Missing { dir: dir.to_owned() }),
        found => Ok(found?),
    }
}

/// Chat template of an opened model: [`folder_chat_template`], or the key `tokenizer.chat_template` of a GGUF file.
///
/// # Errors
/// [`Error::NoChatTemplate`] when there is none, [`Error::Text`] when it is unusable.
pub fn chat_template_of(weights: &Weights) -> Result<ChatTemplate, Error> {
    let Some(metadata) = weights.metadata() else { return folder_chat_template(weights.path()) };
    let none = || Error::NoChatTemplate {
        path: weights.path().to_owned(),
        place: "the key `tokenizer.chat_template` is missing",
    };
    gguf_tokenizer::chat_template(metadata, weights.path())?.ok_or_else(none)
}

/// Chat template of a folder, with or without weights, as [`ChatTemplate::from_folder`] finds it.
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
