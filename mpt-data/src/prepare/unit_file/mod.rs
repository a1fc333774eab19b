//! File of a work unit: the outcome of each document, with its tokens. The file is complete only if its checksum holds.
//!
//! `"mptunit4"`, u8 bytes per token, then records, then u64 XXH3-64 of everything before. A record begins with a byte:
//!
//! - 0, a document that passed the filters: id, u128 hash of its text, u64 bytes of text, u64 tokens as read, u8 whether it
//!   was edited, u64 bytes of each of the sections that follow: u32 signature, u128 hashes of paragraphs, text, tokens.
//! - 1, a document that did not pass: id, rule, value, u64 tokens as read.
//! - 255, the end: u64 fields seen.
//!
//! Numbers are little-endian, texts have a u32 length. Sections that no stage of deduplication needs are empty.

mod reader;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

pub(super) use self::reader::{DocumentRecord, UnitReader};
pub(super) use self::writer::UnitWriter;
use crate::error::{Error, Result};

/// Version of the format.
pub(super) const VERSION: u32 = 4;
const MAGIC: &[u8; 8] = b"mptunit4";
const PASSED: u8 = 0;
const DROPPED: u8 = 1;
const END: u8 = 255;
/// Sections of a document.
const SECTIONS: usize = 4;
const SIGNATURE: usize = 0;
const PARAGRAPHS: usize = 1;
const TEXT: usize = 2;
const TOKENS: usize = 3;

/// Whether the file exists and is complete. An incomplete file is removed.
pub(super) fn is_complete(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(path, "opening")(error)),
    };
    if checksum_holds(file).map_err(Error::io(path, "reading"))? {
        return Ok(true);
    }
    std::fs::remove_file(path).map_err(Error::io(path, "removing a damaged file"))?;
    Ok(false)
}

fn checksum_holds(mut file: File) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let Some(content) = bytes.checked_sub(8) else { return Ok(false) };
    let (mut hash, mut left, mut buffer) = (Xxh3::new(), content, vec![0; 1 << 20]);
    while left > 0 {
        let chunk = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..chunk])?;
        hash.update(&buffer[..chunk]);
        left -= chunk as u64;
    }
    let mut sum = [0; 8];
    file.read_exact(&mut sum)?;
    Ok(hash.digest() == u64::from_le_bytes(sum))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::sketch::Sketch;
    use super::super::unit::{
        DocumentHeader, DroppedDocument, TokenizedDocument, Unit, UnitRecord, UnitSink,
    };
    use super::*;
    use crate::filter::DropReason;

    fn document(id: &str, tokens: &[u32], sketch: Sketch) -> TokenizedDocument {
        let header = DocumentHeader {
            id: id.to_owned(),
            text_hash: 1 << 100,
            text_bytes: 7,
            tokens_read: tokens.len() as u64 + 3,
            tokens: tokens.len() as u64,
            is_edited: id == "b",
        };
        TokenizedDocument { header, sketch, tokens: tokens.to_vec() }
    }

    fn unit() -> Unit {
        Unit { name: "u".into(), source: 0, inputs: Vec::new() }
    }

    fn dropped() -> DroppedDocument {
        let reason = DropReason { rule: "empty", value: "0 bytes".into() };
        DroppedDocument { id: "x".into(), reason, tokens_read: 9 }
    }

    fn write(dir: &Path) -> PathBuf {
        let mut files = UnitWriter::new(dir, 2);
        files.begin(&unit()).expect("begun");
        let tokens: Vec<_> = (0..70_000u32).map(|at| at % 50_000).collect();
        for (id, tokens) in [("a", &tokens[..]), ("b", &[]), ("é", &tokens[3..5])] {
            let sketch =
                Sketch { signature: vec![7, 8], paragraphs: vec![1 << 90], text: Some(id.repeat(3)) };
            files.keep(&document(id, tokens, sketch)).expect("kept");
            files.drop(&dropped()).expect("dropped");
        }
        files.end(5).expect("ended");
        dir.join("u")
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = write(dir.path());
        assert!(is_complete(&path).expect("readable"));
        let mut reader = UnitReader::open(&path).expect("openable");
        let (mut ids, mut offsets, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(record) = reader.next().expect("sound") {
            match record {
                UnitRecord::Passed(DocumentRecord { header, offset }) => {
                    let (id, is_edited) = (header.id, header.is_edited);
                    assert_eq!((header.tokens_read, is_edited), (header.tokens + 3, id == "b"));
                    // The sections of the first document are skipped.
                    if id != "a" {
                        assert_eq!(reader.paragraphs().expect("sound"), [1 << 90]);
                        assert_eq!(reader.document_text().expect("sound"), id.repeat(3));
                        reader.tokens(&mut tokens).expect("sound");
                    }
                    ids.push(id);
                    offsets.push(offset);
                }
                UnitRecord::Dropped(document) => assert_eq!(document, dropped()),
            }
        }
        assert_eq!(ids, ["a", "b", "é"]);
        assert_eq!(tokens, [3, 4]);
        assert_eq!(reader.fields_seen(), 5);
        for (id, offset) in ids.iter().zip(offsets) {
            assert_eq!(&UnitReader::id_at(&path, offset).expect("sound"), id);
            assert_eq!(UnitReader::signature_at(&path, offset).expect("sound"), [7, 8]);
        }
    }

    /// As many paragraphs as a document of 18 million has.
    #[test]
    fn a_section_may_be_as_long_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut files = UnitWriter::new(dir.path(), 2);
        files.begin(&unit()).expect("begun");
        let sketch = Sketch { signature: Vec::new(), paragraphs: vec![7; 18_000_000], text: None };
        files.keep(&document("a", &[1], sketch)).expect("kept");
        files.end(0).expect("ended");
        let mut reader = UnitReader::open(&dir.path().join("u")).expect("openable");
        assert!(matches!(reader.next(), Ok(Some(UnitRecord::Passed(_)))));
        assert_eq!(reader.paragraphs().expect("sound").len(), 18_000_000);
    }

    #[test]
    fn incomplete_files_are_removed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = write(dir.path());
        let bytes = std::fs::read(&path).expect("readable");
        for damaged in [
            &bytes[..bytes.len() - 1],
            &bytes[..5],
            &[],
            &[&bytes[..100], &[bytes[100] ^ 4], &bytes[101..]].concat(),
        ] {
            std::fs::write(&path, damaged).expect("writable");
            if damaged.len() < MAGIC.len() {
                let error = UnitReader::open(&path).map(drop).expect_err("too short").to_string();
                assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
            }
            assert!(!is_complete(&path).expect("readable"));
            assert!(!path.exists());
        }
        assert!(!is_complete(&path).expect("absent is not complete"));
    }
}
