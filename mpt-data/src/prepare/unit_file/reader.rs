//! Reads the file of a unit, record by record.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{DROPPED, END, MAGIC, PARAGRAPHS, PASSED, SECTIONS, SIGNATURE, TEXT, TOKENS};
use crate::error::{Error, Result};
use crate::filter::{self, DropReason};
use crate::layout::decode_tokens;
use crate::mapped_file::MappedFile;
use crate::prepare::unit::{DocumentHeader, DroppedDocument, UnitRecord};

/// Bytes of tokens decoded at once.
const DECODE_BYTES: usize = 1 << 13;

/// Document that passed the filters, in a unit's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::prepare) struct DocumentRecord {
    /// Facts about the document.
    pub(in crate::prepare) header: DocumentHeader,
    /// Offset of the record in the file.
    pub(in crate::prepare) offset: u64,
}

/// Reader of a unit's file. Sections of a document are read in their order; sections not asked for are skipped.
pub(in crate::prepare) struct UnitReader {
    path: PathBuf,
    input: Cursor<MappedFile>,
    token_bytes: usize,
    offset: u64,
    /// Bytes of the sections not yet read.
    unread: [u64; SECTIONS],
    fields_seen: Option<u64>,
}

impl UnitReader {
    pub(in crate::prepare) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "opening"))?;
        let map = MappedFile::new(&file).map_err(Error::io(path, "mapping"))?;
        let mut reader = Self {
            path: path.to_owned(),
            input: Cursor::new(map),
            token_bytes: 0,
            offset: 0,
            unread: [0; SECTIONS],
            fields_seen: None,
        };
        if reader.take::<8>()? != *MAGIC {
            return Err(reader.damaged("not a unit of this version"));
        }
        let [token_bytes] = reader.take()?;
        reader.token_bytes = usize::from(token_bytes);
        Ok(reader)
    }

    /// Next document; `None` after the last.
    pub(in crate::prepare) fn next(&mut self) -> Result<Option<UnitRecord<DocumentRecord>>> {
        self.skip_to(SECTIONS)?;
        let offset = self.offset;
        let [kind] = self.take()?;
        match kind {
            PASSED => Ok(Some(UnitRecord::Passed(self.passed(offset)?))),
            DROPPED => Ok(Some(UnitRecord::Dropped(self.dropped()?))),
            END => {
                self.fields_seen = Some(self.number()?);
                Ok(None)
            }
            _ => Err(self.damaged("an unknown record")),
        }
    }

    /// Appends the tokens of the current document.
    pub(in crate::prepare) fn tokens(&mut self, out: &mut Vec<u32>) -> Result<()> {
        let bytes = self.begin_section(TOKENS)?;
        let mut buffer = [0; DECODE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let chunk = &mut buffer[..left.min(DECODE_BYTES as u64) as usize];
            self.input.read_exact(chunk).map_err(Error::io(&self.path, "reading"))?;
            decode_tokens(chunk, self.token_bytes, out);
            left -= chunk.len() as u64;
        }
        self.offset += bytes;
        Ok(())
    }

    /// MinHash signature of the current document.
    pub(in crate::prepare) fn signature(&mut self) -> Result<Vec<u32>> {
        let bytes = self.section(SIGNATURE)?;
        Ok(bytes.chunks_exact(4).map(|hash| u32::from_le_bytes(hash.try_into().expect("4 bytes"))).collect())
    }

    /// Paragraph hashes of the current document.
    pub(in crate::prepare) fn paragraphs(&mut self) -> Result<Vec<u128>> {
        let bytes = self.section(PARAGRAPHS)?;
        let hash = |hash: &[u8]| u128::from_le_bytes(hash.try_into().expect("16 bytes"));
        Ok(bytes.chunks_exact(16).map(hash).collect())
    }

    /// Text of the current document.
    pub(in crate::prepare) fn document_text(&mut self) -> Result<String> {
        let bytes = self.section(TEXT)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))
    }

    /// Fields of the filters that some document had, one bit each; known after the last document.
    pub(in crate::prepare) fn fields_seen(&self) -> u64 {
        self.fields_seen.expect("the unit was read to its end")
    }

    /// Id of the document whose record is at `offset`.
    pub(in crate::prepare) fn id_at(path: &Path, offset: u64) -> Result<String> {
        Ok(Self::at(path, offset)?.1.header.id)
    }

    /// Signature of the document whose record is at `offset`.
    pub(in crate::prepare) fn signature_at(path: &Path, offset: u64) -> Result<Vec<u32>> {
        Self::at(path, offset)?.0.signature()
    }

    fn at(path: &Path, offset: u64) -> Result<(Self, DocumentRecord)> {
        let mut reader = Self::open(path)?;
        // Past the byte with the kind of the record.
        reader.input.seek(SeekFrom::Start(offset + 1)).map_err(Error::io(path, "reading"))?;
        let passed = reader.passed(offset)?;
        Ok((reader, passed))
    }

    fn passed(&mut self, offset: u64) -> Result<DocumentRecord> {
        let id = self.text()?;
        let text_hash = u128::from_le_bytes(self.take()?);
        let (text_bytes, tokens_read) = (self.number()?, self.number()?);
        let [is_edited] = self.take()?;
        for section in 0..SECTIONS {
            self.unread[section] = self.number()?;
        }
        let tokens = self.unread[TOKENS] / self.token_bytes as u64;
        let header =
            DocumentHeader { id, text_hash, text_bytes, tokens_read, tokens, is_edited: is_edited == 1 };
        Ok(DocumentRecord { header, offset })
    }

    fn dropped(&mut self) -> Result<DroppedDocument> {
        let (id, rule, value) = (self.text()?, self.text()?, self.text()?);
        let rule = filter::rule(&rule).ok_or_else(|| self.damaged("an unknown rule"))?;
        Ok(DroppedDocument { id, reason: DropReason { rule, value }, tokens_read: self.number()? })
    }

    /// Moves to the beginning of a section, past unread ones before it.
    fn skip_to(&mut self, section: usize) -> Result<()> {
        let bytes = self.unread[..section].iter_mut().map(std::mem::take).fold(0, u64::saturating_add);
        let distance = i64::try_from(bytes).map_err(|_| self.damaged("an impossible length"))?;
        self.input.seek_relative(distance).map_err(Error::io(&self.path, "reading"))?;
        self.offset += bytes;
        Ok(())
    }

    /// Moves to the beginning of a section, which the caller must read to its end, and returns its length.
    fn begin_section(&mut self, section: usize) -> Result<u64> {
        self.skip_to(section)?;
        Ok(std::mem::take(&mut self.unread[section]))
    }

    /// Bytes of a section.
    fn section(&mut self, section: usize) -> Result<Vec<u8>> {
        let length = self.begin_section(section)?;
        self.bytes(length)
    }

    fn text(&mut self) -> Result<String> {
        let length = u32::from_le_bytes(self.take()?);
        let bytes = self.bytes(length.into())?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text that is not UTF-8"))
    }

    /// Next `length` bytes, which must be in the file.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        let file_bytes = self.input.get_ref().as_ref().len() as u64;
        if length > file_bytes.saturating_sub(self.input.position()) {
            return Err(self.damaged("an impossible length"));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(Error::io(&self.path, "reading"))?;
        self.offset += length;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(Error::io(&self.path, "reading"))?;
        self.offset += N as u64;
        Ok(bytes)
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::Unit { path: self.path.clone(), problem: problem.to_owned() }
    }
}
