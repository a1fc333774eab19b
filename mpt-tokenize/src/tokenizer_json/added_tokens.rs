//! Added tokens of a `tokenizer.json`.

use std::collections::{HashMap, HashSet};

use super::FieldError;
use super::raw::{MAX_TOKEN_BYTES, RawAdded};
use crate::error::shown;

/// Most bytes of all added tokens: the automaton that matches them takes a multiple of it.
const MAX_ADDED_BYTES: usize = 1 << 18;

/// Added token.
#[derive(Debug, Clone)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    /// Text, never empty.
    pub(crate) content: String,
    /// Whether it is matched in normalized text.
    pub(crate) normalized: bool,
}

/// Checks the added tokens. An id must be the one that the `tokenizers` crate assigns: that of the vocabulary, else the next
/// after it.
pub(super) fn added_tokens(
    raw: Vec<RawAdded>,
    vocab: &HashMap<String, u32>,
) -> Result<Vec<AddedToken>, FieldError> {
    let used: HashSet<u32> = vocab.values().copied().collect();
    let (mut next_id, mut total_bytes, mut seen) = (vocab.len() as u32, 0, HashSet::new());
    for (index, token) in raw.iter().enumerate() {
        let error = |field: &str, actual: String, expected: String| {
            Err(FieldError::new(format!("added_tokens[{index}].{field}"), actual, expected))
        };
        total_bytes += token.content.len();
        if !(1..=MAX_TOKEN_BYTES).contains(&token.content.len()) || total_bytes > MAX_ADDED_BYTES {
            let expected = format!("1 to {MAX_TOKEN_BYTES} bytes, and {MAX_ADDED_BYTES} in all added tokens");
            return error("content", format!("{} bytes", token.content.len()), expected);
        }
        if !seen.insert(token.content.as_str()) {
            return error("content", shown(&token.content), "a token that is not in the list yet".into());
        }
        let flags = [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)];
        if let Some((flag, _)) = flags.into_iter().find(|(_, set)| *set) {
            return error(flag, "true".into(), "false: no token takes the text around it along".into());
        }
        let vocab_id = vocab.get(&token.content).copied();
        let expected = vocab_id.unwrap_or(next_id);
        if token.id != expected {
            return error("id", token.id.to_string(), expected.to_string());
        }
        if vocab_id.is_none() {
            if used.contains(&next_id) {
                return error("id", token.id.to_string(), "an id that `model.vocab` does not use".into());
            }
            next_id += 1;
        }
    }
    let checked = |RawAdded { id, content, normalized, .. }| AddedToken { id, content, normalized };
    Ok(raw.into_iter().map(checked).collect())
}
