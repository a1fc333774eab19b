//! Checkpoints of a run: Hugging Face model folders with the training state inside, committed whole or not at all.
//!
//! `RUN/checkpoints/step-00000100/` holds `config.json`, `model.safetensors`, `tokenizer.json`, `generation_config.json`
//! and `training/` with the optimizer's state, `state.json`, and `files.json`, the checksums of all other files. A
//! checkpoint is written to a staging folder, synced, and renamed. The file `latest` names the newest checkpoint for
//! other programs; resuming lists the folders themselves.

mod checksums;
mod state;

pub(crate) use self::state::{SettingChange, TrainState};

use std::fs;
use std::path::{Path, PathBuf};

use mpt_core::{MptConfig, Params, Weights, latest_checkpoint, run_checkpoints};
use mpt_data::durable;
use mpt_tokenize::Tokenizer;
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::run::{Difference, Settings, differences};
use crate::step::Trainer;

const LATEST: &str = "latest";
const STATE: &str = "training/state.json";
const OPTIMIZER: &str = "training/optimizer.safetensors";

/// Checkpoint folder of a run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    run_dir: PathBuf,
    dir: PathBuf,
    keep: usize,
}

/// Files of a model folder that are the same in every checkpoint of a run.
pub(crate) struct ModelFiles<'a> {
    pub(crate) config: &'a MptConfig,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) eos_id: Option<u32>,
}

impl Checkpoints {
    /// Opens the checkpoint folder of a run, and removes what a killed process left unfinished.
    pub(crate) fn open(run_dir: &Path, keep: usize) -> Result<Self> {
        let dir = run_dir.join("checkpoints");
        durable::make_dir(&dir)?;
        for name in names(&dir)?.iter().filter(|name| name.starts_with(".step-") || name.starts_with(".old-"))
        {
            let path = dir.join(name);
            fs::remove_dir_all(&path).map_err(Error::io(&path, "removing"))?;
        }
        let checkpoints = Self { run_dir: run_dir.to_owned(), dir, keep };
        checkpoints.point_at_latest()?;
        Ok(checkpoints)
    }

    /// Path of the newest checkpoint.
    pub(crate) fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(latest_checkpoint(&self.run_dir)?)
    }

    /// Writes a checkpoint, points `latest` at it, and removes those beyond `keep`. Returns its path.
    pub(crate) fn save(
        &self,
        trainer: &Trainer,
        state: &TrainState,
        files: &ModelFiles<'_>,
    ) -> Result<PathBuf> {
        let name = format!("step-{:08}", state.step);
        let (staging, path) = (self.dir.join(format!(".{name}.tmp")), self.dir.join(&name));
        if path.exists() {
            // the same step has the same bytes
            return Ok(path);
        }
        write(&staging, trainer, state, files)?;
        durable::commit_dir(&staging, &path)?;
        self.point_at_latest()?;
        self.remove_oldest()?;
        Ok(path)
    }

    /// Whether `path` is a checkpoint of this run.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        parent.is_some_and(|parent| fs::canonicalize(&self.dir).is_ok_and(|dir| dir == parent))
    }

    /// Renames checkpoints of steps after `step` to `replaced-N-step-…`: the run will write those steps again.
    pub(crate) fn set_aside_after(&self, step: u64) -> Result<()> {
        for (_, path) in run_checkpoints(&self.run_dir)?.into_iter().filter(|&(later, _)| later > step) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut names = (0..).map(|n| self.dir.join(format!("replaced-{n}-{name}")));
            let free = names.find(|path| !path.exists()).expect("a number is free");
            fs::rename(&path, &free).map_err(Error::io(&path, "renaming"))?;
        }
        self.point_at_latest()
    }

    /// Writes the name of the newest checkpoint to `latest`, which a killed process may have left one behind.
    fn point_at_latest(&self) -> Result<()> {
        let Some(path) = self.latest()? else { return Ok(()) };
        let name = path.file_name().expect("checkpoints have names").as_encoded_bytes();
        let file = self.dir.join(LATEST);
        if fs::read(&file).is_ok_and(|found| found == name) {
            return Ok(());
        }
        Ok(durable::write_file(&file, name)?)
    }

    /// Removes checkpoints beyond `keep`, oldest first. Each is renamed first, so that a folder named `step-…` is whole.
    fn remove_oldest(&self) -> Result<()> {
        let steps = run_checkpoints(&self.run_dir)?;
        let surplus = if self.keep == 0 { 0 } else { steps.len().saturating_sub(self.keep) };
        for (step, path) in &steps[..surplus] {
            let aside = self.dir.join(format!(".old-{step}"));
            fs::rename(path, &aside).map_err(Error::io(path, "renaming"))?;
            fs::remove_dir_all(&aside).map_err(Error::io(&aside, "removing"))?;
        }
        Ok(())
    }
}

