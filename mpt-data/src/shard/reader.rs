//! Reader of a shard's rows, by computed offset, each verified against its checksum.

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::open_regular;
use crate::error::{Damage, Error, Result};
use crate::layout::{
    ColumnPages, PAGE_ROWS, RowBuffers, RowBytes, RowGroup, RowLayout, ShardRecord, length_problem,
    verified_row,
};
use crate::mapped_file::MappedFile;
use crate::remote::{self, RemoteShard};

/// Problem of a row whose checksum does not hold.
const UNSOUND: &str =
    "does not match its checksum; restore the file, or remove it and run the same build again";

/// Reader of an open shard.
#[derive(Debug)]
pub(crate) struct ShardReader {
    content: Backing,
    relative: PathBuf,
    layout: RowLayout,
    rows: u64,
    documents: Option<[u64; 2]>,
    groups: Vec<RowGroup>,
}

/// Source of a shard's bytes.
#[derive(Debug)]
enum Backing {
    /// File on this machine.
    Local(MappedFile),
    /// Object of a store, which verifies its own rows.
    Remote(RemoteShard),
}

impl ShardReader {
    /// Opens a shard in the folder `root`. The length of a file is checked now, that of an object at the first read.
    pub(crate) fn open(root: &Path, record: &ShardRecord, layout: RowLayout) -> Result<Self> {
        Self::open_at(&root.join(&record.path), record, layout)
    }

    /// Opens the shard of `record` at another path.
    pub(crate) fn open_at(path: &Path, record: &ShardRecord, layout: RowLayout) -> Result<Self> {
        let relative = PathBuf::from(&record.path);
        let open = |content, relative| Self {
            content,
            layout,
            rows: record.rows,
            documents: record.documents,
            groups: record.groups.clone(),
            relative,
        };
        if remote::is_remote(path) {
            return Ok(open(Backing::Remote(RemoteShard::open(path, record, layout)?), relative));
        }
        let damaged = |problem: String| Error::Shard(Damage { path: relative.clone(), row: None, problem });
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("is missing; restore it, or run the same build again".to_owned()));
            }
            Err(error) => return Err(Error::io(path, "opening")(error)),
        };
        let bytes = file.metadata().map_err(Error::io(path, "looking at"))?.len();
        if bytes != record.bytes {
            return Err(damaged(length_problem(bytes, record.bytes)));
        }
        let map = MappedFile::new(&file).map_err(Error::io(path, "mapping"))?;
        Ok(open(Backing::Local(map.advise_random()), relative))
    }

    /// Announces reads of rows, after all announced before: rows of an object are fetched ahead, the first row of a file is
    /// brought into the processor's cache.
    pub(crate) fn prefetch(&self, first: u64, count: u64) {
        match &self.content {
            Backing::Local(map) => self.prefetch_local(map, first),
            Backing::Remote(remote) => remote.prefetch(first, count),
        }
    }

    fn prefetch_local(&self, map: &MappedFile, row: u64) {
        let Some((group, inside)) = self.locate(row) else { return };
        let (tokens, meta) = (self.layout.tokens_width(), self.layout.meta_width());
        map.prefetch(group.tokens.offset(inside, group.rows, tokens), tokens);
        map.prefetch(group.meta.offset(inside, group.rows, meta), meta);
    }

    /// Calls `on_row` with rows `first..first + count`, verified and in order.
    pub(crate) fn rows(
        &self,
        first: u64,
        count: u64,
        scratch: &mut RowBuffers,
        mut on_row: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let map = match &self.content {
            Backing::Local(map) => map,
            Backing::Remote(remote) => return remote.rows(first, count, scratch, on_row),
        };
        let mut row = first;
        while row < first + count {
            let (group, inside) = self.locate(row).ok_or_else(|| self.damaged(row, "is not in the file"))?;
            let run = (first + count - row).min(PAGE_ROWS - inside % PAGE_ROWS).min(group.rows - inside);
            self.page_rows(map, row, run as usize, group, inside, &mut on_row)?;
            row += run;
        }
        Ok(())
    }

    /// Calls `on_row` with rows of one page, which are adjacent.
    fn page_rows(
        &self,
        map: &MappedFile,
        first: u64,
        count: usize,
        group: &RowGroup,
        inside: u64,
        on_row: &mut impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (tokens_width, meta_width) = (self.layout.tokens_width(), self.layout.meta_width());
        let column = |pages: &ColumnPages, width: usize| {
            let (offset, length) = (pages.offset(inside, group.rows, width), count * width);
            if count > 1 {
                map.advise_needed(offset, length);
            }
            let cells = map.get(offset, length);
            cells.ok_or_else(|| self.damaged(first, "lies beyond the end of the file; it is truncated"))
        };
        let (tokens, meta) = (column(&group.tokens, tokens_width)?, column(&group.meta, meta_width)?);
        let cells = tokens.chunks_exact(tokens_width).zip(meta.chunks_exact(meta_width));
        for ((tokens, meta), row) in cells.zip(first..) {
            let bytes = verified_row(tokens, meta).ok_or_else(|| self.damaged(row, UNSOUND))?;
            on_row(self.check_owner(row, bytes)?);
        }
        Ok(())
    }

    /// Checks that a row is of this shard: swapped files have valid lengths and checksums too.
    fn check_owner<'a>(&self, row: u64, bytes: RowBytes<'a>) -> Result<RowBytes<'a>> {
        match self.documents {
            Some([first, last]) if !(first..=last).contains(&bytes.document()) => {
                let found = bytes.document();
                let problem = format!(
                    "is of document {found}, expected {first} to {last}: this is another shard's file; restore it, or remove it and run the same build again"
                );
                Err(self.damaged(row, &problem))
            }
            _ => Ok(bytes),
        }
    }

    /// Row group of a row, and the row's index in it.
    fn locate(&self, row: u64) -> Option<(&RowGroup, u64)> {
        let mut rest = (row < self.rows).then_some(row)?;
        for group in &self.groups {
            if rest < group.rows {
                return Some((group, rest));
            }
            rest -= group.rows;
        }
        None
    }

    fn damaged(&self, row: u64, problem: &str) -> Error {
        Error::Shard(Damage { path: self.relative.clone(), row: Some(row), problem: problem.to_owned() })
    }
}
