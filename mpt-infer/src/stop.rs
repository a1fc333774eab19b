//! Ends of generation: stop ids from the model's files, and stop strings in streamed text.

use std::path::Path;

use mpt_core::Weights;
use mpt_tokenize::{TokenId, Tokenizer};
use serde_json::Value;

use crate::error::{Cause, Error, Result};
use crate::gguf_tokenizer;

/// Stop ids of a model. A folder's are `eos_token_id` of `generation_config.json` and `config.json`, and the `eos_token` of
/// `tokenizer_config.json`, whichever exist. A GGUF file's are `tokenizer.ggml.eos_token_id` and `eot_token_id`. A model
/// that names none has the tokenizer's end-of-text token, if any.
///
/// # Errors
/// [`Error::StopFile`] naming a file that exists and is unusable.
pub fn stop_ids(weights: &Weights, tokenizer: Option<&Tokenizer>) -> Result<Vec<TokenId>> {
    let ids = match weights.metadata() {
        Some(metadata) => gguf_tokenizer::stop_ids(metadata),
        None => folder_stop_ids(weights.path(), tokenizer)?,
    };
    if ids.is_empty() { Ok(tokenizer.and_then(Tokenizer::eos_id).into_iter().collect()) } else { Ok(ids) }
}

fn folder_stop_ids(dir: &Path, tokenizer: Option<&Tokenizer>) -> Result<Vec<TokenId>> {
    let mut ids = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        ids.extend(eos_ids(&dir.join(name))?);
    }
    ids.extend(eos_token_id(&dir.join("tokenizer_config.json"), tokenizer)?);
    let mut known = std::collections::BTreeSet::new();
    ids.retain(|&id| known.insert(id));
    Ok(ids)
}

/// JSON of a file; null where it does not exist.
fn read(path: &Path) -> Result<Value> {
    let wrong = |problem: String, source: Cause| Error::StopFile {
        path: path.to_owned(),
        problem,
        source: Some(source),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(error.to_string(), error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(wrong(format!("reading failed: {error}"), error.into())),
    }
}

/// Id of the `eos_token` in a `tokenizer_config.json`: the tokenizer's id for it, else that of the file's own table.
fn eos_token_id(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Option<TokenId>> {
    let config = read(path)?;
    let token = match &config["eos_token"] {
        Value::Object(token) => token.get("content").and_then(Value::as_str),
        token => token.as_str(),
    };
    let Some(token) = token else { return Ok(None) };
    let in_table = || {
        let added = config["added_tokens_decoder"].as_object()?;
        added.iter().find(|(_, added)| added["content"] == token)?.0.parse().ok()
    };
    Ok(tokenizer.and_then(|tokenizer| tokenizer.token_to_id(token)).or_else(in_table))
}

/// Ids in `eos_token_id` of a JSON file: one, a list, or none.
fn eos_ids(path: &Path) -> Result<Vec<TokenId>> {
    let wrong = |problem: String| Error::StopFile { path: path.to_owned(), problem, source: None };
    let value = read(path)?;
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
        id.ok_or_else(|| wrong(format!("`eos_token_id` is {value}, expected a token id or a list of them")))
    };
    match &value["eos_token_id"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(ids) => ids.iter().map(id).collect(),
        single => Ok(vec![id(single)?]),
    }
}

/// Search for stop strings in a text that arrives in pieces. A suffix that may begin a stop string is held back.
///
/// The first match is the one that ends first, so that the result does not depend on how the text is cut.
#[derive(Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    /// A search for `strings`; empty ones are ignored.
    pub fn new(strings: &[String]) -> Self {
        let strings = strings.iter().filter(|text| !text.is_empty()).cloned().collect();
        Self { strings, held: String::new(), found: false }
    }

    /// Appends `text`. Returns the text that is certain to precede every stop string.
    pub fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(at) = first_match(&self.strings, &self.held) {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - self.partial_match();
        self.held.drain(..certain).collect()
    }

    /// Whether a stop string was found. No text follows it.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Returns the text held back, at the end of the stream.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length in bytes of the longest suffix of the held text that is a prefix of a stop string.
    fn partial_match(&self) -> usize {
        let begins = |stop: &String| {
            let longest = stop.len().min(self.held.len());
            (1..=longest)
                .rev()
                .find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
                .unwrap_or(0)
        };
        self.strings.iter().map(begins).max().unwrap_or(0)
    }
}

/// Start of the match that ends first in `text`; the longest of several with one end.
fn first_match(strings: &[String], text: &str) -> Option<usize> {
    let matches = strings.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at)));
    matches.min().map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the text is cut, what comes out is what lies before the first stop string.
        #[test]
        fn pieces_give_what_the_whole_gives(pieces in prop::collection::vec("[abé]{0,4}", 0..12), stops in prop::collection::vec("[abé]{1,4}", 0..3)) {
            let whole = pieces.concat();
            let first = first_match(&stops, &whole);
            let mut strings = StopStrings::new(&stops);
            let mut found: String = pieces.iter().map(|piece| strings.push(piece)).collect();
            prop_assert_eq!(strings.found(), first.is_some());
            found.push_str(&strings.finish());
            prop_assert_eq!(&found, &whole[..first.unwrap_or(whole.len())]);
        }
    }

    #[test]
    fn the_string_that_is_whole_first_ends_the_text() {
        let stops = ["a", "baa"].map(str::to_owned);
        for pieces in [&["baa"][..], &["b", "aa"], &["b", "a", "a"]] {
            let mut strings = StopStrings::new(&stops);
            let found: String = pieces.iter().map(|piece| strings.push(piece)).collect();
            assert_eq!((found.as_str(), strings.found()), ("b", true), "{pieces:?}");
        }
    }

    #[test]
    fn ids_are_those_of_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let folder_stop_ids = |dir: &Path| folder_stop_ids(dir, None);
        assert!(folder_stop_ids(dir.path()).unwrap().is_empty());
        write("config.json", "{\"eos_token_id\": 7}");
        assert_eq!(folder_stop_ids(dir.path()).unwrap(), [7]);
        write("generation_config.json", "{\"eos_token_id\": [0, 7, 3]}");
        assert_eq!(folder_stop_ids(dir.path()).unwrap(), [0, 7, 3]);
        let added = r#""added_tokens_decoder": {"9": {"content": "<|im_end|>"}}"#;
        for token in [r#""<|im_end|>""#, r#"{"content": "<|im_end|>"}"#] {
            write("tokenizer_config.json", &format!("{{\"eos_token\": {token}, {added}}}"));
            assert_eq!(folder_stop_ids(dir.path()).unwrap(), [0, 7, 3, 9]);
        }
        write("tokenizer_config.json", "{\"eos_token\": null}");
        assert_eq!(folder_stop_ids(dir.path()).unwrap(), [0, 7, 3]);
        write("generation_config.json", "{\"eos_token_id\": -1}");
        let error = folder_stop_ids(dir.path()).unwrap_err().to_string();
        assert!(error.contains("generation_config.json: `eos_token_id` is -1"), "{error}");
    }
}
