//! Settings of a loader, and whether the data can satisfy them.

use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::mixing::Mixing;

/// Settings of a loader.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderConfig {
    /// Split. The training split repeats without end; the evaluation split is read once.
    pub split: Split,
    /// Tokens in a sample: a multiple or a divisor of the rows' length.
    pub seq_len: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Sampling, batching, shuffle and stages.
    pub mixing: Mixing,
    /// Samples in a batch, over all ranks.
    pub batch_size: usize,
    /// Processes that share each batch.
    pub world_size: usize,
    /// Rank of this process, below `world_size`.
    pub rank: usize,
    /// Neighboring ranks with the same samples, because they share one copy of the model.
    pub replication: usize,
    /// Fields that may differ from those of a cursor, by the names in refusals. Accepted changes are noted in the cursor.
    pub accept: Vec<String>,
}

impl LoaderConfig {
    /// Single-process settings with the data's own defaults, one sample a batch.
    pub fn new(manifest: &Manifest, split: Split) -> Self {
        let plan = manifest.plan();
        Self {
            split,
            seq_len: plan.seq_len,
            seed: plan.seed,
            mixing: plan.mixing.clone(),
            batch_size: 1,
            world_size: 1,
            rank: 0,
            replication: 1,
            accept: Vec::new(),
        }
    }

    /// Checks lengths, ranks and batch size against each other and against the rows.
    ///
    /// # Errors
    /// [`Error::Loader`] naming the field.
    pub(super) fn check(&self, row_tokens: usize) -> Result<()> {
        let wrong = |field, actual: usize, expected: String| {
            Err(Error::Loader { field, actual: actual.to_string(), expected })
        };
        let seq = self.seq_len;
        if seq == 0 || (!seq.is_multiple_of(row_tokens) && !row_tokens.is_multiple_of(seq)) {
            let expected = format!(
                "a multiple or a divisor of the rows' {row_tokens} tokens; else build the data with another `seq_len`"
            );
            return wrong("seq_len", seq, expected);
        }
        if self.batch_size == 0 || self.world_size == 0 {
            return wrong("batch_size", self.batch_size, "1 or more, and a `world_size` of 1 or more".into());
        }
        if self.rank >= self.world_size {
            return wrong("rank", self.rank, format!("below `world_size`, which is {}", self.world_size));
        }
        if self.replication == 0 || !self.world_size.is_multiple_of(self.replication) {
            let expected = format!("a divisor of `world_size`, which is {}", self.world_size);
            return wrong("replication", self.replication, expected);
        }
        if !self.batch_size.is_multiple_of(self.shares()) {
            let of = if self.replication == 1 { "`world_size`" } else { "`world_size` over `replication`" };
            let expected = format!("a multiple of {of}, which is {}", self.shares());
            return wrong("batch_size", self.batch_size, expected);
        }
        Ok(())
    }

    /// Distinct shares of a batch.
    pub(super) fn shares(&self) -> usize {
        self.world_size / self.replication
    }
}
