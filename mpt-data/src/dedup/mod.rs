//! Deduplication: which documents and paragraphs are copies of earlier ones, exactly, nearly, or in meaning.
//!
//! One idea a file. A [`Dedup`] is what the run file says; everything else here is a pure function of texts, signatures or
//! embeddings. Where the documents lie, and in which order they come, is the business of `prepare`.

mod config;
mod embedder;
mod kmeans;
mod lsh;
mod minhash;
mod paragraphs;
mod report;
mod semantic;
mod union_find;

pub(crate) use self::config::DedupKinds;
pub use self::config::{Dedup, DedupKind, DedupStage, KeepFirst, MinHash, Paragraphs, SemDedup};
pub use self::embedder::Embedder;
pub(crate) use self::kmeans::Embeddings;
pub(crate) use self::lsh::{LshBands, near_duplicates};
pub(crate) use self::minhash::{MinHasher, similarity};
pub(crate) use self::paragraphs::{SHORT, hashes as paragraph_hashes, without as without_paragraphs};
pub(crate) use self::report::DedupTally;
pub use self::report::{CopyGroup, DedupReport, DedupSourceReport};
pub(crate) use self::semantic::semantic_duplicates;
