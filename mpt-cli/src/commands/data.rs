//! `mpt data`: build, inspect, verify, cat, trace, simulate, convert and plan training data.

mod cat;
#[cfg(feature = "interop")]
mod convert;
#[cfg(not(feature = "interop"))]
mod convert_absent;
mod html_report;
mod order;
mod prepare_progress;
mod simulate;
mod tables;
mod trace;
mod units;
mod verify;

#[cfg(not(feature = "interop"))]
use convert_absent as convert;
pub(crate) use order::OrderArgs;
pub(crate) use prepare_progress::PrepareProgress;
pub(crate) use tables::{MIX_HEADER, mix_rows};

use std::path::{Path, PathBuf};

use mpt_data::{Manifest, PrepareRun, inspect, plan, plan_from_mix};
use mpt_tokenize::Tokenizer;

use self::tables::print_inspection;
use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

/// Prepare training data, look at it, check it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Turn the sources of a MIX.toml into Parquet shards; run again to continue
    #[command(after_help = "Examples:\n  mpt data build mix.toml --out data")]
    Build {
        /// The mix
        mix: PathBuf,
        /// The folder to build in
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show what each source has, what was asked for, and what training gets
    #[command(
        after_help = "Examples:\n  mpt data inspect data --tokens 2e9\n  mpt data inspect data --html data.html"
    )]
    Inspect {
        /// A folder made by `mpt data build`
        dir: PathBuf,
        /// Training tokens that the table is about [default: all there are]
        #[arg(long, value_name = "N", value_parser = parse_tokens)]
        tokens: Option<u64>,
        /// Also write a page with charts, which needs nothing else to be looked at
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Check every file and every row against its checksum
    #[command(after_help = "Examples:\n  mpt data verify data")]
    Verify {
        /// A folder made by `mpt data build`
        dir: PathBuf,
    },
    /// Print samples exactly as training sees them, as JSON Lines
    #[command(
        after_help = "Examples:\n  mpt data cat data --split train --start 1000 --count 2\n  mpt data cat data --split eval --start 0 --count 4 --seq-len 512"
    )]
    Cat(cat::Args),
    /// Name the documents of a batch, and where they lie
    #[command(
        after_help = "Examples:\n  mpt data trace data --step 41200 --batch 512\n  mpt data trace data --sample 7"
    )]
    Trace(trace::Args),
    /// Say what a run will ask of its storage, and how well it is shuffled, without reading anything
    #[command(
        after_help = "Examples:\n  mpt data simulate data --samples 1000000 --nodes 4 --world-size 32 --batch 512\n  mpt data simulate docs/runs/mpt-30b-mix.toml --shuffle windowed --cache-bytes 20e9"
    )]
    Simulate(simulate::Args),
    /// Turn shards into MosaicML Streaming MDS or Megatron files, and those into shards
    Convert(convert::Args),
    /// Show the mix of a MIX.toml as a table, without building it
    #[command(
        after_help = "Examples:\n  mpt data plan mix.toml --tokens 1e9\n  mpt data plan docs/runs/mpt-30b-mix.toml --tokens 1e12\n\nWhere all sources say their `tokens`, nothing is read."
    )]
    Plan {
        /// The mix
        mix: PathBuf,
        /// Training tokens that the table is about [default: all there are]
        #[arg(long, value_name = "N", value_parser = parse_tokens)]
        tokens: Option<u64>,
        /// List the work units instead, for a scheduler to run, and leave their plan in `--out`
        #[arg(long, requires = "out", conflicts_with = "tokens")]
        units: bool,
        /// The folder that units are built in
        #[arg(long, value_name = "DIR", requires = "units")]
        out: Option<PathBuf>,
    },
    /// Make one work unit of a plan; any number of processes may make others at the same time
    #[command(
        after_help = "Examples:\n  mpt data plan mix.toml --units --out data --json | jq -r '.units[].id' | xargs -P 8 -n 1 mpt data unit mix.toml --out data\n  mpt data commit mix.toml --out data"
    )]
    Unit {
        /// The mix
        mix: PathBuf,
        /// The unit, as `mpt data plan --units` names it
        id: String,
        /// The folder to build in
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Turn work units that are all there into shards and a manifest
    #[command(after_help = "Examples:\n  mpt data commit mix.toml --out data")]
    Commit {
        /// The mix
        mix: PathBuf,
        /// The folder to build in
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Parser of a sample index or count. The bound is beyond any run, and sums do not overflow.
fn sample_index() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=1_000_000_000_000_000)
}

/// Parser of a token count; `1e9` is allowed.
fn parse_tokens(text: &str) -> Result<u64, String> {
    let number: f64 =
        text.replace('_', "").parse().map_err(|_| "expected a number such as 2000000 or 2e6".to_owned())?;
    if (1.0..1e18).contains(&number) {
        return Ok(number as u64);
    }
    Err("expected 1 or more, and less than 1e18".into())
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Build { mix, out } => units::build(&mix, out, ctx)?,
        Command::Unit { mix, id, out } => units::unit(&mix, &id, out, ctx)?,
        Command::Commit { mix, out } => units::commit(&mix, out, ctx)?,
        Command::Plan { mix, units: true, out: Some(out), .. } => units::plan(&mix, out, ctx)?,
        Command::Inspect { dir, tokens, html } => run_inspect(&dir, tokens, html.as_deref(), ctx)?,
        Command::Verify { dir } => verify::run(&dir, ctx)?,
        Command::Cat(args) => cat::run(&args, ctx)?,
        Command::Trace(args) => trace::run(&args, ctx)?,
        Command::Simulate(args) => simulate::run(&args, ctx)?,
        Command::Convert(args) => convert::run(&args, ctx)?,
        Command::Plan { mix, tokens, .. } => run_plan(&mix, tokens, ctx)?,
    }
    Ok(ExitStatus::Done)
}

fn run_inspect(
    dir: &Path,
    tokens: Option<u64>,
    html: Option<&Path>,
    ctx: &mut Context,
) -> Result<(), CliError> {
    let manifest = Manifest::open(dir)?;
    let table = inspect(&manifest, tokens)?;
    if let Some(html) = html {
        html_report::write(html, &manifest, &table)?;
    }
    print_inspection(&table, &manifest.contents().dedup, ctx)
}

/// Plans the mix, from the token counts that it states or by reading the sources.
fn run_plan(mix: &Path, tokens: Option<u64>, ctx: &mut Context) -> Result<(), CliError> {
    let run = read_mix(mix, ctx)?;
    let table = match plan_from_mix(&run, tokens)? {
        Some(table) => table,
        None => plan(&run, &Tokenizer::from_file(&run.tokenizer)?, tokens, &mut PrepareProgress::new(ctx))?,
    };
    print_inspection(&table, &[], ctx)
}

/// Reads a MIX.toml. `--seed` replaces its seed.
fn read_mix(mix: &Path, ctx: &Context) -> Result<PrepareRun, CliError> {
    let mut run = PrepareRun::from_file(mix)?;
    run.seed = ctx.seed.unwrap_or(run.seed);
    Ok(run)
}
