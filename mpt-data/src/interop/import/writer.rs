//! Writer of imported documents: packs their tokens into shards, and writes the tables of documents beside them.

use std::collections::BTreeMap;
use std::path::Path;

use super::split;
use crate::document_tables::{DocumentRow, DocumentWriter, DropWriter};
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::filter::{DropReason, EMPTY};
use crate::manifest::{DOCUMENTS, DROPS, Plan, Split, SplitRecord};
use crate::pack::Packer;
use crate::prepare::plan_hash;
use crate::shard::RollingShardWriter;

/// Writer of the sources of a plan, one after the other.
pub(super) struct ImportWriter<'a> {
    dir: &'a Path,
    plan: &'a Plan,
    plan_hash: String,
    documents: DocumentWriter,
    drops: DropWriter,
    /// Ordinal of the next document, over all sources.
    ordinal: u64,
}

/// Counts of a source.
#[derive(Debug)]
pub(super) struct ImportCounts {
    /// Documents read.
    pub(super) documents: u64,
    /// Dropped documents by rule.
    pub(super) drops: BTreeMap<String, u64>,
    /// Training split, which holds everything.
    pub(super) train: SplitRecord,
}

/// Writer of the documents of one source.
pub(super) struct SourceWriter<'a, 'b> {
    writer: &'b mut ImportWriter<'a>,
    name: &'b str,
    shards: RollingShardWriter<'b>,
    packer: Packer,
    /// Id of the current document, and its tokens so far.
    open: Option<(String, u64)>,
    documents: u64,
    empty: u64,
    tokens: u64,
}

impl<'a> ImportWriter<'a> {
    /// Writer in a folder.
    pub(super) fn create(dir: &'a Path, plan: &'a Plan) -> Result<Self> {
        Ok(Self {
            dir,
            plan,
            plan_hash: plan_hash(plan),
            documents: DocumentWriter::create(dir, DOCUMENTS)?,
            drops: DropWriter::create(dir, DROPS)?,
            ordinal: 0,
        })
    }

    /// Packs the documents that `fill` writes as the next source.
    pub(super) fn source(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut SourceWriter<'_, '_>) -> Result<()>,
    ) -> Result<ImportCounts> {
        let (first, dir, plan, plan_hash) = (self.ordinal, self.dir, self.plan, self.plan_hash.clone());
        let part = plan.shard_metadata(&plan_hash, name, Split::Train);
        let mut source = SourceWriter {
            writer: self,
            name,
            shards: RollingShardWriter::new(dir, part),
            packer: Packer::new(plan.row_tokens),
            open: None,
            documents: 0,
            empty: 0,
            tokens: 0,
        };
        fill(&mut source)?;
        source.finish(first)
    }

    /// Completes the tables.
    pub(super) fn finish(self) -> Result<Vec<FileDigest>> {
        Ok(vec![self.documents.finish()?, self.drops.finish()?])
    }
}

impl SourceWriter<'_, '_> {
    /// Begins a document, and completes the one before it.
    pub(super) fn begin(&mut self, id: String) -> Result<()> {
        self.close()?;
        self.open = Some((id, 0));
        self.documents += 1;
        Ok(())
    }

    /// Appends tokens to the current document.
    pub(super) fn extend(&mut self, tokens: &[u32]) -> Result<()> {
        let (_, length) = self.open.as_mut().expect("a document has begun");
        let (is_first, ordinal) = (*length == 0, self.writer.ordinal);
        *length += tokens.len() as u64;
        self.tokens += tokens.len() as u64;
        let row = |row: crate::pack::PackedRow<'_>| self.shards.push(&row);
        if is_first {
            self.packer.push(ordinal, tokens, row)
        } else {
            self.packer.extend(ordinal, tokens, row)
        }
    }

    fn close(&mut self) -> Result<()> {
        let Some((id, tokens)) = self.open.take() else { return Ok(()) };
        if tokens == 0 {
            self.empty += 1;
            let drop = DropReason { rule: EMPTY, value: "0 tokens".into() };
            return self.writer.drops.push(&id, self.name, &drop, 0);
        }
        let (ordinal, source) = (self.writer.ordinal, self.name);
        self.writer.ordinal += 1;
        let row = DocumentRow { ordinal, id: &id, source, split: split(), tokens, text_bytes: 0 };
        self.writer.documents.push(&row)
    }

    fn finish(mut self, first_document: u64) -> Result<ImportCounts> {
        self.close()?;
        let Plan { row_tokens, seq_len, .. } = *self.writer.plan;
        let needed = row_tokens.max(seq_len) as u64;
        if self.tokens < needed {
            let what = if row_tokens > seq_len { "row" } else { "sequence" };
            let (source_name, tokens) = (self.name.to_owned(), self.tokens);
            return Err(Error::SmallSource {
                source_name,
                split: split(),
                tokens,
                what,
                needed,
                field: "seq_len",
            });
        }
        let files = self.shards.finish()?;
        let train = SplitRecord {
            documents: self.documents - self.empty,
            first_document,
            text_bytes: 0,
            tokens: self.tokens,
            rows: files.iter().map(|file| file.rows).sum(),
            tail_tokens: self.packer.tail().len() as u64,
            files,
        };
        let drops = (self.empty > 0).then(|| (EMPTY.to_owned(), self.empty)).into_iter().collect();
        Ok(ImportCounts { documents: self.documents, drops, train })
    }
}
