//! Preparation in steps, so that any scheduler can run the work units: plan, each unit, commit.
//!
//! The plan writes the hashed inputs beside the units, because to hash all of them for every unit would be most of the work.
//! A unit checks their lengths only. The commit hashes them again, so that a changed input shows up as missing units.

use std::path::Path;

use mpt_tokenize::Tokenizer;
use serde::{Deserialize, Serialize};

use super::output_dir::{LOCK, claim, finished};
use super::plan::PlannedRun;
use super::unit::{InputFile, Unit};
use super::unit_file::{self, UnitWriter};
use super::{check_order, finish, tokenize};
use crate::config::PrepareRun;
use crate::dedup::Embedder;
use crate::durable;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, UNITS};
use crate::progress::Progress;

/// Name of the list of inputs in the folder of units.
const INPUTS: &str = "inputs.json";

/// Name of the lock that is held while the list is written.
const PLAN_LOCK: &str = ".plan.lock";

/// Work unit of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitStatus {
    /// Name: the hash of everything that decides its content.
    pub id: String,
    /// Name of the source.
    pub source: String,
    /// Bytes of the input files.
    pub bytes: u64,
    /// Whether its file is complete.
    pub done: bool,
}

/// List of inputs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// Files of each source.
    sources: Vec<Vec<InputFile>>,
}

/// Plans `run`: writes its list of inputs into `run.out`, and returns its units in order.
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

/// Makes one unit of a plan, unless it is complete. Several processes may work at the same time, on any number of machines
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
    inputs.sources.iter().flatten().try_for_each(|input| check_length(&run.out, input))?;
    let fingerprint = embedder.map(Embedder::fingerprint);
    let planned = PlannedRun::with_inputs(run, tokenizer, fingerprint, inputs.sources)?;
    let index = planned.units.iter().position(|unit| unit.name == id);
    let index = index.ok_or_else(|| Error::NoUnit { path: run.out.clone(), id: id.to_owned() })?;
    let busy = || Error::Busy { path: run.out.clone() };
    let _shared = durable::lock_shared(&dir.join(LOCK))?.ok_or_else(busy)?;
    let _own = durable::lock(&dir.join(format!(".{id}.lock")))?.ok_or_else(busy)?;
    if !unit_file::is_complete(&dir.join(id))? {
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

/// Completes the data once all units are complete.
///
/// # Errors
/// [`Error::MissingUnits`] when some are not; else as [`prepare_with`](super::prepare_with).
pub fn commit_units(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    embedder: Option<&mut dyn Embedder>,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    let none_missing = |planned: &PlannedRun<'_>, missing: &[usize]| match missing.first() {
        None => Ok(()),
        Some(&first) => Err(Error::MissingUnits {
            path: run.out.clone(),
            first: planned.units[first].name.clone(),
            missing: missing.len(),
            total: planned.units.len(),
        }),
    };
    finish(run, tokenizer, embedder, progress, none_missing)
}

fn status(planned: &PlannedRun<'_>, dir: &Path, unit: &Unit) -> Result<UnitStatus> {
    Ok(UnitStatus {
        id: unit.name.clone(),
        source: planned.run.sources[unit.source].name.clone(),
        bytes: unit.bytes(),
        done: unit_file::is_complete(&dir.join(&unit.name))?,
    })
}

/// Checks that other processes can read the path, which the list holds as text.
fn check_path(input: &InputFile) -> Result<()> {
    if input.path.to_str().is_some() {
        return Ok(());
    }
    let problem =
        "the path is not UTF-8, so a plan of units cannot name it; build at once, or move the folder";
    Err(Error::input(&input.path, problem))
}

/// Checks that an input has the length it had in the plan.
fn check_length(out: &Path, input: &InputFile) -> Result<()> {
    let found = std::fs::metadata(&input.path).map_err(Error::io(&input.path, "looking at"))?.len();
    if found == input.file.bytes {
        return Ok(());
    }
    let change = format!("{} has {found} bytes, was {}", input.path.display(), input.file.bytes);
    Err(Error::Changed { path: out.to_owned(), changes: vec![change] })
}
