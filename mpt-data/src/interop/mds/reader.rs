//! Reader of a shard's samples, in one pass. The file is checked against the index as it is read.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::hashes::HashCheck;
use super::index::{ColumnSpec, FileInfo, MdsDataset, MdsShard};
use super::value::Value;
use crate::blob::open_regular;
use crate::error::{Error, Result};

/// Most bytes of a sample, and of the offsets of all samples, which are in memory at once.
const MAX_SAMPLE_BYTES: u64 = 256 << 20;

/// Reader of the samples of a shard.
pub struct MdsSamples<'a> {
    path: PathBuf,
    shard: &'a MdsShard,
    input: HashedInput,
    offsets: Vec<u32>,
    next: usize,
    data: Vec<u8>,
    cells: Vec<Range<usize>>,
}

/// Sample of a shard.
#[derive(Debug, Clone, Copy)]
pub struct MdsSample<'a> {
    /// Columns.
    pub columns: &'a [ColumnSpec],
    path: &'a Path,
    index: usize,
    data: &'a [u8],
    cells: &'a [Range<usize>],
}

impl MdsDataset {
    /// Existing file of a shard, and whether it is the compressed one.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] when neither file exists.
    pub fn stored<'a>(&self, shard: &'a MdsShard) -> Result<(PathBuf, &'a FileInfo, bool)> {
        let raw = self.dir().join(&shard.raw.path);
        if raw.is_file() {
            return Ok((raw, &shard.raw, false));
        }
        match &shard.zip {
            Some(zip) if self.dir().join(&zip.path).is_file() => Ok((self.dir().join(&zip.path), zip, true)),
            _ => Err(Error::input(&raw, "the index names this shard, but it is not there; fetch it again")),
        }
    }

    /// Opens a shard. With `verify`, every hash in the index is checked, at the latest after the last sample.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming the shard and the problem.
    pub fn samples<'a>(&self, shard: &'a MdsShard, verify: bool) -> Result<MdsSamples<'a>> {
        let (path, info, zipped) = self.stored(shard)?;
        let file = open_regular(&path).map_err(Error::io(&path, "opening"))?;
        let bytes = file.metadata().map_err(Error::io(&path, "looking at"))?.len();
        if bytes != info.bytes {
            let what = if bytes < info.bytes { "truncated" } else { "changed" };
            let expected = info.bytes;
            return Err(Error::input(
                &path,
                format!("has {bytes} bytes, but the index says {expected}: it was {what}; fetch it again"),
            ));
        }
        let hashes = |info: &FileInfo| {
            if verify { HashCheck::new(&path, &info.hashes) } else { Ok(HashCheck::nothing()) }
        };
        hashes(info)?.check_file(&path)?;
        let (input, hashes): (Box<dyn Read>, _) = match shard.codec.filter(|_| zipped) {
            Some(codec) => {
                let reader =
                    codec.reader(file, shard.raw.bytes).map_err(|error| unreadable(&path, &error))?;
                (Box::new(BufReader::with_capacity(1 << 16, reader)), hashes(&shard.raw)?)
            }
            None => (Box::new(BufReader::with_capacity(1 << 18, file)), HashCheck::nothing()),
        };
        MdsSamples::new(path, shard, HashedInput { input, hashes })
    }
}

/// Input whose bytes are hashed as they are read.
struct HashedInput {
    input: Box<dyn Read>,
    hashes: HashCheck,
}

