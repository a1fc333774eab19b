//! Tokenizer loaded from a `tokenizer.json`: encode and decode.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::Model;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;

use crate::added_vocabulary::{AddedVocabulary, Segment};
use crate::bpe::{Bpe, MAX_WORD_BYTES};
use crate::byte_level;
use crate::error::{Error, Result, shown};
use crate::lfs::{POINTED_AT, POINTER, is_pointer};
use crate::normalizer::normalize;
use crate::pre_tokenizer::PreTokenizer;
use crate::tokenizer_json::{AddedToken, MAX_FILE_BYTES, TokenizerJson};
use crate::train::END_OF_TEXT;

/// Id of a token.
pub type TokenId = u32;

/// Byte-level BPE tokenizer.
///
/// Ids equal those of Hugging Face `tokenizers`; special tokens in the text are recognized. Nothing is added around a text,
/// and the file's `truncation` and `padding` are ignored. Time is linear in the text up to a logarithm, memory is linear.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    model: BPE,
    /// Fast form of `model`; `None` when the merges are ambiguous.
    bpe: Option<Bpe>,
    normalizers: Vec<NormalizerWrapper>,
    pre_tokenizer: PreTokenizer,
    /// Matched in the raw text.
    added: AddedVocabulary,
    /// Matched in the normalized text.
    added_normalized: AddedVocabulary,
    added_ids: HashMap<String, TokenId>,
    /// Bytes of each id; `None` for an id without a token.
    token_bytes: Vec<Option<Box<[u8]>>>,
    /// Text of the `tokenizer.json`.
    json: Vec<u8>,
    fingerprint: String,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, else as [`Tokenizer::from_bytes`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_bytes(bytes, path)
    }

    /// Parses the bytes of a `tokenizer.json`. `origin` is the path in errors.
    ///
    /// # Errors
    /// [`Error::BrokenTokenizer`] for invalid JSON, [`Error::TokenizerField`] for anything but a byte-level BPE tokenizer that
    /// encodes every text.
    pub fn from_bytes(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        refuse_pointer(&bytes, origin)?;
        let TokenizerJson { model, bpe, normalizers, pre_tokenizer, added: tokens, mut token_bytes } =
            TokenizerJson::parse(&bytes, origin)?;
        let added_ids = tokens.iter().map(|token| (token.content.clone(), token.id)).collect();
        let (normalized, raw): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| token.normalized);
        let normalized = normalize_added(normalized, &normalizers, origin)?;
        for AddedToken { id, content, .. } in raw.iter().chain(&normalized) {
            let at = *id as usize;
            token_bytes.resize(token_bytes.len().max(at + 1), None);
            token_bytes[at] = Some(byte_level::token_to_bytes(content).into());
        }
        let (added, added_normalized) =
            (build_vocabulary(&raw, origin)?, build_vocabulary(&normalized, origin)?);
        let fingerprint = base16ct::lower::encode_string(&Sha256::digest(&bytes));
        Ok(Self {
            model,
            bpe,
            normalizers,
            pre_tokenizer,
            added,
            added_normalized,
            added_ids,
            token_bytes,
            json: bytes,
            fingerprint,
        })
    }

    /// Bytes of the `tokenizer.json`.
    pub fn json_bytes(&self) -> &[u8] {
        &self.json
    }

    /// SHA-256 of the `tokenizer.json`, in hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Highest id plus one: the smallest `vocab_size` of a model.
    pub fn num_ids(&self) -> usize {
        self.token_bytes.len()
    }

    /// Id of a token, special or not; `None` for an unknown one.
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.added_ids.get(token).copied().or_else(|| self.model.token_to_id(token))
    }

    /// Id of `<|endoftext|>`; `None` when the vocabulary lacks it.
    pub fn eos_id(&self) -> Option<TokenId> {
        self.token_to_id(END_OF_TEXT)
    }

    /// Ids of a text.
    ///
    /// # Errors
    /// [`Error::Encode`] when the `tokenizers` crate fails; a loaded tokenizer gives it no reason to.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        // power-of-two capacities let the allocator reuse the memory of earlier texts
        let mut ids = Vec::with_capacity((text.len() / 3).next_power_of_two());
        self.added.split(text, |segment| match segment {
            Segment::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Segment::Text(text) => self.encode_normalized(&normalize(&self.normalizers, text)?, &mut ids),
        })?;
        Ok(ids)
    }

    /// Ids of each text, in order, on rayon's current pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<TokenId>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// Text of ids, special tokens included. Invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id without a token, such as the padding of a model's vocabulary.
    pub fn decode(&self, ids: &[TokenId]) -> Result<String> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes of an id.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id without a token.
    pub fn token_bytes(&self, id: TokenId) -> Result<&[u8]> {
        let bytes = self.token_bytes.get(id as usize).and_then(Option::as_deref);
        bytes.ok_or(Error::UnknownId { id, num_ids: self.num_ids() })
    }

    /// Appends the ids of normalized text.
    fn encode_normalized(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<()> {
        let mut encoder = self.bpe.as_ref().map(Bpe::encoder);
        let mut byte_chars = String::new();
        self.added_normalized.split(text, |segment| {
            match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(text) => self.pre_tokenizer.pre_tokenize(text, |word| match &mut encoder {
                    Some(encoder) if word.len() <= MAX_WORD_BYTES => {
                        encoder.encode(word.as_bytes(), ids);
                        Ok(())
                    }
                    _ => self.encode_slow(word, &mut byte_chars, ids),
                })?,
            }
            Ok(())
        })
    }

    /// Appends the ids of a word by the `tokenizers` crate: for long words, and models with ambiguous merges.
    fn encode_slow(&self, word: &str, byte_chars: &mut String, ids: &mut Vec<TokenId>) -> Result<()> {
        byte_level::encode_bytes(word, byte_chars);
        let tokens = self.model.tokenize(byte_chars).map_err(Error::Encode)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// Added tokens in normal form; an error when two become equal.
fn normalize_added(
    tokens: Vec<AddedToken>,
    normalizers: &[NormalizerWrapper],
    origin: &Path,
) -> Result<Vec<AddedToken>> {
    let mut seen = HashSet::new();
    let normal = |mut token: AddedToken| {
        let content = normalize(normalizers, &token.content)?.into_owned();
        if !seen.insert(content.clone()) {
            let actual = format!("{}, which another token is once normalized", shown(&token.content));
            return Err(unusable(origin, actual, "tokens that differ in normal form"));
        }
        token.content = content;
        Ok(token)
    };
    tokens.into_iter().map(normal).collect()
}

/// Matcher of added tokens.
fn build_vocabulary(tokens: &[AddedToken], origin: &Path) -> Result<AddedVocabulary> {
    let patterns: Vec<_> = tokens.iter().map(|token| (token.content.as_str(), token.id)).collect();
    let wrong =
        |error: aho_corasick::BuildError| unusable(origin, error.to_string(), "tokens that can be sought");
    AddedVocabulary::new(&patterns).map_err(wrong)
}

fn unusable(origin: &Path, actual: String, expected: &str) -> Error {
    let field = "added_tokens".to_owned();
    Error::TokenizerField { path: origin.to_owned(), field, actual, expected: expected.to_owned() }
}

/// Refuses a Git LFS pointer.
fn refuse_pointer(bytes: &[u8], origin: &Path) -> Result<()> {
    if !is_pointer(bytes) {
        return Ok(());
    }
    Err(Error::TokenizerField {
        path: origin.to_owned(),
        field: "version".to_owned(),
        actual: format!("that of {POINTER}"),
        expected: POINTED_AT.to_owned(),
    })
}
