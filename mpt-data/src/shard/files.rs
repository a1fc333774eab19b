//! The shards of one split of a source, one open at a time.

use std::path::Path;

use super::RowLayout;
use super::writer::ShardWriter;
use crate::error::Result;
use crate::manifest::{FileRecord, Plan, Split};
use crate::pack::Row;

/// What the shards are part of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// What decides their content.
    pub(crate) plan: &'a Plan,
    /// The hash of that.
    pub(crate) plan_hash: &'a str,
    /// The sizes of a row.
    pub(crate) layout: RowLayout,
    /// The source.
    pub(crate) source: &'a str,
    /// The split.
    pub(crate) split: Split,
}

/// Writes rows into as many files as they need.
pub(crate) struct ShardFiles<'a> {
    out: &'a Path,
    part: Part<'a>,
    open: Option<ShardWriter>,
    files: Vec<FileRecord>,
}

impl<'a> ShardFiles<'a> {
    /// No file yet, in the data folder `out`.
    pub(crate) fn new(out: &'a Path, part: Part<'a>) -> Self {
        Self { out, part, open: None, files: Vec::new() }
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<()> {
        self.open()?.push(row)?;
        if self.open.as_ref().is_some_and(ShardWriter::is_full) { self.close() } else { Ok(()) }
    }

    /// Completes the last file, and gives all.
    pub(crate) fn finish(mut self) -> Result<Vec<FileRecord>> {
        self.close()?;
        Ok(self.files)
    }

    fn open(&mut self) -> Result<&mut ShardWriter> {
        if self.open.is_none() {
            let (split, source) = (self.part.split.name(), self.part.source);
            let relative = format!("{split}/{source}/{:05}.parquet", self.files.len());
            self.open = Some(ShardWriter::create(self.out, relative, self.part.layout)?);
        }
        Ok(self.open.as_mut().expect("a shard is open"))
    }

    fn close(&mut self) -> Result<()> {
        let Some(shard) = self.open.take() else { return Ok(()) };
        let Part { plan, plan_hash, layout, source, split } = self.part;
        self.files.push(shard.finish(&[
            ("mpt.format", plan.format.to_string()),
            ("mpt.plan", plan_hash.to_owned()),
            ("mpt.source", source.to_owned()),
            ("mpt.split", split.name().to_owned()),
            ("mpt.row_tokens", plan.row_tokens.to_string()),
            ("mpt.token_bytes", layout.token_bytes.to_string()),
            ("mpt.tokenizer", plan.tokenizer.clone()),
        ])?);
        Ok(())
    }
}
