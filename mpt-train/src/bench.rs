//! Training speed of a model with random weights on random tokens: forward, backward, clip, update.

use std::time::Instant;

use mpt_core::rng::CounterRng;
use mpt_core::{MptConfig, Params, Precision};

use crate::config::{OptimizerConfig, StepConfig};
use crate::error::Result;
use crate::step::{TokenRows, Trainer};

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchConfig {
    /// Tokens in a sequence.
    pub seq_len: usize,
    /// Sequences in a step.
    pub batch_size: usize,
    /// Precision of the computation.
    pub precision: Precision,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Steps that are timed, after one that is not.
    pub steps: u64,
    /// Seed of weights and tokens.
    pub seed: u64,
}

/// Seconds of each timed step.
///
/// # Errors
/// Those of the model, and [`Error::NotFinite`](crate::Error::NotFinite).
pub fn step_seconds(model: &MptConfig, bench: &BenchConfig) -> Result<Vec<f64>> {
    let step = StepConfig {
        steps: bench.steps,
        precision: bench.precision,
        batch_size: bench.batch_size,
        microbatch_size: None,
        clip_norm: 1.0,
        seed: bench.seed,
        activation_checkpointing: false,
        eval_every: 0,
        eval_samples: None,
    };
    let params = Params::init(model, bench.seed, &candle_core::Device::Cpu)?;
    let mut trainer = Trainer::new(model, params, &bench.optimizer, &step)?;
    let mut rng = CounterRng::named(bench.seed, "bench");
    let mut seconds = Vec::new();
    for number in 1..=bench.steps + 1 {
        let id = |_| (rng.uniform_f64() * model.vocab_size as f64) as u32;
        let tokens: Vec<u32> = (0..bench.batch_size * bench.seq_len).map(id).collect();
        let documents = vec![0; tokens.len()];
        let began = Instant::now();
        trainer.step(
            TokenRows { tokens: &tokens, documents: &documents, seq: bench.seq_len },
            1.0,
            number,
        )?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(seconds.split_off(1))
}

/// Floating-point operations of training on one token: three times those of the forward pass.
///
/// Source: Kaplan et al. 2020, section 2.1; the attention term counts scores and values over the whole sequence, as
/// llm-foundry's `flops_per_batch` does.
pub fn flops_per_token(model: &MptConfig, seq_len: usize) -> f64 {
    let attention = 2.0 * 2.0 * (model.n_layers * model.d_model * seq_len) as f64;
    3.0 * (2.0 * model.num_parameters() as f64 + attention)
}
