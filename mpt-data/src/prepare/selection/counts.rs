//! Counts of a source: documents and tokens by outcome and split. All token counts include the tokens around documents.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::filter;
use crate::manifest::{Split, TokenAccount};
use crate::prepare::plan::PlannedRun;
use crate::prepare::unit::DocumentHeader;

/// Counts of a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceCounts {
    /// Documents read, and lines that are none.
    pub(crate) documents: u64,
    /// Dropped documents by rule.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) tokens: TokenAccount,
    pub(crate) train: SplitCounts,
    pub(crate) eval: SplitCounts,
    /// Bit `i`: some document had field `i` of the filters.
    pub(super) fields_seen: u64,
}

/// Counts of a split of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SplitCounts {
    pub(crate) documents: u64,
    pub(crate) text_bytes: u64,
    pub(crate) tokens: u64,
}

impl SourceCounts {
    pub(crate) fn split(&self, split: Split) -> &SplitCounts {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }

    /// Counts a dropped document of `tokens_read` tokens.
    pub(super) fn drop(&mut self, rule: &str, tokens_read: u64) {
        self.documents += 1;
        *self.drops.entry(rule.to_owned()).or_default() += 1;
        self.tokens.drop(tokens_read);
    }

    /// Counts a kept document, with `around` tokens around it.
    pub(super) fn keep(&mut self, split: Split, document: &DocumentHeader, around: u64) {
        let tokens = document.tokens + around;
        self.documents += 1;
        self.tokens.keep(document.tokens_read + around, tokens, document.is_edited);
        let counts = match split {
            Split::Train => &mut self.train,
            Split::Eval => &mut self.eval,
        };
        counts.documents += 1;
        counts.text_bytes += document.text_bytes;
        counts.tokens += tokens;
    }

    /// Checks that the filters' fields occurred, and that the training split fills a row and a sequence.
    ///
    /// # Errors
    /// [`Error::NoField`], [`Error::EmptySource`] and [`Error::SmallSource`].
    pub(super) fn check(&self, planned: &PlannedRun<'_>, source: usize) -> Result<()> {
        let config = &planned.run.sources[source];
        let source_name = config.name.clone();
        let fields = filter::fields(&config.filters);
        let unseen = |field: &usize| self.fields_seen >> field & 1 == 0;
        if let Some(field) = (0..fields.len()).find(unseen).filter(|_| self.documents > 0) {
            return Err(Error::NoField { source_name, field: fields[field].to_owned() });
        }
        if self.train.documents == 0 {
            let mut drops: Vec<_> = self.drops.clone().into_iter().collect();
            if self.eval.documents > 0 {
                drops.push(("held out".into(), self.eval.documents));
            }
            return Err(Error::EmptySource { source_name, documents: self.documents, drops });
        }
        let row = ("row", planned.run.row_tokens, "row_tokens");
        let sequence = ("sequence", planned.run.seq_len, "seq_len");
        let (what, needed, field) = if row.1 > sequence.1 { row } else { sequence };
        if self.train.tokens < needed as u64 {
            let (split, tokens, needed) = (Split::Train.name(), self.train.tokens, needed as u64);
            return Err(Error::SmallSource { source_name, split, tokens, what, needed, field });
        }
        Ok(())
    }
}
