//! From raw documents to resumable batches of tokens.
//!
//! A [`PrepareRun`] read from a MIX.toml says which sources there are and how they are mixed; [`prepare()`] turns it into a
//! folder of Parquet shards with a [`Manifest`]; a [`Loader`] gives the samples of that folder in an order that is a pure
//! function of seed and sample index, so that a [`Cursor`] of a few bytes resumes anywhere at once.

mod blob;
mod compressed;
mod config;
mod contain;
mod dedup;
mod document;
mod document_tables;
pub mod durable;
mod error;
mod filter;
mod hash;
mod hashed_file;
pub mod interop;
mod layout;
mod loader;
mod manifest;
mod map;
mod mixing;
pub mod order;
mod pack;
mod prepare;
mod progress;
pub mod remote;
mod report;
pub mod runfile;
mod shard;
mod simulate;
mod source;
mod trace;

pub use config::{Format, MAX_ROW_TOKENS, OnBadLine, PrepareRun, SourceConfig};
pub use contain::is_contained;
pub use dedup::{
    CopyGroup, Dedup, DedupStage, Embedder, KeepFirst, MinHash, Paragraphs, SemDedup, StageKind, StageReport,
    StageSource,
};
pub use document::Document;
pub use document_tables::DocumentIndex;
pub use error::{Damage, Error, Result};
pub use filter::{
    C4, Column, Decontaminate, Drop, Filter, FinewebQuality, GopherQuality, GopherRepetition, Language,
    Listed, Pii, UrlList, WordList,
};
pub use hashed_file::PlainFile;
pub use layout::{FileRecord, Group, Pages};
pub use loader::{Accepted, Cursor, Loader, LoaderConfig, Sample, SampleId, SamplePlace, TokenBatch};
pub use manifest::{Contents, Manifest, Plan, SourcePlan, SourceRecord, Split, SplitRecord, TokenAccount};
pub use mixing::{
    Batching, DEFAULT_WINDOW, Mixing, MixingChanges, Quota, Sampling, Share, Shuffle, StageConfig, WrongKey,
};
pub use pack::{Packer, Row, is_start};
pub use prepare::{UnitStatus, commit_units, plan_units, prepare, prepare_unit, prepare_with};
pub use progress::{Note, Progress, Silent, Stage};
pub use report::{MixRow, MixTable, inspect, plan, plan_of_known};
pub use simulate::{
    SimulateConfig, Simulation, SourceSimulation, Spread, SpreadMeter, Traffic, simulate,
    true_shuffle_entropy,
};
pub use source::MAX_DOCUMENT_BYTES;
pub use trace::{TracedDocument, TracedSample, trace};
