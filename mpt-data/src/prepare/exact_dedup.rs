//! Exact deduplication, in one pass over all units in the order of sources and documents: copies of earlier texts are dropped,
//! and paragraphs of earlier documents are removed from later ones.
//!
//! Memory is up to 76 bytes a document and 40 a paragraph.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use mpt_tokenize::Tokenizer;
use serde_json::json;

use super::edit_writer::EditWriter;
use super::plan::PlannedRun;
use super::unit::{Unit, UnitRecord};
use super::unit_file::{self, DocumentRecord, UnitReader};
use super::unit_iter::{DedupOutcome, DedupOutcomes, Duplicate, RecordLocation, UnitPaths};
use crate::dedup::{self, DedupKind};
use crate::error::{Error, Result};
use crate::filter;
use crate::hash;
use crate::progress::Progress;

/// Bytes of edited text that are tokenized at once.
const BATCH_BYTES: usize = 8 << 20;

/// Deduplicates all units. Edited documents of a unit are written to a file in `dir`.
pub(super) fn exact_dedup(
    planned: &PlannedRun<'_>,
    paths: &mut UnitPaths,
    dir: &Path,
    tokenizer: &Tokenizer,
    progress: &mut dyn Progress,
) -> Result<DedupOutcomes> {
    let (mut seen, mut outcomes) = (SeenHashes::default(), Vec::with_capacity(planned.units.len()));
    let mut name = hash::sha256(json!(["edits", unit_file::VERSION]).to_string().as_bytes());
    for (index, unit) in planned.units.iter().enumerate() {
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
        name = next_name(&name, planned, unit);
        let edits = EditWriter::new(planned, dir, unit, &name)?;
        let mut pass = ExactPass { planned, unit, index, tokenizer, seen: &mut seen, edits };
        outcomes.push(pass.run(&paths.units[index], progress)?);
        paths.edits[index] = pass.edits.finish()?;
    }
    Ok(outcomes)
}

/// Name of a unit's edited documents: the hash of everything that decides them, which is the unit and all units before it.
fn next_name(before: &str, planned: &PlannedRun<'_>, unit: &Unit) -> String {
    let takes_part = |kind| planned.run.goes_through(unit.source, kind);
    let decides = json!({
        "before": before, "unit": unit.name,
        "exact": takes_part(DedupKind::Exact), "paragraph": takes_part(DedupKind::Paragraph),
    });
    hash::sha256(decides.to_string().as_bytes())
}

/// Hashes of earlier documents.
#[derive(Default)]
struct SeenHashes {
    /// Location of the first document with each text.
    texts: HashMap<u128, RecordLocation>,
    paragraphs: HashSet<u128>,
}

/// Pass over one unit.
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
        let mut outcomes = Vec::new();
        while let Some(record) = reader.next()? {
            let UnitRecord::Passed(record) = record else { continue };
            outcomes.push(self.document(record, &mut reader)?);
            if self.edits.waiting_bytes() >= BATCH_BYTES {
                self.edits.flush(self.tokenizer)?;
                if !progress.keep_going() {
                    return Err(Error::Interrupted);
                }
            }
        }
        self.edits.flush(self.tokenizer)?;
        Ok(outcomes)
    }

    fn document(&mut self, record: DocumentRecord, reader: &mut UnitReader) -> Result<DedupOutcome> {
        let dropped = |duplicate| Ok(DedupOutcome { is_edited: false, duplicate: Some(duplicate) });
        if let Some(first) = self.first_copy(&record) {
            return dropped(Duplicate::Exact(first));
        }
        if !self.planned.run.goes_through(self.unit.source, DedupKind::Paragraph) {
            return Ok(DedupOutcome::default());
        }
        let hashes = reader.paragraphs()?;
        let removed: Vec<_> = hashes.iter().map(|hash| self.seen.paragraphs.contains(hash)).collect();
        self.seen.paragraphs.extend(hashes.iter().filter(|hash| **hash != dedup::SHORT_PARAGRAPH));
        let count = removed.iter().filter(|removed| **removed).count();
        if count == 0 {
            return Ok(DedupOutcome::default());
        }
        let text = dedup::remove_paragraphs(&reader.document_text()?, &removed);
        if filter::check_empty(&text).is_some() {
            return dropped(Duplicate::Paragraphs(u32::try_from(count).unwrap_or(u32::MAX)));
        }
        self.edits.push(record.header, text);
        Ok(DedupOutcome { is_edited: true, duplicate: None })
    }

    /// Location of the first document with the same text; `None` for that document itself.
    fn first_copy(&mut self, record: &DocumentRecord) -> Option<RecordLocation> {
        if !self.planned.run.goes_through(self.unit.source, DedupKind::Exact) {
            return None;
        }
        let unit = u32::try_from(self.index).expect("units are fewer than 2^32");
        let here = RecordLocation { unit, is_edited: false, offset: record.offset };
        let first = *self.seen.texts.entry(record.header.text_hash).or_insert(here);
        (first != here).then_some(first)
    }
}
