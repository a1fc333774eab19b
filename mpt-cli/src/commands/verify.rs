//! `mpt verify`: checks of a model against another model, recorded numbers, or itself.

mod input;
mod report;

use std::path::{Path, PathBuf};

use mpt_core::{CausalLm, Precision, WeightDtype, Weights};
use mpt_infer::verify::{
    Check, Comparison, Fixture, Limits, MatrixDtypes, compare_models, compare_weights, first_non_finite,
    limits_alone, limits_between, self_check,
};
use mpt_infer::{Pipeline, open_weights};

use self::input::InputArgs;
use self::report::VerifyReport;
use crate::dtype_args::weight_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::model_args::{AdapterModelArgs, ModelArgs};
use crate::progress::{DelayedProgressBar, Unit};
use crate::settings::Context;

/// Prove that a model is right: against another model, recorded numbers, or itself
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mpt verify mpt-7b
  mpt verify mpt-7b.gguf --against mpt-7b
  mpt verify mpt-7b --dtype bf16 --against mpt-7b --text book.txt --min-top1 0.99
  mpt verify converted --against reference-numbers

Exit code 1 says that a check failed. What is compared, and the default tolerance of each storage
format, are in docs/verify.md.")]
pub(crate) struct Args {
    /// Model folder, .gguf file, or the run folder of `mpt train`
    model: PathBuf,
    /// Format of its weights and computation
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = weight_dtype())]
    dtype: WeightDtype,
    /// LoRA adapter folder, as peft writes it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// A model that computes the same, or a folder with `expected.safetensors` [default: the model's own checks]
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
    /// Largest logit error allowed, as a share of the range of the reference's logits [default: by storage format]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    tolerance: Option<f64>,
    /// Largest KL divergence allowed at any position, in nats [default: by storage format]
    #[arg(long, value_name = "X")]
    max_kl: Option<f64>,
    /// Least share of positions with the same most probable token [default: by storage format]
    #[arg(long, value_name = "X")]
    min_top1: Option<f64>,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    expect_limits(&args)?;
    let base = ModelArgs { model: args.model.clone(), dtype: args.dtype };
    // the weights are checked, so activations are not rounded
    let model_args = AdapterModelArgs { base, adapter: args.adapter.clone() };
    let pipeline = model_args.pipeline_with(Some(Precision::F32), ctx)?;
    let report = match &args.against {
        Some(path) if Fixture::is_in(path) => check_against_fixture(&args, &pipeline, path, ctx)?,
        Some(path) => check_against_model(&args, &pipeline, path, ctx)?,
        None => check_alone(&args, &pipeline, ctx)?,
    };
    report.print(args.against.is_some(), ctx)
}

/// Checks the limits on the command line.
fn expect_limits(args: &Args) -> Result<(), CliError> {
    let limits = [("--tolerance", args.tolerance), ("--max-kl", args.max_kl), ("--min-top1", args.min_top1)];
    for (flag, value) in limits {
        if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
            return Err(CliError::usage(format!("{flag}: is {value}, expected a finite number, 0 or more")));
        }
    }
    if args.min_top1.is_some_and(|share| share > 1.0) {
        return Err(CliError::usage("--min-top1: expected a share, from 0 to 1"));
    }
    Ok(())
}

/// Check of the logits against the limits.
fn logits_check(comparison: &Comparison, limits: &Limits) -> Check {
    let broken = limits.broken(comparison);
    let tolerance = limits.tolerance;
    let detail = match broken.is_empty() {
        true => format!("relative error {:.1e}, tolerance {tolerance:.1e}", comparison.relative_error),
        false => broken.join("; "),
    };
    Check { name: "logits are within tolerance", passed: broken.is_empty(), detail }
}

/// Default limits, overridden by those on the command line.
fn limits(args: &Args, default: Limits) -> Limits {
    Limits {
        tolerance: args.tolerance.unwrap_or(default.tolerance),
        max_kl: args.max_kl.or(default.max_kl),
        min_top1: args.min_top1.or(default.min_top1),
    }
}

/// Dtypes of the weights at `path`, rounded to `dtype`.
fn matrix_dtypes(path: &Path, dtype: WeightDtype) -> Result<MatrixDtypes, CliError> {
    Ok(MatrixDtypes::of(&open_weights(path)?, dtype)?)
}

