//! Deduplication: which documents and paragraphs are copies of earlier ones, exactly, nearly, or in meaning.
//!
//! One idea a file. A [`Dedup`] is what the run file says; everything else here is a pure function of texts, signatures or
//! embeddings. Where the documents lie, and in which order they come, is the business of `prepare`.

mod bands;
mod components;
mod config;
mod minhash;
mod paragraphs;
mod report;

pub(crate) use self::bands::{Bands, near_copies};
pub(crate) use self::config::StageKinds;
pub use self::config::{Dedup, DedupStage, KeepFirst, MinHash, Paragraphs, SemDedup, StageKind};
pub(crate) use self::minhash::{MinHasher, similarity};
pub(crate) use self::paragraphs::{SHORT, hashes as paragraph_hashes, without as without_paragraphs};
pub(crate) use self::report::Tallies;
pub use self::report::{CopyGroup, StageReport, StageSource};
