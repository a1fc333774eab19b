//! Writer of an indexed dataset: tokens at once, the index when the last length is known.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::super::dtype::Dtype;
use super::{CODES, MAGIC, VERSION, file};
use crate::durable::AtomicFile;
use crate::error::{Error, Result};

/// Writer of documents, each as one sequence, in constant memory.
#[derive(Debug)]
pub struct MegatronWriter {
    prefix: PathBuf,
    dtype: Dtype,
    bin: AtomicFile,
    /// Lengths of the documents, until the index is written.
    lengths: BufWriter<File>,
    documents: u64,
    length: u64,
    buffer: Vec<u8>,
}

impl MegatronWriter {
    /// Creates `prefix.bin` and `prefix.idx`.
    ///
    /// # Errors
    /// [`Error::Conversion`] for a type without a code, [`Error::Io`] naming the file.
    pub fn create(prefix: &Path, dtype: Dtype) -> Result<Self> {
        code(dtype)?;
        let (bin, lengths) = (AtomicFile::create(&file(prefix, ".bin"))?, file(prefix, ".lengths"));
        let lengths = File::create(&lengths).map_err(Error::io(&lengths, "creating"))?;
        Ok(Self {
            prefix: prefix.to_owned(),
            dtype,
            bin,
            lengths: BufWriter::new(lengths),
            documents: 0,
            length: 0,
            buffer: Vec::new(),
        })
    }

    /// Appends tokens to the current document.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        self.buffer.clear();
        self.dtype.put_ids(ids, &mut self.buffer);
        self.length += ids.len() as u64;
        self.bin.write_all(&self.buffer).map_err(Error::io(&file(&self.prefix, ".bin"), "writing"))
    }

    /// Ends the current document.
    ///
    /// # Errors
    /// [`Error::BrokenInput`] for a document of 2^31 tokens or more, [`Error::Io`] naming the file.
    pub fn end_document(&mut self) -> Result<()> {
        let length = i32::try_from(self.length).map_err(|_| {
            let problem =
                format!("document {} has {} tokens, more than a sequence can", self.documents, self.length);
            Error::input(&file(&self.prefix, ".bin"), problem)
        })?;
        self.length = 0;
        self.documents += 1;
        let path = file(&self.prefix, ".lengths");
        self.lengths.write_all(&length.to_le_bytes()).map_err(Error::io(&path, "writing"))
    }

    /// Completes both files, and returns the number of documents.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn finish(mut self) -> Result<u64> {
        let (path, lengths) = (file(&self.prefix, ".idx"), file(&self.prefix, ".lengths"));
        self.lengths.flush().map_err(Error::io(&lengths, "writing"))?;
        let mut idx = AtomicFile::create(&path)?;
        let (code, width, documents) = (code(self.dtype)?, self.dtype.bytes() as u64, self.documents);
        let column = || File::open(&lengths).map(BufReader::new);
        let mut write = || -> io::Result<()> {
            idx.write_all(MAGIC)?;
            idx.write_all(&VERSION.to_le_bytes())?;
            idx.write_all(&[code])?;
            idx.write_all(&documents.to_le_bytes())?;
            idx.write_all(&(documents + 1).to_le_bytes())?;
            io::copy(&mut column()?, &mut idx)?;
            let (mut lengths, mut offset) = (column()?, 0);
            for _ in 0..documents {
                idx.write_all(&u64::to_le_bytes(offset))?;
                let mut length = [0; 4];
                lengths.read_exact(&mut length)?;
                offset += u64::from(u32::from_le_bytes(length)) * width;
            }
            (0..=documents).try_for_each(|document| idx.write_all(&document.to_le_bytes()))
        };
        write().map_err(Error::io(&path, "writing"))?;
        fs::remove_file(&lengths).map_err(Error::io(&lengths, "removing"))?;
        self.bin.commit()?;
        idx.commit()?;
        Ok(documents)
    }
}

fn code(dtype: Dtype) -> Result<u8> {
    let found = CODES.iter().find(|(_, known)| *known == dtype && dtype.is_integer()).map(|(code, _)| *code);
    found.ok_or_else(|| Error::Conversion {
        option: "token-dtype",
        problem: format!(
            "Megatron keeps no {} tokens; expected uint8, int8, int16, uint16, int32 or int64",
            dtype.name()
        ),
    })
}
