//! `mpt convert`: a model from one format to another.

use std::path::PathBuf;

use mpt_core::ConvertOptions;
use serde_json::json;

use crate::exit::{CliError, ExitStatus};
use crate::export::{self, Size};
use crate::model::{self, Dtype};
use crate::settings::Context;
use crate::tui::{Unit, amount};

/// Convert a model between Hugging Face folders and GGUF files
///
/// Reads safetensors, pytorch_model*.bin and GGUF; writes safetensors or GGUF. Memory stays the same however large the
/// model is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt convert mpt-7b mpt-7b.gguf --to gguf
  mpt convert mpt-7b mpt-7b-f32 --to hf --dtype f32 --max-shard-size 2GB
  mpt convert mpt-7b.Q8_0.gguf mpt-7b --to hf")]
pub(crate) struct Args {
    /// Model folder, GGUF file, or run folder of `mpt train`
    input: PathBuf,
    /// What to write: a folder for `hf`, a file for `gguf`
    output: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT")]
    to: Target,
    /// Form of the matrices [default: as they are; bf16 where they are quantized]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Begin another weights file beyond this size
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    Hf,
    Gguf,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let format = args.dtype.map(Dtype::format).transpose()?;
    let weights = model::open(&args.input)?;
    let options = ConvertOptions { format, adapter: None, max_shard_size: Some(args.max_shard_size.0) };
    let converted = match args.to {
        Target::Hf => export::to_folder(&weights, &args.output, &options, ctx)?,
        Target::Gguf => export::to_gguf(&weights, &args.output, &options, ctx)?,
    };
    let size = amount(Unit::Bytes, converted.bytes);
    ctx.out.text(format_args!("{}: {size} of {}", args.output.display(), converted.format))?;
    ctx.out.document(&json!({
        "path": args.output, "dtype": converted.format.name(), "bytes": converted.bytes, "files": converted.files,
    }))?;
    Ok(ExitStatus::Done)
}
