//! BPE model of a `tokenizer.json`: options, vocabulary and merges.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;

use super::FieldError;
use super::raw::{Merge, RawModel};
use crate::bpe::Bpe;
use crate::byte_level;
use crate::error::shown;

/// Checks the options of the model.
pub(super) fn check_options(model: &RawModel) -> Result<(), FieldError> {
    let refused = |field: &str, actual: String, expected: &str| {
        Err(FieldError::new(format!("model.{field}"), actual, expected))
    };
    if let Some(kind) = model.kind.as_ref().filter(|kind| *kind != "BPE") {
        return refused("type", shown(kind), "`BPE`, the kind of the family's tokenizers");
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return refused("dropout", dropout.to_string(), "null: the same text must always give the same ids");
    }
    for (field, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return refused(field, shown(affix), "null, as in every byte-level vocabulary");
        }
    }
    match model.unk_token.as_ref().filter(|token| !token.is_empty() && !model.vocab.0.contains_key(*token)) {
        Some(token) => refused("unk_token", shown(token), "null or a token of `model.vocab`"),
        None => Ok(()),
    }
}

/// Bytes of each id; `None` for an unused id. Every byte of UTF-8 has a token, ids are unique and few are unused.
pub(super) fn token_bytes(vocab: &HashMap<String, u32>) -> Result<Vec<Option<Box<[u8]>>>, FieldError> {
    let error = |actual: String, expected: &str| FieldError::new("model.vocab", actual, expected);
    let spelled = |byte: u8| byte_level::byte_to_char(byte).to_string();
    if let Some(byte) = byte_level::utf8_bytes().find(|&byte| !vocab.contains_key(&spelled(byte))) {
        let actual = format!("without a token `{}` for the byte {byte:#04x}", spelled(byte));
        return Err(error(actual, "a token for every byte of UTF-8, so that every text has ids"));
    }
    let num_ids = vocab.values().max().map_or(0, |&id| id as usize + 1);
    if num_ids > 2 * vocab.len() {
        let actual = format!("{} tokens with ids up to {}", vocab.len(), num_ids - 1);
        return Err(error(actual, "ids without large gaps"));
    }
    let mut table: Vec<Option<Box<[u8]>>> = vec![None; num_ids];
    for (token, &id) in vocab {
        if table[id as usize].replace(byte_level::token_to_bytes(token).into()).is_some() {
            return Err(error(
                format!("with two tokens of id {id}, one of them {}", shown(token)),
                "unique ids",
            ));
        }
    }
    Ok(table)
}

/// BPE model, and its fast form. Both sides and the result of every merge are checked to be tokens, which the `tokenizers`
/// crate assumes.
pub(super) fn build(raw: RawModel) -> Result<(BPE, Option<Bpe>), FieldError> {
    let vocab = raw.vocab.0;
    let mut merged = String::new();
    let mut ids = Vec::with_capacity(raw.merges.0.len());
    for (index, Merge(left, right)) in raw.merges.0.iter().enumerate() {
        merged.clear();
        merged.extend([left.as_str(), right.as_str()]);
        let missing = |token: &str| {
            let actual = format!("{} and {}", shown(left), shown(right));
            let expected = format!("tokens of `model.vocab`, which lacks {}", shown(token));
            FieldError::new(format!("model.merges[{index}]"), actual, expected)
        };
        let id = |token: &str| vocab.get(token).copied().ok_or_else(|| missing(token));
        ids.push([id(left)?, id(right)?, id(&merged)?]);
    }
    let byte_ids = std::array::from_fn(|byte| {
        vocab.get(&byte_level::byte_to_char(byte as u8).to_string()).copied().unwrap_or(u32::MAX)
    });
    let bpe = if raw.ignore_merges { None } else { Bpe::new(byte_ids, &ids) };
    let merges = raw.merges.0.into_iter().map(|Merge(left, right)| (left, right)).collect();
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
    let builder = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(raw.ignore_merges);
    let refused =
        |error: tokenizers::Error| FieldError::new("model", error.to_string(), "a model the library accepts");
    Ok((builder.build().map_err(refused)?, bpe))
}
