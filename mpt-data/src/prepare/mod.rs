//! Preparation: plan, work units, selection, commit.
//!
//! A *unit* is a few input files of one source, whatever the number of threads. Its file under `OUT/.units` is named after
//! everything that decides its content, so a complete one is never made again. When all units are complete, the selection
//! decides in the order of sources and documents which documents stay and in which split. The commit packs their tokens into
//! shards and writes the manifest last. A process killed at any moment leaves nothing that looks more complete than it is.

mod commit;
mod edit_writer;
mod exact_dedup;
mod find_files;
mod inputs;
mod minhash;
mod output_dir;
mod plan;
mod plan_changes;
mod selection;
mod semantic_dedup;
mod sketch;
mod steps;
mod tokenize;
mod unit;
mod unit_file;
mod unit_iter;
mod unit_split;
mod vector_file;

use mpt_tokenize::Tokenizer;

#[cfg(feature = "interop")]
pub(crate) use inputs::hash_inputs;
pub(crate) use plan::PlannedRun;
#[cfg(feature = "interop")]
pub(crate) use plan::plan_hash;
#[cfg(feature = "interop")]
pub(crate) use plan_changes::changes;
pub(crate) use selection::{PlanSink, SourceCounts};
pub use steps::{UnitStatus, commit_units, plan_units, prepare_unit};
pub(crate) use tokenize::tokenize;
#[cfg(feature = "interop")]
pub(crate) use unit::InputFile;

use self::output_dir::{OutputState, open_output, remove_units};
use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::Embedder;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::mixing::{Batching, Share};
use crate::order::{Order, OrderConfig, OrderSource};
use crate::progress::Progress;

/// Tokens of a source whose size is not known yet: enough for any order.
const ASSUMED_TOKENS: u64 = 1 << 40;

/// Prepares data: from the sources of `run` to shards and a manifest in `run.out`.
///
/// The same inputs, run and tokenizer give the same bytes for any number of threads (rayon's current pool is used), however
/// often the work is interrupted. A second call continues an interrupted build, and leaves complete data of the same plan
/// alone.
///
/// # Errors
/// [`Error::Changed`] when the folder holds data made differently, [`Error::NotOurs`] when it holds something else; the
/// errors of reading sources name file and line; [`Error::EmptySource`] and [`Error::SmallSource`] name a source that
/// cannot be trained on; [`Error::Interrupted`] when `progress` says so.
pub fn prepare(run: &PrepareRun, tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<Manifest> {
    prepare_with(run, tokenizer, None, progress)
}

/// [`prepare`], with the model that a `semdedup` stage needs.
///
/// # Errors
/// As [`prepare`]; [`Error::NoEmbedder`] when a stage needs a model and there is none, [`Error::Embedder`] when it fails.
pub fn prepare_with(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    finish(run, tokenizer, embedder, progress, |_, _| Ok(()))
}

/// Makes the missing units, if `allow_missing` permits it, and the data.
fn finish(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
    allow_missing: impl FnOnce(&PlannedRun<'_>, &[usize]) -> Result<()>,
) -> Result<Manifest> {
    let embedder = match run.dedup.semdedup() {
        Some(_) => Some(embedder.ok_or_else(|| Error::NoEmbedder { path: run.path.clone() })?),
        None => None,
    };
    let fingerprint = embedder.as_ref().map(|embedder| embedder.fingerprint());
    check_order(run)?;
    let planned = PlannedRun::new(run, tokenizer, fingerprint, progress)?;
    let (units, _lock) = match open_output(&run.out, &planned, progress)? {
        OutputState::Finished(manifest) => return Ok(manifest),
        OutputState::Locked(units, lock) => (units, lock),
    };
    let missing = planned.missing_units(&units, progress)?;
    allow_missing(&planned, &missing)?;
    let mut writer = unit_file::UnitWriter::new(&units, planned.layout.token_bytes);
    tokenize(&planned, &missing, tokenizer, &mut writer, progress)?;
    let selection = selection::select(&planned, &units, &run.out, tokenizer, embedder, progress)?;
    let manifest = commit::commit(&planned, &selection, &run.out, tokenizer, progress)?;
    remove_units(&run.out)?;
    Ok(manifest)
}

/// Refuses a mix that no order of training can have, such as groups without a sample of some source, before all the work.
fn check_order(run: &PrepareRun) -> Result<()> {
    let mut mixing = run.mixing.clone();
    if mixing.batch_group.is_none() {
        // The size of a batch is not known yet.
        mixing.batching = Batching::Random;
    }
    let source = |source: &SourceConfig| match source.proportion {
        Share::Proportion(_) => {
            Some(OrderSource { name: source.name.clone(), share: source.proportion, tokens: ASSUMED_TOKENS })
        }
        // Quotas follow from the tokens, which are not known yet.
        Share::Quota(_) => None,
    };
    let Some(sources) = run.sources.iter().map(source).collect() else { return Ok(()) };
    let (row_tokens, seq_len, group) = (run.row_tokens, run.seq_len, mixing.batch_group.unwrap_or(1));
    let order = OrderConfig { sources, row_tokens, seq_len, seed: run.seed, mixing, group };
    Order::for_counting(&order).map(drop).map_err(|error| match error {
        Error::Loader { field, actual, expected } => {
            Error::Config { path: run.path.clone(), field: field.to_owned(), expected, actual }
        }
        error => error,
    })
}
