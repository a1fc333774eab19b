//! Preparation: plan, work units, commit.
//!
//! A *unit* is a few input files of one source, whatever the number of threads. Its file under `OUT/.units` is named after
//! everything that decides its content, so one that is there whole need not be made again. When all units are there, one
//! pass in the order of sources and documents decides which documents stay and where they go, another packs their tokens
//! into shards, and the manifest is written last. A process killed at any moment leaves nothing that the next one would
//! take for more than it is.

mod commit;
mod decide;
mod meaning;
mod near;
mod plan;
mod screen;
mod sketch;
mod steps;
mod tokenize;
mod unit;
mod unit_file;
mod walk;

use std::path::Path;

use mpt_tokenize::Tokenizer;

pub(crate) use decide::{Counts, Tally};
pub(crate) use plan::{PlannedRun, changes, hash_all, hash_of};
pub use steps::{UnitStatus, commit_units, plan_units, prepare_unit};
pub(crate) use tokenize::tokenize;
pub(crate) use unit::Input;

use crate::config::PrepareRun;
use crate::dedup::Embedder;
use crate::durable;
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, Manifest, UNITS};
use crate::progress::{Note, Progress};

const LOCK: &str = "lock";

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
    let planned = PlannedRun::new(run, tokenizer, fingerprint, progress)?;
    if run.out.join(MANIFEST).exists() {
        return finished(&run.out, &planned, progress);
    }
    let units = claim(&run.out)?;
    let _lock = durable::lock(&units.join(LOCK))?.ok_or_else(|| Error::Busy { path: run.out.clone() })?;
    let missing = planned.missing_units(&units, progress)?;
    allowed(&planned, &missing)?;
    let mut writer = unit_file::UnitFiles::new(&units, planned.layout.token_bytes);
    tokenize(&planned, &missing, tokenizer, &mut writer, progress)?;
    let decided = decide::decide(&planned, &units, &run.out, tokenizer, embedder, progress)?;
    let manifest = commit::commit(&planned, &decided, &run.out, tokenizer, progress)?;
    remove_units(&run.out)?;
    Ok(manifest)
}

/// The folder has a manifest: it is what was asked for, or it is refused.
fn finished(out: &Path, planned: &PlannedRun<'_>, progress: &mut dyn Progress) -> Result<Manifest> {
    let manifest = Manifest::open(out)?;
    let changes = changes(manifest.plan(), &planned.plan);
    if !changes.is_empty() {
        return Err(Error::Changed { path: out.to_owned(), changes });
    }
    remove_units(out)?;
    progress.note(&Note::AlreadyBuilt);
    Ok(manifest)
}

/// Makes the output folder ours. Only a new or empty folder, or one that we began to build in, is taken.
fn claim(out: &Path) -> Result<std::path::PathBuf> {
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
    if !units.exists() {
        return Ok(());
    }
    std::fs::remove_dir_all(&units).map_err(Error::io(&units, "removing"))
}
