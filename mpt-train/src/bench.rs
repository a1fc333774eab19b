//! Benchmark of training steps (forward, backward, clip, update) with random weights on random tokens.

use std::time::Instant;

use candle_core::Device;
use mpt_core::rng::CounterRng;
use mpt_core::{Adapter, LoraConfig, MptConfig, Params, Precision, Recompute, StepMemory, check_memory};

use crate::config::{OptimizerConfig, StepConfig};
use crate::error::Result;
use crate::step::{TokenRows, Trainer};

/// Parameters of the benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchConfig {
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Sequences per step.
    pub batch_size: usize,
    /// Precision of matrix products.
    pub precision: Precision,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Rank of LoRA adapters on all linear layers of a frozen model; `None` trains all parameters.
    pub lora: Option<usize>,
    /// Number of timed steps, after one warm-up step.
    pub steps: u64,
    /// Seed of weights and tokens.
    pub seed: u64,
}

/// Runs the benchmark. Returns the seconds of each timed step.
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
        activation_checkpointing: None,
        eval_every: 0,
        eval_samples: None,
    };
    let shape = [bench.batch_size, bench.seq_len];
    let memory = StepMemory::estimate(model, shape, bench.optimizer.moments().len(), Recompute::All);
    check_memory(memory.total())?;
    let params = Params::init(model, bench.seed, &Device::Cpu)?;
    let mut trainer = match bench.lora {
        Some(rank) => {
            let adapter = Adapter::init(model, all_linears(rank), bench.seed, &Device::Cpu)?;
            Trainer::with_adapter(model, &params, &adapter, &bench.optimizer, &step)?
        }
        None => Trainer::new(model, params, &bench.optimizer, &step)?,
    };
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

/// LoRA of rank `rank` on all linear layers.
fn all_linears(rank: usize) -> LoraConfig {
    let linears = ["Wqkv", "Wq", "Wk", "Wv", "out_proj", "up_proj", "gate_proj", "down_proj"];
    LoraConfig {
        r: rank,
        lora_alpha: 2.0 * rank as f64,
        target_modules: linears.map(str::to_owned).into(),
        use_rslora: false,
    }
}

/// Floating-point operations of training on one token: three times those of the forward pass.
///
/// Source: Kaplan et al. 2020, section 2.1; the attention term counts scores and values over the whole sequence, as
/// llm-foundry's `flops_per_batch` does.
pub fn flops_per_token(model: &MptConfig, seq_len: usize) -> f64 {
    let attention = 2.0 * 2.0 * (model.n_layers * model.d_model * seq_len) as f64;
    3.0 * (2.0 * model.num_parameters() as f64 + attention)
}
