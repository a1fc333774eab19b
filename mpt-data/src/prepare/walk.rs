//! The documents of a unit as the stages of deduplication left them, in order.

use std::path::{Path, PathBuf};

use super::unit_file::{Entry, KeptEntry, UnitReader};
use crate::dedup::StageKind;
use crate::error::Result;
use crate::filter::Drop;

/// The files of all units: as they were tokenized, and the edited documents of those that have some.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) units: Vec<PathBuf>,
    pub(super) edits: Vec<Option<PathBuf>>,
}

/// Where a document is. Places are ordered as documents are, in files of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// The unit.
    pub(super) unit: u32,
    /// Whether it is in the file of edited documents.
    pub(super) is_edited: bool,
    /// Where its record begins.
    pub(super) at: u64,
}

/// What became of a document that passed the filters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    /// Whether the file of edited documents has it.
    pub(super) is_edited: bool,
    /// Why it does not stay.
    pub(super) gone: Option<Gone>,
}

/// Why a document does not stay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gone {
    /// It is a copy of an earlier one.
    Copy(Place),
    /// All its words were in so many paragraphs of earlier ones.
    Paragraphs(u32),
    /// It is nearly an earlier one.
    Near(Place, f32),
    /// It is near another one in meaning, which may be gone too.
    Semantic(Place, f32),
}

impl Gone {
    /// The stage that dropped it.
    pub(super) fn stage(self) -> StageKind {
        match self {
            Self::Copy(_) => StageKind::Exact,
            Self::Paragraphs(_) => StageKind::Paragraph,
            Self::Near(..) => StageKind::MinHash,
            Self::Semantic(..) => StageKind::SemDedup,
        }
    }
}

impl Files {
    /// The files of these units; none has edited documents.
    pub(super) fn new(units: Vec<PathBuf>) -> Self {
        let edits = units.iter().map(|_| None).collect();
        Self { units, edits }
    }

    /// The id of a document.
    pub(super) fn id(&self, place: Place) -> Result<String> {
        UnitReader::id_at(self.of(place), place.at)
    }

    /// The signature of a document.
    pub(super) fn signature(&self, place: Place) -> Result<Vec<u32>> {
        UnitReader::signature_at(self.of(place), place.at)
    }

    fn of(&self, place: Place) -> &Path {
        let unit = place.unit as usize;
        let edits = self.edits[unit].as_ref().filter(|_| place.is_edited);
        edits.unwrap_or(&self.units[unit])
    }
}

/// The next document of a unit.
pub(super) enum Step<'a> {
    /// It did not pass the filters.
    Dropped { id: String, drop: Drop, tokens_read: u64 },
    /// It did.
    Passed(Passed<'a>),
}

/// A document that passed the filters.
pub(super) struct Passed<'a> {
    /// Which of them it is in its unit.
    pub(super) index: usize,
    /// As it stays, if it stays.
    pub(super) entry: KeptEntry,
    /// Its tokens before stages of deduplication edited it.
    pub(super) tokens_before: u64,
    /// Where it is.
    pub(super) place: Place,
    /// Reads its parts.
    pub(super) reader: &'a mut UnitReader,
}

/// Goes through a unit.
pub(super) struct Walk<'a> {
    unit: usize,
    fates: &'a [Fate],
    next: usize,
    reader: UnitReader,
    edits: Option<UnitReader>,
}

impl<'a> Walk<'a> {
    /// Before the first document.
    pub(super) fn new(files: &Files, unit: usize, fates: &'a [Fate]) -> Result<Self> {
        let edits = files.edits[unit].as_deref().map(UnitReader::open).transpose()?;
        Ok(Self { unit, fates, next: 0, reader: UnitReader::open(&files.units[unit])?, edits })
    }

    /// The next document; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Step<'_>>> {
        let mut entry = match self.reader.next()? {
            Some(Entry::Dropped { id, drop, tokens_read }) => {
                return Ok(Some(Step::Dropped { id, drop, tokens_read }));
            }
            Some(Entry::Kept(entry)) => entry,
            None => return Ok(None),
        };
        let (index, tokens_before) = (self.next, entry.tokens);
        self.next += 1;
        let is_edited = self.fates.get(index).is_some_and(|fate| fate.is_edited);
        let mut reader = &mut self.reader;
        if let Some(edits) = self.edits.as_mut().filter(|_| is_edited) {
            if let Some(Entry::Kept(edited)) = edits.next()? {
                entry = edited;
            }
            reader = edits;
        }
        let unit = u32::try_from(self.unit).expect("units are fewer than 2^32");
        let place = Place { unit, is_edited, at: entry.at };
        Ok(Some(Step::Passed(Passed { index, entry, tokens_before, place, reader })))
    }

    /// Which of the filters' fields some document had; known after the last document.
    pub(super) fn fields_seen(&self) -> u64 {
        self.reader.fields_seen()
    }
}
