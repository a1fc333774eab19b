//! Checkpoints: a Hugging Face model folder with the training state inside, there whole or not at all.
//!
//! `RUN/checkpoints/step-00000100/` holds `config.json`, `model.safetensors`, `tokenizer.json`, `generation_config.json`
//! and `training/` with the optimizer's state, `state.json`, and `files.json`, the sums of all other files. It is written
//! aside, synced, and renamed. `latest` beside the folders names the newest one for other programs; resuming looks at the
//! folders themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mpt_core::{MptConfig, Params, Weights};
use mpt_data::{Cursor, durable};
use mpt_tokenize::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::run::is_free;
use crate::step::Trainer;
use crate::sums;

const FORMAT: u32 = 2;
const LATEST: &str = "latest";
const STATE: &str = "training/state.json";
const OPTIMIZER: &str = "training/optimizer.safetensors";

/// What a run needs besides weights and optimizer state to go on. Nothing in it depends on time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Steps done.
    pub(crate) step: u64,
    /// Tokens seen.
    pub(crate) tokens: u64,
    /// Loss of the first step.
    pub(crate) first_loss: f64,
    /// Loss of the last step.
    pub(crate) last_loss: f64,
    /// Held-out loss after the last step of the run.
    pub(crate) eval_loss: Option<f64>,
    /// Where the data goes on.
    pub(crate) cursor: Cursor,
    /// The settings that decide the result, by key.
    pub(crate) settings: BTreeMap<String, String>,
    /// Settings that were changed on the way to rescue the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<Change>,
}

/// A setting that was changed when a run was resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// Steps done before.
    pub(crate) after_step: u64,
    pub(crate) field: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// Keys that may change where a checkpoint is named: what helps after a divergence.
const RESCUE_KEYS: [&str; 3] = ["optimizer.lr", "schedule.warmup_steps", "train.clip_norm"];

impl State {
    pub(crate) fn start(cursor: Cursor, settings: BTreeMap<String, String>) -> Self {
        let (step, tokens, first_loss, last_loss) = (0, 0, 0.0, 0.0);
        let (eval_loss, changes) = (None, Vec::new());
        Self { format: FORMAT, step, tokens, first_loss, last_loss, eval_loss, cursor, settings, changes }
    }
}

/// The checkpoints of a run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

/// What is the same in all checkpoints of a run.
pub(crate) struct Fixed<'a> {
    pub(crate) config: &'a MptConfig,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) eos_id: Option<u32>,
}

impl Checkpoints {
    /// The checkpoints in a run's folder; what a killed process left half-written is removed.
    pub(crate) fn open(run_dir: &Path, keep: usize) -> Result<Self> {
        let dir = run_dir.join("checkpoints");
        durable::make_dir(&dir)?;
        for name in names(&dir)?.iter().filter(|name| name.starts_with(".step-") || name.starts_with(".old-"))
        {
            let path = dir.join(name);
            fs::remove_dir_all(&path).map_err(Error::io(&path, "removing"))?;
        }
        let checkpoints = Self { dir, keep };
        checkpoints.point_at_latest()?;
        Ok(checkpoints)
    }

    /// The newest one.
    pub(crate) fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(steps(&self.dir)?.pop().map(|(_, path)| path))
    }

    /// Writes a checkpoint, points `latest` at it, and removes the oldest.
    pub(crate) fn save(&self, trainer: &Trainer, state: &State, fixed: &Fixed<'_>) -> Result<PathBuf> {
        let name = format!("step-{:08}", state.step);
        let (aside, path) = (self.dir.join(format!(".{name}.tmp")), self.dir.join(&name));
        if path.exists() {
            // The same step gives the same bytes: there is nothing to write.
            return Ok(path);
        }
        write(&aside, trainer, state, fixed)?;
        durable::commit_dir(&aside, &path)?;
        self.point_at_latest()?;
        self.remove_oldest()?;
        Ok(path)
    }

    /// Whether `path` is one of these.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        parent.is_some_and(|parent| fs::canonicalize(&self.dir).is_ok_and(|dir| dir == parent))
    }

    /// Takes checkpoints of later steps out of the way of a run that goes on after `step`: they get names that say so.
    pub(crate) fn replace_after(&self, step: u64) -> Result<()> {
        for (_, path) in steps(&self.dir)?.into_iter().filter(|&(later, _)| later > step) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut names = (0..).map(|n| self.dir.join(format!("replaced-{n}-{name}")));
            let free = names.find(|path| !path.exists()).expect("a number is free");
            fs::rename(&path, &free).map_err(Error::io(&path, "renaming"))?;
        }
        self.point_at_latest()
    }

    /// Names the newest checkpoint in `latest`; a process may have been killed between the two.
    fn point_at_latest(&self) -> Result<()> {
        let Some(path) = self.latest()? else { return Ok(()) };
        let name = path.file_name().expect("checkpoints have names").as_encoded_bytes();
        let file = self.dir.join(LATEST);
        if fs::read(&file).is_ok_and(|found| found == name) {
            return Ok(());
        }
        Ok(durable::write_file(&file, name)?)
    }

    /// A folder is renamed before it is removed: what has the name of a checkpoint is whole.
    fn remove_oldest(&self) -> Result<()> {
        let steps = steps(&self.dir)?;
        let surplus = if self.keep == 0 { 0 } else { steps.len().saturating_sub(self.keep) };
        for (step, path) in &steps[..surplus] {
            let aside = self.dir.join(format!(".old-{step}"));
            fs::rename(path, &aside).map_err(Error::io(path, "renaming"))?;
            fs::remove_dir_all(&aside).map_err(Error::io(&aside, "removing"))?;
        }
        Ok(())
    }
}

