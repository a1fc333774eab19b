//! The documents of a unit as the stages of deduplication left them, in order.

use std::path::{Path, PathBuf};

use super::unit_file::{PassedRecord, UnitReader, UnitRecord};
use crate::dedup::DedupKind;
use crate::error::Result;
use crate::filter::DropReason;

/// The files of all units: as they were tokenized, and the edited documents of those that have some.
#[derive(Debug)]
pub(super) struct UnitPaths {
    pub(super) units: Vec<PathBuf>,
    pub(super) edits: Vec<Option<PathBuf>>,
}

/// Where a document is. Places are ordered as documents are, in files of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordLocation {
    /// The unit.
    pub(super) unit: u32,
    /// Whether it is in the file of edited documents.
    pub(super) is_edited: bool,
    /// Where its record begins.
    pub(super) at: u64,
}

/// What became of a document that passed the filters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DedupOutcome {
    /// Whether the file of edited documents has it.
    pub(super) is_edited: bool,
    /// Why it does not stay.
    pub(super) gone: Option<Duplicate>,
}

/// Why a document does not stay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Duplicate {
    /// It is a copy of an earlier one.
    Exact(RecordLocation),
    /// All its words were in so many paragraphs of earlier ones.
    Paragraphs(u32),
    /// It is nearly an earlier one.
    Near(RecordLocation, f32),
    /// It is near another one in meaning, which may be gone too.
    Semantic(RecordLocation, f32),
}

impl Duplicate {
    /// The stage that dropped it.
    pub(super) fn stage(self) -> DedupKind {
        match self {
            Self::Exact(_) => DedupKind::Exact,
            Self::Paragraphs(_) => DedupKind::Paragraph,
            Self::Near(..) => DedupKind::MinHash,
            Self::Semantic(..) => DedupKind::SemDedup,
        }
    }
}

impl UnitPaths {
    /// The files of these units; none has edited documents.
    pub(super) fn new(units: Vec<PathBuf>) -> Self {
        let edits = units.iter().map(|_| None).collect();
        Self { units, edits }
    }

    /// The id of a document.
    pub(super) fn id(&self, place: RecordLocation) -> Result<String> {
        UnitReader::id_at(self.of(place), place.at)
    }

    /// The signature of a document.
    pub(super) fn signature(&self, place: RecordLocation) -> Result<Vec<u32>> {
        UnitReader::signature_at(self.of(place), place.at)
    }

    fn of(&self, place: RecordLocation) -> &Path {
        let unit = place.unit as usize;
        let edits = self.edits[unit].as_ref().filter(|_| place.is_edited);
        edits.unwrap_or(&self.units[unit])
    }
}

/// The next document of a unit.
pub(super) enum UnitItem<'a> {
    /// It did not pass the filters.
    Dropped { id: String, drop: DropReason, tokens_read: u64 },
    /// It did.
    Passed(PassedDocument<'a>),
}

/// A document that passed the filters.
pub(super) struct PassedDocument<'a> {
    /// Which of them it is in its unit.
    pub(super) index: usize,
    /// As it stays, if it stays.
    pub(super) entry: PassedRecord,
    /// Its tokens before stages of deduplication edited it.
    pub(super) tokens_before: u64,
    /// Where it is.
    pub(super) place: RecordLocation,
    /// Reads its parts.
    pub(super) reader: &'a mut UnitReader,
}

/// Goes through a unit.
pub(super) struct UnitIter<'a> {
    unit: usize,
    fates: &'a [DedupOutcome],
    next: usize,
    reader: UnitReader,
    edits: Option<UnitReader>,
}

impl<'a> UnitIter<'a> {
    /// Before the first document.
    pub(super) fn new(files: &UnitPaths, unit: usize, fates: &'a [DedupOutcome]) -> Result<Self> {
        let edits = files.edits[unit].as_deref().map(UnitReader::open).transpose()?;
        Ok(Self { unit, fates, next: 0, reader: UnitReader::open(&files.units[unit])?, edits })
    }

    /// The next document; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<UnitItem<'_>>> {
        let mut entry = match self.reader.next()? {
            Some(UnitRecord::Dropped { id, drop, tokens_read }) => {
                return Ok(Some(UnitItem::Dropped { id, drop, tokens_read }));
            }
            Some(UnitRecord::Kept(entry)) => entry,
            None => return Ok(None),
        };
        let (index, tokens_before) = (self.next, entry.tokens);
        self.next += 1;
        let is_edited = self.fates.get(index).is_some_and(|fate| fate.is_edited);
        let mut reader = &mut self.reader;
        if let Some(edits) = self.edits.as_mut().filter(|_| is_edited) {
            if let Some(UnitRecord::Kept(edited)) = edits.next()? {
                entry = edited;
            }
            reader = edits;
        }
        let unit = u32::try_from(self.unit).expect("units are fewer than 2^32");
        let place = RecordLocation { unit, is_edited, at: entry.at };
        Ok(Some(UnitItem::Passed(PassedDocument { index, entry, tokens_before, place, reader })))
    }

    /// Which of the filters' fields some document had; known after the last document.
    pub(super) fn fields_seen(&self) -> u64 {
        self.reader.fields_seen()
    }
}
