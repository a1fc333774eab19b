//! `mpt bench infer`: throughput of prefill and of decoding.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use mpt_core::{Batch, CausalLm, KvDtype, KvPool, MptConfig, SeqId, WeightDtype};
use serde_json::{Value, json};

use super::loaded_model::LoadedModel;
use super::measurement::{Measurement, median, table};
use crate::dtype_args::{kv_dtype, weight_dtype};
use crate::exit::CliError;
use crate::machine;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Model folder, GGUF file, or run folder of `mpt train`
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    model: Option<PathBuf>,
    /// A config.json, used with random weights
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Form of the weights
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = weight_dtype())]
    dtype: WeightDtype,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    prompt: u32,
    /// Tokens generated
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    r#gen: u32,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 10))]
    batch: u32,
    /// Form of the cached keys and values
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = kv_dtype())]
    kv_dtype: KvDtype,
    /// Repetitions, after a short one that is not timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
}

/// Prefill chunk in tokens, as in generation.
const PREFILL_TOKENS: usize = 512;

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let began = Instant::now();
    let seed = ctx.seed.unwrap_or(17);
    let loaded = LoadedModel::open(args.model.as_deref(), args.config.as_deref(), args.dtype, seed, ctx)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let rates = measure(&loaded.lm, args)?;
    let peak_rss_bytes = machine::peak_rss_bytes(); // before the machine is measured
    let LoadedModel { lm, bench_model, decode_bytes } = loaded;
    let config = lm.config().clone();
    drop(lm);
    let peak = MachinePeak {
        flops: machine::measure_peak_flops()?,
        read_bandwidth: machine::measure_read_bandwidth(),
    };
    let utilization = Utilization::of(&rates, &peak, args, &config, decode_bytes);
    for line in table(&bench_model, &measurements(args, &rates, &peak, &utilization)) {
        ctx.out.text(line)?;
    }
    ctx.out.json(&json!({
        "prefill_tokens_per_s": median(&rates.prefill), "decode_tokens_per_s": median(&rates.decode),
        "load_seconds": load_seconds, "peak_rss_bytes": peak_rss_bytes, "reps": rates.repetitions_json(),
        "weight_bytes": bench_model.bytes,
        "prefill_flops_utilisation": utilization.prefill, "decode_bandwidth_utilisation": utilization.decode,
        "machine_flops_per_s": peak.flops, "machine_read_bytes_per_s": peak.read_bandwidth,
    }))
}

