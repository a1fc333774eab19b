//! Documents of a unit after the stages of deduplication, in order.

use std::path::{Path, PathBuf};

use super::unit::{DocumentHeader, UnitRecord};
use super::unit_file::{DocumentRecord, UnitReader};
use crate::dedup::DedupKind;
use crate::error::Result;

/// Files of all units: tokenized documents, and edited documents of the units that have some.
#[derive(Debug)]
pub(super) struct UnitPaths {
    pub(super) units: Vec<PathBuf>,
    pub(super) edits: Vec<Option<PathBuf>>,
}

/// Location of a document's record. Locations in files of one kind are ordered as documents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordLocation {
    /// Index of the unit.
    pub(super) unit: u32,
    /// Whether the record is in the file of edited documents.
    pub(super) is_edited: bool,
    /// Offset of the record in the file.
    pub(super) offset: u64,
}

/// Outcome of deduplication for a document that passed the filters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DedupOutcome {
    /// Whether the unit's file of edited documents has it.
    pub(super) is_edited: bool,
    /// Reason to drop it.
    pub(super) duplicate: Option<Duplicate>,
}

/// Outcomes by unit, of the unit's documents that passed the filters.
pub(super) type DedupOutcomes = Vec<Vec<DedupOutcome>>;

/// Reason of deduplication to drop a document.
#[derive(Debug, Clone, Copy)]
pub(super) enum Duplicate {
    /// Copy of an earlier document.
    Exact(RecordLocation),
    /// All words were in paragraphs of earlier documents; the number of those paragraphs.
    Paragraphs(u32),
    /// Near copy of an earlier document, and their similarity.
    Near(RecordLocation, f32),
    /// Neighbor in meaning of another document, which may be dropped too, and their cosine.
    Semantic(RecordLocation, f32),
}

impl Duplicate {
    /// Stage that dropped the document.
    pub(super) fn stage(self) -> DedupKind {
        match self {
            Self::Exact(_) => DedupKind::Exact,
            Self::Paragraphs(_) => DedupKind::Paragraph,
            Self::Near(..) => DedupKind::MinHash,
            Self::Semantic(..) => DedupKind::SemDedup,
        }
    }
}

/// Document that a later stage compares with others: 24 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) location: RecordLocation,
    /// Index among the unit's documents that passed the filters.
    pub(super) index: u32,
}

impl Candidate {
    /// Marks the document as a duplicate.
    pub(super) fn drop_as(self, duplicate: Duplicate, outcomes: &mut DedupOutcomes) {
        outcomes[self.location.unit as usize][self.index as usize].duplicate = Some(duplicate);
    }
}

impl UnitPaths {
    /// Files of units without edited documents.
    pub(super) fn new(units: Vec<PathBuf>) -> Self {
        let edits = units.iter().map(|_| None).collect();
        Self { units, edits }
    }

    /// Id of a document.
    pub(super) fn id(&self, location: RecordLocation) -> Result<String> {
        UnitReader::id_at(self.path(location), location.offset)
    }

    /// MinHash signature of a document.
    pub(super) fn signature(&self, location: RecordLocation) -> Result<Vec<u32>> {
        UnitReader::signature_at(self.path(location), location.offset)
    }

    fn path(&self, location: RecordLocation) -> &Path {
        let unit = location.unit as usize;
        let edits = self.edits[unit].as_ref().filter(|_| location.is_edited);
        edits.unwrap_or(&self.units[unit])
    }
}

/// Document that passed the filters, with its reader.
pub(super) struct PassedDocument<'a> {
    /// Index among the unit's documents that passed the filters.
    pub(super) index: usize,
    /// Facts about the document, as edited.
    pub(super) header: DocumentHeader,
    /// Tokens before stages of deduplication edited it.
    pub(super) tokens_before: u64,
    /// Location of its record.
    pub(super) location: RecordLocation,
    /// Reader of its sections.
    pub(super) reader: &'a mut UnitReader,
}

impl PassedDocument<'_> {
    /// The document as a candidate of a later stage.
    pub(super) fn candidate(&self) -> Candidate {
        let index = u32::try_from(self.index).expect("documents of a unit are fewer than 2^32");
        Candidate { location: self.location, index }
    }
}

/// Iterator over the documents of a unit.
pub(super) struct UnitIter<'a> {
    unit: usize,
    outcomes: &'a [DedupOutcome],
    next: usize,
    reader: UnitReader,
    edits: Option<UnitReader>,
}

impl<'a> UnitIter<'a> {
    /// Iterator before the first document.
    pub(super) fn new(paths: &UnitPaths, unit: usize, outcomes: &'a [DedupOutcome]) -> Result<Self> {
        let edits = paths.edits[unit].as_deref().map(UnitReader::open).transpose()?;
        Ok(Self { unit, outcomes, next: 0, reader: UnitReader::open(&paths.units[unit])?, edits })
    }

    /// Next document; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<UnitRecord<PassedDocument<'_>>>> {
        let mut record = match self.reader.next()? {
            Some(UnitRecord::Dropped(document)) => return Ok(Some(UnitRecord::Dropped(document))),
            Some(UnitRecord::Passed(record)) => record,
            None => return Ok(None),
        };
        let (index, tokens_before) = (self.next, record.header.tokens);
        self.next += 1;
        let is_edited = self.outcomes.get(index).is_some_and(|outcome| outcome.is_edited);
        let mut reader = &mut self.reader;
        if let Some(edits) = self.edits.as_mut().filter(|_| is_edited) {
            if let Some(UnitRecord::Passed(edited)) = edits.next()? {
                record = edited;
            }
            reader = edits;
        }
        let unit = u32::try_from(self.unit).expect("units are fewer than 2^32");
        let DocumentRecord { header, offset } = record;
        let location = RecordLocation { unit, is_edited, offset };
        Ok(Some(UnitRecord::Passed(PassedDocument { index, header, tokens_before, location, reader })))
    }

    /// Calls `on_document` with each document that no stage has dropped so far, in order.
    pub(super) fn for_each_kept(
        mut self,
        mut on_document: impl FnMut(PassedDocument<'_>) -> Result<()>,
    ) -> Result<()> {
        let outcomes = self.outcomes;
        while let Some(record) = self.next()? {
            let UnitRecord::Passed(document) = record else { continue };
            if outcomes[document.index].duplicate.is_none() {
                on_document(document)?;
            }
        }
        Ok(())
    }

    /// Fields of the filters that some document had, one bit each; known after the last document.
    pub(super) fn fields_seen(&self) -> u64 {
        self.reader.fields_seen()
    }
}
