//! `TrainRun`: a RUN.toml, parsed and checked. Code behind this boundary does not check again.

mod check;
mod overrides;
mod settings;

use std::path::{Path, PathBuf};

use mpt_core::MptConfig;
use mpt_data::{Batching, Manifest, Mixing, MixingChanges, Sampling, Shuffle, StageConfig, runfile};
use serde::{Deserialize, Serialize};

use self::check::check;
use self::overrides::overridden;
pub(crate) use self::settings::{Difference, Settings, differences, settings};
use crate::config::{OptimizerConfig, ScheduleConfig, StepConfig};
use crate::error::{Error, Result};

/// Training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainRun {
    /// Path of the run file. Relative paths in the file are relative to its folder.
    pub path: PathBuf,
    /// Folder of metrics and checkpoints. By default the run file's path without its extension.
    pub run_dir: PathBuf,
    /// Model that provides the initial weights, instead of `model`.
    pub init_from: Option<PathBuf>,
    /// Configuration of a model with random initial weights.
    pub model: Option<MptConfig>,
    /// Data, and the order of its samples.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Learning rate schedule.
    pub schedule: ScheduleConfig,
    /// Steps, batches, precision, evaluation.
    pub train: StepConfig,
    /// Checkpoint interval and retention.
    pub checkpoint: CheckpointConfig,
}

/// Data of a run, and the order of its samples. Keys of sampling and order override those stored with the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of prepared data.
    pub dir: PathBuf,
    /// Tokens per sequence. By default the data's.
    pub seq_len: Option<usize>,
    /// Seed of the order of samples. By default the data's.
    pub seed: Option<u64>,
    /// Choice of each sample's source. By default the data's.
    pub sampling: Option<Sampling>,
    /// Property that every group of samples shares. By default the data's.
    pub batching: Option<Batching>,
    /// Samples per group. By default the data's, else the batch size at the start of the run.
    pub batch_group: Option<u64>,
    /// Order of the samples of a source. By default the data's.
    pub shuffle: Option<Shuffle>,
    /// Chunks (row groups of 2048 rows) per window of `"windowed"`. By default the data's, else 16.
    pub shuffle_window: Option<u64>,
    /// Later stages with other proportions or sequence lengths, in order. By default the data's.
    pub stages: Option<Vec<StageConfig>>,
    /// Properties of the data that may differ from those at the start of the run: `tokenizer`, `seed`, `seq_len`, `row_tokens`,
    /// `sampling`, `batching`, `shuffle`, `mix` or `manifest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_changed: Vec<String>,
}

impl DataConfig {
    /// Sampling and order of the run, over the data's own `default`.
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

/// Checkpoint interval and retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints. The last step always has one.
    pub every_steps: u64,
    /// Number of newest checkpoints kept; 0 keeps all.
    pub keep: usize,
}

/// Checkpoint that a run resumes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest checkpoint of the run folder, or none where it has none.
    Auto,
    /// None. A run folder with checkpoints is refused.
    Never,
    /// This checkpoint.
    From(PathBuf),
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3 }
    }
}

impl TrainRun {
    /// Reads and checks a RUN.toml, with `a.b=value` overrides applied to it.
    ///
    /// # Errors
    /// [`Error::RunFile`] when the file cannot be read, those of [`mpt_data::runfile`] for keys and types,
    /// [`Error::Config`] for values, [`Error::Override`] for a malformed override.
    pub fn from_file(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        Self::parse(
            &text.map_err(|source| Error::RunFile { path: path.to_owned(), source })?,
            path,
            overrides,
        )
    }

    /// [`TrainRun::from_file`] for the text of a file at `origin`, which need not exist.
    ///
    /// # Errors
    /// As [`TrainRun::from_file`].
    pub fn parse(text: &str, origin: &Path, overrides: &[String]) -> Result<Self> {
        let raw: RawRun = runfile::parse(text, origin)?;
        if overrides.is_empty() {
            return check(raw, origin);
        }
        let text = overridden(runfile::parse(text, origin)?, overrides)?;
        check(runfile::parse(&text, Path::new(&format!("{} with settings", origin.display())))?, origin)
    }

    /// The run with the defaults that come from the data.
    pub fn resolved(mut self, manifest: &Manifest) -> Self {
        let plan = manifest.plan();
        self.data.seq_len.get_or_insert(plan.seq_len);
        self.data.seed.get_or_insert(plan.seed);
        self
    }

    /// The run as TOML with absolute paths. It parses to this run wherever the file is.
    pub fn to_toml(&self) -> String {
        // TOML is text: bytes of a path outside UTF-8 become U+FFFD
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

/// RUN.toml as written, before its values are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    /// Folder of metrics and checkpoints. By default the run file's path without its extension.
    run_dir: Option<PathBuf>,
    /// Model that provides the initial weights: a model folder, a GGUF file, a checkpoint, or a run folder, which stands for
    /// its newest checkpoint. Either this or `[model]`.
    init_from: Option<PathBuf>,
    /// Configuration of a model with random initial weights. Either this or `init_from`.
    model: Option<MptConfig>,
    /// Data, and the order of its samples.
    data: DataConfig,
    /// Optimizer and learning rate.
    optimizer: OptimizerConfig,
    /// Learning rate schedule.
    #[serde(default)]
    schedule: ScheduleConfig,
    /// Steps, batches, precision, evaluation.
    train: StepConfig,
    /// Checkpoint interval and retention.
    #[serde(default)]
    checkpoint: CheckpointConfig,
}

/// The value without null keys, which TOML cannot express.
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

/// Folder of the data, resolved like every path of the file; a URL is kept as it is.
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
