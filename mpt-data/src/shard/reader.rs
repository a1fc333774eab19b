//! Reads rows of a shard by computed offset, each checked against its checksum.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{Group, PAGE_ROWS, RowBytes, RowLayout};
use crate::error::{Damage, Error, Result};
use crate::manifest::FileRecord;

/// An open shard.
#[derive(Debug)]
pub(crate) struct ShardReader {
    file: File,
    relative: PathBuf,
    layout: RowLayout,
    rows: u64,
    groups: Vec<Group>,
}

/// Buffers that reads use again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    tokens: Vec<u8>,
    meta: Vec<u8>,
}

impl ShardReader {
    /// Opens a file of the manifest in the folder `root`; its length is checked.
    pub(crate) fn open(root: &Path, record: &FileRecord, layout: RowLayout) -> Result<Self> {
        Self::open_at(&root.join(&record.path), record, layout)
    }

    /// Opens the file that `record` describes where it lies now.
    pub(crate) fn open_at(path: &Path, record: &FileRecord, layout: RowLayout) -> Result<Self> {
        let relative = PathBuf::from(&record.path);
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
        Ok(Self { file, layout, rows: record.rows, groups: record.groups.clone(), relative })
    }

    /// Reads rows `first..first + count` in order, as few reads as pages allow, and gives each sound one to `each`.
    pub(crate) fn rows(
        &self,
        first: u64,
        count: u64,
        scratch: &mut Scratch,
        mut each: impl FnMut(RowBytes<'_>),
    ) -> Result<()> {
        let mut row = first;
        while row < first + count {
            let run = self.run(row, first + count - row, scratch)?;
            let tokens = scratch.tokens.chunks_exact(self.layout.tokens_width());
            for (bytes, at) in tokens.zip(scratch.meta.chunks_exact(self.layout.meta_width())).zip(row..) {
                let bytes = RowBytes { tokens: bytes.0, meta: bytes.1 };
                if !bytes.is_sound() {
                    return Err(
                        self.damaged(at, "does not match its checksum; restore the file, or build again")
                    );
                }
                each(bytes);
            }
            row += run;
        }
        Ok(())
    }

    /// Reads as many of `want` rows from `row` on as lie in one page; returns how many.
    fn run(&self, row: u64, want: u64, scratch: &mut Scratch) -> Result<u64> {
        let (group, inside) = self.find(row).ok_or_else(|| self.damaged(row, "is not in the file"))?;
        let run = want.min(PAGE_ROWS - inside % PAGE_ROWS).min(group.rows - inside);
        let columns = [
            (&group.tokens, self.layout.tokens_width(), &mut scratch.tokens),
            (&group.meta, self.layout.meta_width(), &mut scratch.meta),
        ];
        for (pages, width, buffer) in columns {
            buffer.resize(run as usize * width, 0);
            let offset = pages.offset(inside, group.rows, width);
            read_exact_at(&self.file, buffer, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    self.damaged(row, "lies beyond the end of the file; it is truncated")
                }
                _ => Error::io(&self.relative, "reading")(error),
            })?;
        }
        Ok(run)
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
