//! `mpt convert`: conversion between Hugging Face folders and GGUF files.

use std::path::{Path, PathBuf};

use mpt_core::{CausalLm, ConvertOptions, WeightDtype, Weights};
use mpt_infer::open_weights;
use mpt_infer::verify::{
    Comparison, MatrixDtypes, builtin_rows, compare_models, compare_weights, limits_between,
};
use serde::Serialize;
use serde_json::json;

use crate::byte_size::ByteSize;
use crate::dtype_args::weight_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::export;
use crate::model_args;
use crate::progress::{DelayedProgressBar, Unit};
use crate::settings::Context;

/// Convert a model between Hugging Face folders and GGUF files
///
/// Reads safetensors, pytorch_model*.bin and GGUF; writes safetensors or GGUF. Memory stays the same however large the
/// model is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt convert mpt-7b mpt-7b.gguf --to gguf --verify
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
    /// Form of the matrices; a folder holds f32, f16, bf16 and nf4, a GGUF file all but nf4 [default: as they are; in a folder
    /// bf16 where they are quantized]
    #[arg(long, value_name = "DTYPE", value_parser = weight_dtype())]
    dtype: Option<WeightDtype>,
    /// Begin another weights file beyond this size
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: ByteSize,
    /// Run both models on rows of ids and compare their logits; exit code 1 when they differ by more than rounding
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    Hf,
    Gguf,
}

impl Target {
    /// Refuses a dtype that the format does not support.
    fn expect(self, dtype: Option<WeightDtype>) -> Result<(), CliError> {
        let Some(dtype) = dtype else { return Ok(()) };
        let is_nf4 = dtype == WeightDtype::Nf4;
        match self {
            Self::Hf if dtype.is_quantized() && !is_nf4 => {
                Err(CliError::usage(format!("--dtype {dtype}: a folder holds f32, f16, bf16 or nf4"))
                    .help("write `--to gguf` for this form"))
            }
            Self::Gguf if is_nf4 => Err(CliError::usage(format!("--dtype {dtype}: GGUF has no such form"))
                .help("write `--to hf` for it, or choose q4_k")),
            Self::Hf | Self::Gguf => Ok(()),
        }
    }
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let format = args.dtype;
    args.to.expect(format)?;
    let weights = model_args::open(&args.input, ctx)?;
    let options =
        ConvertOptions { dtype: format, adapter: None, max_shard_size: Some(args.max_shard_size.0) };
    let converted = match args.to {
        Target::Hf => export::write_folder(&weights, &args.output, &options, "convert", ctx)?,
        Target::Gguf => export::write_gguf_file(&weights, &args.output, &options, "convert", ctx)?,
    };
    export::print_summary(&args.output, &converted, ctx)?;
    let verified = args.verify.then(|| verify(&weights, &args.output, ctx)).transpose()?;
    let passed = verified.as_ref().is_none_or(|verified| verified.passed);
    let mut document = export::summary_json(&args.output, &converted);
    document["verified"] = json!(verified);
    ctx.out.json(&document)?;
    Ok(if passed { ExitStatus::Done } else { ExitStatus::Negative })
}

/// Comparison of the model before and after the conversion.
#[derive(Debug, Serialize)]
struct Verified {
    passed: bool,
    tolerance: f64,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Compares the logits of both models on the built-in rows, and their weights.
fn verify(before: &Weights, output: &Path, ctx: &mut Context) -> Result<Verified, CliError> {
    let after = open_weights(output)?;
    let load = |weights: &Weights| CausalLm::new(weights.config(), weights);
    let rows = builtin_rows(before.config(), ctx.seed.unwrap_or(0));
    let forms = |weights: &Weights| MatrixDtypes::of(weights, WeightDtype::F32);
    let limits = limits_between(&forms(&after)?, Some(&forms(before)?));
    let tokens = 2 * rows.iter().map(Vec::len).sum::<usize>() as u64;
    let mut bar = DelayedProgressBar::new(ctx.out.log(), "verify", Unit::Count("tokens"), tokens);
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let comparison = compare_models(&load(&after)?, &load(before)?, &rows, false, advance)?;
    bar.finish();
    let weights = compare_weights(&after, before)?;
    let passed = limits.broken(&comparison).is_empty() && weights.passed;
    let tolerance = limits.tolerance;
    let verdict = if passed { "the same logits" } else { "other logits" };
    let error = comparison.relative_error;
    ctx.out.text(format_args!("{verdict}: relative error {error:.1e}, tolerance {tolerance:.1e}"))?;
    Ok(Verified { passed, tolerance, comparison })
}
