//! Preparation: plan, work units, commit.
//!
//! A *unit* is a few input files of one source, whatever the number of threads. Its file under `OUT/.units` is named after
//! everything that decides its content, so one that is there whole need not be made again. When all units are there, one
//! pass in the order of sources and documents decides which documents stay and where they go, another packs their tokens
//! into shards, and the manifest is written last. A process killed at any moment leaves nothing that the next one would
//! take for more than it is.

mod commit;
mod exact_dedup;
mod find_files;
mod minhash;
mod plan;
mod selection;
mod semantic_dedup;
mod sketch;
mod steps;
mod tokenize;
mod unit;
mod unit_file;
mod unit_iter;

use std::fs::File;
use std::path::{Path, PathBuf};

use mpt_tokenize::Tokenizer;

pub(crate) use plan::{PlannedRun, changes, hash_all, hash_of};
pub(crate) use selection::{PlanSink, SourceCounts};
pub use steps::{UnitStatus, commit_units, plan_units, prepare_unit};
pub(crate) use tokenize::tokenize;
pub(crate) use unit::InputFile;

use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::Embedder;
use crate::durable;
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, Manifest, UNITS};
use crate::mixing::{Batching, Share};
use crate::order::{Order, OrderConfig, OrderSource};
use crate::progress::{Note, Progress};

const LOCK: &str = "lock";
/// Tokens that any order can be made of.
const ASSUMED_TOKENS: u64 = 1 << 40;

/// Prepares data: from the sources of `run` to shards and a manifest in `run.out`.
///
/// The same inputs, run and tokenizer give the same bytes for any number of threads (rayon's current pool is used) and
/// however often the work is interrupted; running again continues. Finished data made from the same is left alone.
///
/// # Errors
/// [`Error::Changed`] when the folder holds data made differently, [`Error::NotOurs`] when it holds something else; the
/// errors of reading sources name file and line; [`Error::EmptySource`] and [`Error::SmallSource`] name a source that
/// cannot be trained on; [`Error::Interrupted`] when `progress` says so.
pub fn prepare(run: &PrepareRun, tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<Manifest> {
    prepare_with(run, tokenizer, None, progress)
}

/// [`prepare`], with the model that a stage `semdedup` needs.
///
/// # Errors
/// As [`prepare`]; [`Error::NoEmbedder`] when it is needed and not there, and [`Error::Embedder`] when it fails.
pub fn prepare_with(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    finish(run, tokenizer, embedder, progress, |_, _| Ok(()))
}

/// Makes what is missing, if `allowed` lets it, and the data.
fn finish(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
    allowed: impl FnOnce(&PlannedRun<'_>, &[usize]) -> Result<()>,
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
    allowed(&planned, &missing)?;
    let mut writer = unit_file::UnitWriter::new(&units, planned.layout.token_bytes);
    tokenize(&planned, &missing, tokenizer, &mut writer, progress)?;
    let selection = selection::decide(&planned, &units, &run.out, tokenizer, embedder, progress)?;
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
    Order::of_shares(&order).map(drop).map_err(|error| match error {
        Error::Loader { field, actual, expected } => {
            Error::Config { path: run.path.clone(), field: field.to_owned(), expected, actual }
        }
        error => error,
    })
}

/// What a build finds in its folder.
enum OutputState {
    /// All that it would make.
    Finished(Manifest),
    /// The folder of units, and the lock that is held as long as the file lives.
    Locked(PathBuf, File),
}

/// Takes the folder, which another process may be finishing at this moment: what is there is looked at under the lock.
fn open_output(out: &Path, planned: &PlannedRun<'_>, progress: &mut dyn Progress) -> Result<OutputState> {
    loop {
        if let Some(manifest) = finished(out, planned, progress)? {
            return Ok(OutputState::Finished(manifest));
        }
        let units = match claim(out) {
            Err(Error::NotOurs { .. }) if out.join(MANIFEST).exists() => continue,
            units => units?,
        };
        let path = units.join(LOCK);
        let lock = match durable::lock(&path) {
            Err(Error::Io { .. }) if !units.exists() => continue,
            lock => lock?.ok_or_else(|| Error::Busy { path: out.to_owned() })?,
        };
        // Who finished took the folder of units away, with the lock that this one may have waited for.
        if is_same_file(&lock, &path) && !out.join(MANIFEST).exists() {
            return Ok(OutputState::Locked(units, lock));
        }
    }
}

#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
    file.metadata().map(identity).ok() == path.metadata().map(identity).ok()
}

/// An open file cannot be taken away here.
#[cfg(not(unix))]
fn is_same_file(_: &File, path: &Path) -> bool {
    path.exists()
}

/// The data of a folder that has a manifest: it is what was asked for, or it is refused. Where files of it are gone, it
/// becomes a build that was begun, which makes them again.
fn finished(out: &Path, planned: &PlannedRun<'_>, progress: &mut dyn Progress) -> Result<Option<Manifest>> {
    if !out.join(MANIFEST).exists() {
        return Ok(None);
    }
    let manifest = Manifest::open(out)?;
    let changes = changes(manifest.plan(), &planned.plan);
    if !changes.is_empty() {
        return Err(Error::Changed { path: out.to_owned(), changes });
    }
    if let Some(file) = manifest.first_incomplete() {
        progress.note(&Note::Incomplete { file });
        durable::make_dir(&out.join(UNITS))?;
        ignore_missing(std::fs::remove_file(out.join(MANIFEST)))
            .map_err(Error::io(out, "removing the manifest"))?;
        return Ok(None);
    }
    remove_units(out)?;
    progress.note(&Note::AlreadyBuilt);
    Ok(Some(manifest))
}

/// Makes the output folder ours. Only a new or empty folder, or one that we began to build in, is taken.
fn claim(out: &Path) -> Result<PathBuf> {
    let units = out.join(UNITS);
    if !units.is_dir() && out.exists() {
        let mut entries = std::fs::read_dir(out).map_err(Error::io(out, "listing"))?;
        if entries.next().is_some() {
            return Err(Error::NotOurs { path: out.to_owned() });
        }
    }
    durable::make_dir(&units)?;
    Ok(units)
}

fn remove_units(out: &Path) -> Result<()> {
    let units = out.join(UNITS);
    ignore_missing(std::fs::remove_dir_all(&units)).map_err(Error::io(&units, "removing"))
}

/// Another process may have taken away the same at the same moment.
fn ignore_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
