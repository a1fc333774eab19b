//! Conversion of a tokenizer to and from its lists in a GGUF file.
//!
//! Source: llama.cpp's `convert_hf_to_gguf.py` (`_set_vocab_gpt2`) and `llama.h` (`enum llama_token_type`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result, shown};
use crate::tokenizer::{TokenId, Tokenizer};

/// Key of the token list.
const TOKENS: &str = "tokenizer.ggml.tokens";
/// Key of the token types.
const TYPES: &str = "tokenizer.ggml.token_type";
/// Key of the merges.
const MERGES: &str = "tokenizer.ggml.merges";

/// Byte-level BPE tokenizer as llama.cpp stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTokenizer {
    /// Text of each id: in the byte-level alphabet for ordinary tokens, plain for added ones.
    pub tokens: Vec<String>,
    /// Type of each id, a constant of [`token_type`].
    pub token_types: Vec<i32>,
    /// Merges in order, two tokens separated by a space.
    pub merges: Vec<String>,
}

/// Token types, `enum llama_token_type`.
pub mod token_type {
    /// Ordinary token.
    pub const NORMAL: i32 = 1;
    /// Special token, such as the end of a text.
    pub const CONTROL: i32 = 3;
    /// Added token of ordinary text.
    pub const USER_DEFINED: i32 = 4;
    /// Padding of the vocabulary.
    pub const UNUSED: i32 = 5;
}

impl Tokenizer {
    /// Lists for a model of `vocab_size` ids; the ids past the tokenizer's are unused tokens `[PAD…]`.
    ///
    /// # Errors
    /// [`Error::Gguf`] when `vocab_size` is too small.
    pub fn to_gguf(&self, vocab_size: usize) -> Result<GgufTokenizer> {
        if self.num_ids() > vocab_size {
            let problem = format!("{} ids do not fit a vocabulary of {vocab_size}", self.num_ids());
            return Err(Error::Gguf { problem });
        }
        let file: Value = serde_json::from_slice(self.json_bytes()).expect("a loaded tokenizer is JSON");
        let model = &file["model"];
        let Some(vocab) = model["vocab"].as_object().filter(|_| model["type"] == "BPE") else {
            return Err(Error::Gguf { problem: "the tokenizer is no BPE, which MPT's is".to_owned() });
        };
        let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
        let mut token_types = vec![token_type::UNUSED; vocab_size];
        let mut set = |text: &str, id: Option<u64>, kind| {
            if let Some(id) = id.map(|id| id as usize).filter(|&id| id < vocab_size) {
                text.clone_into(&mut tokens[id]);
                token_types[id] = kind;
            }
        };
        for (text, id) in vocab {
            set(text, id.as_u64(), token_type::NORMAL);
        }
        for added in file["added_tokens"].as_array().into_iter().flatten() {
            let kind = if added["special"] == true { token_type::CONTROL } else { token_type::USER_DEFINED };
            set(added["content"].as_str().unwrap_or_default(), added["id"].as_u64(), kind);
        }
        let merges = model["merges"].as_array().into_iter().flatten().filter_map(merge).collect();
        Ok(GgufTokenizer { tokens, token_types, merges })
    }

    /// Tokenizer of a GGUF file's lists, with GPT-NeoX's normalizer and pre-tokenizer. `origin` is the path in errors.
    ///
    /// # Errors
    /// [`Error::FromGguf`] naming the key of an unusable list, or of one under which an id would change.
    pub fn from_gguf(gguf: &GgufTokenizer, origin: &Path) -> Result<Self> {
        let broken = |key: String, found: String, expected: &str| Error::FromGguf {
            path: origin.to_owned(),
            key,
            found,
            expected: expected.to_owned(),
        };
        let GgufTokenizer { tokens, token_types, merges } = gguf;
        if tokens.len() != token_types.len() {
            let (found, expected) = (token_types.len(), tokens.len());
            let expected = format!("{expected}, as `{TOKENS}` has");
            return Err(broken(TYPES.to_owned(), format!("has {found} entries"), &expected));
        }
        let last = token_types.iter().rposition(|&kind| kind == token_type::NORMAL);
        let last = last.ok_or_else(|| {
            broken(TYPES.to_owned(), "names no ordinary token".to_owned(), "1 for ordinary tokens")
        })?;
        let (mut vocab, mut added) = (BTreeMap::new(), Vec::new());
        for (id, (text, &kind)) in tokens.iter().zip(token_types).enumerate() {
            if id <= last && vocab.insert(text.clone(), id).is_some() {
                let found = format!("is {}, which comes twice", shown(text));
                return Err(broken(format!("{TOKENS}[{id}]"), found, "every token once"));
            }
            if kind == token_type::CONTROL || kind == token_type::USER_DEFINED {
                added.push(added_token(id, text, kind == token_type::CONTROL));
            }
        }
        let file = tokenizer_json(&vocab, &added, merges).to_string().into_bytes();
        let tokenizer = Self::from_bytes(file, origin).map_err(under_gguf_key)?;
        let moved = |(id, (text, &kind)): (usize, (&String, &i32))| {
            kind != token_type::UNUSED && tokenizer.token_to_id(text) != Some(id as TokenId)
        };
        match tokens.iter().zip(token_types).enumerate().find(|&token| moved(token)) {
            Some((id, (text, _))) => {
                let found = format!("is {}, which would have another id", shown(text));
                Err(broken(format!("{TOKENS}[{id}]"), found, "an order in which every token keeps its id"))
            }
            None => Ok(tokenizer),
        }
    }
}

