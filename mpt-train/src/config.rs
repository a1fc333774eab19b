//! Configuration of a training step: optimizer, schedule, batches, precision. Each is a table of the run file.

use mpt_core::Precision;
use serde::{Deserialize, Serialize};

/// Optimizer, selected by `kind`. Weight decay is decoupled: each step multiplies every parameter by
/// `1 - multiplier * weight_decay`, with the schedule's multiplier and without the learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms".
    Lion {
        /// Peak learning rate.
        lr: f64,
        /// Interpolation of the momentum in the update, and its decay; each from 0 to below 1.
        #[serde(default = "lion_betas")]
        betas: [f64; 2],
        /// Share of each parameter removed by a step at the peak learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    AdamW {
        /// Peak learning rate.
        lr: f64,
        /// Decay rates of the two moments; each from 0 to below 1.
        #[serde(default = "adamw_betas")]
        betas: [f64; 2],
        /// Term added to the root of the second moment.
        #[serde(default = "adamw_eps")]
        eps: f64,
        /// Share of each parameter removed by a step at the peak learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
}

/// Learning rate schedule, as a multiplier of the peak: linear warm-up, then the decay `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Decay after the warm-up.
    pub kind: ScheduleKind,
    /// Steps of the warm-up, from 0 to the peak.
    pub warmup_steps: u64,
    /// Final multiplier, from 0 to 1.
    pub alpha_f: f64,
}

/// Decay after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// None: the peak throughout.
    Constant,
    /// Linear decay.
    Linear,
    /// Half a cosine.
    Cosine,
}

/// Number of steps, batches, precision and evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Precision of the factors of matrix products. Weights, sums and the optimizer's state are always f32.
    #[serde(default)]
    pub precision: Precision,
    /// Sequences per step.
    pub batch_size: usize,
    /// Sequences per forward pass, a divisor of `batch_size`. A smaller one takes less memory and gives the same result up
    /// to rounding. By default `batch_size`.
    pub microbatch_size: Option<usize>,
    /// Maximum L2 norm of the gradient, which is scaled down to it; 0 for no clipping.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Seed of the initial weights and of dropout.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Whether all blocks are recomputed in the backward pass instead of keeping their activations. The result has the same
    /// bits. By default as many blocks are recomputed as it takes to fit into memory.
    pub activation_checkpointing: Option<bool>,
    /// Steps between evaluations on the held-out split; 0 evaluates after the last step only.
    #[serde(default)]
    pub eval_every: u64,
    /// Maximum number of held-out sequences of an evaluation. By default all.
    pub eval_samples: Option<u64>,
}

impl OptimizerConfig {
    /// Peak learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Lion { lr, .. } | Self::AdamW { lr, .. } => *lr,
        }
    }

    /// The two betas.
    pub fn betas(&self) -> [f64; 2] {
        match self {
            Self::Lion { betas, .. } | Self::AdamW { betas, .. } => *betas,
        }
    }

    /// Share of each parameter removed by a step at the peak learning rate.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Lion { weight_decay, .. } | Self::AdamW { weight_decay, .. } => *weight_decay,
        }
    }

    /// Names of the moments kept for each parameter.
    pub(crate) fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Lion { .. } => &["momentum"],
            Self::AdamW { .. } => &["m", "v"],
        }
    }
}

impl StepConfig {
    /// Sequences per forward pass.
    pub fn microbatch_size(&self) -> usize {
        self.microbatch_size.unwrap_or(self.batch_size)
    }

    /// Maximum L2 norm of the gradient; `None` for no clipping.
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