impl HashedInput {
    /// Replaces `buffer` by the next `count` bytes. The buffer grows with the bytes read, not with `count`.
    fn fill(&mut self, count: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        (&mut self.input).take(count).read_to_end(buffer)?;
        self.hashes.update(buffer);
        if buffer.len() as u64 == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<'a> MdsSamples<'a> {
    fn new(path: PathBuf, shard: &'a MdsShard, input: HashedInput) -> Result<Self> {
        let mut samples =
            Self { path, shard, input, offsets: Vec::new(), next: 0, data: Vec::new(), cells: Vec::new() };
        samples.head()?;
        Ok(samples)
    }

    /// Reads the number of samples, their offsets, and the configuration, which the index has too.
    fn head(&mut self) -> Result<()> {
        let count = self.number()?;
        if u64::from(count) != self.shard.samples {
            let expected = self.shard.samples;
            return Err(self.broken(format!("holds {count} samples, but the index says {expected}")));
        }
        let table = 4 * (u64::from(count) + 2);
        if table > self.shard.raw.bytes {
            return Err(self.broken(format!("is too short for the offsets of {count} samples")));
        }
        self.check_size("the table of offsets", table)?;
        let mut least = table;
        for at in 0..=count {
            let offset = self.number()?;
            if u64::from(offset) < least {
                return Err(self.broken(format!("offset {at} is {offset}, expected {least} or more")));
            }
            self.offsets.push(offset);
            // Every sample has at least one byte: a size or a value.
            least = u64::from(offset) + 1;
        }
        let (first, end) = (u64::from(self.offsets[0]), least - 1);
        if end != self.shard.raw.bytes {
            let expected = self.shard.raw.bytes;
            return Err(self.broken(format!("the last sample ends at {end}, but the index says {expected}")));
        }
        self.check_size("the configuration", first - table)?;
        let mut config = std::mem::take(&mut self.data);
        let read = self.input.fill(first - table, &mut config);
        self.data = config;
        read.map_err(|error| unreadable(&self.path, &error))
    }

    /// Next sample; `None` after the last, when the hashes of the decompressed bytes have been checked.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming the shard and the sample.
    pub fn next_sample(&mut self) -> Result<Option<MdsSample<'_>>> {
        let Some(&[from, to]) = self.offsets.get(self.next..self.next + 2) else {
            return self.end().map(|()| None);
        };
        self.check_size(&format!("sample {}", self.next), u64::from(to - from))?;
        let read = self.input.fill(u64::from(to - from), &mut self.data);
        read.map_err(|error| self.in_sample(&explain(&error)))?;
        cut(&self.shard.columns, &self.data, &mut self.cells).map_err(|problem| self.in_sample(&problem))?;
        let index = self.next;
        self.next += 1;
        Ok(Some(MdsSample {
            columns: &self.shard.columns,
            path: &self.path,
            index,
            data: &self.data,
            cells: &self.cells,
        }))
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn end(&mut self) -> Result<()> {
        let more = self.input.fill(1, &mut self.data);
        match more {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(unreadable(&self.path, &error)),
            Ok(()) => {
                let expected = self.shard.raw.bytes;
                return Err(self.broken(format!("holds more than the {expected} bytes that the index says")));
            }
        }
        std::mem::replace(&mut self.input.hashes, HashCheck::nothing())
            .check(&self.path, "decompressed, its ")
    }

    fn number(&mut self) -> Result<u32> {
        let read = self.input.fill(4, &mut self.data);
        read.map_err(|error| unreadable(&self.path, &error))?;
        Ok(u32::from_le_bytes(*self.data.first_chunk().expect("four were read")))
    }

    fn check_size(&self, what: &str, bytes: u64) -> Result<()> {
        if bytes <= MAX_SAMPLE_BYTES {
            return Ok(());
        }
        let problem = format!("{what} would have {bytes} bytes; {MAX_SAMPLE_BYTES} are read at most");
        Err(Error::input(&self.path, problem))
    }

    fn broken(&self, problem: String) -> Error {
        Error::input(&self.path, format!("{problem}; the shard is damaged, fetch it again"))
    }

    fn in_sample(&self, problem: &str) -> Error {
        self.broken(format!("sample {}: {problem}", self.next))
    }
}

/// Ranges of the cells of a sample.
fn cut(columns: &[ColumnSpec], data: &[u8], cells: &mut Vec<Range<usize>>) -> Result<(), String> {
    let variable = columns.iter().filter(|column| column.size.is_none()).count();
    let (sizes, _) = data.split_at_checked(4 * variable).ok_or("ends in the sizes of its columns")?;
    let mut sizes = sizes.as_chunks::<4>().0.iter().map(|&size| u64::from(u32::from_le_bytes(size)));
    let mut at = 4 * variable as u64;
    cells.clear();
    for column in columns {
        let size = column.size.or_else(|| sizes.next()).expect("a size for each column that has none");
        let end = at.checked_add(size).filter(|&end| end <= data.len() as u64).ok_or_else(|| {
            let left = data.len() as u64 - at;
            format!("column `{}` is said to have {size} bytes, but {left} are left", column.name)
        })?;
        cells.push(at as usize..end as usize);
        at = end;
    }
    match data.len() as u64 - at {
        0 => Ok(()),
        more => Err(format!("has {more} bytes after its last column")),
    }
}

impl<'a> MdsSample<'a> {
    /// Bytes of a column.
    pub fn bytes(&self, column: usize) -> &'a [u8] {
        &self.data[self.cells[column].clone()]
    }

    /// Value of a column.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming shard, sample and column.
    pub fn value(&self, column: usize) -> Result<Value> {
        self.columns[column]
            .encoding
            .decode(self.bytes(column))
            .map_err(|problem| self.broken(column, &problem))
    }

    /// Index in the shard.
    pub fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn broken(&self, column: usize, problem: &str) -> Error {
        let name = &self.columns[column].name;
        Error::input(self.path, format!("sample {}: column `{name}`: {problem}", self.index))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::input(path, format!("{}; fetch the file again", explain(error)))
}

/// Error of a reader, which for a damaged file says more than "reading failed".
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the data ends too early; the file is truncated".into(),
        _ => format!("the data cannot be read ({error})"),
    }
}
