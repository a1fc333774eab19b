//! Writes the files of units, one after the other.

use std::io::Write;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::{DROPPED, END, MAGIC, PASSED};
use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::layout::encode_tokens;
use crate::prepare::unit::{DroppedDocument, TokenizedDocument, Unit, UnitSink};

/// Writer of the files of units in one folder.
pub(in crate::prepare) struct UnitWriter<'a> {
    dir: &'a Path,
    token_bytes: usize,
    open: Option<OpenUnit>,
}

/// File being written.
struct OpenUnit {
    path: PathBuf,
    file: AtomicFile,
    hash: Xxh3,
    /// Bytes of the current record.
    record: Vec<u8>,
}

impl<'a> UnitWriter<'a> {
    pub(in crate::prepare) fn new(dir: &'a Path, token_bytes: usize) -> Self {
        Self { dir, token_bytes, open: None }
    }

    fn open(&mut self) -> &mut OpenUnit {
        self.open.as_mut().expect("a unit has begun")
    }
}

impl UnitSink for UnitWriter<'_> {
    fn begin(&mut self, unit: &Unit) -> Result<()> {
        let path = self.dir.join(&unit.name);
        let file = AtomicFile::create(&path)?;
        let mut open = OpenUnit { file, path, hash: Xxh3::new(), record: Vec::new() };
        open.record.extend(MAGIC);
        open.record.push(self.token_bytes as u8);
        open.write()?;
        self.open = Some(open);
        Ok(())
    }

    fn keep(&mut self, document: &TokenizedDocument) -> Result<()> {
        let token_bytes = self.token_bytes;
        let (header, sketch) = (&document.header, &document.sketch);
        let open = self.open();
        open.record.push(PASSED);
        open.text(&header.id);
        open.record.extend(header.text_hash.to_le_bytes());
        open.record.extend(header.text_bytes.to_le_bytes());
        open.record.extend(header.tokens_read.to_le_bytes());
        open.record.push(u8::from(header.is_edited));
        let text = sketch.text.as_deref().unwrap_or_default();
        let tokens = document.tokens.len() * token_bytes;
        for bytes in [4 * sketch.signature.len(), 16 * sketch.paragraphs.len(), text.len(), tokens] {
            open.record.extend((bytes as u64).to_le_bytes());
        }
        open.record.extend(sketch.signature.iter().flat_map(|hash| hash.to_le_bytes()));
        open.record.extend(sketch.paragraphs.iter().flat_map(|hash| hash.to_le_bytes()));
        open.record.extend(text.as_bytes());
        encode_tokens(&document.tokens, token_bytes, &mut open.record);
        open.write()
    }

    fn drop(&mut self, document: &DroppedDocument) -> Result<()> {
        let open = self.open();
        open.record.push(DROPPED);
        open.text(&document.id);
        open.text(document.reason.rule);
        open.text(&document.reason.value);
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
