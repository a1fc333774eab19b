//! What an order is made of, and the order of a mix that says how much there is.

use crate::config::PrepareRun;
use crate::mixing::{Mixing, Share};

/// A source as the order knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderSource {
    /// Its name, which decides its shuffle.
    pub name: String,
    /// What it gets.
    pub share: Share,
    /// Its tokens in full rows.
    pub tokens: u64,
}

/// All that decides an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderConfig {
    /// The sources, in order.
    pub sources: Vec<OrderSource>,
    /// Tokens in a row.
    pub row_tokens: usize,
    /// Tokens in a sample where no stage says otherwise.
    pub seq_len: usize,
    /// The seed.
    pub seed: u64,
    /// How samples are drawn and ordered.
    pub mixing: Mixing,
    /// Samples in a group, for batching that has groups.
    pub group: u64,
}

impl OrderConfig {
    /// The order of a mix that says the tokens of all its sources, for batches of so many samples; `None`: it does not.
    pub fn of_mix(run: &PrepareRun, batch_size: u64) -> Option<Self> {
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
