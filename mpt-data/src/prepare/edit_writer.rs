//! Writes the edited documents of a unit, which are a unit file of their own beside it.

use std::path::{Path, PathBuf};

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::PlannedRun;
use super::sketch::Sketch;
use super::unit::{DocumentHeader, TokenizedDocument, Unit, UnitSink};
use super::unit_file::{self, UnitWriter};
use crate::dedup::DedupKind;
use crate::error::{Error, Result};
use crate::filter::ngrams::NgramHashes;

/// Writer of a unit's edited documents. A complete file of an earlier run is used again.
pub(super) struct EditWriter<'a> {
    planned: &'a PlannedRun<'a>,
    /// Unit of the edited documents.
    unit: Unit,
    path: PathBuf,
    is_complete: bool,
    writer: UnitWriter<'a>,
    is_open: bool,
    /// Edited texts that are not yet tokenized, each with the document's facts before the edit.
    waiting: Vec<(DocumentHeader, String)>,
    waiting_bytes: usize,
}

impl<'a> EditWriter<'a> {
    pub(super) fn new(planned: &'a PlannedRun<'a>, dir: &'a Path, unit: &Unit, name: &str) -> Result<Self> {
        let name = format!("{}.edits", &name[..32]);
        let path = dir.join(&name);
        let has_edits = planned.run.goes_through(unit.source, DedupKind::Paragraph);
        Ok(Self {
            planned,
            is_complete: has_edits && unit_file::is_complete(&path)?,
            unit: Unit { name, source: unit.source, inputs: Vec::new() },
            path,
            writer: UnitWriter::new(dir, planned.layout.token_bytes),
            is_open: false,
            waiting: Vec::new(),
            waiting_bytes: 0,
        })
    }

    /// Bytes of text that are not yet tokenized.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes a document and its edited text.
    pub(super) fn push(&mut self, header: DocumentHeader, text: String) {
        if !self.is_complete {
            self.waiting_bytes += text.len();
            self.waiting.push((header, text));
        }
    }

    /// Tokenizes and writes the waiting documents.
    pub(super) fn flush(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        if !self.is_open {
            self.writer.begin(&self.unit)?;
            self.is_open = true;
        }
        let sketcher = &self.planned.sketchers[self.unit.source];
        let signature =
            |ngrams: &mut NgramHashes, (_, text): &(DocumentHeader, String)| sketcher.signature(text, ngrams);
        let signatures: Vec<_> = waiting.par_iter().map_init(NgramHashes::default, signature).collect();
        let texts: Vec<_> = waiting.iter().map(|(_, text)| text.as_str()).collect();
        let encoded = tokenizer.encode_batch(&texts);
        let encoded = encoded.map_err(|source| Error::Tokenizer { path: self.path.clone(), source })?;
        for (((header, text), signature), tokens) in waiting.into_iter().zip(signatures).zip(encoded) {
            let header = DocumentHeader {
                text_hash: xxh3_128(text.as_bytes()),
                text_bytes: text.len() as u64,
                tokens: tokens.len() as u64,
                is_edited: true,
                ..header
            };
            let sketch = Sketch { signature, ..Sketch::default() };
            self.writer.keep(&TokenizedDocument { header, sketch, tokens })?;
        }
        Ok(())
    }

    /// Path of the file; `None` without edited documents.
    pub(super) fn finish(mut self) -> Result<Option<PathBuf>> {
        if self.is_open {
            self.writer.end(0)?;
        }
        Ok((self.is_complete || self.is_open).then_some(self.path))
    }
}
