//! Compressed input: files read through the decompressor of their name, and hashed as they are read.

mod file_kind;
mod gzip;

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

pub(crate) use self::file_kind::{FileKind, UTF8_BOM, is_html};
pub(crate) use self::gzip::GzipMembers;
use crate::blob::Blob;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::hash::hex;

/// Decompressed content of a file: `.gz` and `.zst`, of one or more members or frames, are decompressed.
pub(crate) struct Decompressed<'a> {
    path: PathBuf,
    reader: Box<dyn BufRead + 'a>,
    raw: Rc<RefCell<CountedFile<'a>>>,
}

/// Opens a file. Bytes read of the file itself are added to `bytes_read`.
///
/// # Errors
/// [`Error::BrokenInput`] for a file whose content is not compressed as its name says.
pub(crate) fn open<'a>(path: &Path, bytes_read: &'a AtomicU64) -> Result<Decompressed<'a>> {
    let blob = Blob::open(path)?;
    // Every request for an object names the planned version, so its content needs no later comparison.
    let hash = matches!(blob, Blob::Local(_)).then(Sha256::new);
    let raw = Rc::new(RefCell::new(CountedFile { file: blob.into_read(), hash, bytes: 0, bytes_read }));
    let mut file = BufReader::with_capacity(1 << 16, SharedFile(raw.clone()));
    let compression = compression(path);
    let head = file.fill_buf().map_err(Error::io(path, "reading"))?;
    check_compression(compression, head).map_err(|problem| Error::input(path, problem))?;
    let reader: Box<dyn BufRead + 'a> = match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(BufReader::with_capacity(1 << 18, GzipMembers::new(file))),
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(Error::io(path, "decompressing"))?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        }
    };
    Ok(Decompressed { path: path.to_owned(), reader, raw })
}

impl Decompressed<'_> {
    /// Kind of the content, if it is no plain text.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn kind(&mut self) -> Result<Option<FileKind>> {
        let head = self.reader.fill_buf().map_err(|error| explain(&self.path, error))?;
        Ok(FileKind::of(head))
    }

    /// Next bytes, without consuming them.
    ///
    /// # Errors
    /// Those of reading.
    pub(crate) fn peek(&mut self) -> Result<&[u8]> {
        self.reader.fill_buf().map_err(|error| explain(&self.path, error))
    }

    /// Reads the file to its end, and compares its hash with the plan.
    ///
    /// # Errors
    /// [`Error::InputChanged`] for another content.
    pub(crate) fn check(self, planned: &FileDigest) -> Result<()> {
        let mut raw = self.raw.borrow_mut();
        let mut rest = [0; 1 << 14];
        while raw.read(&mut rest).map_err(Error::io(&self.path, "reading"))? > 0 {}
        let Some(hash) = raw.hash.take() else { return Ok(()) };
        let found = (raw.bytes, hex(&hash.finalize()));
        if found == (planned.bytes, planned.sha256.clone()) {
            return Ok(());
        }
        Err(Error::InputChanged { path: self.path.clone() })
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Decompressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

/// Whole decompressed content of a text file, of at most `most` bytes.
///
/// # Errors
/// [`Error::BrokenInput`] for a longer content, and for one that is no text.
pub(crate) fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (progress, mut bytes) = (AtomicU64::new(0), Vec::new());
    let mut file = open(path, &progress)?;
    if let Some(kind) = file.kind()? {
        return Err(Error::input(path, kind.problem()));
    }
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| explain(path, error))?;
    if bytes.len() as u64 > most {
        let problem = format!("holds more than {most} bytes, which is the most a list may have; split it");
        return Err(Error::input(path, problem));
    }
    Ok(bytes)
}

