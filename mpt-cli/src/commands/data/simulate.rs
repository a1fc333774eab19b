//! `mpt data simulate`: storage traffic and shuffle quality of a run.

use std::path::{Path, PathBuf};

use mpt_data::order::OrderConfig;
use mpt_data::simulate::{SimulateConfig, Simulation, SourceSimulation, Traffic, simulate};
use mpt_data::{LoaderConfig, Manifest, PrepareRun, Split};

use super::order::OrderArgs;
use super::tables::format_epochs;
use crate::exit::CliError;
use crate::settings::Context;
use crate::table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder made by `mpt data build`, or a mix whose sources say their `tokens`
    data: PathBuf,
    /// Samples to go through
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    samples: u64,
    /// The first of them
    #[arg(long, value_name = "I", default_value_t = 0, value_parser = super::sample_index())]
    start: u64,
    /// Samples in a batch, over all processes
    #[arg(long, value_name = "B", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    batch: u64,
    /// Processes that share each batch
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    world_size: u64,
    /// Machines, each with an equal number of processes
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    nodes: u64,
    /// Bytes that each machine may keep, such as 2e9
    #[arg(long, value_name = "BYTES", default_value = "1e9", value_parser = parse_bytes)]
    cache_bytes: u64,
    /// Dollars for a thousand requests
    #[arg(long, value_name = "DOLLARS", default_value_t = 0.0004)]
    price_per_1000: f64,
    /// Tokens in a sample [default: that of the data]
    #[arg(long, value_name = "L")]
    seq_len: Option<usize>,
    #[command(flatten)]
    order: OrderArgs,
}

/// Parser of a byte count; `1e9` and 0 are allowed.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let number: f64 =
        text.replace('_', "").parse().map_err(|_| "expected a number such as 2e9".to_owned())?;
    if (0.0..1e18).contains(&number) {
        Ok(number as u64)
    } else {
        Err("expected 0 or more, and less than 1e18".into())
    }
}

/// Vocabulary size of a mix without a tokenizer. It fits two bytes, as that of the MPT models does.
const MIX_VOCAB_SIZE: usize = 1 << 16;

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let (order, vocab_size) =
        if args.data.is_dir() { order_of_data(args, ctx)? } else { order_of_mix(args, &args.data, ctx)? };
    let simulation = simulate(&SimulateConfig {
        order,
        vocab_size,
        start: args.start,
        samples: args.samples,
        batch_size: args.batch,
        world_size: args.world_size,
        nodes: args.nodes,
        cache_bytes: args.cache_bytes,
        price_per_1000: args.price_per_1000,
    })?;
    print(&simulation, ctx)?;
    ctx.out.json(&simulation)
}

fn order_of_data(args: &Args, ctx: &Context) -> Result<(OrderConfig, usize), CliError> {
    let manifest = Manifest::open(&args.data)?;
    let default = LoaderConfig::new(&manifest, Split::Train);
    let config = LoaderConfig {
        seq_len: args.seq_len.unwrap_or(default.seq_len),
        seed: ctx.seed.unwrap_or(default.seed),
        mixing: args.order.apply_to(&default.mixing)?,
        batch_size: args.batch as usize,
        ..default
    };
    Ok((OrderConfig::from_manifest(&manifest, &config), manifest.plan().vocab_size))
}

fn order_of_mix(args: &Args, mix: &Path, ctx: &Context) -> Result<(OrderConfig, usize), CliError> {
    let mut run = PrepareRun::from_file(mix)?;
    run.seed = ctx.seed.unwrap_or(run.seed);
    run.seq_len = args.seq_len.unwrap_or(run.seq_len);
    run.mixing = args.order.apply_to(&run.mixing)?;
    let order = OrderConfig::from_mix(&run, args.batch).ok_or_else(|| {
        CliError::usage(format!("{}: some source does not say its `tokens`", mix.display()))
            .help("add `tokens` to every source, or build the data and simulate its folder")
    })?;
    Ok((order, MIX_VOCAB_SIZE))
}

fn print(simulation: &Simulation, ctx: &mut Context) -> Result<(), CliError> {
    let header = ["reading", "requests", "bytes", "cost", "cache hits"];
    let traffic = |name: &str, traffic: &Traffic| {
        vec![
            name.to_owned(),
            table::count(traffic.requests),
            table::count(traffic.bytes),
            format!("${:.4}", traffic.cost),
            format!("{:.1} %", 100.0 * traffic.cache_hit_rate),
        ]
    };
    let rows = [traffic("rows", &simulation.row_mode), traffic("chunks", &simulation.chunk_mode)];
    ctx.out.table(&header, &rows)?;
    ctx.out.text("")?;
    let header = ["source", "samples", "epochs", "chunks", "entropy", "of a true shuffle"];
    let source = |source: &SourceSimulation| {
        vec![
            source.source.clone(),
            table::count(source.samples),
            format_epochs(source.epochs),
            table::count(source.chunks),
            format!("{:.3}", source.spread.entropy),
            format!("{:.3}", source.spread.entropy_of_true_shuffle),
        ]
    };
    let rows: Vec<_> = simulation.sources.iter().map(source).collect();
    ctx.out.table(&header, &rows)
}
