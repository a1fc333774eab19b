//! `tokenizer.json` reader: any bytes become a checked [`TokenizerJson`] or an error that names the field.
//!
//! Only byte-level BPE is accepted, the kind of the MPT family. No pattern, template or rule of a file is run. Time and
//! memory are linear in the size of the file, which is bounded. `truncation` and `padding` are ignored.

mod added_tokens;
mod components;
mod model;
mod raw;

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;

use crate::bpe::Bpe;
use crate::error::{Error, Result, short, shown};
use crate::pre_tokenizer::PreTokenizer;

pub(crate) use added_tokens::AddedToken;
use raw::Raw;

/// Largest file in bytes; GPT-NeoX's has 2.5 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Checked contents of a `tokenizer.json`.
pub(crate) struct TokenizerJson {
    /// BPE model; it encodes every text.
    pub(crate) model: BPE,
    /// Fast form of `model`; `None` with `ignore_merges` and for ambiguous merges.
    pub(crate) bpe: Option<Bpe>,
    /// Normalizers in order.
    pub(crate) normalizers: Vec<NormalizerWrapper>,
    pub(crate) pre_tokenizer: PreTokenizer,
    /// Added tokens in the order of the file.
    pub(crate) added: Vec<AddedToken>,
    /// Bytes of each id; `None` for an id without a token. Added tokens are not included.
    pub(crate) token_bytes: Vec<Option<Box<[u8]>>>,
}

impl TokenizerJson {
    /// Parses and checks a file. `origin` is the path in errors.
    ///
    /// # Errors
    /// [`Error::BrokenTokenizer`] and [`Error::TokenizerField`] naming the field.
    pub(crate) fn parse(json: &[u8], origin: &Path) -> Result<Self> {
        let field = |error: FieldError| error.in_file(origin);
        if json.len() as u64 > MAX_FILE_BYTES {
            let error = FieldError::new("the file", format!("{} bytes", json.len()), "64 MiB at most");
            return Err(field(error));
        }
        let raw = read(json, origin)?;
        check_version(raw.version.as_deref()).map_err(field)?;
        let normalizers = components::normalizers(raw.normalizer).map_err(field)?;
        let pre_tokenizer = components::pre_tokenizer(raw.pre_tokenizer).map_err(field)?;
        components::check_byte_level("decoder", raw.decoder.as_ref(), false).map_err(field)?;
        components::check_byte_level("post_processor", raw.post_processor.as_ref(), true).map_err(field)?;
        model::check_options(&raw.model).map_err(field)?;
        let vocab = &raw.model.vocab.0;
        let token_bytes = model::token_bytes(vocab).map_err(field)?;
        let added = raw.added_tokens.map(|list| list.0).unwrap_or_default();
        let added = added_tokens::added_tokens(added, vocab).map_err(field)?;
        let (model, bpe) = model::build(raw.model).map_err(field)?;
        Ok(Self { model, bpe, normalizers, pre_tokenizer, added, token_bytes })
    }
}

/// Error of a field.
struct FieldError {
    field: String,
    actual: String,
    expected: String,
}

impl FieldError {
    fn new(field: impl Into<String>, actual: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), actual: actual.into(), expected: expected.into() }
    }

    /// The error with the file `origin`.
    fn in_file(self, origin: &Path) -> Error {
        let Self { field, actual, expected } = self;
        Error::TokenizerField { path: origin.to_owned(), field, actual, expected }
    }
}

/// Deserializes the file; an error names the field.
fn read(json: &[u8], origin: &Path) -> Result<Raw> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let broken = |field: String, source| Error::BrokenTokenizer { path: origin.to_owned(), field, source };
    let raw = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| broken(short(&error.path().to_string()), error.into_inner()))?;
    deserializer.end().map_err(|source| broken("the end of the file".to_owned(), source))?;
    Ok(raw)
}

/// Checks the version of the file format.
fn check_version(version: Option<&str>) -> Result<(), FieldError> {
    match version {
        None | Some("1.0") => Ok(()),
        Some(other) => Err(FieldError::new("version", shown(other), "1.0")),
    }
}
