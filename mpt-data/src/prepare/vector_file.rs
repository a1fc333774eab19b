//! File of a unit's vectors: `"mptembd1"`, u32 dimension, f32 values, u64 XXH3-64 of everything before. Numbers are
//! little-endian. A file without vectors is a checksum alone.

use std::fs;
use std::io::Write;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::dedup::Embeddings;
use crate::durable::AtomicFile;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"mptembd1";
const HEAD_BYTES: usize = 12;

/// Writer of a file of vectors.
pub(super) struct VectorWriter<'a> {
    path: &'a Path,
    file: AtomicFile,
    hash: Xxh3,
    dim: Option<usize>,
}

impl<'a> VectorWriter<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self> {
        Ok(Self { path, file: AtomicFile::create(path)?, hash: Xxh3::new(), dim: None })
    }

    /// Whether the vector has a direction and the dimension of the others.
    pub(super) fn fits(&self, vector: &[f32]) -> bool {
        Embeddings::default().push(vector) && self.dim.is_none_or(|dim| dim == vector.len())
    }

    /// Appends a vector.
    pub(super) fn push(&mut self, vector: &[f32]) -> Result<()> {
        if self.dim.is_none() {
            self.write(MAGIC)?;
            self.write(&u32::try_from(vector.len()).unwrap_or(u32::MAX).to_le_bytes())?;
            self.dim = Some(vector.len());
        }
        self.write(&vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Completes the file with its checksum.
    pub(super) fn finish(mut self) -> Result<()> {
        let sum = self.hash.digest().to_le_bytes();
        self.file.write_all(&sum).map_err(Error::io(self.path, "writing"))?;
        self.file.commit()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(self.path, "writing"))
    }
}

/// Appends the vectors of a file to `vectors`.
pub(super) fn read_vectors(path: &Path, vectors: &mut Embeddings) -> Result<()> {
    let bytes = fs::read(path).map_err(Error::io(path, "reading"))?;
    let content = &bytes[..bytes.len().saturating_sub(8)];
    if content.is_empty() {
        return Ok(());
    }
    let damaged = || Error::Unit { path: path.to_owned(), problem: "not vectors of this version".into() };
    let head = content.get(..HEAD_BYTES).filter(|head| head.starts_with(MAGIC)).ok_or_else(damaged)?;
    let dim = u32::from_le_bytes(head[8..].try_into().expect("4 bytes")) as usize;
    for vector in content[HEAD_BYTES..].chunks(4 * dim.max(1)) {
        let values =
            vector.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes")));
        if !vectors.push(&values.collect::<Vec<_>>()) {
            return Err(damaged());
        }
    }
    Ok(())
}
