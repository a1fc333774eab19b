//! `TrainRun`: what a RUN.toml asks for, checked. After this boundary nobody checks again.

use std::path::{Path, PathBuf};

use mpt_core::MptConfig;
use mpt_data::{Batching, Manifest, Mixing, MixingChanges, Sampling, Shuffle, StageConfig, runfile};
use serde::{Deserialize, Serialize};

use crate::config::{OptimizerConfig, ScheduleConfig, StepConfig};
use crate::error::{Error, Result};

/// Keys that may differ between the parts of an interrupted run: they do not decide what a step computes.
///
/// `train.steps` does, where the schedule ends with it; a longer run is a new wish, and is granted.
const FREE_KEYS: [&str; 6] = [
    "run_dir",
    "train.steps",
    "train.eval_every",
    "train.eval_samples",
    "train.activation_checkpointing",
    "checkpoint.",
];

/// Whether a key does not decide the result.
pub(crate) fn is_free(key: &str) -> bool {
    FREE_KEYS.iter().any(|free| key == *free || (free.ends_with('.') && key.starts_with(free)))
}

/// A training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainRun {
    /// The run file; relative paths in it are relative to its folder.
    pub path: PathBuf,
    /// Where metrics and checkpoints go. By default the run file's path without its extension.
    pub run_dir: PathBuf,
    /// A model whose weights training begins with, instead of random ones.
    pub init_from: Option<PathBuf>,
    /// The model to train from random weights.
    pub model: Option<MptConfig>,
    /// What is read.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Steps and batches.
    pub train: StepConfig,
    /// What is kept.
    pub checkpoint: CheckpointConfig,
}

/// What is read, and in which order. Keys of drawing and ordering go before those of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of prepared data.
    pub dir: PathBuf,
    /// Tokens in a sequence. By default what the data was built for.
    pub seq_len: Option<usize>,
    /// Seed of the order of samples. By default the data's.
    pub seed: Option<u64>,
    /// How the source of each sample is chosen. By default as the data says.
    pub sampling: Option<Sampling>,
    /// What is the same in every group of samples. By default as the data says.
    pub batching: Option<Batching>,
    /// Samples in a group. By default as the data says, else those of a batch when the run begins.
    pub batch_group: Option<u64>,
    /// How the samples of a source are ordered. By default as the data says.
    pub shuffle: Option<Shuffle>,
    /// Chunks (row groups of 2048 rows) in a window of `"windowed"`. By default as the data says, else 16.
    pub shuffle_window: Option<u64>,
    /// Changes of shares or lengths on the way, in order. By default as the data says.
    pub stages: Option<Vec<StageConfig>>,
    /// What of the data may differ from what the run was started with: `tokenizer`, `seed`, `seq_len`, `row_tokens`,
    /// `sampling`, `batching`, `shuffle`, `mix` or `manifest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_changed: Vec<String>,
}

impl DataConfig {
    /// How samples are drawn and ordered, where the data says `default`.
    pub fn mixing(&self, default: &Mixing) -> Mixing {
        let changes = MixingChanges {
            sampling: self.sampling,
            batching: self.batching,
            batch_group: self.batch_group,
            shuffle: self.shuffle,
            shuffle_window: self.shuffle_window,
            stages: self.stages.clone(),
        };
        changes.over(default)
    }
}

/// When a checkpoint is written, and how many stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; the last step always has one.
    pub every_steps: u64,
    /// Checkpoints kept, the latest ones; 0 for all.
    pub keep: usize,
}

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// At the latest checkpoint in the run's folder, if there is one.
    Auto,
    /// At the beginning; a folder with checkpoints is refused.
    Never,
    /// At this checkpoint.
    From(PathBuf),
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3 }
    }
}

