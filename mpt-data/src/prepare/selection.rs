//! Which documents stay, for which split, and the ledger of those that do not: the stages of deduplication, one after the
//! other, and a last pass in the order of sources and documents.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use mpt_tokenize::Tokenizer;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::exact_dedup::{DedupOutcomes, screen};
use super::minhash::near;
use super::plan::PlannedRun;
use super::semantic_dedup::SemanticPass;
use super::unit::{DroppedDocument, TokenizedDocument, Unit, UnitSink};
use super::unit_file::PassedRecord;

use super::unit_iter::{
    DedupOutcome, Duplicate, PassedDocument, RecordLocation, UnitItem, UnitIter, UnitPaths,
};
use crate::dedup::{DedupKind, DedupReport, DedupStage, DedupTally, Embedder};
use crate::document_tables::DropWriter;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::filter::{
    self, BAD_LINE, DUPLICATE_PARAGRAPHS, DropReason, EXACT_DUPLICATE, NEAR_DUPLICATE, SEMANTIC_DUPLICATE,
};
use crate::manifest::{DROPS, Split, TokenAccount};
use crate::progress::Progress;

/// What is decided about every document.
pub(super) struct Selection {
    /// The files of the units.
    pub(super) files: UnitPaths,
    /// Per unit, what became of each document that passed the filters.
    pub(super) fates: DedupOutcomes,
    /// And its split, or `None` where it does not stay.
    pub(super) splits: Vec<Vec<Option<Split>>>,
    /// Per source, what was counted.
    pub(super) sources: Vec<SourceCounts>,
    /// What each stage of deduplication did.
    pub(super) dedup: Vec<DedupReport>,
    /// The ledger.
    pub(super) drops: FileDigest,
}

/// What was counted in a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceCounts {
    pub(crate) documents: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) tokens: TokenAccount,
    pub(crate) train: SplitCounts,
    pub(crate) eval: SplitCounts,
    fields_seen: u64,
}

/// What was counted in a split of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SplitCounts {
    pub(crate) documents: u64,
    pub(crate) text_bytes: u64,
    /// With the tokens before and after each document.
    pub(crate) tokens: u64,
}

impl SourceCounts {
    pub(crate) fn split(&self, split: Split) -> &SplitCounts {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }

    /// Counts a document that goes, with its tokens as read and those around it.
    fn drop(&mut self, rule: &str, tokens_read: u64) {
        self.documents += 1;
        *self.drops.entry(rule.to_owned()).or_default() += 1;
        self.tokens.drop(tokens_read);
    }

    /// Counts a document that stays, its tokens with those around it.
    fn keep(&mut self, split: Split, document: &Stays) {
        self.documents += 1;
        self.tokens.keep(document.tokens_read, document.tokens, document.is_edited);
        let counts = match split {
            Split::Train => &mut self.train,
            Split::Eval => &mut self.eval,
        };
        counts.documents += 1;
        counts.text_bytes += document.text_bytes;
        counts.tokens += document.tokens;
    }
}

/// A document that stays, its tokens with those around it.
struct Stays {
    text_bytes: u64,
    tokens_read: u64,
    tokens: u64,
    is_edited: bool,
}

/// The tokens that a document as read would have had, those around it included; what is no document has none.
fn tokens_dropped(drop: &DropReason, tokens_read: u64, planned: &PlannedRun<'_>) -> u64 {
    if drop.rule == BAD_LINE { 0 } else { tokens_read + planned.special.count() }
}

