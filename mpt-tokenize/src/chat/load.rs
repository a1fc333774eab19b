//! Loading of a Jinja template and its special tokens from a file or a checkpoint folder.

use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use super::jinja::{Jinja, SpecialTokens};
use super::{ChatTemplate, TemplateKind};
use crate::error::{Cause, Error, Result};
use crate::lfs::{POINTED_AT, POINTER, is_pointer};

/// Largest file in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// End of a message in templates that follow ChatML; the tokenizer's end token may be another.
const IM_END: &str = "<|im_end|>";

pub(super) fn from_file(path: &Path) -> Result<ChatTemplate> {
    let missing = || Error::Io { path: path.to_owned(), source: ErrorKind::NotFound.into() };
    let source = read_text(path)?.ok_or_else(missing)?;
    template(source, path, SpecialTokens::default())
}

pub(super) fn from_source(source: String, origin: &Path, bos: &str, eos: &str) -> Result<ChatTemplate> {
    template(source, origin, SpecialTokens { bos: bos.to_owned(), eos: eos.to_owned() })
}

pub(super) fn from_folder(dir: &Path) -> Result<Option<ChatTemplate>> {
    let config_path = dir.join("tokenizer_config.json");
    let config = match read_text(&config_path)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| unread(&config_path, error))?,
        None => Value::Null,
    };
    let special = SpecialTokens { bos: token(&config["bos_token"]), eos: token(&config["eos_token"]) };
    let own_path = dir.join("chat_template.jinja");
    if let Some(source) = read_text(&own_path)? {
        return template(source, &own_path, special).map(Some);
    }
    let source = default_of(&config["chat_template"]).map_err(|problem| unusable(&config_path, problem))?;
    source.map(|source| template(source, &config_path, special)).transpose()
}

/// Text of `chat_template`, or of the entry named `default` in a list.
fn default_of(value: &Value) -> Result<Option<String>, String> {
    let is_default = |entry: &&Value| entry["name"] == "default";
    match value {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source.clone())),
        Value::Array(list) => match list.iter().find(is_default).map(|entry| &entry["template"]) {
            Some(Value::String(source)) => Ok(Some(source.clone())),
            Some(_) => Err("the `template` named `default` in `chat_template` is no text".to_owned()),
            None => Err("the list `chat_template` has no template named `default`".to_owned()),
        },
        _ => Err("`chat_template` is neither a text nor a list of `name` and `template`".to_owned()),
    }
}

/// Special token, from its text or an object with its `content`.
fn token(value: &Value) -> String {
    value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
}

/// Compiled template with its stop strings.
fn template(source: String, path: &Path, special: SpecialTokens) -> Result<ChatTemplate> {
    let im_end = source.contains(IM_END).then(|| IM_END.to_owned());
    let eos = (!special.eos.is_empty() && special.eos != IM_END).then(|| special.eos.clone());
    let stop_strings = im_end.into_iter().chain(eos).collect();
    let jinja = Jinja::new(source, special).map_err(|problem| unusable(path, problem))?;
    Ok(ChatTemplate { name: path.display().to_string(), kind: TemplateKind::Jinja(jinja), stop_strings })
}

fn unusable(path: &Path, problem: String) -> Error {
    Error::TemplateFile { path: path.to_owned(), problem, source: None }
}

/// A file at which a library stumbled.
fn unread(path: &Path, error: impl Into<Cause>) -> Error {
    let source = error.into();
    Error::TemplateFile { path: path.to_owned(), problem: source.to_string(), source: Some(source) }
}

/// Text of a file; `None` when there is none.
fn read_text(path: &Path) -> Result<Option<String>> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(unusable(path, "it is larger than 16 MiB".to_owned()));
    }
    if is_pointer(&bytes) {
        return Err(unusable(path, format!("{POINTER}; expected {POINTED_AT}")));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| unread(path, error))
}
