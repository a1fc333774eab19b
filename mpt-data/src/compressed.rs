//! Opens a file for reading through the decompressor that its name asks for.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::blob::Blob;
use crate::error::{Error, Result};

/// The content of a file: `.gz` (several members too) and `.zst` (several frames too) are decompressed. The bytes of the file itself that were
/// read are counted.
pub(crate) fn open<'a>(path: &Path, bytes_read: &'a AtomicU64) -> Result<Box<dyn BufRead + 'a>> {
    let file = Blob::open(path)?.into_read();
    let raw = BufReader::with_capacity(1 << 16, Counted { file, read: bytes_read });
    Ok(match compression(path) {
        Compression::None => Box::new(raw),
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(raw)))
        }
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(raw).map_err(Error::io(path, "decompressing"))?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        }
    })
}

/// The whole content of a file, decompressed.
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>> {
    let (progress, mut bytes) = (AtomicU64::new(0), Vec::new());
    let mut file = open(path, &progress)?;
    file.read_to_end(&mut bytes).map_err(|error| explain(path, error))?;
    Ok(bytes)
}

/// A reader's error, which for a damaged file says more than "reading failed".
pub(crate) fn explain(path: &Path, error: io::Error) -> Error {
    match (compression(path), error.kind()) {
        (Compression::None, _) => Error::io(path, "reading")(error),
        (_, io::ErrorKind::UnexpectedEof) => {
            Error::input(path, "the compressed data ends too early; the file is truncated, fetch it again")
        }
        _ => Error::input(path, format!("the compressed data is damaged ({error}); fetch the file again")),
    }
}

enum Compression {
    None,
    Gzip,
    Zstd,
}

fn compression(path: &Path) -> Compression {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz" | "gzip") => Compression::Gzip,
        Some("zst" | "zstd") => Compression::Zstd,
        _ => Compression::None,
    }
}

struct Counted<'a> {
    file: Box<dyn Read + Send>,
    read: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
