//! Writer of the shards of one split of a source, one open at a time.

use std::path::Path;

use super::writer::ShardWriter;
use crate::error::Result;
use crate::layout::{RowLayout, ShardRecord};
use crate::pack::PackedRow;

/// Metadata of shards, for their footers and paths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardMetadata<'a> {
    /// Version of the format of all that is written.
    pub(crate) format: u32,
    /// Hash of the plan, which decides the content.
    pub(crate) plan_hash: &'a str,
    /// SHA-256 of the `tokenizer.json`.
    pub(crate) tokenizer: &'a str,
    /// Sizes of a row.
    pub(crate) layout: RowLayout,
    /// Name of the source.
    pub(crate) source: &'a str,
    /// Name of the split.
    pub(crate) split: &'static str,
}

/// Writer of rows into as many files as they need.
pub(crate) struct RollingShardWriter<'a> {
    out: &'a Path,
    metadata: ShardMetadata<'a>,
    open: Option<ShardWriter>,
    files: Vec<ShardRecord>,
}

impl<'a> RollingShardWriter<'a> {
    /// Writer in the data folder `out`, before the first file.
    pub(crate) fn new(out: &'a Path, metadata: ShardMetadata<'a>) -> Self {
        Self { out, metadata, open: None, files: Vec::new() }
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &PackedRow<'_>) -> Result<()> {
        self.open()?.push(row)?;
        if self.open.as_ref().is_some_and(ShardWriter::is_full) { self.close() } else { Ok(()) }
    }

    /// Completes the last file, and returns the records of all.
    pub(crate) fn finish(mut self) -> Result<Vec<ShardRecord>> {
        self.close()?;
        Ok(self.files)
    }

    fn open(&mut self) -> Result<&mut ShardWriter> {
        if self.open.is_none() {
            let (split, source) = (self.metadata.split, self.metadata.source);
            let relative = format!("{split}/{source}/{:05}.parquet", self.files.len());
            self.open = Some(ShardWriter::create(self.out, relative, self.metadata.layout)?);
        }
        Ok(self.open.as_mut().expect("a shard is open"))
    }

    fn close(&mut self) -> Result<()> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let ShardMetadata { format, plan_hash, tokenizer, layout, source, split } = self.metadata;
        self.files.push(shard.finish(&[
            ("mpt.format", format.to_string()),
            ("mpt.plan", plan_hash.to_owned()),
            ("mpt.source", source.to_owned()),
            ("mpt.split", split.to_owned()),
            ("mpt.row_tokens", layout.row_tokens.to_string()),
            ("mpt.token_bytes", layout.token_bytes.to_string()),
            ("mpt.tokenizer", tokenizer.to_owned()),
        ])?);
        Ok(())
    }
}
