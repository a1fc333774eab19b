//! Blob: a file on this machine or an object in a store.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::{Error, Result};
use crate::remote::{self, RemoteObject};

/// Open file or object.
#[derive(Debug)]
pub(crate) enum Blob {
    /// File on this machine.
    Local(File),
    /// Object in a store.
    Remote(RemoteObject),
}

impl Blob {
    /// Opens a file or an object.
    ///
    /// # Errors
    /// [`Error::Io`], also for a pipe or a device, which is no regular file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if remote::is_remote(path) {
            return RemoteObject::open(path).map(Self::Remote);
        }
        open_regular(path).map(Self::Local).map_err(Error::io(path, "opening"))
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self, path: &Path) -> Result<u64> {
        match self {
            Self::Local(file) => Ok(file.metadata().map_err(Error::io(path, "looking at"))?.len()),
            Self::Remote(object) => Ok(object.bytes()),
        }
    }

    /// Content from the beginning.
    pub(crate) fn into_read(self) -> Box<dyn Read + Send> {
        match self {
            Self::Local(file) => Box::new(file),
            Self::Remote(object) => Box::new(object.read_from(0)),
        }
    }
}

/// Opens a regular file. To open a pipe would wait for its writer.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file"))
}

impl Length for Blob {
    fn len(&self) -> u64 {
        match self {
            Self::Local(file) => file.len(),
            Self::Remote(object) => object.bytes(),
        }
    }
}

impl ChunkReader for Blob {
    type T = BlobReader;

    fn get_read(&self, start: u64) -> parquet::errors::Result<BlobReader> {
        match self {
            Self::Local(file) => file.get_read(start).map(BlobReader::Local),
            Self::Remote(object) => Ok(BlobReader::Remote(object.clone(), start)),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            Self::Local(file) => file.get_bytes(start, length),
            Self::Remote(object) => {
                object.window(start, length).map_err(|error| ParquetError::External(Box::new(error)))
            }
        }
    }
}

/// Reader of a Parquet file from an offset on.
#[derive(Debug)]
pub(crate) enum BlobReader {
    /// File on this machine.
    Local(BufReader<File>),
    /// Object in a store, and the offset of the next byte.
    Remote(RemoteObject, u64),
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Local(file) => file.read(buffer),
            Self::Remote(object, at) => {
                let count = buffer.len().min(object.bytes().saturating_sub(*at) as usize);
                let bytes = object.window(*at, count).map_err(std::io::Error::other)?;
                buffer[..count].copy_from_slice(&bytes);
                *at += count as u64;
                Ok(count)
            }
        }
    }
}
