//! The shards of a split, opened when they are needed, and the samples that lie in them.

use std::collections::VecDeque;

use crate::error::Result;
use crate::layout::{RowBuffers, RowBytes, RowLayout, get_tokens};
use crate::manifest::{Manifest, Split};
use crate::order::SamplePosition;
use crate::pack::push_documents;
use crate::shard::ShardReader;

/// Shards held open at most; opening one again costs no read of its content.
const MAX_OPEN: usize = 512;

/// The shards of a split.
#[derive(Debug)]
pub(super) struct ShardSet {
    manifest: Manifest,
    split: Split,
    layout: RowLayout,
    sources: Vec<SourceShards>,
    /// The open ones, the one opened first in front.
    open: VecDeque<(usize, usize)>,
    scratch: RowBuffers,
}

/// The shards of a source.
#[derive(Debug)]
struct SourceShards {
    /// The first row of each, and behind them the number of rows.
    starts: Vec<u64>,
    readers: Vec<Option<Box<ShardReader>>>,
}

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowLocation {
    /// The file, counted in its source.
    pub(super) file: usize,
    /// The row of the file.
    pub(super) row: u64,
}

impl ShardSet {
    pub(super) fn new(manifest: &Manifest, split: Split) -> Self {
        let shards = |source: &crate::SourceRecord| {
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

    /// Appends the tokens and documents of a sample.
    pub(super) fn read(
        &mut self,
        place: SamplePosition,
        tokens: &mut Vec<u32>,
        documents: &mut Vec<u64>,
    ) -> Result<()> {
        let layout = self.layout;
        let first_token = place.position * place.seq_len as u64;
        let row = first_token / layout.row_tokens as u64;
        let skip = (first_token % layout.row_tokens as u64) as usize;
        let take = place.seq_len.min(layout.row_tokens);
        self.rows(place.source, row, (place.seq_len / take) as u64, |bytes| {
            let wanted = skip * layout.token_bytes..(skip + take) * layout.token_bytes;
            get_tokens(&bytes.tokens[wanted], layout.token_bytes, tokens);
            push_documents(bytes.document(), bytes.starts(), skip, take, documents);
        })
    }

    /// Says that a sample will be needed, after all that were said before.
    pub(super) fn expect(&mut self, place: SamplePosition) -> Result<()> {
        let row_tokens = self.layout.row_tokens as u64;
        let mut row = place.position * place.seq_len as u64 / row_tokens;
        let end = row + (place.seq_len as u64).div_ceil(row_tokens);
        while row < end {
            let RowLocation { file, row: inside } = self.place_of(place.source, row);
            let here = (end - row).min(self.sources[place.source].starts[file + 1] - row);
            self.open(place.source, file)?;
            let reader = self.sources[place.source].readers[file].as_ref().expect("the shard is open");
            reader.expect(inside, here);
            row += here;
        }
        Ok(())
    }

    /// Where a row of a source lies.
    pub(super) fn place_of(&self, source: usize, row: u64) -> RowLocation {
        let starts = &self.sources[source].starts;
        // All files but the last have as many rows as the first.
        let guess = (row / starts[1].max(1)) as usize;
        let holds = |file: usize| starts.get(file + 1).is_some_and(|&end| (starts[file]..end).contains(&row));
        let file = if holds(guess) { guess } else { starts.partition_point(|&start| start <= row) - 1 };
        RowLocation { file, row: row - starts[file] }
    }

    /// Gives `count` rows of a source in order, each of them sound.
    fn rows(
        &mut self,
        source: usize,
        first: u64,
        count: u64,
        mut each: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (mut row, end) = (first, first + count);
        while row < end {
            let RowLocation { file, row: inside } = self.place_of(source, row);
            let here = (end - row).min(self.sources[source].starts[file + 1] - row);
            self.open(source, file)?;
            let reader = self.sources[source].readers[file].as_ref().expect("the shard is open");
            reader.rows(inside, here, &mut self.scratch, &mut each)?;
            row += here;
        }
        Ok(())
    }

    fn open(&mut self, source: usize, file: usize) -> Result<()> {
        if self.sources[source].readers[file].is_some() {
            return Ok(());
        }
        let record = &self.manifest.sources()[source].split(self.split).files[file];
        let reader = ShardReader::open(self.manifest.dir(), record, self.layout)?;
        if self.open.len() == MAX_OPEN {
            let (source, file) = self.open.pop_front().expect("shards are open");
            self.sources[source].readers[file] = None;
        }
        self.sources[source].readers[file] = Some(Box::new(reader));
        self.open.push_back((source, file));
        Ok(())
    }
}
