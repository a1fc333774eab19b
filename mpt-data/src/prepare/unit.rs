//! Work unit: some files of one source, and the documents that become of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use crate::error::Result;
use crate::file_digest::FileDigest;
use crate::filter::DropReason;

/// Some files of one source that are tokenized as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Hash of everything that decides its content.
    pub(crate) name: String,
    /// Index of the source.
    pub(crate) source: usize,
    /// Input files, in order.
    pub(crate) inputs: Vec<InputFile>,
}

/// Input file of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputFile {
    /// Path or address.
    pub(crate) path: PathBuf,
    /// Name, length and hash.
    pub(crate) file: FileDigest,
}

impl Unit {
    /// Bytes of the input files.
    pub(crate) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.file.bytes).sum()
    }
}

/// Document of a unit, after the filters: `P` is what is known of one that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnitRecord<P> {
    /// Document that passed the filters.
    Passed(P),
    /// Document that did not pass, or a line that is none.
    Dropped(DroppedDocument),
}

/// Facts of a document that passed the filters; token counts are without the tokens around documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentHeader {
    /// Id.
    pub(crate) id: String,
    /// XXH3-128 of the text.
    pub(crate) text_hash: u128,
    /// Bytes of the text.
    pub(crate) text_bytes: u64,
    /// Tokens of the text as read, before any edit.
    pub(crate) tokens_read: u64,
    /// Tokens of the text.
    pub(crate) tokens: u64,
    /// Whether the text is another one than was read.
    pub(crate) is_edited: bool,
}

/// Document with its tokens and what deduplication needs of its text.
#[derive(Debug, Clone)]
pub(crate) struct TokenizedDocument {
    /// Facts about the document.
    pub(crate) header: DocumentHeader,
    /// Features for deduplication.
    pub(crate) sketch: Sketch,
    /// Tokens, without those around documents.
    pub(crate) tokens: Vec<u32>,
}

/// Document that did not pass the filters, or a line that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DroppedDocument {
    /// Id.
    pub(crate) id: String,
    /// Rule and value that decided.
    pub(crate) reason: DropReason,
    /// Tokens of the text as read, without those around documents.
    pub(crate) tokens_read: u64,
}

/// Receiver of the documents of each unit, in order.
pub(crate) trait UnitSink {
    /// Begins a unit.
    fn begin(&mut self, unit: &Unit) -> Result<()>;
    /// Takes a document that passed the filters.
    fn keep(&mut self, document: &TokenizedDocument) -> Result<()>;
    /// Takes a document that did not pass, or a line that is none.
    fn drop(&mut self, document: &DroppedDocument) -> Result<()>;
    /// Ends the unit. Bit `i` of `fields_seen`: some document had field `i` of the filters.
    fn end(&mut self, fields_seen: u64) -> Result<()>;
}
