//! Training text of quickstart: documents of cargo's registry, or of files that the user names.

mod files;
mod registry;
mod shingles;
mod user_files;

pub(super) use registry::from_cargo;
pub(super) use user_files::from_paths;

use serde::{Deserialize, Serialize};

/// Document, as in the JSONL files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    /// Origin: `crate-version/path`, or a path below the user's.
    #[serde(default)]
    pub(super) id: String,
    /// Text.
    pub(super) text: String,
}

/// Source: named documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Name in the mix.
    pub(super) name: String,
    /// Documents in their final order.
    pub(super) documents: Vec<Document>,
}
