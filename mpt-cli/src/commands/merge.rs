//! `mpt merge`: a LoRA adapter merged into its base model.

use std::path::PathBuf;

use mpt_core::{Adapter, ConvertOptions, WeightDtype};

use crate::byte_size::ByteSize;
use crate::dtype_args::folder_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::model_args;
use crate::settings::Context;

/// Fold a LoRA adapter into full weights
///
/// Every weight becomes W + scale * B A, computed in f32 and rounded once to the form that is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt merge --model mpt-7b --adapter run/adapter --out mpt-7b-mine
  mpt merge --model mpt-7b --adapter run/adapter --out mpt-7b-mine --dtype f32")]
pub(crate) struct Args {
    /// The base model
    #[arg(long, value_name = "BASE")]
    model: PathBuf,
    /// The adapter's folder, as peft writes it
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Form of the matrices [default: that of the base model; bf16 where it is quantized]
    #[arg(long, value_name = "DTYPE", value_parser = folder_dtype())]
    dtype: Option<WeightDtype>,
    /// Begin another weights file beyond this size
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: ByteSize,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let format = args.dtype;
    let weights = model_args::open(&args.model, ctx)?;
    let adapter = Adapter::open(&args.adapter, weights.config())?;
    let options = ConvertOptions {
        dtype: format,
        adapter: Some(&adapter),
        max_shard_size: Some(args.max_shard_size.0),
    };
    let converted = export::write_folder(&weights, &args.out, &options, "merge", ctx)?;
    export::print_summary(&args.out, &converted, ctx)?;
    ctx.out.json(&export::summary_json(&args.out, &converted))?;
    Ok(ExitStatus::Done)
}
