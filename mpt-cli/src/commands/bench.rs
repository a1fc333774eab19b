//! `mpt bench`: throughput of training, generation, the tokenizer and the data loader.

mod data;
mod infer;
mod measurement;
mod tokenizer;
mod train;

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

/// Measure the speed of training, generation, the tokenizer and the data loader
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
    Train(train::Args),
    /// Time reading a prompt and generating after it
    #[command(
        after_help = "Examples:\n  mpt bench infer --model mpt-7b --prompt 512 --gen 64\n  mpt bench infer --config mpt-125m/config.json --dtype bf16"
    )]
    Infer(infer::Args),
    /// Time encoding a text on all threads, and decoding it
    #[command(
        after_help = "Examples:\n  mpt bench tokenizer --tokenizer tokenizer.json book.txt\n  mpt bench tokenizer --tokenizer tokenizer.json book.txt --threads 1 --json"
    )]
    Tokenizer(tokenizer::Args),
    /// Time batches in the order of training, every row checked against its checksum
    #[command(
        after_help = "Examples:\n  mpt bench data data --batch 512\n  mpt bench data data --shuffle windowed --json"
    )]
    Data(data::Args),
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Train(args) => train::run(&args, ctx)?,
        Command::Infer(args) => infer::run(&args, ctx)?,
        Command::Data(args) => data::run(&args, ctx)?,
        Command::Tokenizer(args) => tokenizer::run(&args, ctx)?,
    }
    Ok(ExitStatus::Done)
}
