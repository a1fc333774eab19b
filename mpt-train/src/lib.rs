//! From a run description to MPT checkpoints.
//!
//! A [`TrainRun`] read from a TOML file, prepared data ([`mpt_data`]) and a seed decide every byte of the result;
//! threads, interruptions and restarts do not.

pub mod bench;
mod checkpoint;
mod config;
mod error;
mod evaluate;
mod metrics;
mod observer;
mod optim;
mod schedule;
mod step;
mod train;

pub use checkpoint::latest_checkpoint;
pub use config::{
    CheckpointConfig, DataConfig, OptimizerConfig, Resume, ScheduleConfig, ScheduleKind,
    StepConfig, TrainRun,
};
pub use error::{Error, Result};
pub use evaluate::{EvalReport, evaluate, evaluate_ids};
pub use observer::{Observer, Silent, StepMetrics, TrainEvent, TrainSummary};
pub use optim::Optimizer;
pub use schedule::Schedule;
pub use step::{StepOutcome, TokenRows, Trainer};
pub use train::train;
