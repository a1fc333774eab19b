//! A loaded `tokenizer.json`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{Model, NormalizedString, Normalizer};

use crate::added::{AddedTokens, Part};
use crate::bpe::{Bpe, MAX_WORD};
use crate::bytes;
use crate::error::{Error, Result, shown};
use crate::file::{AddedToken, MAX_BYTES, TokenizerFile, WordRules};
use crate::lfs::{POINTED_AT, POINTER, is_pointer};
use crate::split::{Words, digits};
use crate::train::END_OF_TEXT;

/// The id of a token.
pub type TokenId = u32;

/// A tokenizer, with the bytes it was read from.
///
/// Text is encoded as Hugging Face `tokenizers` does, special tokens in the text included; nothing is added before or
/// after it, and the file's `truncation` and `padding` do not apply: no token of a document is ever lost. Time is linear
/// in the text up to a logarithm, and memory is a multiple of it, for any text.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    model: BPE,
    /// The same model in a faster form, where it has one.
    bpe: Option<Bpe>,
    normalizers: Vec<NormalizerWrapper>,
    words: WordRules,
    /// Looked for in the text as it is.
    added: AddedTokens,
    /// Looked for in the normalized text.
    added_normalized: AddedTokens,
    added_ids: HashMap<String, TokenId>,
    /// The bytes of each id; `None` where there is no token.
    token_bytes: Vec<Option<Box<[u8]>>>,
    bytes: Vec<u8>,
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
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_bytes(bytes, path)
    }

    /// Reads the bytes of a `tokenizer.json`; `origin` is named in errors.
    ///
    /// # Errors
    /// [`Error::BrokenTokenizer`] when they are no such file, [`Error::TokenizerField`] naming what is not a byte-level
    /// BPE tokenizer that encodes every text.
    pub fn from_bytes(bytes: Vec<u8>, origin: &Path) -> Result<Self> {
        refuse_pointer(&bytes, origin)?;
        let TokenizerFile { model, bpe, normalizers, words, added: tokens, mut token_bytes } =
            TokenizerFile::parse(&bytes, origin)?;
        let added_ids = tokens.iter().map(|token| (token.content.clone(), token.id)).collect();
        let (normalized, plain): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| token.normalized);
        let normalized = in_normal_form(normalized, &normalizers, origin)?;
        for AddedToken { id, content, .. } in plain.iter().chain(&normalized) {
            let at = *id as usize;
            token_bytes.resize(token_bytes.len().max(at + 1), None);
            token_bytes[at] = Some(bytes::bytes_of(content).into());
        }
        let (added, added_normalized) = (finder(&plain, origin)?, finder(&normalized, origin)?);
        let fingerprint = base16ct::lower::encode_string(&Sha256::digest(&bytes));
        Ok(Self {
            model,
            bpe,
            normalizers,
            words,
            added,
            added_normalized,
            added_ids,
            token_bytes,
            bytes,
            fingerprint,
        })
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
        self.token_bytes.len()
    }

    /// The id of a token, special or not.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.added_ids.get(token).copied().or_else(|| self.model.token_to_id(token))
    }

    /// The id of `<|endoftext|>`, where the vocabulary has it.
    pub fn eos_id(&self) -> Option<TokenId> {
        self.id_of(END_OF_TEXT)
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// [`Error::Encode`] when the library fails, which for a loaded tokenizer it has no reason to.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        // Sizes of few kinds: memory that the ids of one text had serves those of the next.
        let mut ids = Vec::with_capacity((text.len() / 3).next_power_of_two());
        self.added.split(text, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => self.encode_normalized(&normalize(&self.normalizers, text)?, &mut ids),
        })?;
        Ok(ids)
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
    /// [`Error::UnknownId`] names an id without a token, as the ids that fill up a model's vocabulary have none.
    pub fn decode(&self, ids: &[TokenId]) -> Result<String> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes an id stands for.
    ///
    /// # Errors
    /// [`Error::UnknownId`] for an id without a token.
    pub fn token_bytes(&self, id: TokenId) -> Result<&[u8]> {
        let bytes = self.token_bytes.get(id as usize).and_then(Option::as_deref);
        bytes.ok_or(Error::UnknownId { id, num_ids: self.num_ids() })
    }

    fn encode_normalized(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<()> {
        let mut encoder = self.bpe.as_ref().map(Bpe::encoder);
        let mut spelled = String::new();
        self.added_normalized.split(text, |part| {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.each_word(text, |word| match &mut encoder {
                    Some(encoder) if word.len() <= MAX_WORD => {
                        encoder.encode(word.as_bytes(), ids);
                        Ok(())
                    }
                    _ => self.encode_by_library(word, &mut spelled, ids),
                })?,
            }
            Ok(())
        })
    }

    /// The library's way, for long words and for models whose ids depend on it.
    fn encode_by_library(&self, word: &str, spelled: &mut String, ids: &mut Vec<TokenId>) -> Result<()> {
        bytes::spelled(word, spelled);
        let tokens = self.model.tokenize(spelled).map_err(Error::Encode)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// Calls `each` with the words that become tokens independently of each other.
    fn each_word(&self, text: &str, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut piece_words = |piece: &str| {
            let prefixed = (self.words.prefix_space && !piece.starts_with(' ')).then(|| format!(" {piece}"));
            let piece = prefixed.as_deref().unwrap_or(piece);
            if self.words.pattern { Words::new(piece).try_for_each(&mut each) } else { each(piece) }
        };
        match self.words.digits {
            Some(individual) => digits(text, individual).try_for_each(piece_words),
            None => piece_words(text),
        }
    }
}

/// Tokens as they are looked for in normalized text; two that become one could not be told apart.
fn in_normal_form(
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

fn finder(tokens: &[AddedToken], origin: &Path) -> Result<AddedTokens> {
    let sought: Vec<_> = tokens.iter().map(|token| (token.content.as_str(), token.id)).collect();
    let wrong =
        |error: aho_corasick::BuildError| unusable(origin, error.to_string(), "tokens that can be sought");
    AddedTokens::new(&sought).map_err(wrong)
}

fn unusable(origin: &Path, actual: String, expected: &str) -> Error {
    let field = "added_tokens".to_owned();
    Error::TokenizerField { path: origin.to_owned(), field, actual, expected: expected.to_owned() }
}

/// A text in the tokenizer's normal form. ASCII is in every one of them already, and no form changes across the place
/// before an ASCII character, so each run of other characters is normalized alone, with the character before it.
fn normalize<'t>(normalizers: &[NormalizerWrapper], text: &'t str) -> Result<Cow<'t, str>> {
    if text.is_ascii() || normalizers.is_empty() {
        return Ok(text.into());
    }
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().position(|byte| !byte.is_ascii()) {
        let start = first.saturating_sub(1);
        let end =
            rest.bytes().skip(first).position(|byte| byte.is_ascii()).map_or(rest.len(), |more| first + more);
        normal.push_str(&rest[..start]);
        normal.push_str(&normalize_run(normalizers, &rest[start..end])?);
        rest = &rest[end..];
    }
    normal.push_str(rest);
    Ok(normal.into())
}

fn normalize_run(normalizers: &[NormalizerWrapper], run: &str) -> Result<String> {
    let mut run = NormalizedString::from(run);
    for normalizer in normalizers {
        normalizer.normalize(&mut run).map_err(Error::Encode)?;
    }
    Ok(run.get().to_owned())
}

/// Refuses the pointer of Git LFS that stands for a file where it was not fetched.
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
