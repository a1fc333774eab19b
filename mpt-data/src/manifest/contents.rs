//! What a manifest holds: the plan that the data was made from, and what became of each source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Format, OnBadLine};
use crate::dedup::{Dedup, DedupKind, DedupReport};
use crate::file_digest::FileDigest;
use crate::filter::Filter;
use crate::layout::{RowLayout, ShardRecord};
use crate::mixing::{Mixing, Share};
use crate::shard::ShardMetadata;

/// What a manifest holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestContents {
    /// What the data was made from and how: the same plan gives the same bytes.
    pub plan: Plan,
    /// Id of the token before each document.
    pub bos_id: Option<u32>,
    /// Id of the token after each document.
    pub eos_id: Option<u32>,
    /// What became of each source, in the order of the plan.
    pub sources: Vec<SourceRecord>,
    /// What each stage of deduplication did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dedup: Vec<DedupReport>,
    /// The other files of the folder.
    pub files: Vec<FileDigest>,
    /// The table of the shards, where they are so many that they do not stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_table: Option<FileDigest>,
}

/// What data is made from and how.
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
    /// Which copies were dropped, and which parts of documents.
    pub dedup: Dedup,
    /// What decides the embeddings, where a stage of deduplication needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// The share of documents held out.
    pub eval_fraction: f64,
    /// The token before each document; empty for none.
    pub bos: String,
    /// The token after each document; empty for none.
    pub eos: String,
    /// SHA-256 of the `tokenizer.json`.
    pub tokenizer: String,
    /// Ids the tokenizer can give: the highest and one more.
    pub vocab_size: usize,
    /// How samples are drawn and ordered, by default.
    #[serde(default, skip_serializing_if = "Mixing::is_default")]
    pub mixing: Mixing,
    /// The sources, in order.
    pub sources: Vec<SourcePlan>,
}

impl Plan {
    /// The sizes of a row.
    pub(crate) fn layout(&self) -> RowLayout {
        RowLayout::new(self.row_tokens, self.vocab_size)
    }

    /// What the shards of one split of a source say of where they belong; `plan_hash` is the hash of this plan.
    pub(crate) fn part<'a>(&'a self, plan_hash: &'a str, source: &'a str, split: Split) -> ShardMetadata<'a> {
        let (format, layout, tokenizer) = (self.format, self.layout(), self.tokenizer.as_str());
        ShardMetadata { format, plan_hash, tokenizer, layout, source, split: split.name() }
    }
}

/// What a source is made from and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePlan {
    /// Its name.
    pub name: String,
    /// What it gets of the training samples.
    pub proportion: Share,
    /// What the files hold.
    pub format: Format,
    /// The field with the text.
    pub text_field: String,
    /// The field with the id, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// The type of the tokens, where the files hold tokens and do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_dtype: Option<String>,
    /// The filters, in order; files that they name are named without their folders.
    pub filters: Vec<Filter>,
    /// The files that the filters name, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<FileDigest>,
    /// The stages of deduplication that it took part in; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Vec<DedupKind>>,
    /// What happened where there should be a document and was none.
    pub on_bad_line: OnBadLine,
    /// The input files, in order.
    pub inputs: Vec<FileDigest>,
}

/// What became of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// What it gets of the training samples.
    pub proportion: Share,
    /// Documents read, and lines that are none.
    pub documents: u64,
    /// Documents dropped, by rule.
    pub drops: BTreeMap<String, u64>,
    /// What became of its tokens.
    pub tokens: TokenAccount,
    /// What is for training.
    pub train: SplitRecord,
    /// What is held out.
    pub eval: SplitRecord,
}

/// What became of the tokens of a source, with those before and after each document: always
/// `tokens_read = tokens_kept + tokens_dropped + tokens_edited_away`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAccount {
    /// Tokens of all documents as they were read.
    pub tokens_read: u64,
    /// Tokens of the documents that stayed, as they stayed: those of both splits.
    pub tokens_kept: u64,
    /// Tokens of the documents dropped, as they were read.
    pub tokens_dropped: u64,
    /// Of the documents that stayed, tokens as read less tokens as they stayed; below zero where filters put in longer texts.
    pub tokens_edited_away: i64,
    /// Documents that stayed with another text than was read.
    pub documents_edited: u64,
}

impl TokenAccount {
    /// Enters a document that was dropped.
    pub(crate) fn drop(&mut self, read: u64) {
        self.tokens_read += read;
        self.tokens_dropped += read;
    }

    /// Enters a document that stayed.
    pub(crate) fn keep(&mut self, read: u64, kept: u64, is_edited: bool) {
        self.tokens_read += read;
        self.tokens_kept += kept;
        self.tokens_edited_away += read as i64 - kept as i64;
        self.documents_edited += u64::from(is_edited);
    }
}

/// One split of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// Documents.
    pub documents: u64,
    /// The ordinal of the first of them; they are numbered without gaps.
    pub first_document: u64,
    /// Bytes of their texts.
    pub text_bytes: u64,
    /// Their tokens, with those before and after each document.
    pub tokens: u64,
    /// Full rows.
    pub rows: u64,
    /// Tokens at the end that did not fill a row and were left out.
    pub tail_tokens: u64,
    /// The shards, in order.
    pub files: Vec<ShardRecord>,
}

/// A part of the documents.
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
    /// One of its splits.
    pub fn split(&self, split: Split) -> &SplitRecord {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }
}