fn write(dir: &Path, trainer: &Trainer, state: &State, fixed: &Fixed<'_>) -> Result<()> {
    durable::make_dir(&dir.join("training"))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(Error::io(&path, "writing"))
    };
    put("config.json", fixed.config.to_json().as_bytes())?;
    put("tokenizer.json", fixed.tokenizer.bytes())?;
    let generation = match fixed.eos_id {
        Some(eos) => json!({ "eos_token_id": eos }),
        None => json!({}),
    };
    put("generation_config.json", pretty(&generation).as_bytes())?;
    put(STATE, pretty(state).as_bytes())?;
    trainer.params().save(&dir.join("model.safetensors"))?;
    trainer.optimizer().save(&dir.join(OPTIMIZER))?;
    sums::write(dir)
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("string keys and finite numbers") + "\n"
}

/// A checkpoint that is there.
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) state: State,
}

impl Checkpoint {
    /// Reads the state of a checkpoint, and every file of it to see that it is the one that was written.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when a file is missing, of another version, or not as it was written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join(STATE);
        let text = fs::read_to_string(&file).map_err(|error| Error::unread(&file, error))?;
        let state: State = serde_json::from_str(&text).map_err(|error| Error::unparsed(&file, error))?;
        if state.format != FORMAT {
            return Err(Error::checkpoint(&file, format!("format {}, expected {FORMAT}", state.format)));
        }
        sums::check(path)?;
        Ok(Self { path: path.to_owned(), state })
    }

    /// Refuses to go on with settings that would give another result, by the name of the first; not for keys of `[data]`
    /// in `accept`, and not for those that may rescue a run, where the checkpoint was `named`. Returns what changed of
    /// these.
    pub(crate) fn expect_settings(
        &self,
        now: &BTreeMap<String, String>,
        accept: &[String],
        named: bool,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let then = &self.state.settings;
        let is_accepted = |key: &&String| {
            let name = |key: &str| key.strip_prefix("data.").map(str::to_owned);
            name(key).is_some_and(|key| {
                accept.iter().any(|accept| name(accept).as_ref().unwrap_or(accept) == &key)
            })
        };
        for key in then.keys().chain(now.keys()).filter(|key| !is_free(key) && !is_accepted(key)) {
            let show = |settings: &BTreeMap<String, String>| {
                settings.get(key).cloned().unwrap_or_else(|| "not set".into())
            };
            let is_seen = changes.iter().any(|change: &Change| change.field == *key);
            if then.get(key) == now.get(key) || is_seen {
                continue;
            }
            let (field, actual, expected) = (key.clone(), show(now), show(then));
            let rescues = RESCUE_KEYS.contains(&key.as_str());
            if !(rescues && named) {
                return Err(Error::Changed { path: self.path.clone(), field, actual, expected, rescues });
            }
            changes.push(Change { after_step: self.state.step, field, from: expected, to: actual });
        }
        Ok(changes)
    }

    /// Its weights.
    pub(crate) fn params(&self) -> Result<Params> {
        Ok(Params::load(&Weights::open(&self.path)?, &candle_core::Device::Cpu)?)
    }

    /// Puts its optimizer state into a trainer.
    pub(crate) fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        trainer.optimizer_mut().load(&self.path.join(OPTIMIZER))
    }
}

/// The newest checkpoint of a run's folder, if it is one and has one.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed.
pub fn latest_checkpoint(run_dir: &Path) -> Result<Option<PathBuf>> {
    let dir = run_dir.join("checkpoints");
    if !dir.is_dir() {
        return Ok(None);
    }
    Ok(steps(&dir)?.pop().map(|(_, path)| path))
}

/// The checkpoints of a folder by step.
fn steps(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let step = |name: &String| Some((name.strip_prefix("step-")?.parse().ok()?, dir.join(name)));
    let mut steps: Vec<_> = names(dir)?.iter().filter_map(step).collect();
    steps.sort();
    Ok(steps)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io(dir, "listing"))?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<std::io::Result<_>>().map_err(Error::io(dir, "listing"))
}
