//! The mix as a table: what each source has, what was asked for, what training gets.

use std::collections::BTreeMap;

use mpt_tokenize::Tokenizer;
use serde::Serialize;

use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::{DedupStage, StageKind};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, SourceRecord, Split, TokenAccount};
use crate::order::Mix;
use crate::prepare::{Counts, PlannedRun, Tally, tokenize};
use crate::progress::{Note, Progress};

/// The mix for a number of training tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixTable {
    /// Training tokens that the table is about: whole samples.
    pub token_budget: u64,
    /// Tokens in a sample.
    pub seq_len: usize,
    /// The sources, in order.
    pub sources: Vec<MixRow>,
}

/// One source of a mix.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MixRow {
    /// Its name.
    pub source: String,
    /// Documents read.
    pub documents_read: u64,
    /// Documents for training.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Documents held out.
    pub eval_documents: u64,
    /// Their tokens.
    pub eval_tokens: u64,
    /// The share asked for.
    pub proportion: f64,
    /// The share of the samples that training gets.
    pub proportion_obtained: f64,
    /// Tokens that training gets.
    pub effective_tokens: u64,
    /// How often training goes through the source.
    pub epochs: f64,
    /// Documents dropped, by rule.
    pub drops: BTreeMap<String, u64>,
    /// What became of the tokens read.
    #[serde(flatten)]
    pub account: TokenAccount,
}

/// The table of prepared data, for `token_budget` training tokens; by default as many as there are.
///
/// # Errors
/// [`Error::Loader`] for an impossible mix.
pub fn inspect(manifest: &Manifest, token_budget: Option<u64>) -> Result<MixTable> {
    let rows = manifest.sources().iter().map(built).collect();
    table(rows, manifest.plan().seq_len, token_budget)
}

/// The table of a mix that need not be built: its sources are read, filtered and tokenized, and nothing is kept. Of the stages
/// of deduplication it counts the exact one.
///
/// # Errors
/// As [`prepare`](crate::prepare()), for everything that is wrong with sources.
pub fn plan(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    token_budget: Option<u64>,
    progress: &mut dyn Progress,
) -> Result<MixTable> {
    let planned = PlannedRun::new(run, tokenizer, None, progress)?;
    let stages = run.dedup.stages().iter().map(DedupStage::kind).filter(|kind| *kind != StageKind::Exact);
    let stages: Vec<_> = stages.map(StageKind::name).collect();
    if !stages.is_empty() {
        progress.note(&Note::NotPlanned { stages });
    }
    let all: Vec<_> = (0..planned.units.len()).collect();
    let mut tally = Tally::new(&planned);
    tokenize(&planned, &all, tokenizer, &mut tally, progress)?;
    let rows = run.sources.iter().zip(&tally.sources).map(|(source, counts)| counted(source, counts));
    table(rows.collect(), run.seq_len, token_budget)
}

fn built(source: &SourceRecord) -> MixRow {
    let (train, eval) = (source.split(Split::Train), source.split(Split::Eval));
    MixRow {
        source: source.name.clone(),
        documents_read: source.documents,
        documents: train.documents,
        tokens: train.tokens,
        eval_documents: eval.documents,
        eval_tokens: eval.tokens,
        proportion: source.proportion,
        drops: source.drops.clone(),
        account: source.tokens,
        ..MixRow::default()
    }
}

fn counted(source: &SourceConfig, counts: &Counts) -> MixRow {
    MixRow {
        source: source.name.clone(),
        documents_read: counts.documents,
        documents: counts.train.documents,
        tokens: counts.train.tokens,
        eval_documents: counts.eval.documents,
        eval_tokens: counts.eval.tokens,
        proportion: source.proportion,
        drops: counts.drops.clone(),
        account: counts.tokens,
        ..MixRow::default()
    }
}

/// Fills in what the order of training gives for the budget.
fn table(mut rows: Vec<MixRow>, seq_len: usize, token_budget: Option<u64>) -> Result<MixTable> {
    if let Some(row) = rows.iter().find(|row| row.tokens == 0) {
        let drops = row.drops.clone().into_iter().collect();
        return Err(Error::EmptySource {
            source_name: row.source.clone(),
            documents: row.documents_read,
            drops,
        });
    }
    let budget = token_budget.unwrap_or_else(|| rows.iter().map(|row| row.tokens).sum());
    let samples = (budget / seq_len as u64).max(1);
    let proportions: Vec<_> = rows.iter().map(|row| row.proportion).collect();
    let counts = Mix::new(&proportions)?.counts(samples);
    for (row, count) in rows.iter_mut().zip(counts) {
        row.proportion_obtained = count as f64 / samples as f64;
        row.effective_tokens = count * seq_len as u64;
        row.epochs = row.effective_tokens as f64 / row.tokens as f64;
    }
    Ok(MixTable { token_budget: samples * seq_len as u64, seq_len, sources: rows })
}
