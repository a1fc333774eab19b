//! `mpt data trace`: documents of a batch.

use std::path::PathBuf;

use mpt_data::{Loader, LoaderConfig, Manifest, Split, TracedSample, trace};

use super::order::OrderArgs;
use crate::exit::CliError;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder made by `mpt data build`
    dir: PathBuf,
    /// The step, counted from 1 as `metrics.jsonl` does
    #[arg(long, value_name = "N", requires = "batch", conflicts_with = "sample", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    step: Option<u64>,
    /// Samples in a batch, if they were as many in all steps before
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: Option<u64>,
    /// A single sample, counted from 0 as `mpt data cat` does
    #[arg(long, value_name = "I", required_unless_present = "step", value_parser = super::sample_index())]
    sample: Option<u64>,
    /// Tokens in a sample [default: that of the data]
    #[arg(long, value_name = "L")]
    seq_len: Option<usize>,
    #[command(flatten)]
    order: OrderArgs,
}

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    let manifest = Manifest::open(&args.dir)?;
    let batch = args.batch.unwrap_or(1);
    let default = LoaderConfig::new(&manifest, Split::Train);
    let config = LoaderConfig {
        seq_len: args.seq_len.unwrap_or(default.seq_len),
        seed: ctx.seed.unwrap_or(default.seed),
        mixing: args.order.apply_to(&default.mixing)?,
        batch_size: batch as usize,
        ..default
    };
    let mut loader = Loader::new(&manifest, config, None)?;
    let range = match (args.step, args.sample) {
        (Some(step), _) => loader.step_samples(step - 1),
        (None, sample) => sample.map_or(0..0, |sample| sample..sample.saturating_add(1)),
    };
    let samples = trace(&manifest, &mut loader, &mut manifest.documents()?, range)?;
    ctx.out.table(&HEADER, &samples.iter().flat_map(cells).collect::<Vec<_>>())?;
    ctx.out.json(&samples)
}

const HEADER: [&str; 8] = ["document", "tokens", "sample", "source", "epoch", "shard", "row", "from token"];

/// Table rows of a sample, one per document.
fn cells(sample: &TracedSample) -> Vec<Vec<String>> {
    let place = &sample.location;
    let cells = |document: &mpt_data::TracedDocument| {
        vec![
            document.id.clone(),
            format!("{}..{}", document.from, document.to),
            sample.index.to_string(),
            sample.source.clone(),
            place.epoch.to_string(),
            place.shard.clone(),
            place.row.to_string(),
            place.token.to_string(),
        ]
    };
    sample.documents.iter().map(cells).collect()
}
