//! Digests of files: their length and SHA-256, computed as they are written or read.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::blob::Blob;
use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::hash::hex;

/// Name, length and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Name: of an input, relative to the fixed part of its pattern; of an output, relative to the folder.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hex; of an input in an object store, the store's tag or the time of writing.
    pub sha256: String,
}

/// SHA-256 in hex and length of a file or object; `on_read` is called with the bytes of each read.
pub(crate) fn sha256_file(path: &Path, on_read: impl FnMut(u64) -> Result<()>) -> Result<(String, u64)> {
    sha256_of(Blob::open(path)?.into_read(), path, on_read)
}

/// SHA-256 in hex and length of the rest of an open file; `on_read` is called with the bytes of each read.
pub(crate) fn sha256_of(
    mut file: impl Read,
    path: &Path,
    mut on_read: impl FnMut(u64) -> Result<()>,
) -> Result<(String, u64)> {
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path, "reading"))? {
            0 => return Ok((hex(&hash.finalize()), bytes)),
            count => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
                on_read(count as u64)?;
            }
        }
    }
}

/// File in staging, with its length and SHA-256 so far.
pub(crate) struct HashingFile {
    file: AtomicFile,
    hash: Sha256,
    bytes: u64,
    path: PathBuf,
}

impl HashingFile {
    /// Creates the staging file of `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: AtomicFile::create(path)?, hash: Sha256::new(), bytes: 0, path: path.to_owned() })
    }

    /// Completes the content: the file, still in staging, with its length and its SHA-256 in hex.
    pub(crate) fn finish(mut self) -> Result<(AtomicFile, u64, String)> {
        self.file.flush().map_err(Error::io(&self.path, "writing"))?;
        Ok((self.file, self.bytes, hex(&self.hash.finalize())))
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
