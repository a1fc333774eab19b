//! `mpt init`: a new model with random weights.

use std::path::PathBuf;

use mpt_core::config::PRESETS;
use mpt_core::{ConvertOptions, MptConfig, WeightDtype};
use serde_json::json;

use crate::byte_size::ByteSize;
use crate::dtype_args::float_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::settings::Context;
use crate::table;

/// Write a new model with weights drawn by its initialization scheme
///
/// The weights are those that training from scratch with the same configuration and seed begins with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt init mpt-125m --preset mpt-125m
  mpt init test-7b --preset mpt-7b --dtype bf16 --seed 1
  mpt init mine --config config.json")]
pub(crate) struct Args {
    /// The folder to write
    output: PathBuf,
    #[command(flatten)]
    source: ModelSource,
    /// Form of the weights
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = float_dtype())]
    dtype: WeightDtype,
    /// Begin another weights file beyond this size
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: ByteSize,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ModelSource {
    /// A published size
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,
    /// A config.json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let config = match (&args.source.preset, &args.source.config) {
        (Some(name), _) => MptConfig::preset(name)?,
        (None, Some(path)) => MptConfig::from_file(path)?,
        (None, None) => unreachable!("a preset or a configuration is required"),
    };
    let options = ConvertOptions {
        dtype: Some(args.dtype),
        adapter: None,
        max_shard_size: Some(args.max_shard_size.0),
    };
    let converted = export::random_init(&config, ctx.seed.unwrap_or(17), &args.output, &options, ctx)?;
    let parameters = config.num_parameters();
    ctx.out.text(format_args!("{}: {} parameters", args.output.display(), table::count(parameters)))?;
    let mut document = export::summary_json(&args.output, &converted);
    document["parameters"] = json!(parameters);
    ctx.out.json(&document)?;
    Ok(ExitStatus::Done)
}
