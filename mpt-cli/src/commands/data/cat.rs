//! `mpt data cat`: samples in the order of training, as JSON Lines.

use std::path::PathBuf;

use mpt_data::{Loader, LoaderConfig, Manifest, Split};
use serde_json::json;

use super::{OrderArgs, sample_index};
use crate::exit::CliError;
use crate::settings::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder made by `mpt data build`
    dir: PathBuf,
    /// `train` or `eval`
    #[arg(long, value_name = "SPLIT", default_value = "train", value_parser = parse_split)]
    split: Split,
    /// The first sample
    #[arg(long, value_name = "I", default_value_t = 0, value_parser = sample_index())]
    start: u64,
    /// How many samples
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = sample_index())]
    count: u64,
    /// Tokens in a sample [default: that of the data]
    #[arg(long, value_name = "L")]
    seq_len: Option<usize>,
    /// Processes that share the range
    #[arg(long, value_name = "W", default_value_t = 1)]
    world_size: u64,
    /// Which of them to print the share of
    #[arg(long, value_name = "R", default_value_t = 0)]
    rank: u64,
    #[command(flatten)]
    order: OrderArgs,
}

fn parse_split(text: &str) -> Result<Split, String> {
    let found = Split::ALL.into_iter().find(|split| split.name() == text);
    found.ok_or_else(|| "expected `train` or `eval`".to_owned())
}

pub(super) fn run(args: &Args, ctx: &mut Context) -> Result<(), CliError> {
    if args.rank >= args.world_size || !args.count.is_multiple_of(args.world_size) {
        let message = format!(
            "--world-size {} --rank {}: the rank must be below the world size, and the world size divide --count {}",
            args.world_size, args.rank, args.count
        );
        return Err(CliError::usage(message));
    }
    let manifest = Manifest::open(&args.dir)?;
    let config = LoaderConfig {
        mixing: args.order.apply_to(&manifest.plan().mixing)?,
        seq_len: args.seq_len.unwrap_or(manifest.plan().seq_len),
        seed: ctx.seed.unwrap_or(manifest.plan().seed),
        ..LoaderConfig::new(&manifest, args.split)
    };
    let mut loader = Loader::new(&manifest, config, None)?;
    if loader.eval_len() == Some(0) {
        return Err(CliError::data(format!("{}: there are no held-out sequences", args.dir.display()))
            .help("build the data with a larger `eval_fraction`"));
    }
    let share = args.count / args.world_size;
    for index in (args.start..).skip((args.rank * share) as usize).take(share as usize) {
        let sample = loader.sample(index)?;
        let source = &manifest.sources()[sample.id.source].name;
        ctx.out.json_line(
            &json!({ "index": index, "source": source, "ids": sample.tokens, "doc_ids": sample.documents }),
        )?;
    }
    Ok(())
}
