//! What a caller sees of a run while it goes on. A library owns no terminal: whoever draws implements [`Observer`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Follows a run.
pub trait Observer {
    /// Something happened; an error ends the run.
    ///
    /// # Errors
    /// The observer's own.
    fn on_event(&mut self, event: &TrainEvent<'_>) -> Result<()>;
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &TrainEvent<'_>) -> Result<()> {
        Ok(())
    }
}

/// What happens in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// Data and model are ready; the first step follows.
    Started {
        /// Step of the checkpoint that the run goes on from.
        resumed_from: Option<u64>,
        /// Steps of the whole run.
        total_steps: u64,
        /// Parameters of the model.
        parameters: u64,
        /// Tokens of a step.
        tokens_per_step: u64,
    },
    /// An optimizer step was done.
    Step(&'a StepMetrics),
    /// The held-out split was evaluated.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Mean loss in nats a token.
        loss: f64,
        /// Tokens scored.
        tokens: u64,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
    /// The run is done, or was interrupted and saved.
    Finished(&'a TrainSummary),
}

/// One step as `metrics.jsonl` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean loss of the batch before the step, in nats a token.
    pub loss: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Tokens seen since the beginning of the run.
    pub tokens: u64,
    /// Duration in seconds.
    pub step_seconds: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSummary {
    /// The run's folder.
    #[serde(serialize_with = "as_text")]
    pub run_dir: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Loss of the first step.
    pub first_loss: f64,
    /// Loss of the last step.
    pub last_loss: f64,
    /// Mean loss on the held-out split after the last step, in nats a token.
    pub eval_loss: Option<f64>,
    /// The latest checkpoint.
    #[serde(serialize_with = "as_text")]
    pub checkpoint: PathBuf,
    /// Whether it was asked to stop before its last step.
    pub interrupted: bool,
}

/// A path as text has it: bytes that are no UTF-8 become U+FFFD.
fn as_text<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
