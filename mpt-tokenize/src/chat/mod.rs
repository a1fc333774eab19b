//! Chat templates: a conversation as the text that a chat model continues.
//!
//! [`ChatTemplate::builtin`] has the formats of the MPT family, byte for byte (`builtin`). [`ChatTemplate::from_folder`] loads
//! a checkpoint's template (`load`), which runs in a sandbox (`jinja`) after a static check (`template_safety`). A model
//! without a template has none.

mod builtin;
mod generation_tag;
mod jinja;
mod load;
mod template_safety;

use std::path::Path;

use crate::error::{Error, Result};
use crate::tokenizer::{TokenId, Tokenizer};

use builtin::BuiltinTemplate;
use jinja::Jinja;

/// Longest conversation in bytes.
const MAX_CONVERSATION_BYTES: usize = 4 << 20;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Speaker: `system`, `user`, `assistant`, or another role of the template.
    pub role: String,
    /// Text.
    pub content: String,
}

impl Message {
    /// Message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    name: String,
    kind: TemplateKind,
    stop_strings: Vec<String>,
}

/// Kind of template.
#[derive(Debug, Clone)]
enum TemplateKind {
    Builtin(BuiltinTemplate),
    Jinja(Jinja),
}

impl ChatTemplate {
    /// Names of the built-in templates.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BuiltinTemplate::ALL.into_iter().map(BuiltinTemplate::name)
    }

    /// Built-in template by name.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`] listing the names.
    pub fn builtin(name: &str) -> Result<Self> {
        let found = BuiltinTemplate::ALL.into_iter().find(|builtin| builtin.name() == name);
        let known = || Self::builtin_names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let builtin =
            found.ok_or_else(|| Error::UnknownTemplate { name: name.to_owned(), known: known() })?;
        let stop_strings = builtin.stop_strings().iter().map(|&text| text.to_owned()).collect();
        Ok(Self { name: name.to_owned(), kind: TemplateKind::Builtin(builtin), stop_strings })
    }

    /// Jinja template in a file. Its `bos_token` and `eos_token` are empty.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::TemplateFile`] when it is unusable.
    pub fn from_file(path: &Path) -> Result<Self> {
        load::from_file(path)
    }

    /// Jinja template from another file, such as GGUF, whose path is `origin`. `bos` and `eos` are its `bos_token` and
    /// `eos_token`.
    ///
    /// # Errors
    /// [`Error::TemplateFile`] when it is unusable.
    pub fn from_source(source: String, origin: &Path, bos: &str, eos: &str) -> Result<Self> {
        load::from_source(source, origin, bos, eos)
    }

    /// Template of a checkpoint folder: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, as one text or
    /// a list with one named `default`. `None` when the folder has neither.
    ///
    /// # Errors
    /// [`Error::Io`] when an existing file cannot be read, [`Error::TemplateFile`] when it is unusable.
    pub fn from_folder(dir: &Path) -> Result<Option<Self>> {
        load::from_folder(dir)
    }

    /// Name, or path of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Strings that end an answer.
    pub fn stop_strings(&self) -> &[String] {
        &self.stop_strings
    }

    /// Ids that end an answer: the stop strings that are single tokens of `tokenizer`. The others must be matched in the text.
    pub fn stop_ids(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        self.stop_strings.iter().filter_map(|text| tokenizer.token_to_id(text)).collect()
    }

    /// Text of a conversation, with the start of the assistant's next message if `add_generation_prompt`.
    ///
    /// # Errors
    /// [`Error::Conversation`] when it is empty, longer than 4 MiB or not accepted by the template; [`Error::Template`] when a
    /// Jinja template fails, raises, or exceeds its budget.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        if messages.is_empty() {
            return Err(self.mismatch("no messages".to_owned(), "one at least"));
        }
        if bytes > MAX_CONVERSATION_BYTES {
            return Err(self.mismatch(format!("{bytes} bytes"), "4 MiB at most"));
        }
        match &self.kind {
            TemplateKind::Builtin(builtin) => builtin
                .render(messages, add_generation_prompt)
                .map_err(|mismatch| self.mismatch(mismatch.actual, mismatch.expected)),
            TemplateKind::Jinja(jinja) => jinja.render(&self.name, messages, add_generation_prompt),
        }
    }

    fn mismatch(&self, actual: String, expected: &str) -> Error {
        Error::Conversation { template: self.name.clone(), actual, expected: expected.to_owned() }
    }
}
