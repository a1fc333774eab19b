//! Preparation in steps, so that any scheduler can run the work units: plan, each unit, commit.
//!
//! The plan leaves the list of inputs beside the units: hashing all of them again for every unit would be most of the work.
//! A unit looks at their lengths only; the commit hashes them once more, so that an input that changed in between is
//! noticed, as units that are missing.

use std::path::Path;

use mpt_tokenize::Tokenizer;
use serde::{Deserialize, Serialize};

use super::plan::PlannedRun;
use super::unit::{InputFile, Unit};
use super::unit_file::{self, UnitWriter};
use super::{LOCK, check_order, claim, finish, finished, tokenize};
use crate::config::PrepareRun;
use crate::dedup::Embedder;
use crate::durable;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, UNITS};
use crate::progress::Progress;

/// The inputs, in the folder of units.
const INPUTS: &str = "inputs.json";

/// Held while they are written.
const PLAN_LOCK: &str = ".plan.lock";

/// A work unit of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitStatus {
    /// Its name: the hash of everything that decides its content.
    pub id: String,
    /// The source it belongs to.
    pub source: String,
    /// Bytes of its input files.
    pub bytes: u64,
    /// Whether it is there whole.
    pub done: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// Of each source, its files.
    sources: Vec<Vec<InputFile>>,
}

/// The units that `run` is made of, in order, and which of them are there; begins `run.out` where it is not begun.
///
/// # Errors
/// Those of [`prepare`](super::prepare) that do not come from the texts; [`Error::AlreadyBuilt`] for finished data,
/// [`Error::Busy`] while another process plans.
pub fn plan_units(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Vec<UnitStatus>> {
    check_order(run)?;
    let planned = PlannedRun::new(run, tokenizer, embedder.map(Embedder::fingerprint), progress)?;
    if finished(&run.out, &planned, progress)?.is_some() {
        return Err(Error::AlreadyBuilt { path: run.out.clone() });
    }
    let dir = claim(&run.out)?;
    let busy = || Error::Busy { path: run.out.clone() };
    let _own = durable::lock(&dir.join(PLAN_LOCK))?.ok_or_else(busy)?;
    let inputs = Inputs { sources: planned.inputs() };
    inputs.sources.iter().flatten().try_for_each(check_path)?;
    let json = serde_json::to_vec(&inputs).expect("inputs have string keys and paths that are text");
    durable::write_file(&dir.join(INPUTS), &json)?;
    planned.units.iter().map(|unit| status(&planned, &dir, unit)).collect()
}

/// Makes one unit of a plan, unless it is there. Several processes may do so at the same time, on any number of machines
/// that share the folder.
///
/// # Errors
/// [`Error::NoPlan`] without a plan in `run.out`, [`Error::NoUnit`] for a name that is not in it, [`Error::Changed`] when an
/// input is not as long as it was, [`Error::Busy`] while the same unit, or the whole, is being made; and those of
/// [`prepare`](super::prepare).
pub fn prepare_unit(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&dyn Embedder>,
    id: &str,
    progress: &mut dyn Progress,
) -> Result<UnitStatus> {
    let dir = run.out.join(UNITS);
    let json = std::fs::read(dir.join(INPUTS)).map_err(|_| Error::NoPlan { path: run.out.clone() })?;
    let inputs: Inputs =
        serde_json::from_slice(&json).map_err(|_| Error::NoPlan { path: run.out.clone() })?;
    inputs.sources.iter().flatten().try_for_each(|input| unchanged(&run.out, input))?;
    let fingerprint = embedder.map(Embedder::fingerprint);
    let planned = PlannedRun::with_inputs(run, tokenizer, fingerprint, inputs.sources)?;
    let index = planned.units.iter().position(|unit| unit.name == id);
    let index = index.ok_or_else(|| Error::NoUnit { path: run.out.clone(), id: id.to_owned() })?;
    let busy = || Error::Busy { path: run.out.clone() };
    let _shared = durable::lock_shared(&dir.join(LOCK))?.ok_or_else(busy)?;
    let _own = durable::lock(&dir.join(format!(".{id}.lock")))?.ok_or_else(busy)?;
    if !unit_file::is_whole(&dir.join(id))? {
        tokenize(
            &planned,
            &[index],
            tokenizer,
            &mut UnitWriter::new(&dir, planned.layout.token_bytes),
            progress,
        )?;
    }
    status(&planned, &dir, &planned.units[index])
}

/// What [`prepare`](super::prepare) does once all units are there.
///
/// # Errors
/// [`Error::MissingUnits`] when they are not; else as [`prepare_with`](super::prepare_with).
pub fn commit_units(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let all_there = |planned: &PlannedRun<'_>, missing: &[usize]| match missing.first() {
        None => Ok(()),
        Some(&first) => Err(Error::MissingUnits {
            path: run.out.clone(),
            first: planned.units[first].name.clone(),
            missing: missing.len(),
            total: planned.units.len(),
        }),
    };
    finish(run, tokenizer, embedder, progress, all_there)
}

fn status(planned: &PlannedRun<'_>, dir: &Path, unit: &Unit) -> Result<UnitStatus> {
    Ok(UnitStatus {
        id: unit.name.clone(),
        source: planned.run.sources[unit.source].name.clone(),
        bytes: unit.bytes(),
        done: unit_file::is_whole(&dir.join(&unit.name))?,
    })
}

/// The plan is read by other processes, as text.
fn check_path(input: &InputFile) -> Result<()> {
    if input.path.to_str().is_some() {
        return Ok(());
    }
    let problem =
        "the path is not UTF-8, so a plan of units cannot name it; build at once, or move the folder";
    Err(Error::input(&input.path, problem))
}

fn unchanged(out: &Path, input: &InputFile) -> Result<()> {
    let found = std::fs::metadata(&input.path).map_err(Error::io(&input.path, "looking at"))?.len();
    if found == input.file.bytes {
        return Ok(());
    }
    let change = format!("{} has {found} bytes, was {}", input.path.display(), input.file.bytes);
    Err(Error::Changed { path: out.to_owned(), changes: vec![change] })
}
