//! `mpt bench`: speed of training, of generation and of the tokenizer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mpt_core::{CausalLm, MptConfig, Params};
use mpt_infer::{GenerateParams, generate};
use mpt_tokenize::Tokenizer;
use mpt_train::bench::{BenchConfig, flops_per_token, step_seconds};
use mpt_train::{OptimizerConfig, Precision};
use serde_json::json;

use crate::exit::{CliError, ExitStatus};
use crate::machine;
use crate::model;
use crate::settings::Context;
use crate::table;

/// Measure the speed of training, generation and the tokenizer
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Time training steps on random tokens with random weights
    #[command(
        after_help = "Examples:\n  mpt bench train --config mpt-125m/config.json --seq-len 512 --batch 4"
    )]
    Train {
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
        /// Steps that are timed
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        steps: u64,
    },
    /// Time reading a prompt and generating after it
    #[command(
        after_help = "Examples:\n  mpt bench infer --model mpt-7b --prompt 512 --gen 64\n  mpt bench infer --config mpt-125m/config.json"
    )]
    Infer {
        /// Model folder, or the run folder of `mpt train`
        #[arg(long, value_name = "PATH", required_unless_present = "config")]
        model: Option<PathBuf>,
        /// A config.json, used with random weights
        #[arg(long, value_name = "FILE", conflicts_with = "model")]
        config: Option<PathBuf>,
        /// Tokens of the prompt
        #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        prompt: u32,
        /// Tokens generated
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
        r#gen: u32,
        /// Repetitions
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        reps: u32,
    },
    /// Time encoding a text on all threads, and decoding it
    #[command(
        after_help = "Examples:\n  mpt bench tokenizer --tokenizer tokenizer.json book.txt\n  mpt bench tokenizer --tokenizer tokenizer.json book.txt --threads 1 --json"
    )]
    Tokenizer {
        /// The tokenizer.json
        #[arg(long, value_name = "FILE")]
        tokenizer: PathBuf,
        /// UTF-8 text; it is encoded in pieces of 64 KiB, all threads at once
        file: PathBuf,
        /// Repetitions
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        reps: u32,
    },
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Train { config, seq_len, batch, optimizer, steps, precision } => {
            let bench = BenchConfig {
                seq_len: seq_len as usize,
                batch_size: batch as usize,
                precision: if precision == "bf16" { Precision::Bf16 } else { Precision::F32 },
                optimizer: optimizer_of(&optimizer),
                steps,
                seed: ctx.seed.unwrap_or(17),
            };
            train(&config, &bench, ctx)?;
        }
        Command::Infer { model, config, prompt, r#gen, reps } => {
            infer(model.as_deref(), config.as_deref(), prompt as usize, r#gen as usize, reps, ctx)?;
        }
        Command::Tokenizer { tokenizer, file, reps } => tokenize(&tokenizer, &file, reps, ctx)?,
    }
    Ok(ExitStatus::Done)
}

/// Bytes of a piece at least, which is as much as a long document has.
const PIECE_BYTES: usize = 64 << 10;

fn tokenize(tokenizer: &Path, file: &Path, reps: u32, ctx: &mut Context) -> Result<(), CliError> {
    let began = Instant::now();
    let tokenizer = Tokenizer::from_file(tokenizer)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let text =
        std::fs::read_to_string(file).map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
    if text.is_empty() {
        return Err(CliError::data(format!("{}: the file is empty", file.display())));
    }
    let pieces = pieces(&text);
    let (mut encode, mut decode, mut tokens) = (Vec::new(), Vec::new(), 0);
    for _ in 0..reps {
        let began = Instant::now();
        let ids = tokenizer.encode_batch(&pieces)?;
        encode.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        for piece in &ids {
            tokenizer.decode(piece)?;
        }
        decode.push(began.elapsed().as_secs_f64());
        tokens = ids.iter().map(Vec::len).sum();
    }
    let (encode, decode) = (median(&encode), median(&decode));
    let (bytes, megabytes) = (text.len(), text.len() as f64 / 1e6);
    let (mb_per_s, tokens_per_s) = (megabytes / encode, tokens as f64 / encode);
    let threads = rayon::current_num_threads();
    ctx.out.text(format_args!(
        "{megabytes:.1} MB, {tokens} tokens, {threads} threads: {mb_per_s:.1} MB/s, {tokens_per_s:.0} tokens/s; decoding on one {:.1} MB/s; loading {load_seconds:.3} s",
        megabytes / decode,
    ))?;
    ctx.out.document(&json!({
        "mb_per_s": mb_per_s, "tokens_per_s": tokens_per_s, "decode_mb_per_s": megabytes / decode, "bytes": bytes,
        "tokens": tokens, "threads": threads, "load_seconds": load_seconds, "peak_rss_bytes": machine::peak_rss_bytes(),
    }))
}

