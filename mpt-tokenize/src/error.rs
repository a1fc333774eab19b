//! What can go wrong between text and ids.

use std::path::PathBuf;

use crate::error_kind::ErrorKind;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of another library below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

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
    /// A file is not the JSON of a tokenizer.
    #[error("{}: not a usable tokenizer.json: `{field}`: {source}; expected the file that Hugging Face tokenizers write", .path.display())]
    BrokenTokenizer {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        field: String,
        /// What is wrong there.
        source: serde_json::Error,
    },
    /// A field of a `tokenizer.json` says what this crate does not do, or what cannot be.
    #[error("{}: not a usable tokenizer.json: `{field}` is {actual}, expected {expected}", .path.display())]
    TokenizerField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A text could not be encoded.
    #[error("cannot encode the text: {0}")]
    Encode(#[source] Cause),
    /// An id has no text.
    #[error("cannot decode id {id}: it is not in the vocabulary, whose ids are below {num_ids}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The highest known id and one more.
        num_ids: usize,
    },
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
    /// A GGUF file has no tokenizer, or one that cannot be used.
    #[error("{}: no usable tokenizer in the file: `{key}` {found}, expected {expected}", .path.display())]
    FromGguf {
        /// The file.
        path: PathBuf,
        /// The key of the file's metadata; of a list, perhaps the entry.
        key: String,
        /// What is wrong with its value, as in "is missing".
        found: String,
        /// What the value must be.
        expected: String,
    },
    /// A tokenizer has no place in a GGUF file.
    #[error("the tokenizer cannot be written to GGUF: {problem}")]
    Gguf {
        /// Why not.
        problem: String,
    },
    /// Training failed.
    #[error("cannot train a tokenizer: {0}")]
    Train(#[source] Cause),
    /// No template has this name.
    #[error("there is no chat template `{name}`; the built-in ones are {known}")]
    UnknownTemplate {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file with a chat template is unusable.
    #[error("{}: not a usable chat template: {problem}", .path.display())]
    TemplateFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the library below answered, where one did.
        source: Option<Cause>,
    },
    /// A conversation does not fit a template.
    #[error("the chat template `{template}` does not take this conversation: {actual}, expected {expected}")]
    Conversation {
        /// The template.
        template: String,
        /// What the conversation is.
        actual: String,
        /// What it must be.
        expected: String,
    },
    /// A template did not give a text.
    #[error("the chat template `{template}` failed{}: {problem}", line_of(.line))]
    Template {
        /// The template.
        template: String,
        /// The line where it failed, from 1, where known.
        line: Option<usize>,
        /// Why.
        problem: String,
    },
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source, ErrorKind::Data),
            Self::BrokenTokenizer { .. }
            | Self::TokenizerField { .. }
            | Self::FromGguf { .. }
            | Self::Gguf { .. }
            | Self::Train(_)
            | Self::TemplateFile { .. }
            | Self::Conversation { .. }
            | Self::Template { .. } => ErrorKind::Data,
            Self::UnknownId { .. } | Self::Config { .. } | Self::UnknownTemplate { .. } => ErrorKind::Usage,
            Self::Encode(_) => ErrorKind::Bug,
        }
    }
}

fn line_of(line: &Option<usize>) -> String {
    line.map(|line| format!(" in line {line}")).unwrap_or_default()
}

/// A string from a file as an error shows it: escaped, and no longer than a line.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    let short: String = text.chars().take(LONGEST).collect();
    let cut = if short.len() < text.len() { "…" } else { "" };
    format!("{}{cut}", short.escape_debug())
}

/// The same in quotes.
pub(crate) fn shown(text: &str) -> String {
    format!("`{}`", short(text))
}
