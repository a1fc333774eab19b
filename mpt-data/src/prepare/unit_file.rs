//! The file of a work unit: what became of each document, with its tokens; whole only if its checksum says so.
//!
//! `"mptunit4"`, u8 bytes per token, then records, then u64 XXH3-64 of all before. A record begins with a byte:
//! 0 a document that passed the filters (id, u128 hash of its text, u64 bytes of text, u64 tokens as read, u8 whether it was
//! edited, u64 bytes of each of the parts that follow: u32 signature, u128 hashes of paragraphs, text, tokens), 1 one that
//! did not (id, rule, value, u64 tokens as read), 255 the end (u64 fields seen). Numbers are little-endian, texts have a u32
//! length. Parts that no stage of deduplication asks for are empty.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::unit::{DroppedDocument, TokenizedDocument, Unit, UnitSink};
use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::filter::{self, DropReason};
use crate::layout::{get_tokens, put_tokens};
use crate::mapped_file::MappedFile;

/// The version of the form of these files.
pub(super) const VERSION: u32 = 4;
const MAGIC: &[u8; 8] = b"mptunit4";
const KEPT: u8 = 0;
const DROPPED: u8 = 1;
const END: u8 = 255;
/// The parts of a document.
const PARTS: usize = 4;
const SIGNATURE: usize = 0;
const PARAGRAPHS: usize = 1;
const TEXT: usize = 2;
const TOKENS: usize = 3;

/// Whether the file is there and whole. One that is not whole is removed.
pub(super) fn is_whole(path: &Path) -> Result<bool> {
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
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..piece])?;
        hash.update(&buffer[..piece]);
        left -= piece as u64;
    }
    let mut sum = [0; 8];
    file.read_exact(&mut sum)?;
    Ok(hash.digest() == u64::from_le_bytes(sum))
}

/// Writes the files of units, one after the other.
pub(super) struct UnitWriter<'a> {
    dir: &'a Path,
    token_bytes: usize,
    open: Option<OpenUnit>,
}

struct OpenUnit {
    path: PathBuf,
    file: AtomicFile,
    hash: Xxh3,
    record: Vec<u8>,
}

impl<'a> UnitWriter<'a> {
    pub(super) fn new(dir: &'a Path, token_bytes: usize) -> Self {
        Self { dir, token_bytes, open: None }
    }

    fn open(&mut self) -> &mut OpenUnit {
        self.open.as_mut().expect("a unit has begun")
    }
}

impl UnitSink for UnitWriter<'_> {
    fn begin(&mut self, unit: &Unit) -> Result<()> {
        let path = self.dir.join(&unit.name);
        let mut open =
            OpenUnit { file: AtomicFile::create(&path)?, path, hash: Xxh3::new(), record: Vec::new() };
        open.record.extend(MAGIC);
        open.record.push(self.token_bytes as u8);
        open.write()?;
        self.open = Some(open);
        Ok(())
    }

    fn keep(&mut self, document: &TokenizedDocument<'_>) -> Result<()> {
        let token_bytes = self.token_bytes;
        let open = self.open();
        open.record.push(KEPT);
        open.text(document.id);
        open.record.extend(document.text_hash.to_le_bytes());
        open.record.extend(document.text_bytes.to_le_bytes());
        open.record.extend(document.tokens_read.to_le_bytes());
        open.record.push(u8::from(document.is_edited));
        let sketch = document.sketch;
        let text = sketch.text.as_deref().unwrap_or_default();
        let tokens = document.tokens.len() * token_bytes;
        for bytes in [4 * sketch.signature.len(), 16 * sketch.paragraphs.len(), text.len(), tokens] {
            open.record.extend((bytes as u64).to_le_bytes());
        }
        open.record.extend(sketch.signature.iter().flat_map(|hash| hash.to_le_bytes()));
        open.record.extend(sketch.paragraphs.iter().flat_map(|hash| hash.to_le_bytes()));
        open.record.extend(text.as_bytes());
        put_tokens(document.tokens, token_bytes, &mut open.record);
        open.write()
    }

    fn drop(&mut self, document: &DroppedDocument<'_>) -> Result<()> {
        let open = self.open();
        open.record.push(DROPPED);
        open.text(document.id);
        open.text(document.drop.rule);
        open.text(&document.drop.value);
        open.record.extend(document.tokens_read.to_le_bytes());
        open.write()
    }

    fn end(&mut self, fields_seen: u64) -> Result<()> {
        let mut open = self.open.take().expect("a unit has begun");
        open.record.push(END);
        open.record.extend(fields_seen.to_le_bytes());
        open.write()?;
        open.record.extend(open.hash.digest().to_le_bytes());
        open.write()?;
        open.file.commit()
    }
}