impl TrainRun {
    /// Reads and checks a RUN.toml, with `a.b=value` settings applied over it.
    ///
    /// # Errors
    /// [`Error::RunFile`] when the file cannot be read, those of [`mpt_data::runfile`] for keys and types,
    /// [`Error::Config`] for values, [`Error::Override`] for a setting that is none.
    pub fn from_file(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        Self::parse(
            &text.map_err(|source| Error::RunFile { path: path.to_owned(), source })?,
            path,
            overrides,
        )
    }

    /// As [`TrainRun::from_file`], for the text of a file that would lie at `origin`.
    ///
    /// # Errors
    /// As [`TrainRun::from_file`].
    pub fn parse(text: &str, origin: &Path, overrides: &[String]) -> Result<Self> {
        let raw: RawRun = runfile::parse(text, origin)?;
        if overrides.is_empty() {
            return check(raw, origin);
        }
        let text = overridden(text, overrides)?;
        check(runfile::parse(&text, Path::new(&format!("{} with settings", origin.display())))?, origin)
    }

    /// With every default that the data decides filled in.
    pub fn resolved(mut self, manifest: &Manifest) -> Self {
        let plan = manifest.plan();
        self.data.seq_len.get_or_insert(plan.seq_len);
        self.data.seed.get_or_insert(plan.seed);
        self
    }

    /// The whole run as TOML, paths absolute: it gives this run again wherever it lies.
    pub fn to_toml(&self) -> String {
        // TOML is text: a path that is none is shown as far as it is
        let absolute = |path: &Path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            PathBuf::from(path.to_string_lossy().into_owned())
        };
        let raw = RawRun {
            run_dir: Some(absolute(&self.run_dir)),
            init_from: self.init_from.as_deref().map(absolute),
            model: self.model.clone(),
            data: DataConfig { dir: data_dir(&self.data.dir, absolute), ..self.data.clone() },
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            train: self.train.clone(),
            checkpoint: self.checkpoint.clone(),
        };
        let value =
            without_nulls(serde_json::to_value(raw).expect("runs have string keys and finite numbers"));
        toml::to_string(&value).expect("a run without nulls is TOML")
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    /// Folder of metrics and checkpoints. By default the run file's path without its extension.
    run_dir: Option<PathBuf>,
    /// Model whose weights training begins with: a model folder, a GGUF file, a checkpoint, or a run, whose latest
    /// checkpoint is meant. Either this or `[model]`.
    init_from: Option<PathBuf>,
    /// Configuration of a model that is trained from random weights. Either this or `init_from`.
    model: Option<MptConfig>,
    /// What is read, and in which order.
    data: DataConfig,
    /// The optimizer and its learning rate.
    optimizer: OptimizerConfig,
    /// The learning rate over the run.
    #[serde(default)]
    schedule: ScheduleConfig,
    /// Steps, batches, precision, evaluation.
    train: StepConfig,
    /// When a checkpoint is written, and how many stay.
    #[serde(default)]
    checkpoint: CheckpointConfig,
}

/// TOML has no null: a key that is null is left out.
fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// Characters of a setting that a message shows.
const LONGEST_SHOWN: usize = 200;

/// Parts of a key at most: those of run files have up to three.
const MOST_PARTS: usize = 16;

/// The text of a run file with settings applied.
fn overridden(text: &str, overrides: &[String]) -> Result<String> {
    let mut table: toml::Table = text.parse().expect("the text was read as TOML before");
    for setting in overrides {
        let shown: String = setting.chars().take(LONGEST_SHOWN).collect();
        let wrong = |problem: &str| Error::Override { text: shown.clone(), problem: problem.to_owned() };
        let (key, value) = setting.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let mut parts: Vec<_> = key.split('.').map(str::trim).collect();
        if parts.len() > MOST_PARTS {
            return Err(wrong("the key has more than 16 parts"));
        }
        let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| wrong("there is no key"))?;
        let mut place = &mut table;
        for part in parts {
            let inner = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            place = inner.as_table_mut().ok_or_else(|| wrong("a part of the key is no table"))?;
        }
        place.insert(last.to_owned(), value_of(value.trim()));
    }
    Ok(toml::to_string(&table).expect("a table that was read can be written"))
}

