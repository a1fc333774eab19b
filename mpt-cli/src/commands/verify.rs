//! `mpt verify`: proof that a model is right, against another, against recorded numbers, or on its own.

use std::path::{Path, PathBuf};

use mpt_core::{CausalLm, Precision, WeightDtype, Weights};
use mpt_infer::verify::{
    Check, Comparison, Fixture, Limits, MatrixDtypes, builtin_rows, compare_models, compare_weights,
    first_non_finite, limits_alone, limits_between, self_check, windows,
};
use mpt_infer::{Pipeline, open_weights};
use serde_json::json;

use crate::commands::score::read_json;
use crate::dtype_args::weight_dtype;
use crate::exit::{CliError, ExitStatus};
use crate::model::{AdaptedArgs, ModelArgs};
use crate::settings::Context;
use crate::table;
use crate::tui::{LateBar, Unit};

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
    rows: RowsArgs,
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

/// What the models are run on.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct RowsArgs {
    /// UTF-8 text, in windows of max_seq_len tokens [default: built-in rows of ids, drawn by --seed]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Lists of token ids, as JSON
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
}

/// Rows of ids, and whether they are text, so that predicting them means something.
struct Rows {
    ids: Vec<Vec<u32>>,
    is_text: bool,
}

impl RowsArgs {
    fn read(&self, pipeline: &Pipeline, seed: u64) -> Result<Rows, CliError> {
        let config = pipeline.model().config();
        if let Some(path) = &self.text {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CliError::read(ExitStatus::Data, path, error))?;
            let ids = windows(&pipeline.tokenizer()?.encode(&text)?, config.max_seq_len.max(2));
            return not_empty(path, Rows { ids, is_text: true }, "a text of two or more tokens");
        }
        let Some(path) = &self.ids_file else {
            return Ok(Rows { ids: builtin_rows(config, seed), is_text: false });
        };
        let ids: Vec<Vec<u32>> = read_json(path)?;
        let outside = |id: &&u32| **id as usize >= config.vocab_size;
        if let Some(id) = ids.iter().flatten().find(outside) {
            let message =
                format!("{}: holds id {id}, expected ids below {}", path.display(), config.vocab_size);
            return Err(CliError::data(message));
        }
        not_empty(path, Rows { ids, is_text: true }, "one or more lists of ids, none empty")
    }
}

fn not_empty(path: &Path, rows: Rows, expected: &str) -> Result<Rows, CliError> {
    if rows.ids.is_empty() || rows.ids.iter().any(Vec::is_empty) {
        return Err(CliError::data(format!("{}: expected {expected}", path.display())));
    }
    Ok(rows)
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    expect_limits(&args)?;
    let base = ModelArgs { model: args.model.clone(), dtype: args.dtype };
    // the weights are what is checked: what plain ones are multiplied with is not rounded
    let adapted = AdaptedArgs { base, adapter: args.adapter.clone() };
    let pipeline = adapted.pipeline_with(Some(Precision::F32), ctx)?;
    let report = match &args.against {
        Some(path) if Fixture::is_in(path) => against_fixture(&args, &pipeline, path, ctx)?,
        Some(path) => against_model(&args, &pipeline, path, ctx)?,
        None => on_its_own(&args, &pipeline, ctx)?,
    };
    report.print(&args, ctx)
}

/// The limits on the command line are numbers that can be kept.
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

/// What a verification found.
struct Report {
    /// What was compared with what.
    title: String,
    comparison: Comparison,
    tolerance: f64,
    checks: Vec<Check>,
}

impl Report {
    fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    fn print(&self, args: &Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
        ctx.out.text(&self.title)?;
        if args.against.is_some() {
            for line in table::lines(&["", ""], &figures(&self.comparison)).iter().skip(1) {
                ctx.out.text(line)?;
            }
        } else if let Some(perplexity) = self.comparison.perplexity {
            ctx.out.text(format_args!("perplexity {perplexity:.4}"))?;
        }
        for Check { name, passed, detail } in &self.checks {
            ctx.out.text(format_args!("{} {name}: {detail}", if *passed { "ok    " } else { "FAILED" }))?;
        }
        let passed = self.passed();
        let mut document = json!({ "passed": passed, "tolerance": self.tolerance, "checks": self.checks });
        let figures =
            serde_json::to_value(&self.comparison).map_err(|error| CliError::data(error.to_string()))?;
        if let (Some(document), serde_json::Value::Object(figures)) = (document.as_object_mut(), figures) {
            document.extend(figures);
        }
        ctx.out.document(&document)?;
        Ok(if passed { ExitStatus::Done } else { ExitStatus::Negative })
    }
}

/// The figures of a comparison, one to a line.
fn figures(found: &Comparison) -> Vec<Vec<String>> {
    let line = |name: &str, value: String| vec![name.to_owned(), value];
    let mut lines = vec![
        line("positions", table::count(found.positions)),
        line("largest logit error", format!("{:.3e}", found.max_error)),
        line("as a share of the range", format!("{:.3e}", found.relative_error)),
        line("mean KL divergence", format!("{:.3e}", found.kl_mean)),
        line("largest KL divergence", format!("{:.3e}", found.kl_max)),
        line("top-1 agreement", format!("{:.2} %", 100.0 * found.top1_agreement)),
    ];
    if let (Some(found), Some(against)) = (found.perplexity, found.perplexity_against) {
        lines.push(line("perplexity", format!("{found:.4}")));
        lines.push(line("perplexity against", format!("{against:.4}")));
    }
    if let Some(place) = found.worst {
        let place = format!("{} row {}, position {}", place.part, place.row, place.position);
        lines.push(line("worst", place));
    }
    lines
}

