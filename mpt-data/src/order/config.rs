//! Settings of an order, and the order of a mix file that declares its tokens.

use crate::config::PrepareRun;
use crate::mixing::{Mixing, Share};

/// One source of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderSource {
    /// Name; part of the key of the shuffle.
    pub name: String,
    /// Share of the training samples.
    pub share: Share,
    /// Tokens in full rows.
    pub tokens: u64,
}

/// Everything that decides an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderConfig {
    /// Sources, in the order of the manifest.
    pub sources: Vec<OrderSource>,
    /// Tokens in a row of the shards.
    pub row_tokens: usize,
    /// Tokens in a sample where no stage sets another length.
    pub seq_len: usize,
    /// Seed of the draws and the shuffle.
    pub seed: u64,
    /// Sampling, batching, shuffle and stages.
    pub mixing: Mixing,
    /// Samples in a group, for batching that has groups.
    pub group: u64,
}

impl OrderConfig {
    /// Order of a mix file for batches of `batch_size` samples; `None` unless every source declares its tokens.
    pub fn from_mix(run: &PrepareRun, batch_size: u64) -> Option<Self> {
        let row_tokens = run.row_tokens as u64;
        let source = |source: &crate::SourceConfig| {
            let tokens = source.tokens? / row_tokens * row_tokens;
            Some(OrderSource { name: source.name.clone(), share: source.proportion, tokens })
        };
        Some(Self {
            sources: run.sources.iter().map(source).collect::<Option<_>>()?,
            row_tokens: run.row_tokens,
            seq_len: run.seq_len,
            seed: run.seed,
            mixing: run.mixing.clone(),
            group: run.mixing.batch_group.unwrap_or(batch_size),
        })
    }
}