/// Writes the files of a checkpoint into the folder `dir`.
fn write(dir: &Path, trainer: &Trainer, state: &TrainState, files: &ModelFiles<'_>) -> Result<()> {
    durable::make_dir(&dir.join("training"))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(Error::io(&path, "writing"))
    };
    put("config.json", files.config.to_json().as_bytes())?;
    put("tokenizer.json", files.tokenizer.json_bytes())?;
    let generation = match files.eos_id {
        Some(eos) => json!({ "eos_token_id": eos }),
        None => json!({}),
    };
    put("generation_config.json", pretty(&generation).as_bytes())?;
    put(STATE, pretty(state).as_bytes())?;
    trainer.params().save(&dir.join("model.safetensors"))?;
    trainer.optimizer().save(&dir.join(OPTIMIZER))?;
    checksums::write(dir)
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("string keys and finite numbers") + "\n"
}

/// Checkpoint whose files were verified.
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) state: TrainState,
}

impl Checkpoint {
    /// Reads the state of a checkpoint, and verifies the checksum of every file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming a file that is missing, damaged, or of another format version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join(STATE);
        let text = fs::read_to_string(&file).map_err(|error| Error::unread(&file, error))?;
        let state: TrainState = serde_json::from_str(&text).map_err(|error| Error::unparsed(&file, error))?;
        state.check_format().map_err(|problem| Error::checkpoint(&file, problem))?;
        checksums::check(path)?;
        Ok(Self { path: path.to_owned(), state })
    }

    /// Compares the settings of a resumed run with those of this checkpoint, but for keys of `[data]` in `accepted`.
    /// Returns the changes that are allowed as a rescue, which takes a checkpoint that the user named (`is_named`).
    ///
    /// # Errors
    /// [`Error::Changed`] naming the first other difference: the run's result would be another.
    pub(crate) fn compare_settings(
        &self,
        now: &Settings,
        accepted: &[String],
        is_named: bool,
    ) -> Result<Vec<SettingChange>> {
        let change = |difference: Difference| match difference.is_rescue() && is_named {
            true => Ok(SettingChange::new(self.state.step, difference)),
            false => Err(self.changed(difference)),
        };
        differences(&self.state.settings, now, accepted).into_iter().map(change).collect()
    }

    fn changed(&self, difference: Difference) -> Error {
        let rescues = difference.is_rescue();
        let (path, field) = (self.path.clone(), difference.key);
        Error::Changed { path, field, actual: difference.now, expected: difference.before, rescues }
    }

    /// Weights of the checkpoint, on the CPU.
    pub(crate) fn params(&self) -> Result<Params> {
        Ok(Params::load(&Weights::open(&self.path)?, &candle_core::Device::Cpu)?)
    }

    /// Loads the optimizer's state into `trainer`.
    pub(crate) fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        trainer.optimizer_mut().load(&self.path.join(OPTIMIZER))
    }
}

/// Names of a folder's entries.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io(dir, "listing"))?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<std::io::Result<_>>().map_err(Error::io(dir, "listing"))
}
