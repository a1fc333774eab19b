//! Samples and batches, and the place of a sample in the shards.

use serde::Serialize;

/// Identity of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleId {
    /// Index in the order of the run.
    pub index: u64,
    /// Index of the source in the manifest.
    pub source: usize,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Identity.
    pub id: SampleId,
    /// Tokens, `[seq]`.
    pub tokens: Vec<u32>,
    /// Ordinal of each token's document, `[seq]`.
    pub documents: Vec<u64>,
}

/// A rank's samples of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Samples in the batch.
    pub batch: usize,
    /// Tokens in a sample.
    pub seq: usize,
    /// Tokens, `[batch * seq]`.
    pub tokens: Vec<u32>,
    /// Ordinal of each token's document, `[batch * seq]`.
    pub documents: Vec<u64>,
    /// Identities of the samples, `[batch]`.
    pub samples: Vec<SampleId>,
}

/// Place of a sample in the shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleLocation {
    /// Complete passes over the source before this one.
    pub epoch: u64,
    /// Shard of the first token, relative to the data folder.
    pub shard: String,
    /// Row of the first token in that shard.
    pub row: u64,
    /// Index of the first token in that row.
    pub token: usize,
}

impl TokenBatch {
    /// Empties the batch for `batch` samples of `seq` tokens, and keeps its memory.
    pub(super) fn reset(&mut self, batch: usize, seq: usize) {
        (self.batch, self.seq) = (batch, seq);
        self.tokens.clear();
        self.documents.clear();
        self.samples.clear();
        self.tokens.reserve(batch * seq);
        self.documents.reserve(batch * seq);
    }
}
