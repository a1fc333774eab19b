//! Filter chain of a source: its rules, applied to one document after the other.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::Path;

use super::rules::EMPTY;
use super::{Filter, fields, ngrams, text};
use crate::document::Document;
use crate::error::Result;

/// Filters of a source, with their files loaded: a pure function of a document.
#[derive(Debug)]
pub(crate) struct FilterChain {
    fields: Vec<String>,
    rules: Vec<Box<dyn Rule>>,
}

/// Outcome of a filter chain.
#[derive(Debug, PartialEq)]
pub(crate) enum FilterOutcome {
    /// Document to keep, with its new text where filters edited it.
    Kept(Option<String>),
    /// Document to drop.
    Dropped(DropReason),
}

/// Reason to drop a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropReason {
    /// Rule: a filter's kind, `empty`, `bad_line`, or the rule of a stage of deduplication.
    pub rule: &'static str,
    /// Value that decided. For rules with several keys: the key and the value (`min_words=49`). Else a word count,
    /// `field=value`, the entry of a list, the problem of a line, or the id of the kept copy with its similarity.
    pub value: String,
}

/// Buffers that are reused for one document after the other.
#[derive(Debug, Default)]
pub(crate) struct FilterScratch {
    pub(super) ngrams: ngrams::NgramHashes,
    pub(super) table: ngrams::HashTable,
}

/// View of a document for the rules, with its current text.
pub(super) struct DocumentView<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) names: &'a [String],
    pub(super) values: &'a [Option<String>],
    pub(super) scratch: &'a mut FilterScratch,
}

/// Filter with everything it needs.
pub(super) trait Rule: Debug + Send + Sync {
    /// Reason to drop the document. A rule that keeps it may edit its text.
    fn apply(&self, view: &mut DocumentView<'_>) -> Option<DropReason>;
}

impl FilterChain {
    /// Loads the files that the filters name, relative to `folder`.
    ///
    /// # Errors
    /// Those of opening the files, and [`crate::Error::BrokenInput`] for a file without entries.
    pub(crate) fn load(filters: &[Filter], folder: &Path) -> Result<Self> {
        let fields = fields(filters).into_iter().map(str::to_owned).collect();
        let rules = filters.iter().map(|filter| filter.load(folder)).collect::<Result<_>>()?;
        Ok(Self { fields, rules })
    }

    /// First reason to drop a document, or its text after all edits. A document without a word is dropped by any chain.
    ///
    /// `document.fields` holds the values of [`fields`] of the same filters.
    pub(crate) fn apply(&self, document: &Document, scratch: &mut FilterScratch) -> FilterOutcome {
        let text = Cow::Borrowed(document.text.as_str());
        let mut view = DocumentView { text, names: &self.fields, values: &document.fields, scratch };
        let reason =
            check_empty(&view.text).or_else(|| self.rules.iter().find_map(|rule| rule.apply(&mut view)));
        match (reason, view.text) {
            (Some(reason), _) => FilterOutcome::Dropped(reason),
            (None, Cow::Borrowed(_)) => FilterOutcome::Kept(None),
            (None, Cow::Owned(text)) => match check_empty(&text) {
                Some(reason) => FilterOutcome::Dropped(reason),
                None => FilterOutcome::Kept(Some(text)),
            },
        }
    }
}

/// Reason to drop a text without words.
pub(crate) fn check_empty(text: &str) -> Option<DropReason> {
    let is_empty = text::words(text).next().is_none();
    is_empty.then(|| DropReason { rule: EMPTY, value: format!("{} bytes", text.len()) })
}

impl DocumentView<'_> {
    /// Value of a field, if the document has it.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let slot = self.names.iter().position(|other| other == name)?;
        self.values[slot].as_deref()
    }

    /// Replaces the text, unless the new one is the same.
    pub(super) fn edit(&mut self, text: String) {
        if text != *self.text {
            self.text = Cow::Owned(text);
        }
    }
}
