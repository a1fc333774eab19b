//! Record of a shard in the manifest, with the offsets of its rows.

use serde::{Deserialize, Serialize};

use super::RowGroup;

/// Record of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Path relative to the folder, with `/`.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// Documents at token 0 of the first and of the last row; unknown in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<[u64; 2]>,
    /// Row groups, with the offsets of their rows.
    pub groups: Vec<RowGroup>,
}

/// Problem of a file of another length, in words.
pub(crate) fn length_problem(bytes: u64, expected: u64) -> String {
    let what = if bytes < expected { "truncated" } else { "changed" };
    format!(
        "has {bytes} bytes, expected {expected}: it was {what}; restore it, or remove it and run the same build again"
    )
}
