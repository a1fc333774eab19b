//! Shards of a split, opened on demand, and the samples in them.

use std::collections::VecDeque;

use crate::error::Result;
use crate::layout::{RowBuffers, RowBytes, RowLayout, decode_tokens};
use crate::manifest::{Manifest, Split};
use crate::order::SamplePosition;
use crate::shard::ShardReader;

/// Most shards held open. To open one again reads none of its content.
const MAX_OPEN_SHARDS: usize = 512;

/// Shards of a split.
#[derive(Debug)]
pub(super) struct ShardSet {
    manifest: Manifest,
    split: Split,
    layout: RowLayout,
    sources: Vec<SourceShards>,
    /// Source and file of each open shard, the earliest opened one in front.
    open: VecDeque<(usize, usize)>,
    scratch: RowBuffers,
}

/// Shards of a source.
#[derive(Debug)]
struct SourceShards {
    /// First row of each shard, then the number of rows, `[files + 1]`.
    starts: Vec<u64>,
    readers: Vec<Option<Box<ShardReader>>>,
}

/// Location of a row of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowLocation {
    /// Index of the file in its source.
    pub(super) file: usize,
    /// Row of the file.
    pub(super) row: u64,
}

impl ShardSet {
    pub(super) fn new(manifest: &Manifest, split: Split) -> Self {
        let shards = |source: &crate::manifest::SourceRecord| {
            let files = &source.split(split).files;
            let mut starts = Vec::with_capacity(files.len() + 1);
            starts.push(0);
            starts.extend(files.iter().scan(0, |rows, file| {
                *rows += file.rows;
                Some(*rows)
            }));
            SourceShards { starts, readers: std::iter::repeat_with(|| None).take(files.len()).collect() }
        };
        Self {
            sources: manifest.sources().iter().map(shards).collect(),
            layout: manifest.layout(),
            manifest: manifest.clone(),
            split,
            open: VecDeque::new(),
            scratch: RowBuffers::default(),
        }
    }

    /// Appends the tokens of a sample, and the ordinals of their documents.
    pub(super) fn read(
        &mut self,
        position: SamplePosition,
        tokens: &mut Vec<u32>,
        documents: &mut Vec<u64>,
    ) -> Result<()> {
        let layout = self.layout;
        let first_token = position.position * position.seq_len as u64;
        let row = first_token / layout.row_tokens as u64;
        let skip = (first_token % layout.row_tokens as u64) as usize;
        let take = position.seq_len.min(layout.row_tokens);
        self.rows(position.source, row, (position.seq_len / take) as u64, |bytes| {
            let wanted = skip * layout.token_bytes..(skip + take) * layout.token_bytes;
            decode_tokens(&bytes.tokens[wanted], layout.token_bytes, tokens);
            bytes.starts().push_ordinals(bytes.document(), skip..skip + take, documents);
        })
    }

    /// Announces a sample as the next one to be read after all announced before.
    pub(super) fn prefetch(&mut self, position: SamplePosition) -> Result<()> {
        let row_tokens = self.layout.row_tokens as u64;
        let mut row = position.position * position.seq_len as u64 / row_tokens;
        let end = row + (position.seq_len as u64).div_ceil(row_tokens);
        while row < end {
            let RowLocation { file, row: file_row } = self.row_location(position.source, row);
            let run = (end - row).min(self.sources[position.source].starts[file + 1] - row);
            self.open(position.source, file)?.prefetch(file_row, run);
            row += run;
        }
        Ok(())
    }

    /// Location of row `row` of a source.
    pub(super) fn row_location(&self, source: usize, row: u64) -> RowLocation {
        let starts = &self.sources[source].starts;
        // All files but the last have as many rows as the first.
        let guess = (row / starts[1].max(1)) as usize;
        let holds = |file: usize| starts.get(file + 1).is_some_and(|&end| (starts[file]..end).contains(&row));
        let file = if holds(guess) { guess } else { starts.partition_point(|&start| start <= row) - 1 };
        RowLocation { file, row: row - starts[file] }
    }

    /// Calls `on_row` with `count` verified rows of a source, in order.
    fn rows(
        &mut self,
        source: usize,
        first: u64,
        count: u64,
        mut on_row: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (mut row, end) = (first, first + count);
        while row < end {
            let RowLocation { file, row: file_row } = self.row_location(source, row);
            let run = (end - row).min(self.sources[source].starts[file + 1] - row);
            self.open(source, file)?;
            let reader = self.sources[source].readers[file].as_ref().expect("the shard is open");
            reader.rows(file_row, run, &mut self.scratch, &mut on_row)?;
            row += run;
        }
        Ok(())
    }

    fn open(&mut self, source: usize, file: usize) -> Result<&ShardReader> {
        if self.sources[source].readers[file].is_none() {
            let record = &self.manifest.sources()[source].split(self.split).files[file];
            let reader = ShardReader::open(self.manifest.dir(), record, self.layout)?;
            if self.open.len() == MAX_OPEN_SHARDS {
                let (source, file) = self.open.pop_front().expect("shards are open");
                self.sources[source].readers[file] = None;
            }
            self.sources[source].readers[file] = Some(Box::new(reader));
            self.open.push_back((source, file));
        }
        Ok(self.sources[source].readers[file].as_deref().expect("the shard is open"))
    }
}
