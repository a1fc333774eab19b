//! From a run description to MPT checkpoints.
//!
//! A `TrainRun` read from a TOML file, prepared data (`mpt_data`) and a seed decide every byte of the result. The number of
//! threads, interruptions and restarts does not.
//!
//! # Steps on data of one's own
//!
//! A [`Trainer`] holds a model's parameters and the optimizer's state, and takes [`TokenRows`] from wherever the caller has them.
//! Without the default feature `run` it is all there is, and no data format is compiled.
//!
//! ```
//! use candle_core::Device;
//! use mpt_core::{MptConfig, Params, Precision};
//! use mpt_train::{OptimizerConfig, StepConfig, TokenRows, Trainer};
//!
//! # fn main() -> mpt_train::Result<()> {
//! // Weights as training from scratch begins with; Params::load takes those of a model.
//! let config = MptConfig::mpt(32, 1, 2, 64, 8)?;
//! let params = Params::init(&config, 17, &Device::Cpu)?;
//! let optimizer = OptimizerConfig::Lion { lr: 1e-2, betas: [0.9, 0.99], weight_decay: 0.0 };
//! let step = StepConfig {
//!     steps: 10,
//!     batch_size: 2,
//!     microbatch_size: Some(1), // less memory, the same result up to rounding
//!     precision: Precision::F32,
//!     clip_norm: 1.0,
//!     seed: 17,
//!     activation_checkpointing: None, // where memory asks for it
//!     eval_every: 0,
//!     eval_samples: None,
//! };
//! let mut trainer = Trainer::new(&config, params, &optimizer, &step)?;
//!
//! // Two rows of tokens, [batch, seq], and of each token the document it belongs to: none sees another's.
//! let tokens: Vec<u32> = (0..16).map(|at| at % 8).collect();
//! let documents: Vec<u64> = (0..16).map(|at| at / 8).collect();
//! let rows = TokenRows { tokens: &tokens, documents: &documents, seq: 8 };
//! let mut losses = Vec::new();
//! for step in 1..=10 {
//!     // 1.0: the learning rate of this step as a part of the optimizer's; a Schedule says it over a run.
//!     losses.push(trainer.step(rows, 1.0, step)?.loss);
//! }
//! assert!(losses[9] < losses[0], "{losses:?}");
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    feature = "run",
    doc = r#"
# Whole runs

```no_run
use std::path::Path;
use std::sync::atomic::AtomicBool;
use mpt_train::{Resume, Silent, TrainRun, train};

# fn main() -> mpt_train::Result<()> {
let run = TrainRun::from_file(Path::new("run.toml"), &["train.steps=500".to_owned()])?;
let summary = train(&run, Resume::Auto, &mut Silent, &AtomicBool::new(false))?; // the same again goes on
println!("{} nats a token, in {}", summary.last_loss, summary.checkpoint.display());
# Ok(())
# }
```
"#
)]

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
pub use error::{Cause, Error, Result};
#[cfg(feature = "run")]
pub use evaluate::{EvalReport, evaluate, evaluate_ids};
pub use mpt_core::ErrorKind;
#[cfg(feature = "run")]
pub use observer::{Observer, Silent, StepMetrics, TrainEvent, TrainSummary};
pub use optim::Optimizer;
#[cfg(feature = "run")]
pub use run::{CheckpointConfig, DataConfig, Resume, TrainRun};
pub use schedule::Schedule;
pub use step::{StepOutcome, TokenRows, Trainer};
#[cfg(feature = "run")]
pub use train::train;
