//! Events of a run for its caller. The library owns no terminal: progress displays implement [`Observer`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Receiver of a run's events.
pub trait Observer {
    /// Receives an event. An error ends the run.
    ///
    /// # Errors
    /// The observer's own.
    fn on_event(&mut self, event: &TrainEvent<'_>) -> Result<()>;
}

/// Observer that ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &TrainEvent<'_>) -> Result<()> {
        Ok(())
    }
}

/// Event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// Data and model are ready; the first step follows.
    Started {
        /// Step of the checkpoint that the run resumes from.
        resumed_from: Option<u64>,
        /// Number of steps of the whole run.
        total_steps: u64,
        /// Number of parameters of the model.
        parameters: u64,
        /// Tokens per step.
        tokens_per_step: u64,
    },
    /// An optimizer step is done.
    Step(&'a StepMetrics),
    /// The held-out split was evaluated.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Mean loss, in nats per token.
        loss: f64,
        /// Number of tokens scored.
        tokens: u64,
    },
    /// A checkpoint was committed.
    Saved {
        /// Steps done.
        step: u64,
        /// Folder of the checkpoint.
        path: &'a Path,
    },
    /// The run is finished, or was interrupted and saved.
    Finished(&'a TrainSummary),
}

/// Metrics of a step, a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Step, from 1.
    pub step: u64,
    /// Mean loss of the batch before the update, in nats per token.
    pub loss: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Tokens seen since the start of the run.
    pub tokens: u64,
    /// Duration in seconds.
    pub step_seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
}

/// Summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSummary {
    /// Run folder.
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
    /// Mean loss on the held-out split after the last step, in nats per token.
    pub eval_loss: Option<f64>,
    /// Path of the newest checkpoint.
    #[serde(serialize_with = "as_text")]
    pub checkpoint: PathBuf,
    /// Whether the run was stopped before its last step.
    pub interrupted: bool,
}

/// Serializes a path as text; bytes outside UTF-8 become U+FFFD.
fn as_text<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