/// Progress bar over tokens.
fn token_bar(ctx: &Context, tokens: usize) -> DelayedProgressBar {
    DelayedProgressBar::new(ctx.out.log(), "verify", Unit::Count("tokens"), tokens as u64)
}

/// Compares the model with the one at `path`: logits, and weights if there is no adapter.
fn check_against_model(
    args: &Args,
    pipeline: &Pipeline,
    path: &Path,
    ctx: &Context,
) -> Result<VerifyReport, CliError> {
    let weights = open_weights(path)?;
    let reference = CausalLm::new(weights.config(), &weights)?;
    let input = args.input.read(pipeline, ctx.seed.unwrap_or(0))?;
    let (dtypes, reference_dtypes) =
        (matrix_dtypes(&args.model, args.dtype)?, matrix_dtypes(path, WeightDtype::F32)?);
    let default = match args.adapter {
        // an adapter is not rounded here, but it is in a merged model
        Some(_) => limits_between(&dtypes, None).wider(&limits_between(&reference_dtypes, None)),
        None => limits_between(&dtypes, Some(&reference_dtypes)),
    };
    let limits = limits(args, default);
    let mut bar = token_bar(ctx, 2 * input.num_tokens());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let comparison = compare_models(pipeline.model(), &reference, &input.ids, input.is_text, advance)?;
    bar.finish();
    let title = format!(
        "{} ({}) against {} ({})",
        args.model.display(),
        dtypes.narrowest(),
        path.display(),
        reference_dtypes.narrowest()
    );
    let mut checks = vec![logits_check(&comparison, &limits)];
    if args.adapter.is_none() {
        checks.push(compare_weights(pipeline.weights(), &weights)?);
    }
    Ok(VerifyReport { title, comparison, tolerance: limits.tolerance, checks })
}

/// Compares the model with recorded numbers.
fn check_against_fixture(
    args: &Args,
    pipeline: &Pipeline,
    path: &Path,
    ctx: &Context,
) -> Result<VerifyReport, CliError> {
    if args.input.is_given() {
        let message = format!("{}: recorded numbers come with their own ids", path.display());
        return Err(CliError::usage(message).help("leave out --text and --ids-file"));
    }
    let fixture = Fixture::open(path)?;
    let dtypes = matrix_dtypes(&args.model, args.dtype)?;
    let limits = limits(args, limits_between(&dtypes, None));
    let mut bar = token_bar(ctx, fixture.num_tokens());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let report = fixture.compare(pipeline.model(), limits.tolerance, advance)?;
    bar.finish();
    let mut checks = vec![logits_check(&report.comparison, &limits)];
    checks.extend(report.greedy.map(|greedy| Check {
        name: "greedy text is the recorded one",
        passed: greedy.matched == greedy.tokens,
        detail: format!("{} of {} tokens", greedy.matched, greedy.tokens),
    }));
    let title =
        format!("{} ({}) against {}", args.model.display(), dtypes.narrowest(), fixture.path().display());
    Ok(VerifyReport { title, comparison: report.comparison, tolerance: limits.tolerance, checks })
}

/// Checks the model on its own.
fn check_alone(args: &Args, pipeline: &Pipeline, ctx: &Context) -> Result<VerifyReport, CliError> {
    let input = args.input.read(pipeline, ctx.seed.unwrap_or(0))?;
    let limits = limits(args, limits_alone(&matrix_dtypes(&args.model, args.dtype)?));
    let weights = finite_weights(pipeline.weights())?;
    let mut bar = token_bar(ctx, input.num_tokens());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let mut report = self_check(pipeline.model(), &input.ids, &limits, input.is_text, advance)?;
    bar.finish();
    report.checks.insert(0, weights);
    let comparison = Comparison { perplexity: report.perplexity, ..report.comparison };
    let title = format!("{} on its own", args.model.display());
    Ok(VerifyReport { title, comparison, tolerance: limits.tolerance, checks: report.checks })
}

/// Check that all weights, in the dtype they are used in, are finite.
fn finite_weights(weights: &Weights) -> Result<Check, CliError> {
    let found = first_non_finite(weights)?;
    let detail = match &found {
        Some((name, index)) => format!("`{name}` is not finite at value {index}"),
        None => format!("{} tensors", weights.config().parameter_shapes().len()),
    };
    Ok(Check { name: "weights are finite", passed: found.is_none(), detail })
}
