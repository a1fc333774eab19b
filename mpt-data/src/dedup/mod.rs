//! Deduplication: which documents and paragraphs are copies of earlier ones, exactly, nearly, or in meaning.
//!
//! One idea a file. A [`Dedup`] is what the run file says; everything else here is a pure function of texts, signatures or
//! embeddings. Where the documents lie, and in which order they come, is the business of `prepare`.

mod bands;
mod components;
mod config;
mod embedder;
mod kmeans;
mod minhash;
mod paragraphs;
mod report;
mod semantic;

pub(crate) use self::bands::{Bands, near_copies};
pub(crate) use self::config::StageKinds;
pub use self::config::{Dedup, DedupStage, KeepFirst, MinHash, Paragraphs, SemDedup, StageKind};
pub use self::embedder::Embedder;
pub(crate) use self::kmeans::Vectors;
pub(crate) use self::minhash::{MinHasher, similarity};
pub(crate) use self::paragraphs::{SHORT, hashes as paragraph_hashes, without as without_paragraphs};
pub(crate) use self::report::Tallies;
pub use self::report::{CopyGroup, StageReport, StageSource};
pub(crate) use self::semantic::semantic_copies;
