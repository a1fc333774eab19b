//! Selection: the documents that stay, their split, and the ledger of the others.
//!
//! The stages of deduplication run one after the other. A last pass, in the order of sources and documents, counts, splits
//! and writes the ledger.

mod counts;
mod plan_sink;

use std::path::Path;

use mpt_tokenize::Tokenizer;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use self::counts::SourceCounts;
pub(crate) use self::plan_sink::PlanSink;
use super::exact_dedup::exact_dedup;
use super::minhash::minhash_dedup;
use super::plan::PlannedRun;
use super::semantic_dedup::SemanticPass;
use super::unit::{DroppedDocument, UnitRecord};
use super::unit_iter::{
    DedupOutcome, DedupOutcomes, Duplicate, PassedDocument, RecordLocation, UnitIter, UnitPaths,
};
use crate::dedup::{DedupKind, DedupReport, DedupStage, DedupTally, Embedder};
use crate::document_tables::DropWriter;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::filter::{
    BAD_LINE, DUPLICATE_PARAGRAPHS, DropReason, EXACT_DUPLICATE, NEAR_DUPLICATE, SEMANTIC_DUPLICATE,
};
use crate::manifest::{DROPS, Split};
use crate::progress::Progress;

/// Decisions about every document.
pub(super) struct Selection {
    /// Files of the units.
    pub(super) paths: UnitPaths,
    /// Outcomes of deduplication by unit.
    pub(super) outcomes: DedupOutcomes,
    /// Splits by unit, of the unit's documents that passed the filters; `None` for a dropped document.
    pub(super) splits: Vec<Vec<Option<Split>>>,
    /// Counts by source.
    pub(super) sources: Vec<SourceCounts>,
    /// Report of each stage of deduplication.
    pub(super) dedup: Vec<DedupReport>,
    /// Ledger of dropped documents.
    pub(super) drops: FileDigest,
}

/// Selects documents, and writes the ledger of the others into `out`.
///
/// # Errors
/// [`Error::NoField`], [`Error::EmptySource`] and [`Error::SmallSource`] name a source that cannot be used.
pub(super) fn select(
    planned: &PlannedRun<'_>,
    units: &Path,
    out: &Path,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Selection> {
    let mut paths = UnitPaths::new(planned.units.iter().map(|unit| units.join(&unit.name)).collect());
    let mut outcomes = exact_dedup(planned, &mut paths, units, tokenizer, progress)?;
    if let Some(settings) = planned.run.dedup.minhash() {
        minhash_dedup(planned, settings, &paths, &mut outcomes, progress)?;
    }
    let mut threshold = None;
    if let (Some(settings), Some(embedder)) = (planned.run.dedup.semdedup(), embedder) {
        let pass = SemanticPass { planned, settings, paths: &paths, dir: units };
        threshold = pass.run(&mut outcomes, embedder, progress)?;
    }
    let mut pass = SelectionPass::new(planned, &paths, out)?;
    let mut splits = Vec::with_capacity(outcomes.len());
    for (unit, outcomes) in outcomes.iter().enumerate() {
        splits.push(pass.unit(unit, outcomes)?);
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
    }
    let SelectionPass { ledger, sources, stages, .. } = pass;
    sources.iter().enumerate().try_for_each(|(source, counts)| counts.check(planned, source))?;
    let reports = stages.into_iter().map(|stage| {
        let chosen = threshold.filter(|_| stage.kind() == DedupKind::SemDedup);
        stage.report(chosen, |location| paths.id(location))
    });
    let dedup = reports.collect::<Result<_>>()?;
    Ok(Selection { paths, outcomes, splits, sources, dedup, drops: ledger.finish()? })
}

/// Split of a text, by its content alone: copies are never in both splits, and sources added later change nothing.
fn split_of(text_hash: u128, planned: &PlannedRun<'_>) -> Split {
    let draw = xxh3_64_with_seed(&text_hash.to_le_bytes(), planned.run.seed) as f64 / 2f64.powi(64);
    if draw < planned.run.eval_fraction { Split::Eval } else { Split::Train }
}

/// Tokens of a dropped document as read, with those around it; none for a line that is no document.
fn tokens_dropped(reason: &DropReason, tokens_read: u64, planned: &PlannedRun<'_>) -> u64 {
    if reason.rule == BAD_LINE { 0 } else { tokens_read + planned.boundary_ids.count() }
}

/// Last pass over all units.
struct SelectionPass<'a> {
    planned: &'a PlannedRun<'a>,
    paths: &'a UnitPaths,
    ledger: DropWriter,
    sources: Vec<SourceCounts>,
    stages: Vec<DedupTally<RecordLocation>>,
}