/// Decides about every document and writes the ledger into `out`.
///
/// # Errors
/// [`Error::NoField`], [`Error::EmptySource`] and [`Error::SmallSource`] name a source that cannot be used.
pub(super) fn decide(
    planned: &PlannedRun<'_>,
    units: &Path,
    out: &Path,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Selection> {
    let mut files = UnitPaths::new(planned.units.iter().map(|unit| units.join(&unit.name)).collect());
    let mut fates = screen(planned, &mut files, units, tokenizer, progress)?;
    if let Some(settings) = planned.run.dedup.minhash() {
        near(planned, settings, &files, &mut fates, progress)?;
    }
    let mut threshold = None;
    if let (Some(settings), Some(embedder)) = (planned.run.dedup.semdedup(), embedder) {
        let meaning = SemanticPass { planned, settings, files: &files, dir: units };
        threshold = meaning.run(&mut fates, embedder, progress)?;
    }
    let mut pass = SelectionPass {
        planned,
        files: &files,
        ledger: DropWriter::create(out, DROPS)?,
        sources: vec![SourceCounts::default(); planned.run.sources.len()],
        stages: tallies(planned),
    };
    let mut splits = Vec::with_capacity(fates.len());
    for (unit, fates) in fates.iter().enumerate() {
        splits.push(pass.unit(unit, fates)?);
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
    }
    let SelectionPass { ledger, sources, stages, .. } = pass;
    sources.iter().enumerate().try_for_each(|(source, counts)| check(planned, source, counts))?;
    let reports = stages.into_iter().map(|stage| {
        let chosen = threshold.filter(|_| stage.kind() == DedupKind::SemDedup);
        stage.report(chosen, |place| files.id(place))
    });
    let dedup = reports.collect::<Result<_>>()?;
    Ok(Selection { files, fates, splits, sources, dedup, drops: ledger.finish()? })
}

/// A tally for each stage of the run.
fn tallies(planned: &PlannedRun<'_>) -> Vec<DedupTally<RecordLocation>> {
    let run = planned.run;
    let names =
        |kind| run.sources.iter().map(move |source| source.takes_part(kind).then(|| source.name.clone()));
    let kinds = run.dedup.stages().iter().map(DedupStage::kind);
    kinds.map(|kind| DedupTally::new(kind, names(kind).collect())).collect()
}

/// The split of a text: decided by its content alone, so that copies never lie in both, and sources added later change
/// nothing.
fn split_of(text_hash: u128, planned: &PlannedRun<'_>) -> Split {
    let draw = xxh3_64_with_seed(&text_hash.to_le_bytes(), planned.run.seed) as f64 / 2f64.powi(64);
    if draw < planned.run.eval_fraction { Split::Eval } else { Split::Train }
}

struct SelectionPass<'a> {
    planned: &'a PlannedRun<'a>,
    files: &'a UnitPaths,
    ledger: DropWriter,
    sources: Vec<SourceCounts>,
    stages: Vec<DedupTally<RecordLocation>>,
}

impl SelectionPass<'_> {
    fn unit(&mut self, unit: usize, fates: &[DedupOutcome]) -> Result<Vec<Option<Split>>> {
        let source = self.planned.units[unit].source;
        let special = self.planned.special.count();
        let mut walk = UnitIter::new(self.files, unit, fates)?;
        let mut splits = Vec::with_capacity(fates.len());
        while let Some(step) = walk.next()? {
            let passed = match step {
                UnitItem::Dropped { id, drop, tokens_read } => {
                    self.drop(source, &id, &drop, tokens_read)?;
                    continue;
                }
                UnitItem::Passed(passed) => passed,
            };
            let fate = fates[passed.index];
            self.tally(source, &passed, fate);
            let PassedRecord { id, text_hash, text_bytes, tokens_read, is_edited, tokens, .. } = passed.entry;
            if let Some(gone) = fate.gone {
                self.drop(source, &id, &self.reason(gone)?, tokens_read)?;
                splits.push(None);
                continue;
            }
            let split = split_of(text_hash, self.planned);
            let (tokens_read, tokens) = (tokens_read + special, tokens + special);
            self.sources[source].keep(split, &Stays { text_bytes, tokens_read, tokens, is_edited });
            splits.push(Some(split));
        }
        self.sources[source].fields_seen |= walk.fields_seen();
        Ok(splits)
    }

    /// Counts a document for every stage that it came to.
    fn tally(&mut self, source: usize, passed: &PassedDocument<'_>, fate: DedupOutcome) {
        let tokens_read = passed.entry.tokens_read + self.planned.special.count();
        for stage in &mut self.stages {
            let goes_here = fate.gone.is_some_and(|gone| gone.stage() == stage.kind());
            let is_edited_here = fate.is_edited && stage.kind() == DedupKind::Paragraph;
            let Some(counts) = stage.see(source) else { continue };
            if goes_here {
                counts.dropped += 1;
                counts.tokens_dropped += tokens_read;
            }
            if is_edited_here {
                counts.edited += 1;
                counts.tokens_edited_away += passed.tokens_before as i64 - passed.entry.tokens as i64;
            }
            match fate.gone.filter(|_| goes_here) {
                Some(Duplicate::Exact(first)) => stage.copy_of(first),
                Some(Duplicate::Near(first, similarity)) => {
                    stage.copy_of(first);
                    stage.like(f64::from(similarity));
                }
                Some(Duplicate::Semantic(_, similarity)) => stage.like(f64::from(similarity)),
                Some(Duplicate::Paragraphs(_)) | None => {}
            }
            if goes_here {
                break;
            }
        }
    }

    /// What the ledger says of a document that a stage drops.
    fn reason(&self, gone: Duplicate) -> Result<DropReason> {
        Ok(match gone {
            Duplicate::Exact(first) => DropReason { rule: EXACT_DUPLICATE, value: self.files.id(first)? },
            Duplicate::Paragraphs(count) => {
                DropReason { rule: DUPLICATE_PARAGRAPHS, value: format!("{count} paragraphs") }
            }
            Duplicate::Near(first, similarity) => {
                let value = format!("{} similarity={similarity:.4}", self.files.id(first)?);
                DropReason { rule: NEAR_DUPLICATE, value }
            }
            Duplicate::Semantic(to, similarity) => {
                let value = format!("{} similarity={similarity:.4}", self.files.id(to)?);
                DropReason { rule: SEMANTIC_DUPLICATE, value }
            }
        })
    }

    fn drop(&mut self, source: usize, id: &str, drop: &DropReason, tokens_read: u64) -> Result<()> {
        let tokens = tokens_dropped(drop, tokens_read, self.planned);
        self.sources[source].drop(drop.rule, tokens);
        self.ledger.push(id, &self.planned.run.sources[source].name, drop, tokens)
    }
}

