//! From raw documents to resumable batches of tokens.
//!
//! A [`PrepareRun`] read from a MIX.toml says which sources there are and how they are mixed; [`prepare()`] turns it into a
//! folder of Parquet shards with a [`Manifest`]; a [`Loader`] gives the samples of that folder in an order that is a pure
//! function of seed and sample index, so that a [`Cursor`] of a few bytes resumes anywhere at once.
//!
//! ```
//! use mpt_data::{Loader, LoaderConfig, NoProgress, PrepareRun, Split, prepare};
//! use mpt_tokenize::{Tokenizer, TrainConfig, train};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // Documents as people have them: a JSON object a line, with a `text`.
//! let line = |n| format!("{{\"text\": \"{}\"}}\n", format!("river {n} ").repeat(50));
//! std::fs::write(dir.join("web.jsonl"), (0..100).map(line).collect::<String>())?;
//! let config = TrainConfig { vocab_size: 300, min_frequency: 1 };
//! std::fs::write(dir.join("tokenizer.json"), train(["river 12 345 "].into_iter(), &config)?)?;
//!
//! // The mix: paths are relative to its file. More sources are more tables `[[sources]]`, each with a `proportion`.
//! let mix = r#"
//!     tokenizer = "tokenizer.json"
//!     seq_len = 64        # tokens in a sample
//!     row_tokens = 64     # tokens in a row of a shard
//!     eval_fraction = 0.1 # of the documents, held out
//!
//!     [[sources]]
//!     name = "web"
//!     proportion = 1.0
//!     paths = ["*.jsonl"]
//!     format = "jsonl"
//! "#;
//! let run = PrepareRun::parse(mix, &dir.join("mix.toml"))?; // PrepareRun::from_file reads one that is there
//! let tokenizer = Tokenizer::from_file(&run.tokenizer)?;
//! let manifest = prepare(&run, &tokenizer, &mut NoProgress)?; // killed? the same again goes on; later: Manifest::open(dir)
//!
//! let config = LoaderConfig { batch_size: 4, ..LoaderConfig::new(&manifest, Split::Train) };
//! let mut loader = Loader::new(&manifest, config.clone(), None)?;
//! let batch = loader.next().expect("training goes on for ever")?;
//! assert_eq!(batch.tokens.len(), batch.batch * batch.seq); // [batch, seq]
//!
//! // A cursor is a few bytes; a loader made with it goes on where the other one was.
//! let cursor: mpt_data::Cursor = loader.cursor();
//! let next = loader.next().expect("training goes on for ever")?;
//! let again = Loader::new(&manifest, config, Some(cursor))?.next().expect("training goes on for ever")?;
//! assert_eq!(again.tokens, next.tokens);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Progress`] in place of [`NoProgress`] is told of the build's progress, and can stop it. A batch has, beside the tokens, the
//! source of each sample and the document of each token.
//!
//! The types of every key of a MIX.toml are in [`filter`] and [`dedup`], what a manifest says in [`manifest`], what a run will read
//! in [`simulate`].
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `interop` (default) | the module of that name: data of MosaicML Streaming (MDS) and of Megatron, in and out |
//! | `remote` | sources and data folders in object stores: `s3://`, `gs://`, `az://`, `https://` |
//!
//! [`Error::NotBuilt`] names a feature that a build lacks.

mod blob;
mod compressed;
mod config;
pub mod dedup;
mod document;
mod document_starts;
mod document_tables;
pub mod durable;
mod error;
mod file_digest;
pub mod filter;
mod hash;
#[cfg(feature = "interop")]
pub mod interop;
mod layout;
mod loader;
pub mod manifest;
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
pub mod simulate;
mod source;
mod trace;

pub use config::{Format, MAX_ROW_TOKENS, OnBadLine, PrepareRun, SourceConfig};
pub use dedup::Embedder;
pub use document::Document;
pub use document_starts::DocumentStarts;
pub use document_tables::DocumentIndex;
pub use error::{Cause, Damage, Error, Result};
pub use file_digest::FileDigest;
pub use layout::{ColumnPages, RowGroup, ShardRecord};
pub use loader::{
    AcceptedChange, Cursor, Loader, LoaderConfig, Sample, SampleId, SampleLocation, TokenBatch,
};
pub use manifest::{Manifest, Plan, Split};
pub use mixing::{
    Batching, DEFAULT_WINDOW, InvalidKey, Mixing, MixingChanges, Quota, Sampling, Share, Shuffle, StageConfig,
};
pub use mpt_tokenize::ErrorKind;
pub use pack::{PackedRow, Packer};
pub use panic_guard::is_panic_caught;
pub use prepare::{UnitStatus, commit_units, plan_units, prepare, prepare_unit, prepare_with};
pub use progress::{NoProgress, Note, Phase, Progress};
pub use report::{MixRow, MixTable, inspect, plan, plan_from_mix};
pub use source::MAX_DOCUMENT_BYTES;
pub use trace::{TracedDocument, TracedSample, trace};
