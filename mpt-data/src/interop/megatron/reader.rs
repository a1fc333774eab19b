//! Reader of an indexed dataset, document by document.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::dtype::Dtype;
use super::{CODES, HEAD, MAGIC, VERSION, file};
use crate::blob::open_regular;
use crate::error::{Error, Result};

/// Most bytes of tokens in a chunk.
const CHUNK_BYTES: u64 = 1 << 16;

/// Indexed dataset with a valid head.
#[derive(Debug, Clone)]
pub struct IndexedDataset {
    prefix: PathBuf,
    dtype: Dtype,
    sequences: u64,
    entries: u64,
    bin_bytes: u64,
}

impl IndexedDataset {
    /// Opens `prefix.idx` and `prefix.bin`.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming the file and the field.
    pub fn open(prefix: &Path) -> Result<Self> {
        let (idx, bin) = (file(prefix, ".idx"), file(prefix, ".bin"));
        let mut input = open_regular(&idx).map_err(Error::io(&idx, "opening"))?;
        let bytes = input.metadata().map_err(Error::io(&idx, "looking at"))?.len();
        let mut head = [0; HEAD as usize];
        input
            .read_exact(&mut head)
            .map_err(|_| Error::input(&idx, format!("has {bytes} bytes, less than the {HEAD} of a head")))?;
        let bin_bytes = bin.metadata().map_err(Error::io(&bin, "opening"))?.len();
        let found = Self::check(&head, bytes).map_err(|problem| Error::input(&idx, problem))?;
        Ok(Self { prefix: prefix.to_owned(), bin_bytes, ..found })
    }

    fn check(head: &[u8; HEAD as usize], bytes: u64) -> std::result::Result<Self, String> {
        if !head.starts_with(MAGIC) {
            return Err("is no index of Megatron: it does not begin with `MMIDIDX`".into());
        }
        let number = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().expect("within the head"));
        let (version, code, sequences, entries) = (number(9), head[17], number(18), number(26));
        if version != VERSION {
            return Err(format!("is of version {version}, expected {VERSION}"));
        }
        let dtype = CODES.iter().find(|(known, _)| *known == code).map(|(_, dtype)| *dtype);
        let dtype = dtype.ok_or_else(|| format!("type code {code} at byte 17 is none of 1 to 8"))?;
        if !dtype.is_integer() {
            return Err(format!("holds {}, which are no token ids", dtype.name()));
        }
        let expected = u128::from(HEAD) + 12 * u128::from(sequences) + 8 * u128::from(entries);
        if u128::from(bytes) != expected && u128::from(bytes) != expected + u128::from(sequences) {
            return Err(format!(
                "has {bytes} bytes, but {sequences} sequences and {entries} document entries need {expected}: it was truncated or changed, fetch it again"
            ));
        }
        Ok(Self { prefix: PathBuf::new(), dtype, sequences, entries, bin_bytes: 0 })
    }

    /// Type of the tokens.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Documents.
    pub fn documents(&self) -> u64 {
        self.entries.saturating_sub(1)
    }

    /// Bytes of the file of tokens.
    pub fn bin_bytes(&self) -> u64 {
        self.bin_bytes
    }

    /// Reader before the first document.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn read(&self) -> Result<DocumentReader<'_>> {
        let (idx, bin) = (file(&self.prefix, ".idx"), file(&self.prefix, ".bin"));
        let column = |from: u64| {
            let mut input = open_regular(&idx).map_err(Error::io(&idx, "opening"))?;
            input.seek(SeekFrom::Start(from)).map_err(Error::io(&idx, "reading"))?;
            Ok(BufReader::with_capacity(1 << 16, input))
        };
        let tokens = open_regular(&bin).map_err(Error::io(&bin, "opening"))?;
        let mut documents = DocumentReader {
            dataset: self,
            lengths: column(HEAD)?,
            offsets: column(HEAD + 4 * self.sequences)?,
            entries: column(HEAD + 12 * self.sequences)?,
            tokens: BufReader::with_capacity(1 << 18, tokens),
            at: 0,
            sequence: 0,
            next: 0,
            buffer: Vec::new(),
            idx,
            bin,
        };
        documents.begin()?;
        Ok(documents)
    }
}

