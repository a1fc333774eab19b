//! One pass over all units, in the order of sources and documents: copies of earlier texts go, and paragraphs that earlier
//! documents have are taken out of later ones.
//!
//! Held are up to 76 bytes of a document for its text, and 40 of a paragraph. A unit's edited documents are a file of
//! their own, named after everything that decides them: itself and all units before it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::PlannedRun;
use super::sketch::Sketch;
use super::unit::{TokenizedDocument, Unit, UnitSink};
use super::unit_file::{self, PassedRecord, UnitReader, UnitRecord, UnitWriter};

use super::unit_iter::{DedupOutcome, Duplicate, RecordLocation, UnitPaths};
use crate::dedup::{self, DedupKind};
use crate::error::{Error, Result};
use crate::filter;
use crate::filter::ngrams::NgramHashes;
use crate::hash;
use crate::progress::Progress;

/// Text tokenized at once.
const BATCH_BYTES: usize = 8 << 20;

/// What the pass found: per unit, what became of each document that passed the filters.
pub(super) type DedupOutcomes = Vec<Vec<DedupOutcome>>;

/// Screens all units; those with edited documents get a file of them in `dir`.
pub(super) fn screen(
    planned: &PlannedRun<'_>,
    files: &mut UnitPaths,
    dir: &Path,
    tokenizer: &Tokenizer,
    progress: &mut dyn Progress,
) -> Result<DedupOutcomes> {
    let (mut seen, mut fates) = (SeenHashes::default(), Vec::with_capacity(planned.units.len()));
    let mut name = hash::sha256(json!(["edits", unit_file::VERSION]).to_string().as_bytes());
    for (index, unit) in planned.units.iter().enumerate() {
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
        name = next_name(&name, planned, unit);
        let edits = EditWriter::new(planned, dir, unit, &name)?;
        let mut screen = ExactPass { planned, unit, index, tokenizer, seen: &mut seen, edits };
        fates.push(screen.run(&files.units[index], progress)?);
        files.edits[index] = screen.edits.finish()?;
    }
    Ok(fates)
}

/// The name of the edited documents of the next unit.
fn next_name(before: &str, planned: &PlannedRun<'_>, unit: &Unit) -> String {
    let takes_part = |kind| planned.run.goes_through(unit.source, kind);
    let decides = json!({
        "before": before, "unit": unit.name,
        "exact": takes_part(DedupKind::Exact), "paragraph": takes_part(DedupKind::Paragraph),
    });
    hash::sha256(decides.to_string().as_bytes())
}

/// What was in the documents before.
#[derive(Default)]
struct SeenHashes {
    /// Where the first document with a text is.
    texts: HashMap<u128, RecordLocation>,
    paragraphs: HashSet<u128>,
}

struct ExactPass<'a> {
    planned: &'a PlannedRun<'a>,
    unit: &'a Unit,
    index: usize,
    tokenizer: &'a Tokenizer,
    seen: &'a mut SeenHashes,
    edits: EditWriter<'a>,
}