impl OpenUnit {
    fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("ids and values are parts of a line");
        self.record.extend(length.to_le_bytes());
        self.record.extend(text.as_bytes());
    }

    fn write(&mut self) -> Result<()> {
        self.hash.update(&self.record);
        self.file.write_all(&self.record).map_err(Error::io(&self.path, "writing"))?;
        self.record.clear();
        Ok(())
    }
}

/// What became of a document in its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UnitRecord {
    /// It passed the filters; its parts come next.
    Kept(PassedRecord),
    /// It did not.
    Dropped {
        /// Its id.
        id: String,
        /// Why.
        drop: DropReason,
        /// The tokens of its text as read, none added.
        tokens_read: u64,
    },
}

/// A document that passed the filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassedRecord {
    /// Its id.
    pub(super) id: String,
    /// The hash of its text.
    pub(super) text_hash: u128,
    /// Bytes of its text.
    pub(super) text_bytes: u64,
    /// The tokens of its text as read, none added.
    pub(super) tokens_read: u64,
    /// Whether filters edited it.
    pub(super) is_edited: bool,
    /// Its tokens, none added.
    pub(super) tokens: u64,
    /// Where its record begins in the file.
    pub(super) at: u64,
}

/// Reads the file of a unit. The parts of a document are read in their order, and skipped where they are not asked for.
pub(super) struct UnitReader {
    path: PathBuf,
    input: Cursor<MappedFile>,
    token_bytes: usize,
    at: u64,
    /// Bytes of the parts not yet read.
    unread: [u64; PARTS],
    fields_seen: Option<u64>,
}

