//! `mpt bench train`: throughput of training steps, with random weights on random tokens.

use std::path::PathBuf;

use mpt_core::{MptConfig, Precision};
use mpt_train::OptimizerConfig;
use mpt_train::bench::{BenchConfig, flops_per_token, step_seconds};
use serde_json::json;

use super::measurement::{BenchModel, Measurement, median, table};
use crate::exit::CliError;
use crate::machine;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A config.json
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Tokens in a sequence
    #[arg(long, value_name = "L", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    seq_len: u32,
    /// Sequences in a step
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: u32,
    /// Precision of the computation
    #[arg(long, value_name = "P", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// The optimizer
    #[arg(long, value_name = "NAME", default_value = "lion", value_parser = ["lion", "adamw"])]
    optimizer: String,
    /// Train adapters of this rank on a frozen model
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    lora: Option<u32>,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let config = MptConfig::from_file(&args.config)?;
    let (seq_len, batch) = (args.seq_len as usize, args.batch as usize);
    let bench = BenchConfig {
        seq_len,
        batch_size: batch,
        precision: if args.precision == "bf16" { Precision::Bf16 } else { Precision::F32 },
        optimizer: optimizer(&args.optimizer),
        lora: args.lora.map(|rank| rank as usize),
        steps: args.steps,
        seed: ctx.seed.unwrap_or(17),
    };
    let seconds = step_seconds(&config, &bench)?;
    let peak_rss_bytes = machine::peak_rss_bytes(); // before the machine itself is measured
    let peak = machine::measure_peak_flops()?;
    let step = median(&seconds);
    let tokens_per_s = (batch * seq_len) as f64 / step;
    let utilisation = tokens_per_s * flops_per_token(&config, seq_len) / peak;
    let parameters = config.num_parameters();
    let bench_model = BenchModel {
        name: format!("{} {}", super::infer::model_name(&args.config), args.precision),
        bytes: 4 * parameters,
        parameters,
    };
    let row = Measurement {
        test: match args.lora {
            Some(rank) => format!("LoRA of rank {rank} {batch}x{seq_len} {}", args.optimizer),
            None => format!("train {batch}x{seq_len} {}", args.optimizer),
        },
        rates: seconds.iter().map(|seconds| (batch * seq_len) as f64 / seconds).collect(),
        utilization: utilisation,
        peak_text: machine::format_flops(peak),
    };
    for line in table(&bench_model, &[row]) {
        ctx.out.text(line)?;
    }
    ctx.out.json(&json!({
        "tokens_per_s": tokens_per_s, "step_seconds": step, "peak_rss_bytes": peak_rss_bytes,
        "model_flops_utilisation": utilisation, "machine_flops_per_s": peak,
    }))
}

fn optimizer(name: &str) -> OptimizerConfig {
    match name {
        "lion" => OptimizerConfig::Lion { lr: 1e-4, betas: [0.9, 0.95], weight_decay: 1e-6 },
        _ => OptimizerConfig::AdamW { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 1e-6 },
    }
}
