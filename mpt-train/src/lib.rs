//! From a run description to MPT checkpoints.
//!
//! A `TrainRun` read from a TOML file, prepared data (`mpt_data`) and a seed decide every byte of the result. The number of
//! threads, interruptions and restarts does not.
//!
//! Without the default feature `run` this crate is the step alone: a [`Trainer`] takes [`TokenRows`] from wherever the
//! caller has them, and no data format is compiled.

mod available_memory;
pub mod bench;
#[cfg(feature = "run")]
mod checkpoint;
mod config;
mod error;
#[cfg(feature = "run")]
mod evaluate;
#[cfg(feature = "run")]
mod metrics;
#[cfg(feature = "run")]
mod observer;
mod optim;
#[cfg(feature = "run")]
mod run;
mod schedule;
#[cfg(feature = "run")]
mod session;
mod step;
#[cfg(feature = "run")]
mod train;

pub use config::{OptimizerConfig, ScheduleConfig, ScheduleKind, StepConfig};
pub use error::{Error, Result};
#[cfg(feature = "run")]
pub use evaluate::{EvalReport, evaluate, evaluate_ids};
#[cfg(feature = "run")]
pub use observer::{Observer, Silent, StepMetrics, TrainEvent, TrainSummary};
pub use optim::Optimizer;
#[cfg(feature = "run")]
pub use run::{CheckpointConfig, DataConfig, Resume, TrainRun};
pub use schedule::Schedule;
pub use step::{StepOutcome, TokenRows, Trainer};
#[cfg(feature = "run")]
pub use train::train;
