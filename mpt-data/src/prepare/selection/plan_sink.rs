//! Counts of a plan: documents are counted while they are tokenized, and nothing is written.

use std::collections::HashSet;

use super::counts::SourceCounts;
use super::{split_of, tokens_dropped};
use crate::dedup::DedupKind;
use crate::error::Result;
use crate::filter::EXACT_DUPLICATE;
use crate::prepare::plan::PlannedRun;
use crate::prepare::unit::{DroppedDocument, TokenizedDocument, Unit, UnitSink};

/// Sink that counts documents. Of the stages of deduplication it runs the exact one.
pub(crate) struct PlanSink<'a> {
    planned: &'a PlannedRun<'a>,
    seen: HashSet<u128>,
    source: usize,
    /// Counts of each source.
    pub(crate) sources: Vec<SourceCounts>,
}

impl<'a> PlanSink<'a> {
    pub(crate) fn new(planned: &'a PlannedRun<'a>) -> Self {
        let sources = vec![SourceCounts::default(); planned.run.sources.len()];
        Self { planned, seen: HashSet::new(), source: 0, sources }
    }
}

impl UnitSink for PlanSink<'_> {
    fn begin(&mut self, unit: &Unit) -> Result<()> {
        self.source = unit.source;
        Ok(())
    }

    fn keep(&mut self, document: &TokenizedDocument) -> Result<()> {
        let (counts, header) = (&mut self.sources[self.source], &document.header);
        let around = self.planned.boundary_ids.count();
        if self.planned.run.goes_through(self.source, DedupKind::Exact) && !self.seen.insert(header.text_hash)
        {
            counts.drop(EXACT_DUPLICATE, header.tokens_read + around);
            return Ok(());
        }
        counts.keep(split_of(header.text_hash, self.planned), header, around);
        Ok(())
    }

    fn drop(&mut self, document: &DroppedDocument) -> Result<()> {
        let tokens = tokens_dropped(&document.reason, document.tokens_read, self.planned);
        self.sources[self.source].drop(document.reason.rule, tokens);
        Ok(())
    }

    fn end(&mut self, fields_seen: u64) -> Result<()> {
        self.sources[self.source].fields_seen |= fields_seen;
        Ok(())
    }
}
