//! Deduplication: copies of documents and paragraphs, exact, near, or in meaning.
//!
//! A [`Dedup`] holds the settings of a run file. Everything else is a pure function of texts, signatures or embeddings;
//! `prepare` knows the files and the order of the documents.

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
pub(crate) use self::paragraphs::{SHORT_PARAGRAPH, paragraph_hashes, remove_paragraphs};
pub(crate) use self::report::DedupTally;
pub use self::report::{CopyGroup, DedupReport, DedupSourceReport};
pub(crate) use self::semantic::semantic_duplicates;