/// The logits' check: named by the limits it keeps to.
fn within(comparison: &Comparison, limits: &Limits) -> Check {
    let broken = limits.broken(comparison);
    let tolerance = limits.tolerance;
    let detail = match broken.is_empty() {
        true => format!("relative error {:.1e}, tolerance {tolerance:.1e}", comparison.relative_error),
        false => broken.join("; "),
    };
    Check { name: "logits are within tolerance", passed: broken.is_empty(), detail }
}

/// The limits on the command line, over the default ones.
fn limits(args: &Args, default: Limits) -> Limits {
    Limits {
        tolerance: args.tolerance.unwrap_or(default.tolerance),
        max_kl: args.max_kl.or(default.max_kl),
        min_top1: args.min_top1.or(default.min_top1),
    }
}

/// The forms in which the weights at `path` compute when rounded to `dtype`.
fn forms(path: &Path, dtype: WeightDtype) -> Result<MatrixDtypes, CliError> {
    Ok(MatrixDtypes::of(&open_weights(path)?, dtype)?)
}

fn bar(ctx: &Context, tokens: usize) -> LateBar {
    LateBar::new(ctx.out.log(), "verify", Unit::Count("tokens"), tokens as u64)
}

fn against_model(args: &Args, pipeline: &Pipeline, path: &Path, ctx: &Context) -> Result<Report, CliError> {
    let weights = open_weights(path)?;
    let against = CausalLm::new(weights.config(), &weights)?;
    let rows = args.rows.read(pipeline, ctx.seed.unwrap_or(0))?;
    let (ours, theirs) = (forms(&args.model, args.dtype)?, forms(path, WeightDtype::F32)?);
    let default = match args.adapter {
        // what an adapter adds is not rounded here, and is where it was merged
        Some(_) => limits_between(&ours, None).wider(&limits_between(&theirs, None)),
        None => limits_between(&ours, Some(&theirs)),
    };
    let limits = limits(args, default);
    let mut bar = bar(ctx, 2 * rows.ids.iter().map(Vec::len).sum::<usize>());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let comparison = compare_models(pipeline.model(), &against, &rows.ids, rows.is_text, advance)?;
    bar.finish();
    let title = format!(
        "{} ({}) against {} ({})",
        args.model.display(),
        ours.narrowest(),
        path.display(),
        theirs.narrowest()
    );
    let mut checks = vec![within(&comparison, &limits)];
    if args.adapter.is_none() {
        checks.push(compare_weights(pipeline.weights(), &weights)?);
    }
    Ok(Report { title, comparison, tolerance: limits.tolerance, checks })
}

fn against_fixture(args: &Args, pipeline: &Pipeline, path: &Path, ctx: &Context) -> Result<Report, CliError> {
    if args.rows.text.is_some() || args.rows.ids_file.is_some() {
        let message = format!("{}: recorded numbers come with their own ids", path.display());
        return Err(CliError::usage(message).help("leave out --text and --ids-file"));
    }
    let fixture = Fixture::open(path)?;
    let ours = forms(&args.model, args.dtype)?;
    let limits = limits(args, limits_between(&ours, None));
    let mut bar = bar(ctx, fixture.num_tokens());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let report = fixture.compare(pipeline.model(), limits.tolerance, advance)?;
    bar.finish();
    let mut checks = vec![within(&report.comparison, &limits)];
    checks.extend(report.greedy.map(|greedy| Check {
        name: "greedy text is the recorded one",
        passed: greedy.matched == greedy.tokens,
        detail: format!("{} of {} tokens", greedy.matched, greedy.tokens),
    }));
    let title =
        format!("{} ({}) against {}", args.model.display(), ours.narrowest(), fixture.path().display());
    Ok(Report { title, comparison: report.comparison, tolerance: limits.tolerance, checks })
}

fn on_its_own(args: &Args, pipeline: &Pipeline, ctx: &Context) -> Result<Report, CliError> {
    let rows = args.rows.read(pipeline, ctx.seed.unwrap_or(0))?;
    let limits = limits(args, limits_alone(&forms(&args.model, args.dtype)?));
    let weights = finite_weights(pipeline.weights())?;
    let mut bar = bar(ctx, rows.ids.iter().map(Vec::len).sum());
    let advance = &mut |tokens: usize| bar.advance(tokens as u64);
    let mut report = self_check(pipeline.model(), &rows.ids, &limits, rows.is_text, advance)?;
    bar.finish();
    report.checks.insert(0, weights);
    let comparison = Comparison { perplexity: report.perplexity, ..report.comparison };
    let title = format!("{} on its own", args.model.display());
    Ok(Report { title, comparison, tolerance: limits.tolerance, checks: report.checks })
}

/// Whether every number of the weights, as they are used, is finite.
fn finite_weights(weights: &Weights) -> Result<Check, CliError> {
    let found = first_non_finite(weights)?;
    let detail = match &found {
        Some((name, index)) => format!("`{name}` is not finite at value {index}"),
        None => format!("{} tensors", weights.config().parameter_shapes().len()),
    };
    Ok(Check { name: "weights are finite", passed: found.is_none(), detail })
}
