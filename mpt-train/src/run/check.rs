//! Checks of a run file's values: ranges, divisors, alternatives. Keys and types are checked where the file is parsed.

use std::path::Path;

use super::{DataConfig, RawRun, TrainRun, data_dir};
use crate::config::{OptimizerConfig, StepConfig};
use crate::error::{Error, Result};

/// The run of a parsed file at `path`, with paths resolved.
pub(super) fn check(raw: RawRun, path: &Path) -> Result<TrainRun> {
    let at = Checker { path };
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

/// Refuses a run with both or neither of `[model]` and `init_from`.
fn check_model(raw: &RawRun, at: &Checker<'_>) -> Result<()> {
    let expected = "either `[model]`, to train from random weights, or `init_from`, to begin with a model's";
    match (&raw.model, &raw.init_from) {
        (Some(_), Some(_)) => at.that(false, "model", "given beside `init_from`", expected),
        (None, None) => at.that(false, "model", "missing, and so is `init_from`", expected),
        (Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

fn check_optimizer(config: &OptimizerConfig, at: &Checker<'_>) -> Result<()> {
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

fn check_steps(config: &StepConfig, at: &Checker<'_>) -> Result<()> {
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

/// Checker of values whose errors name the run file and the key.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    /// [`Error::Config`] unless `holds`.
    fn that(&self, holds: bool, field: &str, actual: impl ToString, expected: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        let (path, field) = (self.path.to_owned(), field.to_owned());
        Err(Error::Config { path, field, expected: expected.to_owned(), actual: actual.to_string() })
    }
}