/// Error of a reader, which for a damaged file says more than "reading failed".
pub(crate) fn explain(path: &Path, error: io::Error) -> Error {
    match (compression(path), error.kind()) {
        (Compression::None, _) => Error::io(path, "reading")(error),
        (_, io::ErrorKind::UnexpectedEof) => {
            Error::input(path, "the compressed data ends too early; the file is truncated, fetch it again")
        }
        (Compression::Zstd, _) if error.to_string().contains("too much memory") => Error::input(
            path,
            "was compressed with a window of more than 128 MiB (`zstd --long=28` or more), which is not read; compress it with `--long=27` or less",
        ),
        _ => {
            let problem = format!("the compressed data is damaged ({error}); fetch the file again");
            Error::unread(path, problem, error)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Checks that the content is compressed as the name says.
fn check_compression(named: Compression, head: &[u8]) -> std::result::Result<(), String> {
    let (name, is_so) = match named {
        Compression::None => return Ok(()),
        Compression::Gzip => ("gzip", file_kind::is_gzip(head)),
        Compression::Zstd => ("zstd", file_kind::is_zstd(head)),
    };
    if is_so || head.is_empty() {
        return Ok(());
    }
    let found = FileKind::of(head).map_or_else(
        || "its first bytes are those of another format; rename it after what it is".to_owned(),
        FileKind::problem,
    );
    Err(format!("is no {name} data, though its name says so: {found}"))
}

/// File with the count and the hash of its bytes.
struct CountedFile<'a> {
    file: Box<dyn Read + Send>,
    hash: Option<Sha256>,
    bytes: u64,
    bytes_read: &'a AtomicU64,
}

impl Read for CountedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        self.bytes += count as u64;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// File that a decompressor reads.
struct SharedFile<'a>(Rc<RefCell<CountedFile<'a>>>);

impl Read for SharedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::hash::sha256;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        read_whole(&path, 1 << 20).map_err(|error| error.to_string())
    }

    #[test]
    fn gzip_is_read_as_gzip_reads_it() {
        let (one, two) = (gzip(b"one "), gzip(b"two"));
        for (bytes, text) in [
            ([&one[..], &two].concat(), "one two"),
            ([&one[..], &[0; 700]].concat(), "one "),
            ([&one[..], &[0; 3], &two, &[0; 1]].concat(), "one two"),
        ] {
            assert_eq!(read("a.gz", &bytes).expect("sound"), text.as_bytes());
        }
        assert!(read("a.gz", &one[..one.len() - 3]).expect_err("cut").contains("ends too early"));
        let garbage = [&one[..], b"garbage that is long enough"].concat();
        assert!(read("a.gz", &garbage).expect_err("garbage").contains("is damaged"));
        assert!(read("a.gz", b"").is_err());
    }

    #[test]
    fn files_under_another_name_are_named() {
        let zstd = zstd::encode_all(&b"text"[..], 1).expect("compressed");
        for (name, bytes, what) in [
            ("a.txt", gzip(b"text"), "is gzip data"),
            ("a.txt.gz", gzip(&gzip(b"text")), "is gzip data"),
            ("a.txt", zstd.clone(), "is zstd data"),
            ("a.gz", zstd, "is no gzip data, though its name says so: is zstd data"),
            ("a.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(), "git lfs pull"),
            ("a.zst", b"<!DOCTYPE html>".to_vec(), "is no zstd data"),
        ] {
            let error = read(name, &bytes).expect_err("another kind");
            assert!(error.contains(what), "{name}: {error}");
        }
    }

    #[test]
    fn wide_windows_are_named() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.long_distance_matching(true).expect("a setting");
        encoder.window_log(28).expect("a setting");
        encoder.write_all(b"text").expect("compressed");
        let error = read("a.zst", &encoder.finish().expect("compressed")).expect_err("too wide");
        assert!(error.contains("--long=27"), "{error}");
    }

    #[test]
    fn what_expands_too_far_is_refused() {
        let bomb = zstd::encode_all(&vec![b'a'; (1 << 20) + 1][..], 1).expect("compressed");
        assert!(read("a.zst", &bomb).expect_err("too long").contains("holds more than 1048576 bytes"));
    }

    #[test]
    fn what_was_read_is_compared_with_what_was_planned() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.gz");
        let bytes = gzip(&b"text ".repeat(100_000));
        std::fs::write(&path, &bytes).expect("writable");
        let planned = FileDigest { name: "a".into(), bytes: bytes.len() as u64, sha256: sha256(&bytes) };
        for taken in [0, 7, usize::MAX] {
            let count = AtomicU64::new(0);
            let mut content = open(&path, &count).expect("sound");
            let mut some = Vec::new();
            content.by_ref().take(taken as u64).read_to_end(&mut some).expect("readable");
            content.check(&planned).expect("unchanged, however much was taken");
            assert_eq!(count.into_inner(), planned.bytes);
        }
        for other in [
            FileDigest { bytes: 1, ..planned.clone() },
            FileDigest { sha256: sha256(b"other"), ..planned.clone() },
        ] {
            let count = AtomicU64::new(0);
            let error = open(&path, &count).expect("sound").check(&other).expect_err("changed");
            assert!(matches!(error, Error::InputChanged { .. }), "{error}");
        }
    }
}
