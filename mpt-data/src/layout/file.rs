//! What is known of one shard, without which its rows are not found.

use serde::{Deserialize, Serialize};

use super::RowGroup;

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its path relative to the folder, with `/`.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The documents at token 0 of its first and of its last row; files of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<[u64; 2]>,
    /// Where its rows are.
    pub groups: Vec<RowGroup>,
}

/// What is wrong with a file of the wrong length.
pub(crate) fn length_problem(bytes: u64, expected: u64) -> String {
    let what = if bytes < expected { "truncated" } else { "changed" };
    format!(
        "has {bytes} bytes, expected {expected}: it was {what}; restore it, or remove it and run the same build again"
    )
}
