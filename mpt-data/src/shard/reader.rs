//! Reads rows of a shard by computed offset, each checked against its checksum.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Group, PAGE_ROWS, RowBytes, RowLayout};
use crate::error::{Damage, Error, Result};
use crate::manifest::FileRecord;
use crate::remote::{self, RemoteRows};

/// What is said of a row whose checksum does not hold.
const UNSOUND: &str = "does not match its checksum; restore the file, or build again";

/// An open shard.
#[derive(Debug)]
pub(crate) struct ShardReader {
    content: Content,
    relative: PathBuf,
    layout: RowLayout,
    rows: u64,
    documents: Option<[u64; 2]>,
    groups: Vec<Group>,
}

/// Where the bytes of a shard come from.
#[derive(Debug)]
enum Content {
    /// A file of this machine.
    Local(File),
    /// An object of a store, whose rows are checked where they are read.
    Remote(RemoteRows),
}

/// Buffers that reads use again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    tokens: Vec<u8>,
    meta: Vec<u8>,
}

impl Scratch {
    /// The buffers of `tokens` and `meta`.
    #[cfg(feature = "remote")]
    pub(crate) fn columns(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        (&mut self.tokens, &mut self.meta)
    }
}

impl ShardReader {
    /// Opens a file of the manifest in the folder `root`; its length is checked, that of an object when it is first read.
    pub(crate) fn open(root: &Path, record: &FileRecord, layout: RowLayout) -> Result<Self> {
        Self::open_at(&root.join(&record.path), record, layout)
    }

    /// Opens the file that `record` describes where it lies now.
    pub(crate) fn open_at(path: &Path, record: &FileRecord, layout: RowLayout) -> Result<Self> {
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
            return Ok(open(Content::Remote(RemoteRows::open(path, record, layout)?), relative));
        }
        let damaged = |problem: String| Error::Shard(Damage { path: relative.clone(), row: None, problem });
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("is missing; restore it, or build again".to_owned()));
            }
            Err(error) => return Err(Error::io(path, "opening")(error)),
        };
        let bytes = file.metadata().map_err(Error::io(path, "looking at"))?.len();
        if bytes != record.bytes {
            return Err(damaged(length_problem(bytes, record.bytes)));
        }
        Ok(open(Content::Local(file), relative))
    }

    /// Says that rows will be needed, after all that were said before: those of an object are fetched ahead.
    pub(crate) fn expect(&self, first: u64, count: u64) {
        match &self.content {
            Content::Local(_) => {}
            Content::Remote(remote) => remote.expect(first, count),
        }
    }

    /// Reads rows `first..first + count` in order, as few reads as pages allow, and gives each sound one to `each`.
    pub(crate) fn rows(
        &self,
        first: u64,
        count: u64,
        scratch: &mut Scratch,
        mut each: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let file = match &self.content {
            Content::Local(file) => file,
            Content::Remote(remote) => return remote.rows(first, count, scratch, each),
        };
        let mut row = first;
        while row < first + count {
            let (group, inside) = self.find(row).ok_or_else(|| self.damaged(row, "is not in the file"))?;
            let run = (first + count - row).min(PAGE_ROWS - inside % PAGE_ROWS).min(group.rows - inside);
            if run == 1 {
                each(self.one(file, row, group, inside, scratch)?);
            } else {
                self.run(file, row, group, inside..inside + run, scratch, &mut each)?;
            }
            row += run;
        }
        Ok(())
    }

    /// Reads a single row, so that what is under its checksum lies in one piece.
    fn one<'a>(
        &self,
        file: &File,
        row: u64,
        group: &Group,
        inside: u64,
        scratch: &'a mut Scratch,
    ) -> Result<RowBytes<'a>> {
        let (tokens_width, meta_width) = (self.layout.tokens_width(), self.layout.meta_width());
        let bytes = &mut scratch.tokens;
        bytes.resize(tokens_width + meta_width, 0);
        let meta_at = group.meta.offset(inside, group.rows, meta_width);
        self.read(file, row, &mut bytes[tokens_width..], meta_at)?;
        // The checksum stands where the end of the tokens is to be: the tokens go right before what follows it.
        let sum = super::u64_at(bytes, tokens_width);
        let tokens_at = group.tokens.offset(inside, group.rows, tokens_width);
        self.read(file, row, &mut bytes[8..8 + tokens_width], tokens_at)?;
        let bytes = &bytes[8..];
        if !super::matches(sum, bytes) {
            return Err(self.damaged(row, UNSOUND));
        }
        let (tokens, rest) = bytes.split_at(tokens_width);
        self.expected(row, RowBytes { tokens, rest })
    }

    /// Reads rows of one page, which lie one after the other.
    fn run(
        &self,
        file: &File,
        first: u64,
        group: &Group,
        inside: Range<u64>,
        scratch: &mut Scratch,
        each: &mut impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let (tokens_width, meta_width) = (self.layout.tokens_width(), self.layout.meta_width());
        let Scratch { tokens, meta } = scratch;
        let count = (inside.end - inside.start) as usize;
        tokens.resize(count * tokens_width, 0);
        meta.resize(count * meta_width, 0);
        self.read(file, first, tokens, group.tokens.offset(inside.start, group.rows, tokens_width))?;
        self.read(file, first, meta, group.meta.offset(inside.start, group.rows, meta_width))?;
        let cells = tokens.chunks_exact(tokens_width).zip(meta.chunks_exact(meta_width));
        for ((tokens, meta), row) in cells.zip(first..) {
            let rest = &meta[8..];
            if super::u64_at(meta, 0) != super::checksum(tokens, rest) {
                return Err(self.damaged(row, UNSOUND));
            }
            each(self.expected(row, RowBytes { tokens, rest })?);
        }
        Ok(())
    }

    /// A sound row, if it is one of this shard: files that were swapped are as long and as sound as each other.
    fn expected<'a>(&self, row: u64, bytes: RowBytes<'a>) -> Result<RowBytes<'a>> {
        match self.documents {
            Some([first, last]) if !(first..=last).contains(&bytes.document()) => {
                let found = bytes.document();
                let problem = format!(
                    "is of document {found}, expected {first} to {last}: this is another shard's file; restore it, or build again"
                );
                Err(self.damaged(row, &problem))
            }
            _ => Ok(bytes),
        }
    }

    fn read(&self, file: &File, row: u64, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(file, buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.damaged(row, "lies beyond the end of the file; it is truncated")
            }
            _ => Error::io(&self.relative, "reading")(error),
        })
    }

    /// The group of a row, and the row's place in it.
    fn find(&self, row: u64) -> Option<(&Group, u64)> {
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

/// What is wrong with a file of the wrong length.
pub(crate) fn length_problem(bytes: u64, expected: u64) -> String {
    let what = if bytes < expected { "truncated" } else { "changed" };
    format!("has {bytes} bytes, expected {expected}: it was {what}; restore it, or build again")
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
