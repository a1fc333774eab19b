//! Tokenizer, stop ids and chat template from the metadata of a GGUF file.
//!
//! Source: the keys `tokenizer.*` of ggml's `docs/gguf.md`, and llama.cpp's `llama-vocab.cpp`.

use std::path::Path;

use mpt_core::weights::{GgufArray, GgufMetadata};
use mpt_tokenize::{ChatTemplate, Error, GgufTokenizer, TokenId, Tokenizer, token_type};

use crate::tokenizer_problem::TokenizerProblem;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Names of pre-tokenizers that split text as MPT's does.
const PRE_TOKENIZERS: [&str; 3] = ["mpt", "gpt-2", "default"];

/// Tokenizer in `metadata` of the file `path`.
pub(crate) fn tokenizer(metadata: &GgufMetadata, path: &Path) -> Result<Tokenizer, TokenizerProblem> {
    let keys = Keys { metadata, path };
    keys.expect_text(MODEL, &["gpt2"], "`gpt2`, a byte-level BPE as MPT's is")?;
    if metadata.get(PRE).is_some() {
        keys.expect_text(PRE, &PRE_TOKENIZERS, "`mpt`, whose words MPT was trained on")?;
    }
    let tokens = keys.texts(TOKENS)?;
    let token_types = keys.token_types(tokens.len())?;
    let parts = GgufTokenizer { tokens, token_types, merges: keys.texts(MERGES)? };
    Ok(Tokenizer::from_gguf(&parts, path)?)
}

/// Stop ids: end of document and end of turn.
pub(crate) fn stop_ids(metadata: &GgufMetadata) -> Vec<TokenId> {
    [EOS, EOT].into_iter().filter_map(|key| id(metadata, key)).collect()
}

/// Chat template in `metadata` of the file `path`, if any.
pub(crate) fn chat_template(metadata: &GgufMetadata, path: &Path) -> Result<Option<ChatTemplate>, Error> {
    let Some(source) = metadata.text(TEMPLATE) else { return Ok(None) };
    let token = |key: &str| {
        let at = id(metadata, key)? as usize;
        metadata.array(TOKENS)?.texts()?.nth(at)
    };
    let (bos, eos) = (token(BOS).unwrap_or_default(), token(EOS).unwrap_or_default());
    ChatTemplate::from_source(source.to_owned(), path, &bos, &eos).map(Some)
}

fn id(metadata: &GgufMetadata, key: &str) -> Option<TokenId> {
    TokenId::try_from(metadata.int(key)?).ok()
}

/// Typed access to metadata. Errors name the key.
struct Keys<'a> {
    metadata: &'a GgufMetadata,
    path: &'a Path,
}

impl Keys<'_> {
    fn expect_text(&self, key: &str, allowed: &[&str], expected: &str) -> Result<(), TokenizerProblem> {
        match self.metadata.text(key) {
            Some(text) if allowed.contains(&text) => Ok(()),
            Some(text) => {
                let short: String = text.chars().take(60).collect();
                Err(self.unusable(key, format!("is `{}`", short.escape_debug()), expected))
            }
            None => Err(self.other(key, expected)),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, TokenizerProblem> {
        let texts = self.metadata.array(key).and_then(GgufArray::texts);
        Ok(texts.ok_or_else(|| self.other(key, "a list of texts"))?.collect())
    }

    /// Token types, ggml's numbers; all normal where the key is absent.
    fn token_types(&self, tokens: usize) -> Result<Vec<i32>, TokenizerProblem> {
        if self.metadata.get(TYPES).is_none() {
            return Ok(vec![token_type::NORMAL; tokens]);
        }
        let types = self.metadata.array(TYPES).and_then(GgufArray::ints);
        Ok(types.ok_or_else(|| self.other(TYPES, "a list of 32-bit integers"))?.collect())
    }

    /// Error of a key whose value is absent or of another type.
    fn other(&self, key: &str, expected: &str) -> TokenizerProblem {
        let found = if self.metadata.get(key).is_none() { "is missing" } else { "is of another type" };
        self.unusable(key, found.to_owned(), expected)
    }

    fn unusable(&self, key: &str, found: String, expected: &str) -> TokenizerProblem {
        let (path, key, expected) = (self.path.to_owned(), key.to_owned(), expected.to_owned());
        Error::FromGguf { path, key, found, expected }.into()
    }
}
