//! Contents of a manifest: the plan of the data, and the outcome for each source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Format, OnBadLine};
use crate::dedup::{Dedup, DedupKind, DedupReport};
use crate::file_digest::FileDigest;
use crate::filter::Filter;
use crate::layout::{RowLayout, ShardRecord};
use crate::mixing::{Mixing, Share};
use crate::shard::ShardMetadata;

/// Contents of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestContents {
    /// Plan of the data: the same plan gives the same bytes.
    pub plan: Plan,
    /// Id of the token before each document.
    pub bos_id: Option<u32>,
    /// Id of the token after each document.
    pub eos_id: Option<u32>,
    /// Outcome for each source, in the order of the plan.
    pub sources: Vec<SourceRecord>,
    /// Report of each stage of deduplication.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dedup: Vec<DedupReport>,
    /// Other files of the folder.
    pub files: Vec<FileDigest>,
    /// Table of the shards, where there are too many to list them here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_table: Option<FileDigest>,
}

/// Plan of data: its inputs, and all settings that decide its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the format and of all rules.
    pub format: u32,
    /// Seed of the held-out split, and the default seed of the order.
    pub seed: u64,
    /// Tokens in a sample, by default.
    pub seq_len: usize,
    /// Tokens in a row.
    pub row_tokens: usize,
    /// Stages of deduplication.
    pub dedup: Dedup,
    /// Fingerprint of the embedder, where a stage of deduplication needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// Share of the documents that is held out.
    pub eval_fraction: f64,
    /// Token before each document; empty for none.
    pub bos: String,
    /// Token after each document; empty for none.
    pub eos: String,
    /// SHA-256 of the `tokenizer.json`.
    pub tokenizer: String,
    /// Size of the vocabulary: the highest id and one more.
    pub vocab_size: usize,
    /// Default sampling, batching, shuffle and stages.
    #[serde(default, skip_serializing_if = "Mixing::is_default")]
    pub mixing: Mixing,
    /// Sources, in order.
    pub sources: Vec<SourcePlan>,
}

impl Plan {
    /// Sizes of a row.
    pub(crate) fn layout(&self) -> RowLayout {
        RowLayout::new(self.row_tokens, self.vocab_size)
    }

    /// Metadata of the shards of one split of a source; `plan_hash` is the hash of this plan.
    pub(crate) fn shard_metadata<'a>(
        &'a self,
        plan_hash: &'a str,
        source: &'a str,
        split: Split,
    ) -> ShardMetadata<'a> {
        let (format, layout, tokenizer) = (self.format, self.layout(), self.tokenizer.as_str());
        ShardMetadata { format, plan_hash, tokenizer, layout, source, split: split.name() }
    }
}

/// Plan of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlan {
    /// Name.
    pub name: String,
    /// Share of the training samples.
    pub proportion: Share,
    /// Format of the files.
    pub format: Format,
    /// Field with the text.
    pub text_field: String,
    /// Field with the id, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// Type of the tokens, for files of tokens without a type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_dtype: Option<String>,
    /// Filters, in order; their files are named without folders.
    pub filters: Vec<Filter>,
    /// Files of the filters, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<FileDigest>,
    /// Stages of deduplication that the source took part in; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Vec<DedupKind>>,
    /// Action for a line that is no document.
    pub on_bad_line: OnBadLine,
    /// Input files, in order.
    pub inputs: Vec<FileDigest>,
}

/// Outcome for a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Name.
    pub name: String,
    /// Share of the training samples.
    pub proportion: Share,
    /// Documents read, and lines that are none.
    pub documents: u64,
    /// Dropped documents by rule.
    pub drops: BTreeMap<String, u64>,
    /// Account of the tokens.
    pub tokens: TokenAccount,
    /// Training split.
    pub train: SplitRecord,
    /// Evaluation split.
    pub eval: SplitRecord,
}

/// Account of the tokens of a source, with those around documents: always
/// `tokens_read = tokens_kept + tokens_dropped + tokens_edited_away`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAccount {
    /// Tokens of all documents, as read.
    pub tokens_read: u64,
    /// Tokens of the kept documents, as kept, in both splits.
    pub tokens_kept: u64,
    /// Tokens of the dropped documents, as read.
    pub tokens_dropped: u64,
    /// Tokens removed from kept documents; below zero where edits made texts longer.
    pub tokens_edited_away: i64,
    /// Kept documents with an edited text.
    pub documents_edited: u64,
}

impl TokenAccount {
    /// Enters a dropped document.
    pub(crate) fn drop(&mut self, read: u64) {
        self.tokens_read += read;
        self.tokens_dropped += read;
    }

    /// Enters a kept document.
    pub(crate) fn keep(&mut self, read: u64, kept: u64, is_edited: bool) {
        self.tokens_read += read;
        self.tokens_kept += kept;
        self.tokens_edited_away += read as i64 - kept as i64;
        self.documents_edited += u64::from(is_edited);
    }
}

/// Split of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// Documents.
    pub documents: u64,
    /// Ordinal of the first document; ordinals have no gaps.
    pub first_document: u64,
    /// Bytes of the texts.
    pub text_bytes: u64,
    /// Tokens, with those around documents.
    pub tokens: u64,
    /// Full rows.
    pub rows: u64,
    /// Tokens at the end that did not fill a row and were left out.
    pub tail_tokens: u64,
    /// Shards, in order.
    pub files: Vec<ShardRecord>,
}

/// Split of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// Held out for evaluation.
    Eval,
}

impl Split {
    /// Both, in the order in which documents are numbered.
    pub const ALL: [Self; 2] = [Self::Train, Self::Eval];

    /// `train` or `eval`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

impl SourceRecord {
    /// Record of a split.
    pub fn split(&self, split: Split) -> &SplitRecord {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }
}
