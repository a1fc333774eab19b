//! A work unit, and what becomes of its documents.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use crate::error::Result;
use crate::file_digest::FileDigest;
use crate::filter::DropReason;

/// A few files of one source, tokenized as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The hash of everything that decides its content.
    pub(crate) name: String,
    /// The source it belongs to.
    pub(crate) source: usize,
    /// Its files.
    pub(crate) inputs: Vec<InputFile>,
}

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is called, and what it holds.
    pub(crate) file: FileDigest,
}

impl Unit {
    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.file.bytes).sum()
    }
}

/// Takes what becomes of the documents of each unit, in order.
pub(crate) trait UnitSink {
    /// A unit begins.
    fn begin(&mut self, unit: &Unit) -> Result<()>;
    /// A document passed the filters.
    fn keep(&mut self, document: &TokenizedDocument<'_>) -> Result<()>;
    /// A document did not, or is none.
    fn drop(&mut self, document: &DroppedDocument<'_>) -> Result<()>;
    /// The unit is complete. Bit `i` of `fields_seen`: some document had the filters' field `i`.
    fn end(&mut self, fields_seen: u64) -> Result<()>;
}

/// A document with its tokens, none added.
pub(crate) struct TokenizedDocument<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// The hash of its text.
    pub(crate) text_hash: u128,
    /// Bytes of its text.
    pub(crate) text_bytes: u64,
    /// What stages of deduplication look at.
    pub(crate) sketch: &'a Sketch,
    /// Its tokens.
    pub(crate) tokens: &'a [u32],
    /// How many tokens the text had before filters edited it.
    pub(crate) tokens_read: u64,
    /// Whether they did.
    pub(crate) is_edited: bool,
}

/// A document that did not pass the filters, or a line that is none.
pub(crate) struct DroppedDocument<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Why.
    pub(crate) drop: &'a DropReason,
    /// How many tokens its text as read had, none added.
    pub(crate) tokens_read: u64,
}