fn check(planned: &PlannedRun<'_>, source: usize, counts: &SourceCounts) -> Result<()> {
    let config = &planned.run.sources[source];
    let source_name = config.name.clone();
    let fields = filter::fields(&config.filters);
    let unseen = |field: &usize| counts.fields_seen >> field & 1 == 0;
    if let Some(field) = (0..fields.len()).find(unseen).filter(|_| counts.documents > 0) {
        return Err(Error::NoField { source_name, field: fields[field].to_owned() });
    }
    if counts.train.documents == 0 {
        let mut drops: Vec<_> = counts.drops.clone().into_iter().collect();
        if counts.eval.documents > 0 {
            drops.push(("held out".into(), counts.eval.documents));
        }
        return Err(Error::EmptySource { source_name, documents: counts.documents, drops });
    }
    let row = ("row", planned.run.row_tokens, "row_tokens");
    let sequence = ("sequence", planned.run.seq_len, "seq_len");
    let (what, needed, field) = if row.1 > sequence.1 { row } else { sequence };
    if counts.train.tokens < needed as u64 {
        let (split, tokens, needed) = (Split::Train.name(), counts.train.tokens, needed as u64);
        return Err(Error::SmallSource { source_name, split, tokens, what, needed, field });
    }
    Ok(())
}

/// Decides about documents while they are tokenized, and keeps only counts: what a plan needs.
pub(crate) struct PlanSink<'a> {
    planned: &'a PlannedRun<'a>,
    seen: HashSet<u128>,
    source: usize,
    /// Per source, what was counted.
    pub(crate) sources: Vec<SourceCounts>,
}

impl<'a> PlanSink<'a> {
    /// Nothing counted yet.
    pub(crate) fn new(planned: &'a PlannedRun<'a>) -> Self {
        Self {
            planned,
            seen: HashSet::new(),
            source: 0,
            sources: vec![SourceCounts::default(); planned.run.sources.len()],
        }
    }
}

impl UnitSink for PlanSink<'_> {
    fn begin(&mut self, unit: &Unit) -> Result<()> {
        self.source = unit.source;
        Ok(())
    }

    fn keep(&mut self, document: &TokenizedDocument<'_>) -> Result<()> {
        let (counts, special) = (&mut self.sources[self.source], self.planned.special.count());
        let tokens_read = document.tokens_read + special;
        if self.planned.run.goes_through(self.source, DedupKind::Exact)
            && !self.seen.insert(document.text_hash)
        {
            counts.drop(EXACT_DUPLICATE, tokens_read);
            return Ok(());
        }
        let (tokens, text_bytes) = (document.tokens.len() as u64 + special, document.text_bytes);
        let stays = Stays { text_bytes, tokens_read, tokens, is_edited: document.is_edited };
        counts.keep(split_of(document.text_hash, self.planned), &stays);
        Ok(())
    }

    fn drop(&mut self, document: &DroppedDocument<'_>) -> Result<()> {
        let tokens = tokens_dropped(document.drop, document.tokens_read, self.planned);
        self.sources[self.source].drop(document.drop.rule, tokens);
        Ok(())
    }

    fn end(&mut self, fields_seen: u64) -> Result<()> {
        self.sources[self.source].fields_seen |= fields_seen;
        Ok(())
    }
}