/// The value of a setting: TOML where it is TOML, else the text itself, so that strings need no quotes.
fn value_of(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>();
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn check(raw: RawRun, path: &Path) -> Result<TrainRun> {
    let at = Check { path };
    let folder = path.parent().unwrap_or(Path::new(""));
    check_model(&raw, &at)?;
    check_optimizer(&raw.optimizer, &at)?;
    check_steps(&raw.train, &at)?;
    at.that(
        (0.0..=1.0).contains(&raw.schedule.alpha_f),
        "schedule.alpha_f",
        raw.schedule.alpha_f,
        "from 0 to 1",
    )?;
    at.that(raw.checkpoint.every_steps > 0, "checkpoint.every_steps", 0, "1 or more")?;
    at.that(
        raw.data.seq_len.is_none_or(|n| n >= 2),
        "data.seq_len",
        raw.data.seq_len.unwrap_or(0),
        "2 or more",
    )?;
    Ok(TrainRun {
        path: path.to_owned(),
        run_dir: raw.run_dir.map_or_else(|| path.with_extension(""), |dir| folder.join(dir)),
        init_from: raw.init_from.map(|dir| folder.join(dir)),
        model: raw.model,
        data: DataConfig { dir: data_dir(&raw.data.dir, |dir| folder.join(dir)), ..raw.data },
        optimizer: raw.optimizer,
        schedule: raw.schedule,
        train: raw.train,
        checkpoint: raw.checkpoint,
    })
}

fn check_model(raw: &RawRun, at: &Check<'_>) -> Result<()> {
    let expected = "either `[model]`, to train from random weights, or `init_from`, to begin with a model's";
    match (&raw.model, &raw.init_from) {
        (Some(_), Some(_)) => at.that(false, "model", "given beside `init_from`", expected),
        (None, None) => at.that(false, "model", "missing, and so is `init_from`", expected),
        (Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

fn check_optimizer(config: &OptimizerConfig, at: &Check<'_>) -> Result<()> {
    let (lr, decay) = (config.lr(), config.weight_decay());
    at.that(lr > 0.0 && lr.is_finite(), "optimizer.lr", lr, "above 0")?;
    at.that((0.0..1.0).contains(&decay), "optimizer.weight_decay", decay, "from 0 to below 1")?;
    for beta in config.betas() {
        at.that((0.0..1.0).contains(&beta), "optimizer.betas", beta, "two numbers from 0 to below 1")?;
    }
    match config {
        OptimizerConfig::AdamW { eps, .. } => at.that(*eps > 0.0, "optimizer.eps", eps, "above 0"),
        OptimizerConfig::Lion { .. } => Ok(()),
    }
}

fn check_steps(config: &StepConfig, at: &Check<'_>) -> Result<()> {
    at.that(config.steps > 0, "train.steps", config.steps, "1 or more")?;
    at.that(config.batch_size > 0, "train.batch_size", config.batch_size, "1 or more")?;
    let micro = config.microbatch_size();
    let divides = micro > 0 && config.batch_size.is_multiple_of(micro);
    at.that(
        divides,
        "train.microbatch_size",
        micro,
        &format!("a divisor of `train.batch_size`, which is {}", config.batch_size),
    )?;
    let clip = config.clip_norm;
    at.that(clip >= 0.0 && clip.is_finite(), "train.clip_norm", clip, "above 0, or 0 for none")?;
    at.that(config.eval_samples != Some(0), "train.eval_samples", 0, "1 or more")
}

/// Builds errors that name the run file and the key.
struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn that(&self, holds: bool, field: &str, actual: impl ToString, expected: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        let (path, field) = (self.path.to_owned(), field.to_owned());
        Err(Error::Config { path, field, expected: expected.to_owned(), actual: actual.to_string() })
    }
}

/// The folder of the data from where it is named; an address is what it is anywhere.
fn data_dir(dir: &Path, resolve: impl Fn(&Path) -> PathBuf) -> PathBuf {
    if mpt_data::remote::is_remote(dir) { dir.to_owned() } else { resolve(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScheduleKind;

    const RUN: &str = r#"
[model]
d_model = 32
n_layers = 2
n_heads = 4
vocab_size = 50
max_seq_len = 16
[data]
dir = "data"
[optimizer]
kind = "lion"
lr = 1e-3
[train]
steps = 10
batch_size = 4
"#;

    fn parse(text: &str, overrides: &[&str]) -> Result<TrainRun> {
        let overrides: Vec<_> = overrides.iter().map(|&text| text.to_owned()).collect();
        TrainRun::parse(text, Path::new("in/run.toml"), &overrides)
    }

    fn message(overrides: &[&str]) -> String {
        parse(RUN, overrides).expect_err("refused").to_string()
    }

    #[test]
    fn defaults_are_filled_in_and_paths_are_relative_to_the_file() {
        let run = parse(RUN, &[]).unwrap();
        assert_eq!(
            (run.run_dir.as_path(), run.data.dir.as_path()),
            (Path::new("in/run"), Path::new("in/data"))
        );
        assert_eq!(run.optimizer, OptimizerConfig::Lion { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0 });
        assert_eq!((run.train.microbatch_size(), run.train.clip()), (4, Some(1.0)));
        assert_eq!(run.schedule.kind, ScheduleKind::Cosine);
    }

    #[test]
    fn settings_change_the_file() {
        let run = parse(
            RUN,
            &[
                "train.steps=500",
                "optimizer.kind=adamw",
                "optimizer.betas=[0.8, 0.9]",
                "schedule.kind=linear",
            ],
        )
        .unwrap();
        assert_eq!((run.train.steps, run.schedule.kind), (500, ScheduleKind::Linear));
        assert_eq!(
            run.optimizer,
            OptimizerConfig::AdamW { lr: 1e-3, betas: [0.8, 0.9], eps: 1e-8, weight_decay: 0.0 }
        );
        assert!(message(&["train.steps"]).contains("setting `train.steps`: there is no `=`"));
        assert!(message(&["train.steps.x=1"]).contains("is no table"));
        let deep = message(&[&format!("{}=1", "a.".repeat(20_000))]);
        assert!(deep.contains("more than 16 parts") && deep.len() < 1000, "{}", deep.len());
        let text = message(&["train.stepps=1"]);
        assert!(
            text.contains("in/run.toml with settings") && text.contains("did you mean `steps`?"),
            "{text}"
        );
    }

    #[test]
    fn the_printed_run_is_the_run() {
        let run = parse(RUN, &["model.attn_config.clip_qkv=6", "train.eval_samples=7"]).unwrap();
        let again = TrainRun::parse(&run.to_toml(), Path::new("elsewhere/copy.toml"), &[]).unwrap();
        assert_eq!(again.run_dir, std::path::absolute("in/run").unwrap());
        assert_eq!((again.model, again.train, again.optimizer), (run.model, run.train, run.optimizer));
    }

    #[test]
    fn impossible_values_are_named() {
        assert!(message(&["optimizer.lr=0"]).contains("in/run.toml: `optimizer.lr` is 0, expected above 0"));
        assert!(
            message(&["train.microbatch_size=3"]).contains("a divisor of `train.batch_size`, which is 4")
        );
        assert!(message(&["init_from=\"x\""]).contains("either `[model]`"));
        assert!(message(&["model.d_modl=3"]).contains("d_model"), "{}", message(&["model.d_modl=3"]));
        assert!(message(&["model.n_heads=5"]).contains("n_heads"), "{}", message(&["model.n_heads=5"]));
        let text = parse(&RUN.replace("steps", "setps"), &[]).expect_err("refused").to_string();
        assert!(text.starts_with("in/run.toml:14: unknown key `setps`, did you mean `steps`?"), "{text}");
    }
}
