//! What a step does: optimizer, schedule, batches, precision. In a run file these are tables of their own.

use mpt_core::Precision;
use serde::{Deserialize, Serialize};

/// Optimizer, told apart by `kind`. Decay is decoupled: each step multiplies every parameter by
/// `1 - multiplier * weight_decay`, where the multiplier is the schedule's, not the rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms".
    Lion {
        /// Highest learning rate.
        lr: f64,
        /// Decay of the momentum in the update, and in the state; each from 0 to below 1.
        #[serde(default = "lion_betas")]
        betas: [f64; 2],
        /// Share of each parameter taken away at every step at full rate.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    AdamW {
        /// Highest learning rate.
        lr: f64,
        /// Decay of the two moments; each from 0 to below 1.
        #[serde(default = "adamw_betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "adamw_eps")]
        eps: f64,
        /// Share of each parameter taken away at every step at full rate.
        #[serde(default)]
        weight_decay: f64,
    },
}

/// Learning rate over the run, as a multiplier of the highest: a straight line up, then what `kind` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// Steps from rate 0 to the full rate.
    pub warmup_steps: u64,
    /// The last rate as a share of the full one, from 0 to 1.
    pub alpha_f: f64,
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The full rate.
    Constant,
    /// A straight line down.
    Linear,
    /// Half a cosine down.
    Cosine,
}

/// Steps and batches, and what a step computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// How factors of matrix products are rounded; weights, sums and the optimizer's state are f32 always.
    #[serde(default)]
    pub precision: Precision,
    /// Sequences in a step.
    pub batch_size: usize,
    /// Sequences that go through the model at once, a divisor of `batch_size`: less memory, the same result up to rounding.
    /// By default `batch_size`.
    pub microbatch_size: Option<usize>,
    /// Bound on the norm of the whole gradient; 0 for none.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Seed of the initial weights, and of dropout.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Whether blocks are computed again in the backward pass: memory of one block instead of all, and the same result to
    /// the last bit. By default as many blocks as it takes to fit into memory.
    pub activation_checkpointing: Option<bool>,
    /// Steps between evaluations on the held-out split; 0 for one at the end.
    #[serde(default)]
    pub eval_every: u64,
    /// Held-out sequences in an evaluation. By default all.
    pub eval_samples: Option<u64>,
}

impl OptimizerConfig {
    /// Highest learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Lion { lr, .. } | Self::AdamW { lr, .. } => *lr,
        }
    }

    /// The two decay rates.
    pub fn betas(&self) -> [f64; 2] {
        match self {
            Self::Lion { betas, .. } | Self::AdamW { betas, .. } => *betas,
        }
    }

    /// Share of each parameter taken away at every step at full rate.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Lion { weight_decay, .. } | Self::AdamW { weight_decay, .. } => *weight_decay,
        }
    }

    /// Names of the numbers kept for each parameter.
    pub(crate) fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Lion { .. } => &["momentum"],
            Self::AdamW { .. } => &["m", "v"],
        }
    }
}

impl StepConfig {
    /// Sequences that go through the model at once.
    pub fn microbatch_size(&self) -> usize {
        self.microbatch_size.unwrap_or(self.batch_size)
    }

    /// Bound on the norm of the whole gradient.
    pub fn clip(&self) -> Option<f64> {
        (self.clip_norm > 0.0).then_some(self.clip_norm)
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { kind: ScheduleKind::Cosine, warmup_steps: 0, alpha_f: 0.1 }
    }
}

fn lion_betas() -> [f64; 2] {
    [0.9, 0.99]
}

fn adamw_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn adamw_eps() -> f64 {
    1e-8
}

fn default_clip_norm() -> f64 {
    1.0
}

fn default_seed() -> u64 {
    17
}
