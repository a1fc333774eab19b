//! Chat templates: a conversation as the one text that a chat model was trained to continue.
//!
//! [`ChatTemplate::named`] gives the forms the family was trained with, byte for byte (`named.rs`);
//! [`ChatTemplate::from_folder`] the template that a checkpoint carries (`folder.rs`), run in a sandbox (`jinja.rs`) once
//! its syntax tree shows that it is harmless (`tame.rs`).
//! There is no default: a model without a template has none.

mod folder;
mod generation_tag;
mod jinja;
mod named;
mod tame;

use std::path::Path;

use crate::error::{Error, Result};
use crate::tokenizer::{TokenId, Tokenizer};

use jinja::Jinja;
use named::Named;

/// The bytes of all messages of a conversation at most.
const MAX_CONVERSATION_BYTES: usize = 4 << 20;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else a template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A way to write a conversation as one text.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    name: String,
    form: Form,
    stop_strings: Vec<String>,
}

#[derive(Debug, Clone)]
enum Form {
    Named(Named),
    Jinja(Jinja),
}

impl ChatTemplate {
    /// The names of the built-in templates.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Named::ALL.into_iter().map(Named::name)
    }

    /// A built-in template.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`] lists the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let found = Named::ALL.into_iter().find(|named| named.name() == name);
        let known = || Self::names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let named = found.ok_or_else(|| Error::UnknownTemplate { name: name.to_owned(), known: known() })?;
        let stop_strings = named.stop_strings().iter().map(|&text| text.to_owned()).collect();
        Ok(Self { name: name.to_owned(), form: Form::Named(named), stop_strings })
    }

    /// The template in a file of its own, in Jinja. `bos_token` and `eos_token` in it are empty.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::TemplateFile`] when it is no template.
    pub fn from_file(path: &Path) -> Result<Self> {
        folder::from_file(path)
    }

    /// A template in Jinja that is part of another file, such as a GGUF file; `origin` is its name. `bos` and `eos` are the
    /// texts that it knows as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::TemplateFile`] when it is no template.
    pub fn from_source(source: String, origin: &Path, bos: &str, eos: &str) -> Result<Self> {
        folder::from_source(source, origin, bos, eos)
    }

    /// The template of a checkpoint: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, whether one
    /// text or a list with one named `default`. None where the folder has neither.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is there but cannot be read, [`Error::TemplateFile`] when it is unusable.
    pub fn from_folder(dir: &Path) -> Result<Option<Self>> {
        folder::from_folder(dir)
    }

    /// Its name, or the file it is from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The texts that end an answer.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }

    /// The ids that end an answer: those stop strings that are single tokens of `tokenizer`. The others can only be
    /// found in the text.
    pub fn stop_ids(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        self.stop_strings.iter().filter_map(|text| tokenizer.id_of(text)).collect()
    }

    /// The text of a conversation, with the beginning of the assistant's next message where asked for.
    ///
    /// # Errors
    /// [`Error::Conversation`] when it has no messages, is longer than 4 MiB, or is not of the template's form;
    /// [`Error::Template`] when a checkpoint's own template fails, refuses, or needs more work or memory than it may have.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        if messages.is_empty() {
            return Err(self.unfit("no messages".to_owned(), "one at least"));
        }
        if bytes > MAX_CONVERSATION_BYTES {
            return Err(self.unfit(format!("{bytes} bytes"), "4 MiB at most"));
        }
        match &self.form {
            Form::Named(named) => named
                .render(messages, add_generation_prompt)
                .map_err(|misfit| self.unfit(misfit.actual, misfit.expected)),
            Form::Jinja(jinja) => jinja.render(&self.name, messages, add_generation_prompt),
        }
    }

    fn unfit(&self, actual: String, expected: &str) -> Error {
        Error::Conversation { template: self.name.clone(), actual, expected: expected.to_owned() }
    }
}