/// A text in pieces that end with a line.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let from = rest.floor_char_boundary(PIECE_BYTES);
        let end = rest[from..].find('\n').map_or(rest.len(), |line| from + line + 1);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn optimizer_of(name: &str) -> OptimizerConfig {
    match name {
        "lion" => OptimizerConfig::Lion { lr: 1e-4, betas: [0.9, 0.95], weight_decay: 1e-6 },
        _ => OptimizerConfig::AdamW { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 1e-6 },
    }
}

fn train(config: &Path, bench: &BenchConfig, ctx: &mut Context) -> Result<(), CliError> {
    let config = MptConfig::from_file(config)?;
    let peak = machine::peak_flops()?;
    let seconds = median(&step_seconds(&config, bench)?);
    let tokens_per_s = (bench.batch_size * bench.seq_len) as f64 / seconds;
    let utilisation = tokens_per_s * flops_per_token(&config, bench.seq_len) / peak;
    ctx.out.text(format_args!(
        "{:.1} M parameters, {} x {} tokens: {tokens_per_s:.1} tokens/s, {seconds:.3} s a step, {:.1} % of {:.0} GFLOP/s",
        config.num_parameters() as f64 / 1e6, bench.batch_size, bench.seq_len, 100.0 * utilisation, peak / 1e9,
    ))?;
    ctx.out.document(&json!({
        "tokens_per_s": tokens_per_s, "step_seconds": seconds, "peak_rss_bytes": machine::peak_rss_bytes(),
        "model_flops_utilisation": utilisation, "machine_flops_per_s": peak,
    }))
}

fn infer(
    model: Option<&Path>,
    config: Option<&Path>,
    prompt: usize,
    new: usize,
    reps: u32,
    ctx: &mut Context,
) -> Result<(), CliError> {
    let began = Instant::now();
    let lm = match (model, config) {
        (Some(path), _) => {
            let weights = model::open(path)?;
            CausalLm::new(weights.config(), &weights)?
        }
        (None, Some(config)) => {
            let config = MptConfig::from_file(config)?;
            CausalLm::new(&config, &Params::init(&config, 17, &ctx.device()?)?)?
        }
        (None, None) => unreachable!("a model or a config is required"),
    };
    let load_seconds = began.elapsed().as_secs_f64();
    let ids: Vec<u32> = (0..prompt).map(|at| (at * 7919 % lm.config().vocab_size) as u32).collect();
    let params = GenerateParams { max_new_tokens: new, ..GenerateParams::default() };
    let mut rows = Vec::new();
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for rep in 0..reps {
        let found = generate(&lm, &ids, &params, &mut |_| ControlFlow::Continue(()))?;
        prefill.push(prompt as f64 / found.prefill_seconds);
        decode.push((found.ids.len() - 1) as f64 / found.decode_seconds);
        rows.push(vec![
            rep.to_string(),
            format!("{:.1}", prefill[rep as usize]),
            format!("{:.2}", decode[rep as usize]),
        ]);
    }
    for line in table::lines(&["rep", "prefill tokens/s", "decode tokens/s"], &rows) {
        ctx.out.text(line)?;
    }
    let reps: Vec<_> = prefill
        .iter()
        .zip(&decode)
        .map(|(p, d)| json!({ "prefill_tokens_per_s": p, "decode_tokens_per_s": d }))
        .collect();
    ctx.out.document(&json!({
        "prefill_tokens_per_s": median(&prefill), "decode_tokens_per_s": median(&decode), "load_seconds": load_seconds,
        "peak_rss_bytes": machine::peak_rss_bytes(), "reps": reps,
    }))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
