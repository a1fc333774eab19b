//! `mpt bench data`: throughput of the data loader in training order, with the checksum of every row.

use std::path::PathBuf;
use std::time::Instant;

use mpt_data::{Loader, LoaderConfig, Manifest, Split, TokenBatch};
use serde_json::json;

use super::measurement::median;
use crate::commands::data::OrderArgs;
use crate::exit::CliError;
use crate::machine;
use crate::settings::Context;
use crate::table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder made by `mpt data build`
    dir: PathBuf,
    /// Tokens in a sample [default: that of the data]
    #[arg(long, value_name = "L")]
    seq_len: Option<usize>,
    /// Samples in a batch
    #[arg(long, value_name = "B", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: u64,
    /// Batches in a repetition
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
    /// Repetitions, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    #[command(flatten)]
    order: OrderArgs,
}

/// Timings of one repetition.
struct Repetition {
    seconds: f64,
    cpu_seconds: f64,
    tokens: u64,
}

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let began = Instant::now();
    let manifest = Manifest::open(&args.dir)?;
    let default = LoaderConfig::new(&manifest, Split::Train);
    let config = LoaderConfig {
        seq_len: args.seq_len.unwrap_or(default.seq_len),
        seed: ctx.seed.unwrap_or(default.seed),
        mixing: args.order.apply_to(&default.mixing)?,
        batch_size: args.batch as usize,
        ..default
    };
    let mut loader = Loader::new(&manifest, config, None)?;
    let mut batch = TokenBatch::default();
    loader.fill(&mut batch)?;
    let first_batch = began.elapsed().as_secs_f64();
    let mut reps = Vec::new();
    for _ in 0..=args.reps {
        // The same samples each time: from the second repetition on they are in the page cache.
        loader.seek(0);
        reps.push(run_once(&mut loader, &mut batch, args.batches)?);
    }
    let reps = &reps[1..];
    let median_of = |rate: fn(&Repetition) -> f64| median(&reps.iter().map(rate).collect::<Vec<_>>());
    let tokens_per_cpu_s = median_of(|repetition| repetition.tokens as f64 / repetition.cpu_seconds);
    let tokens_per_s = median_of(|repetition| repetition.tokens as f64 / repetition.seconds);
    let samples_per_s = tokens_per_s / batch.seq as f64;
    let bytes_per_s = tokens_per_s * manifest.token_bytes() as f64;
    let header = ["test", "samples/s", "tokens/s", "tokens/CPU-s", "GB/s", "first batch"];
    let row = vec![
        format!("{} x {}, {} batches", args.batch, batch.seq, args.batches),
        table::count(samples_per_s as u64),
        table::count(tokens_per_s as u64),
        table::count(tokens_per_cpu_s as u64),
        format!("{:.2}", bytes_per_s / 1e9),
        format!("{:.1} ms", 1e3 * first_batch),
    ];
    table::lines(&header, &[row]).iter().try_for_each(|line| ctx.out.text(line))?;
    ctx.out.json(&json!({
        "tokens_per_cpu_s": tokens_per_cpu_s, "tokens_per_s": tokens_per_s, "samples_per_s": samples_per_s,
        "gb_per_s": bytes_per_s / 1e9, "first_batch_seconds": first_batch, "seq_len": batch.seq, "batch": args.batch,
        "batches": args.batches, "reps": reps.iter().map(|repetition| repetition.seconds).collect::<Vec<_>>(),
        "peak_rss_bytes": machine::peak_rss_bytes(),
    }))
}

fn run_once(loader: &mut Loader, batch: &mut TokenBatch, batches: u64) -> Result<Repetition, CliError> {
    let (began, cpu) = (Instant::now(), machine::thread_cpu_seconds());
    let mut tokens = 0;
    for _ in 0..batches {
        loader.fill(batch)?;
        tokens += std::hint::black_box(&*batch).tokens.len() as u64;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = match (cpu, machine::thread_cpu_seconds()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => seconds,
    };
    Ok(Repetition { seconds, cpu_seconds, tokens })
}