impl ExactPass<'_> {
    fn run(&mut self, path: &Path, progress: &mut dyn Progress) -> Result<Vec<DedupOutcome>> {
        let mut reader = UnitReader::open(path)?;
        let mut fates = Vec::new();
        while let Some(entry) = reader.next()? {
            let UnitRecord::Kept(entry) = entry else { continue };
            fates.push(self.document(entry, &mut reader)?);
            if self.edits.bytes >= BATCH_BYTES {
                self.edits.flush(self.tokenizer)?;
                if !progress.keep_going() {
                    return Err(Error::Interrupted);
                }
            }
        }
        self.edits.flush(self.tokenizer)?;
        Ok(fates)
    }

    fn document(&mut self, entry: PassedRecord, reader: &mut UnitReader) -> Result<DedupOutcome> {
        let gone = |gone| Ok(DedupOutcome { is_edited: false, gone: Some(gone) });
        if let Some(first) = self.copy_of(&entry) {
            return gone(Duplicate::Exact(first));
        }
        if !self.planned.run.goes_through(self.unit.source, DedupKind::Paragraph) {
            return Ok(DedupOutcome::default());
        }
        let hashes = reader.paragraphs()?;
        let goes: Vec<_> = hashes.iter().map(|hash| self.seen.paragraphs.contains(hash)).collect();
        self.seen.paragraphs.extend(hashes.iter().filter(|hash| **hash != dedup::SHORT));
        let count = goes.iter().filter(|goes| **goes).count();
        if count == 0 {
            return Ok(DedupOutcome::default());
        }
        let text = dedup::without_paragraphs(&reader.document_text()?, &goes);
        if filter::empty(&text).is_some() {
            return gone(Duplicate::Paragraphs(u32::try_from(count).unwrap_or(u32::MAX)));
        }
        self.edits.push(entry, text);
        Ok(DedupOutcome { is_edited: true, gone: None })
    }

    /// The first document with the same text, if this is not the one.
    fn copy_of(&mut self, entry: &PassedRecord) -> Option<RecordLocation> {
        if !self.planned.run.goes_through(self.unit.source, DedupKind::Exact) {
            return None;
        }
        let unit = u32::try_from(self.index).expect("units are fewer than 2^32");
        let here = RecordLocation { unit, is_edited: false, at: entry.at };
        let first = *self.seen.texts.entry(entry.text_hash).or_insert(here);
        (first != here).then_some(first)
    }
}

/// Writes the edited documents of a unit, unless they are there.
struct EditWriter<'a> {
    planned: &'a PlannedRun<'a>,
    /// The unit that they make.
    unit: Unit,
    path: std::path::PathBuf,
    is_there: bool,
    writer: UnitWriter<'a>,
    is_open: bool,
    waiting: Vec<(PassedRecord, String)>,
    bytes: usize,
}

impl<'a> EditWriter<'a> {
    fn new(planned: &'a PlannedRun<'a>, dir: &'a Path, unit: &Unit, name: &str) -> Result<Self> {
        let name = format!("{}.edits", &name[..32]);
        let path = dir.join(&name);
        let has_edits = planned.run.goes_through(unit.source, DedupKind::Paragraph);
        Ok(Self {
            planned,
            is_there: has_edits && unit_file::is_whole(&path)?,
            unit: Unit { name, source: unit.source, inputs: Vec::new() },
            path,
            writer: UnitWriter::new(dir, planned.layout.token_bytes),
            is_open: false,
            waiting: Vec::new(),
            bytes: 0,
        })
    }

    fn push(&mut self, entry: PassedRecord, text: String) {
        if !self.is_there {
            self.bytes += text.len();
            self.waiting.push((entry, text));
        }
    }

    fn flush(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        if !self.is_open {
            self.writer.begin(&self.unit)?;
            self.is_open = true;
        }
        let sketcher = &self.planned.sketchers[self.unit.source];
        let sketch = |runs: &mut NgramHashes, (_, text): &(PassedRecord, String)| Sketch {
            signature: sketcher.signature(text, runs),
            ..Sketch::default()
        };
        let sketches: Vec<_> = waiting.par_iter().map_init(NgramHashes::default, sketch).collect();
        let texts: Vec<_> = waiting.iter().map(|(_, text)| text.as_str()).collect();
        let encoded = tokenizer.encode_batch(&texts);
        let encoded = encoded.map_err(|source| Error::Tokenizer { path: self.path.clone(), source })?;
        for (((entry, text), sketch), tokens) in waiting.iter().zip(&sketches).zip(&encoded) {
            self.writer.keep(&TokenizedDocument {
                id: &entry.id,
                text_hash: xxh3_128(text.as_bytes()),
                text_bytes: text.len() as u64,
                sketch,
                tokens,
                tokens_read: entry.tokens_read,
                is_edited: true,
            })?;
        }
        Ok(())
    }

    /// The file, if there are edited documents.
    fn finish(mut self) -> Result<Option<std::path::PathBuf>> {
        if self.is_open {
            self.writer.end(0)?;
        }
        Ok((self.is_there || self.is_open).then_some(self.path))
    }
}