impl UnitReader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "opening"))?;
        let map = MappedFile::new(&file).map_err(Error::io(path, "mapping"))?;
        let mut reader = Self {
            path: path.to_owned(),
            input: Cursor::new(map),
            token_bytes: 0,
            at: 0,
            unread: [0; PARTS],
            fields_seen: None,
        };
        if reader.take::<8>()? != *MAGIC {
            return Err(reader.damaged("not a unit of this version"));
        }
        let [token_bytes] = reader.take()?;
        reader.token_bytes = usize::from(token_bytes);
        Ok(reader)
    }

    /// The next document; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<UnitRecord>> {
        self.skip_to(PARTS)?;
        let at = self.at;
        let [kind] = self.take()?;
        match kind {
            KEPT => Ok(Some(UnitRecord::Kept(self.kept(at)?))),
            DROPPED => self.dropped().map(Some),
            END => {
                self.fields_seen = Some(self.number()?);
                Ok(None)
            }
            _ => Err(self.damaged("an unknown record")),
        }
    }

    /// Appends the tokens of the document that was just given.
    pub(super) fn tokens(&mut self, out: &mut Vec<u32>) -> Result<()> {
        let bytes = self.part(TOKENS)?;
        let mut buffer = [0; 1 << 13];
        let mut left = bytes;
        while left > 0 {
            let piece = &mut buffer[..left.min(1 << 13) as usize];
            self.input.read_exact(piece).map_err(Error::io(&self.path, "reading"))?;
            get_tokens(piece, self.token_bytes, out);
            left -= piece.len() as u64;
        }
        self.at += bytes;
        Ok(())
    }

    /// The signature of the document that was just given.
    pub(super) fn signature(&mut self) -> Result<Vec<u32>> {
        let bytes = self.bytes(SIGNATURE)?;
        Ok(bytes.chunks_exact(4).map(|hash| u32::from_le_bytes(hash.try_into().expect("4 bytes"))).collect())
    }

    /// The hashes of its paragraphs.
    pub(super) fn paragraphs(&mut self) -> Result<Vec<u128>> {
        let bytes = self.bytes(PARAGRAPHS)?;
        let hash = |hash: &[u8]| u128::from_le_bytes(hash.try_into().expect("16 bytes"));
        Ok(bytes.chunks_exact(16).map(hash).collect())
    }

    /// Its text.
    pub(super) fn document_text(&mut self) -> Result<String> {
        let bytes = self.bytes(TEXT)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))
    }

    /// Which of the filters' fields some document had; known after the last document.
    pub(super) fn fields_seen(&self) -> u64 {
        self.fields_seen.expect("the unit was read to its end")
    }

    /// The id of the document whose record begins at `at`.
    pub(super) fn id_at(path: &Path, at: u64) -> Result<String> {
        Ok(Self::kept_at(path, at)?.1.id)
    }

    /// The signature of the document whose record begins at `at`.
    pub(super) fn signature_at(path: &Path, at: u64) -> Result<Vec<u32>> {
        Self::kept_at(path, at)?.0.signature()
    }

    fn kept_at(path: &Path, at: u64) -> Result<(Self, PassedRecord)> {
        let mut reader = Self::open(path)?;
        // Past the byte that says what the record is.
        reader.input.seek(SeekFrom::Start(at + 1)).map_err(Error::io(path, "reading"))?;
        let kept = reader.kept(at)?;
        Ok((reader, kept))
    }

    fn kept(&mut self, at: u64) -> Result<PassedRecord> {
        let id = self.text()?;
        let text_hash = u128::from_le_bytes(self.take()?);
        let (text_bytes, tokens_read) = (self.number()?, self.number()?);
        let [is_edited] = self.take()?;
        for part in 0..PARTS {
            self.unread[part] = self.number()?;
        }
        let tokens = self.unread[TOKENS] / self.token_bytes as u64;
        Ok(PassedRecord { id, text_hash, text_bytes, tokens_read, is_edited: is_edited == 1, tokens, at })
    }

    fn dropped(&mut self) -> Result<UnitRecord> {
        let (id, rule, value) = (self.text()?, self.text()?, self.text()?);
        let rule = filter::rule(&rule).ok_or_else(|| self.damaged("an unknown rule"))?;
        Ok(UnitRecord::Dropped { id, drop: DropReason { rule, value }, tokens_read: self.number()? })
    }

    /// Goes to the beginning of a part, past those before it.
    fn skip_to(&mut self, part: usize) -> Result<()> {
        let bytes = self.unread[..part].iter_mut().map(std::mem::take).fold(0, u64::saturating_add);
        let distance = i64::try_from(bytes).map_err(|_| self.damaged("an impossible length"))?;
        self.input.seek_relative(distance).map_err(Error::io(&self.path, "reading"))?;
        self.at += bytes;
        Ok(())
    }

    /// Goes to the beginning of a part, which the caller reads now, and says how long it is.
    fn part(&mut self, part: usize) -> Result<u64> {
        self.skip_to(part)?;
        Ok(std::mem::take(&mut self.unread[part]))
    }

    /// All of a part.
    fn bytes(&mut self, part: usize) -> Result<Vec<u8>> {
        let length = self.part(part)?;
        self.check_length(length)?;
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(Error::io(&self.path, "reading"))?;
        self.at += length;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String> {
        let length = u32::from_le_bytes(self.take()?);
        self.check_length(length.into())?;
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(Error::io(&self.path, "reading"))?;
        self.at += u64::from(length);
        String::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))
    }

    /// Nothing is longer than what is left of the file.
    fn check_length(&self, length: u64) -> Result<()> {
        let bytes = self.input.get_ref().as_ref().len() as u64;
        let left = bytes.saturating_sub(self.input.position());
        if length <= left { Ok(()) } else { Err(self.damaged("an impossible length")) }
    }

    fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(Error::io(&self.path, "reading"))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::Unit { path: self.path.clone(), problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sketch::Sketch;
    use super::*;

    fn write(dir: &Path) -> PathBuf {
        let mut files = UnitWriter { dir, token_bytes: 2, open: None };
        files.begin(&Unit { name: "u".into(), source: 0, inputs: Vec::new() }).expect("begun");
        let tokens: Vec<_> = (0..70_000u32).map(|at| at % 50_000).collect();
        for (id, tokens) in [("a", &tokens[..]), ("b", &[]), ("é", &tokens[3..5])] {
            let (text_hash, tokens_read) = (1 << 100, tokens.len() as u64 + 3);
            let sketch =
                &Sketch { signature: vec![7, 8], paragraphs: vec![1 << 90], text: Some(id.repeat(3)) };
            let is_edited = id == "b";
            let kept =
                TokenizedDocument { id, text_hash, text_bytes: 7, sketch, tokens, tokens_read, is_edited };
            files.keep(&kept).expect("kept");
            let drop = &DropReason { rule: "empty", value: "0 bytes".into() };
            files.drop(&DroppedDocument { id: "x", drop, tokens_read: 9 }).expect("dropped");
        }
        files.end(5).expect("ended");
        dir.join("u")
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = write(dir.path());
        assert!(is_whole(&path).expect("readable"));
        let mut reader = UnitReader::open(&path).expect("openable");
        let (mut ids, mut places, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(entry) = reader.next().expect("sound") {
            match entry {
                UnitRecord::Kept(kept) => {
                    assert_eq!((kept.tokens_read, kept.is_edited), (kept.tokens + 3, kept.id == "b"));
                    // The parts of the first document are skipped.
                    if kept.id != "a" {
                        assert_eq!(reader.paragraphs().expect("sound"), [1 << 90]);
                        assert_eq!(reader.document_text().expect("sound"), kept.id.repeat(3));
                        reader.tokens(&mut tokens).expect("sound");
                    }
                    ids.push(kept.id);
                    places.push(kept.at);
                }
                UnitRecord::Dropped { id, drop, tokens_read } => {
                    assert_eq!((id.as_str(), drop.rule, drop.value.as_str()), ("x", "empty", "0 bytes"));
                    assert_eq!(tokens_read, 9);
                }
            }
        }
        assert_eq!(ids, ["a", "b", "é"]);
        assert_eq!(tokens, [3, 4]);
        assert_eq!(reader.fields_seen(), 5);
        for (id, place) in ids.iter().zip(places) {
            assert_eq!(&UnitReader::id_at(&path, place).expect("sound"), id);
            assert_eq!(UnitReader::signature_at(&path, place).expect("sound"), [7, 8]);
        }
    }

    /// As many paragraphs as a document of 18 million has.
    #[test]
    fn a_part_may_be_as_long_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut files = UnitWriter { dir: dir.path(), token_bytes: 2, open: None };
        files.begin(&Unit { name: "u".into(), source: 0, inputs: Vec::new() }).expect("begun");
        let sketch = &Sketch { signature: Vec::new(), paragraphs: vec![7; 18_000_000], text: None };
        let kept = TokenizedDocument {
            id: "a",
            text_hash: 1,
            text_bytes: 7,
            sketch,
            tokens: &[1],
            tokens_read: 1,
            is_edited: false,
        };
        files.keep(&kept).expect("kept");
        files.end(0).expect("ended");
        let mut reader = UnitReader::open(&dir.path().join("u")).expect("openable");
        assert!(matches!(reader.next(), Ok(Some(UnitRecord::Kept(_)))));
        assert_eq!(reader.paragraphs().expect("sound").len(), 18_000_000);
    }

    #[test]
    fn what_is_not_whole_is_removed() {
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
            assert!(!is_whole(&path).expect("readable"));
            assert!(!path.exists());
        }
        assert!(!is_whole(&path).expect("absent is not whole"));
    }
}