/// `tokenizer.json` of a byte-level BPE, after GPT-NeoX's.
fn tokenizer_json(vocab: &BTreeMap<String, usize>, added: &[Value], merges: &[String]) -> Value {
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "vocab": vocab, "merges": merges,
        },
    })
}

/// Error of [`tokenizer_json`], with its field replaced by the GGUF key it came from.
fn under_gguf_key(error: Error) -> Error {
    let (path, field, found, expected) = match error {
        Error::TokenizerField { path, field, actual, expected } => {
            (path, field, format!("is {actual}"), expected)
        }
        Error::BrokenTokenizer { path, field, source } => {
            (path, field, format!("cannot be read: {source}"), "the lists that llama.cpp writes".to_owned())
        }
        other => return other,
    };
    let key = match field.strip_prefix("model.merges") {
        Some(entry) => format!("{MERGES}{entry}"),
        None => TOKENS.to_owned(),
    };
    Error::FromGguf { path, key, found, expected }
}

/// Entry of `added_tokens`. Special tokens match raw text, others normalized text, as in GPT-NeoX's file.
fn added_token(id: usize, text: &str, special: bool) -> Value {
    json!({
        "id": id, "content": text, "special": special, "normalized": !special,
        "single_word": false, "lstrip": false, "rstrip": false,
    })
}

/// Merge in either spelling of `tokenizer.json`.
fn merge(merge: &Value) -> Option<String> {
    match merge {
        Value::String(pair) => Some(pair.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TrainConfig, train};

    fn tokenizer() -> Tokenizer {
        let texts = ["the cat sat on the mat", "  and    the dog sat too", "naïve café, 123 times"];
        let bytes = train(texts.into_iter(), &TrainConfig { vocab_size: 400, min_frequency: 1 }).unwrap();
        Tokenizer::from_bytes(bytes, Path::new("tokenizer.json")).unwrap()
    }

    #[test]
    fn a_round_trip_keeps_every_id() {
        let tokenizer = tokenizer();
        let parts = tokenizer.to_gguf(512).unwrap();
        assert_eq!(parts.tokens.len(), 512);
        assert_eq!(parts.token_types[0], token_type::CONTROL);
        assert_eq!((parts.tokens[511].as_str(), parts.token_types[511]), ("[PAD511]", token_type::UNUSED));
        let back = Tokenizer::from_gguf(&parts, Path::new("model.gguf")).unwrap();
        assert_eq!(back.num_ids(), tokenizer.num_ids());
        for text in ["the cat sat", "    the  naïve\n\ndog<|endoftext|>123", "日本語 e\u{301}"] {
            assert_eq!(back.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text}");
        }
        assert_eq!(back.to_gguf(512).unwrap(), parts);
    }

    #[test]
    fn parts_that_make_no_tokenizer_are_refused() {
        let parts = tokenizer().to_gguf(512).unwrap();
        let refused = |change: fn(&mut GgufTokenizer)| {
            let mut parts = parts.clone();
            change(&mut parts);
            Tokenizer::from_gguf(&parts, Path::new("model.gguf")).unwrap_err().to_string()
        };
        type Change = fn(&mut GgufTokenizer);
        let lists: [(Change, [&str; 2]); 5] = [
            (|parts| parts.token_types.clear(), [TYPES, "has 0 entries, expected 512"]),
            (|parts| parts.token_types.fill(token_type::UNUSED), [TYPES, "no ordinary token"]),
            (|parts| parts.tokens[100] = parts.tokens[101].clone(), [TOKENS, "comes twice"]),
            (|parts| parts.merges.insert(0, "nowhere here".to_owned()), [MERGES, "nowhere"]),
            (|parts| parts.merges.insert(0, "nowhere".to_owned()), [MERGES, "cannot be read"]),
        ];
        for (change, words) in lists {
            let message = refused(change);
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!message.contains("tokenizer.json"), "{message}");
        }
        assert!(tokenizer().to_gguf(5).unwrap_err().to_string().contains("do not fit"));
    }
}