/// Rates of each repetition in tokens/s, over all sequences.
struct Rates {
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

impl Rates {
    fn repetitions_json(&self) -> Vec<Value> {
        let repetition = |(prefill, decode): (&f64, &f64)| json!({ "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode });
        self.prefill.iter().zip(&self.decode).map(repetition).collect()
    }
}

/// Peak rates of the machine.
struct MachinePeak {
    /// FLOP/s.
    flops: f64,
    /// Bytes/s.
    read_bandwidth: f64,
}

/// Median rates relative to the machine's peak: FLOP/s of prefill, and bytes/s read by decoding.
struct Utilization {
    prefill: f64,
    decode: f64,
}

impl Utilization {
    fn of(rates: &Rates, peak: &MachinePeak, args: &Args, config: &MptConfig, decode_bytes: u64) -> Self {
        let (prompt, new, batch) = args.sizes();
        let step_bytes = decode_bytes + batch as u64 * KvPool::bytes(config, prompt + new / 2, args.kv_dtype);
        Self {
            prefill: median(&rates.prefill) * prefill_flops(config, prompt) / peak.flops,
            decode: median(&rates.decode) / batch as f64 * step_bytes as f64 / peak.read_bandwidth,
        }
    }
}

impl Args {
    /// Prompt tokens, new tokens and number of sequences.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.prompt as usize, self.r#gen as usize, self.batch as usize)
    }
}

/// Runs a short warm-up, then the repetitions.
fn measure(lm: &CausalLm, args: &Args) -> Result<Rates, CliError> {
    let (prompt, new, batch) = args.sizes();
    run_once(lm, args.kv_dtype, batch, prompt.min(32), 1)?;
    let mut rates = Rates { prefill: Vec::new(), decode: Vec::new() };
    for _ in 0..args.reps {
        let [prefill_seconds, decode_seconds] = run_once(lm, args.kv_dtype, batch, prompt, new)?;
        rates.prefill.push((batch * prompt) as f64 / prefill_seconds);
        rates.decode.push((batch * new) as f64 / decode_seconds);
    }
    Ok(rates)
}

/// Table rows, named as llama-bench does: `pp` for prompt processing, `tg` for text generation.
fn measurements(
    args: &Args,
    rates: &Rates,
    peak: &MachinePeak,
    utilization: &Utilization,
) -> [Measurement; 2] {
    let (prompt, new, batch) = args.sizes();
    let test = |name: &str, tokens: usize| match batch {
        1 => format!("{name}{tokens}"),
        _ => format!("{name}{tokens} x {batch}"),
    };
    [
        Measurement {
            test: test("pp", prompt),
            rates: rates.prefill.clone(),
            utilization: utilization.prefill,
            peak_text: machine::format_flops(peak.flops),
        },
        Measurement {
            test: test("tg", new),
            rates: rates.decode.clone(),
            utilization: utilization.decode,
            peak_text: format!("{:.1} GB/s, reading", peak.read_bandwidth / 1e9),
        },
    ]
}

/// Runs one repetition. Returns the seconds of prefill, `prompt` tokens per sequence, and of `new` decoding steps.
fn run_once(
    lm: &CausalLm,
    kv_dtype: KvDtype,
    batch: usize,
    prompt: usize,
    new: usize,
) -> Result<[f64; 2], CliError> {
    let id = |row: usize, at: usize| ((at + 1000 * row) * 7919 % lm.config().vocab_size) as u32;
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| (0..prompt).map(|at| id(row, at)).collect()).collect();
    let mut pool = KvPool::new(lm.config(), batch * KvPool::round_up_to_pages(prompt + new), kv_dtype)?;
    let sequences: Vec<SeqId> = (0..batch).map(|_| pool.add()).collect();
    let began = Instant::now();
    let mut next = Vec::new();
    for from in (0..prompt).step_by(PREFILL_TOKENS) {
        let chunk = from..prompt.min(from + PREFILL_TOKENS);
        next = greedy_step(lm, &mut pool, sequences.iter().zip(rows.iter().map(|row| &row[chunk.clone()])))?;
    }
    let prefill_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    for _ in 0..new {
        next = greedy_step(lm, &mut pool, sequences.iter().zip(next.chunks(1)))?;
    }
    Ok([prefill_seconds, began.elapsed().as_secs_f64()])
}

/// Runs new tokens of all sequences. Returns the most probable next id of each.
fn greedy_step<'a>(
    lm: &CausalLm,
    pool: &mut KvPool,
    new_tokens: impl Iterator<Item = (&'a SeqId, &'a [u32])>,
) -> Result<Vec<u32>, CliError> {
    let mut batch = Batch::new();
    for (&sequence, tokens) in new_tokens {
        batch.push(sequence, tokens)?;
    }
    let last = Tensor::new(batch.last_token_indices(), &Device::Cpu)?;
    let hidden = lm.forward(&batch, pool)?.index_select(&last, 0)?;
    let logits = lm.logits(&hidden)?.flatten_all()?.to_vec1::<f32>()?;
    let best = |row: &[f32]| {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(id, _)| id as u32)
    };
    Ok(logits.chunks(lm.config().vocab_size).map(best).collect())
}

/// FLOPs per prompt token at a prompt of `prompt` tokens: two per weight of the blocks, and attention over half the
/// prompt, which a causal mask leaves. The head runs for the last token only.
fn prefill_flops(config: &MptConfig, prompt: usize) -> f64 {
    let embeddings = config.parameters().filter(|(id, shape)| shape.len() > 1 && id.layer().is_none());
    let outside: usize = embeddings.map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let attention = 2 * 2 * config.n_layers * config.q_width() * prompt / 2;
    2.0 * (config.num_parameters() - outside as u64) as f64 + attention as f64
}
