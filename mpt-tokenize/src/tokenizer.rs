//! A loaded `tokenizer.json`.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::stream::StreamDecoder;
use crate::train::END_OF_TEXT;

/// The id of a token.
pub type TokenId = u32;

/// A tokenizer, with the bytes it was read from.
///
/// Text is encoded as Hugging Face `tokenizers` does, special tokens in the text included; nothing is added before or
/// after it, and the file's `truncation` and `padding` do not apply: no token of a document is ever lost.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes: Vec<u8>,
    fingerprint: String,
    num_ids: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Broken`] when it is no tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::from_bytes(bytes, path)
    }

    /// Reads the bytes of a `tokenizer.json`; `origin` is named in errors.
    ///
    /// # Errors
    /// [`Error::Broken`] when they are no tokenizer.
    pub fn from_bytes(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        let broken = |problem: String| Error::Broken { path: origin.to_owned(), problem };
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| broken(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| broken(error.to_string()))?;
        inner.with_padding(None);
        let largest = inner.get_vocab(true).into_values().max();
        let num_ids =
            largest.map(|id| id as usize + 1).ok_or_else(|| broken("the vocabulary is empty".into()))?;
        let fingerprint = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { inner, bytes, fingerprint, num_ids })
    }

    /// The bytes of the `tokenizer.json`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the `tokenizer.json`, in hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The highest id and one more: a model's vocabulary must be this large at least.
    pub fn num_ids(&self) -> usize {
        self.num_ids
    }

    /// The id of a token, special or not.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// The id of `<|endoftext|>`, where the vocabulary has it.
    pub fn eos_id(&self) -> Option<TokenId> {
        self.id_of(END_OF_TEXT)
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// [`Error::Encode`] when the tokenizer has no token for a part of it.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| Error::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of each text, in order, on all threads of rayon's current pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<TokenId>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of ids, special tokens written out. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::UnknownId`] names an id without a token.
    pub fn decode(&self, ids: &[TokenId]) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(Error::UnknownId { id, num_ids: self.num_ids });
        }
        self.inner.decode(ids, false).map_err(|error| Error::Decode(error.to_string()))
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }
}