impl<'a> SelectionPass<'a> {
    fn new(planned: &'a PlannedRun<'a>, paths: &'a UnitPaths, out: &Path) -> Result<Self> {
        let run = planned.run;
        let participants =
            |kind| run.sources.iter().map(move |source| source.takes_part(kind).then(|| source.name.clone()));
        let kinds = run.dedup.stages().iter().map(DedupStage::kind);
        Ok(Self {
            planned,
            paths,
            ledger: DropWriter::create(out, DROPS)?,
            sources: vec![SourceCounts::default(); run.sources.len()],
            stages: kinds.map(|kind| DedupTally::new(kind, participants(kind).collect())).collect(),
        })
    }

    /// Counts the documents of a unit, and returns the splits of those that passed the filters.
    fn unit(&mut self, unit: usize, outcomes: &[DedupOutcome]) -> Result<Vec<Option<Split>>> {
        let source = self.planned.units[unit].source;
        let around = self.planned.boundary_ids.count();
        let mut documents = UnitIter::new(self.paths, unit, outcomes)?;
        let mut splits = Vec::with_capacity(outcomes.len());
        while let Some(record) = documents.next()? {
            let document = match record {
                UnitRecord::Dropped(document) => {
                    self.drop(source, &document)?;
                    continue;
                }
                UnitRecord::Passed(document) => document,
            };
            let outcome = outcomes[document.index];
            self.tally(source, &document, outcome);
            let header = document.header;
            if let Some(duplicate) = outcome.duplicate {
                let (id, reason, tokens_read) = (header.id, self.reason(duplicate)?, header.tokens_read);
                self.drop(source, &DroppedDocument { id, reason, tokens_read })?;
                splits.push(None);
                continue;
            }
            let split = split_of(header.text_hash, self.planned);
            self.sources[source].keep(split, &header, around);
            splits.push(Some(split));
        }
        self.sources[source].fields_seen |= documents.fields_seen();
        Ok(splits)
    }

    /// Counts a document for every stage that it reached.
    fn tally(&mut self, source: usize, document: &PassedDocument<'_>, outcome: DedupOutcome) {
        let tokens_read = document.header.tokens_read + self.planned.boundary_ids.count();
        for stage in &mut self.stages {
            let dropped_here = outcome.duplicate.filter(|duplicate| duplicate.stage() == stage.kind());
            let is_edited_here = outcome.is_edited && stage.kind() == DedupKind::Paragraph;
            let Some(counts) = stage.count_document(source) else { continue };
            if dropped_here.is_some() {
                counts.dropped += 1;
                counts.tokens_dropped += tokens_read;
            }
            if is_edited_here {
                counts.edited += 1;
                counts.tokens_edited_away += document.tokens_before as i64 - document.header.tokens as i64;
            }
            match dropped_here {
                Some(Duplicate::Exact(first)) => stage.count_copy(first),
                Some(Duplicate::Near(first, similarity)) => {
                    stage.count_copy(first);
                    stage.count_similarity(f64::from(similarity));
                }
                Some(Duplicate::Semantic(_, similarity)) => stage.count_similarity(f64::from(similarity)),
                Some(Duplicate::Paragraphs(_)) | None => {}
            }
            if dropped_here.is_some() {
                break;
            }
        }
    }

    /// Reason in the ledger for a document that a stage drops.
    fn reason(&self, duplicate: Duplicate) -> Result<DropReason> {
        Ok(match duplicate {
            Duplicate::Exact(first) => DropReason { rule: EXACT_DUPLICATE, value: self.paths.id(first)? },
            Duplicate::Paragraphs(count) => {
                DropReason { rule: DUPLICATE_PARAGRAPHS, value: format!("{count} paragraphs") }
            }
            Duplicate::Near(first, similarity) => {
                let value = format!("{} similarity={similarity:.4}", self.paths.id(first)?);
                DropReason { rule: NEAR_DUPLICATE, value }
            }
            Duplicate::Semantic(to, similarity) => {
                let value = format!("{} similarity={similarity:.4}", self.paths.id(to)?);
                DropReason { rule: SEMANTIC_DUPLICATE, value }
            }
        })
    }

    fn drop(&mut self, source: usize, document: &DroppedDocument) -> Result<()> {
        let DroppedDocument { id, reason, tokens_read } = document;
        let tokens = tokens_dropped(reason, *tokens_read, self.planned);
        self.sources[source].drop(reason.rule, tokens);
        self.ledger.push(id, &self.planned.run.sources[source].name, reason, tokens)
    }
}