/// Reader of the documents of a dataset.
#[derive(Debug)]
pub struct DocumentReader<'a> {
    dataset: &'a IndexedDataset,
    lengths: BufReader<File>,
    offsets: BufReader<File>,
    entries: BufReader<File>,
    tokens: BufReader<File>,
    at: u64,
    sequence: u64,
    next: u64,
    buffer: Vec<u8>,
    idx: PathBuf,
    bin: PathBuf,
}

impl DocumentReader<'_> {
    /// Calls `on_tokens` with the bytes of the next document's tokens, in chunks of whole tokens; `false` after the last.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] naming the file and the sequence; those of `on_tokens`.
    pub fn next_document(&mut self, mut on_tokens: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        if self.next == self.dataset.documents() {
            return self.end().map(|()| false);
        }
        self.next += 1;
        let end = self.entry()?;
        if end < self.sequence || end > self.dataset.sequences {
            let (document, from, all) = (self.next - 1, self.sequence, self.dataset.sequences);
            return Err(self.broken(format!(
                "document {document} ends at sequence {end}, expected one from {from} to {all}"
            )));
        }
        while self.sequence < end {
            self.one_sequence(&mut on_tokens)?;
            self.sequence += 1;
        }
        Ok(true)
    }

    /// Checks the first entry, the start of the first document.
    fn begin(&mut self) -> Result<()> {
        if self.dataset.entries == 0 {
            return Ok(());
        }
        match self.entry()? {
            0 => Ok(()),
            first => Err(self.broken(format!("document 0 begins at sequence {first}, expected 0"))),
        }
    }

    fn end(&self) -> Result<()> {
        let (read, all) = (self.sequence, self.dataset.sequences);
        if read == all {
            return Ok(());
        }
        Err(self.broken(format!("the documents end at sequence {read}, but there are {all}")))
    }

    fn one_sequence(&mut self, on_tokens: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let length = i32::from_le_bytes(take(&mut self.lengths, &self.idx)?);
        let offset = i64::from_le_bytes(take(&mut self.offsets, &self.idx)?);
        let width = self.dataset.dtype.bytes() as u64;
        let range = u64::try_from(length).ok().zip(u64::try_from(offset).ok());
        let range = range.map(|(length, offset)| (length * width, offset));
        let fits = |&(bytes, offset): &(u64, u64)| {
            offset.checked_add(bytes).is_some_and(|end| end <= self.dataset.bin_bytes)
        };
        let Some((bytes, offset)) = range.filter(fits) else {
            let (sequence, held) = (self.sequence, self.dataset.bin_bytes);
            return Err(self.broken(format!(
                "sequence {sequence} is {length} tokens from byte {offset} on, but {} has {held} bytes",
                self.bin.display()
            )));
        };
        let failed = |error| Error::io(&self.bin, "opening")(error);
        // Both are within the file, so the distance is a number.
        self.tokens.seek_relative(offset as i64 - self.at as i64).map_err(failed)?;
        let mut left = bytes;
        while left > 0 {
            self.buffer.resize(left.min(CHUNK_BYTES) as usize, 0);
            self.tokens.read_exact(&mut self.buffer).map_err(failed)?;
            on_tokens(&self.buffer)?;
            left -= self.buffer.len() as u64;
        }
        self.at = offset + bytes;
        Ok(())
    }

    /// Next entry of the column of documents; a negative one is beyond every sequence.
    fn entry(&mut self) -> Result<u64> {
        let entry = i64::from_le_bytes(take(&mut self.entries, &self.idx)?);
        Ok(u64::try_from(entry).unwrap_or(u64::MAX))
    }

    fn broken(&self, problem: String) -> Error {
        Error::input(&self.idx, format!("{problem}; the index is damaged, fetch it again"))
    }
}

fn take<const N: usize>(input: &mut BufReader<File>, path: &Path) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read: io::Result<()> = input.read_exact(&mut bytes);
    read.map_err(Error::io(path, "opening"))?;
    Ok(bytes)
}
