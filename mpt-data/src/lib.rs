//! From raw documents to resumable batches of tokens.
//!
//! A [`PrepareRun`] read from a MIX.toml says which sources there are and how they are mixed; [`prepare()`] turns it into a
//! folder of Parquet shards with a [`Manifest`]; a [`Loader`] gives the samples of that folder in an order that is a pure
//! function of seed and sample index, so that a [`Cursor`] of a few bytes resumes anywhere at once.

mod blob;
mod compressed;
mod config;
mod dedup;
mod document;
mod document_starts;
mod document_tables;
pub mod durable;
mod error;
mod file_digest;
mod filter;
mod hash;
pub mod interop;
mod layout;
mod loader;
mod manifest;
mod mapped_file;
mod mixing;
pub mod order;
mod pack;
mod panic_guard;
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
pub use dedup::{
    CopyGroup, Dedup, DedupKind, DedupReport, DedupSourceReport, DedupStage, Embedder, KeepFirst, MinHash,
    Paragraphs, SemDedup,
};
pub use document::Document;
pub use document_starts::DocumentStarts;
pub use document_tables::DocumentIndex;
pub use error::{Damage, Error, Result};
pub use file_digest::FileDigest;
pub use filter::{
    C4, Column, Decontaminate, DropReason, Filter, FinewebQuality, GopherQuality, GopherRepetition, Language,
    ListedAction, Pii, UrlList, WordList,
};
pub use layout::{ColumnPages, RowGroup, ShardRecord};
pub use loader::{
    AcceptedChange, Cursor, Loader, LoaderConfig, Sample, SampleId, SampleLocation, TokenBatch,
};
pub use manifest::{
    Manifest, ManifestContents, Plan, SourcePlan, SourceRecord, Split, SplitRecord, TokenAccount,
};
pub use mixing::{
    Batching, DEFAULT_WINDOW, InvalidKey, Mixing, MixingChanges, Quota, Sampling, Share, Shuffle, StageConfig,
};
pub use pack::{PackedRow, Packer};
pub use panic_guard::is_panic_caught;
pub use prepare::{UnitStatus, commit_units, plan_units, prepare, prepare_unit, prepare_with};
pub use progress::{NoProgress, Note, Phase, Progress};
pub use report::{MixRow, MixTable, inspect, plan, plan_from_mix};
pub use simulate::{
    SimulateConfig, Simulation, SourceSimulation, Spread, SpreadMeter, Traffic, simulate,
    true_shuffle_entropy,
};
pub use source::MAX_DOCUMENT_BYTES;
pub use trace::{TracedDocument, TracedSample, trace};
