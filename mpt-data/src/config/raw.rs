//! Tables of a MIX.toml, as written.

use serde::Deserialize;

use super::{DEFAULT_SEED, Format, OnBadLine};
use crate::dedup::{Dedup, DedupKinds};
use crate::filter::Filter;
use crate::mixing::{Batching, Sampling, Shuffle, StageConfig};

const DEFAULT_EVAL_FRACTION: f64 = 0.005;

/// MIX.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRun {
    /// The `tokenizer.json`.
    pub(super) tokenizer: String,
    /// Seed of the held-out split, and the default seed of the order of training.
    #[serde(default = "default_seed")]
    pub(super) seed: u64,
    /// Tokens in a training sample, where a run does not say otherwise.
    pub(super) seq_len: usize,
    /// Tokens in a row of the shards, 16384 at most: a divisor or a multiple of `seq_len`. By default 2048 where that
    /// divides `seq_len`, else `seq_len`.
    pub(super) row_tokens: Option<usize>,
    /// Stages of deduplication: copies that are dropped, and parts of documents.
    #[serde(default = "Dedup::exact")]
    pub(super) dedup: Dedup,
    /// Share of the documents that is held out for evaluation, from 0 to 0.5.
    #[serde(default = "default_eval_fraction")]
    pub(super) eval_fraction: f64,
    /// Token before each document; empty for none.
    #[serde(default)]
    pub(super) bos: String,
    /// Token after each document; empty for none.
    #[serde(default = "default_eos")]
    pub(super) eos: String,
    /// Choice of the source of each sample.
    #[serde(default)]
    pub(super) sampling: Sampling,
    /// Constraint on every group of samples.
    #[serde(default)]
    pub(super) batching: Batching,
    /// Samples in a group. By default those of a batch when a run begins.
    pub(super) batch_group: Option<u64>,
    /// Order of the samples of a source.
    #[serde(default)]
    pub(super) shuffle: Shuffle,
    /// Chunks (row groups of 2048 rows) in a window of `"windowed"`. By default 16.
    pub(super) shuffle_window: Option<u64>,
    /// Changes of shares or lengths on the way, in order.
    #[serde(default)]
    pub(super) stages: Vec<StageConfig>,
    /// Sources of documents, in the order that breaks ties between copies.
    #[serde(default)]
    pub(super) sources: Vec<RawSource>,
}

/// Source of documents, and its share of the mix.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// Name of the source, and of its folder.
    pub(super) name: String,
    /// Share of the samples; all of them sum to 1. One of `proportion`, `repeat` and `choose`, the first of them for all
    /// sources or none.
    pub(super) proportion: Option<f64>,
    /// Factor on the samples of the source in a pass over the mix.
    pub(super) repeat: Option<f64>,
    /// Samples that the source gives to a pass over the mix.
    pub(super) choose: Option<u64>,
    /// Tokens of the source, where the mix says them: a plan then needs no data.
    pub(super) tokens: Option<f64>,
    /// Files or glob patterns.
    pub(super) paths: Vec<String>,
    /// Format of the files; the file name tells the compression.
    pub(super) format: Format,
    /// Field or column with the text. By default `"text"`.
    pub(super) text_field: Option<String>,
    /// Field or column with the document's id. By default `id` where there is one, else file and line.
    pub(super) id_field: Option<String>,
    /// Filters, in order. A document must pass all.
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
    /// Stages of deduplication that the source takes part in. By default all.
    pub(super) dedup: Option<DedupKinds>,
    /// Action for a line that is no document.
    #[serde(default)]
    pub(super) on_bad_line: OnBadLine,
}

fn default_seed() -> u64 {
    DEFAULT_SEED
}

fn default_eval_fraction() -> f64 {
    DEFAULT_EVAL_FRACTION
}

fn default_eos() -> String {
    "<|endoftext|>".to_owned()
}
