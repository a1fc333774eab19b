//! Report of a mix: what each source has, what was asked for, and what training gets.

use std::collections::BTreeMap;

use mpt_tokenize::Tokenizer;
use serde::Serialize;

use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::{DedupKind, DedupStage};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, SourceRecord, Split, TokenAccount};
use crate::mixing::{Batching, Mixing, Share};
use crate::order::{Order, OrderConfig, OrderSource};
use crate::prepare::{PlanSink, PlannedRun, SourceCounts, tokenize};
use crate::progress::{Note, Progress};

/// Table of a mix for a number of training tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixTable {
    /// Training tokens, in whole samples.
    pub token_budget: u64,
    /// Tokens in a sample.
    pub seq_len: usize,
    /// Sources, in order.
    pub sources: Vec<MixRow>,
}

/// Row of a mix table: one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MixRow {
    /// Name of the source.
    pub source: String,
    /// Documents read.
    pub documents_read: u64,
    /// Documents for training.
    pub documents: u64,
    /// Tokens of those documents.
    pub tokens: u64,
    /// Documents held out.
    pub eval_documents: u64,
    /// Tokens of those documents.
    pub eval_tokens: u64,
    /// Share asked for.
    pub proportion: f64,
    /// Share of the training samples.
    pub proportion_obtained: f64,
    /// Training tokens of the source.
    pub effective_tokens: u64,
    /// Epochs of training over the source.
    pub epochs: f64,
    /// Dropped documents by rule.
    pub drops: BTreeMap<String, u64>,
    /// Account of the tokens read.
    #[serde(flatten)]
    pub account: TokenAccount,
}

/// Table of prepared data, for `token_budget` training tokens; by default all the data once.
///
/// # Errors
/// [`Error::Loader`] for an impossible mix.
pub fn inspect(manifest: &Manifest, token_budget: Option<u64>) -> Result<MixTable> {
    let plan = manifest.plan();
    let rows = manifest.sources().iter().map(|source| (built(source), source.proportion)).collect();
    table(rows, &plan.mixing, plan.seq_len, plan.row_tokens, token_budget)
}

/// Table of a mix that need not be built: its sources are read, filtered and tokenized, and nothing is written. Of the stages
/// of deduplication, only the exact one is counted.
///
/// # Errors
/// As [`prepare`](crate::prepare()), for all problems of sources.
pub fn plan(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    token_budget: Option<u64>,
    progress: &mut dyn Progress,
) -> Result<MixTable> {
    let planned = PlannedRun::new(run, tokenizer, None, progress)?;
    let stages = run.dedup.stages().iter().map(DedupStage::kind).filter(|kind| *kind != DedupKind::Exact);
    let stages: Vec<_> = stages.map(DedupKind::name).collect();
    if !stages.is_empty() {
        progress.note(&Note::NotPlanned { stages });
    }
    let all: Vec<_> = (0..planned.units.len()).collect();
    let mut tally = PlanSink::new(&planned);
    tokenize(&planned, &all, tokenizer, &mut tally, progress)?;
    let rows = run.sources.iter().zip(&tally.sources);
    let rows = rows.map(|(source, counts)| (counted(source, counts), source.proportion)).collect();
    table(rows, &run.mixing, run.seq_len, run.row_tokens, token_budget)
}

/// Table of a mix whose sources all declare their tokens, without any data; `None` where one does not.
///
/// # Errors
/// [`Error::Loader`] for an impossible mix.
pub fn plan_from_mix(run: &PrepareRun, token_budget: Option<u64>) -> Result<Option<MixTable>> {
    let row = |source: &SourceConfig| {
        let row = MixRow { source: source.name.clone(), tokens: source.tokens?, ..MixRow::default() };
        Some((row, source.proportion))
    };
    let rows: Option<Vec<_>> = run.sources.iter().map(row).collect();
    rows.map(|rows| table(rows, &run.mixing, run.seq_len, run.row_tokens, token_budget)).transpose()
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
        drops: source.drops.clone(),
        account: source.tokens,
        ..MixRow::default()
    }
}

fn counted(source: &SourceConfig, counts: &SourceCounts) -> MixRow {
    MixRow {
        source: source.name.clone(),
        documents_read: counts.documents,
        documents: counts.train.documents,
        tokens: counts.train.tokens,
        eval_documents: counts.eval.documents,
        eval_tokens: counts.eval.tokens,
        drops: counts.drops.clone(),
        account: counts.tokens,
        ..MixRow::default()
    }
}

/// Fills in the columns that follow from the order of training.
fn table(
    rows: Vec<(MixRow, Share)>,
    mixing: &Mixing,
    seq_len: usize,
    row_tokens: usize,
    token_budget: Option<u64>,
) -> Result<MixTable> {
    if let Some((row, _)) = rows.iter().find(|(row, _)| row.tokens == 0) {
        let drops = row.drops.clone().into_iter().collect();
        return Err(Error::EmptySource {
            source_name: row.source.clone(),
            documents: row.documents_read,
            drops,
        });
    }
    let budget = token_budget.unwrap_or_else(|| rows.iter().map(|(row, _)| row.tokens).sum());
    let mut order = order(&rows, mixing, seq_len, row_tokens)?;
    let samples = order.samples_for(budget).max(1);
    let (counts, tokens) = (order.counts(samples), order.tokens(samples));
    let asked = asked(&rows, seq_len);
    let filled =
        rows.into_iter().zip(counts).zip(&tokens).zip(asked).map(|((((row, _), count), &tokens), asked)| {
            MixRow {
                proportion: asked,
                proportion_obtained: count as f64 / samples as f64,
                effective_tokens: tokens,
                epochs: tokens as f64 / row.tokens as f64,
                ..row
            }
        });
    let sources = filled.collect();
    Ok(MixTable { token_budget: tokens.iter().sum(), seq_len, sources })
}

/// Order of training, for counting alone. Groups of unknown size change no count by more than one group.
fn order(rows: &[(MixRow, Share)], mixing: &Mixing, seq_len: usize, row_tokens: usize) -> Result<Order> {
    let mut mixing = mixing.clone();
    if mixing.batch_group.is_none() {
        mixing.batching = Batching::Random;
    }
    let source = |(row, share): &(MixRow, Share)| OrderSource {
        name: row.source.clone(),
        share: *share,
        tokens: row.tokens,
    };
    let (sources, group) = (rows.iter().map(source).collect(), mixing.batch_group.unwrap_or(1));
    Order::for_counting(&OrderConfig { sources, row_tokens, seq_len, seed: 0, mixing, group })
}

/// Shares asked for; those of quotas follow from all quotas.
fn asked(rows: &[(MixRow, Share)], seq_len: usize) -> Vec<f64> {
    let quota = |(row, share): &(MixRow, Share)| match share {
        Share::Proportion(share) => *share,
        Share::Quota(quota) => quota.samples(row.tokens / seq_len as u64) as f64,
    };
    let quotas: Vec<_> = rows.iter().map(quota).collect();
    if rows.iter().all(|(_, share)| matches!(share, Share::Proportion(_))) {
        return quotas;
    }
    let sum: f64 = quotas.iter().sum();
    quotas.into_iter().map(|quota| quota / sum).collect()
}
