//! `mpt data`: build, inspect, verify, cat, trace, simulate, convert and plan training data.

#[cfg(feature = "interop")]
mod convert;
#[cfg(not(feature = "interop"))]
mod convert_absent;
mod html_report;
mod order;
mod simulate;
mod trace;
mod units;

#[cfg(not(feature = "interop"))]
use convert_absent as convert;
pub(crate) use order::OrderArgs;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mpt_data::{
    DedupReport, DedupSourceReport, Loader, LoaderConfig, Manifest, MixRow, MixTable, Note, Phase,
    PrepareRun, Progress, Split, inspect, plan, plan_from_mix,
};
use mpt_tokenize::Tokenizer;
use serde_json::json;

use crate::exit::{CliError, ExitStatus};
use crate::output::Log;
use crate::progress::{ProgressBar, Unit};
use crate::settings::Context;
use crate::table;

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
    Cat(CatArgs),
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

#[derive(Debug, clap::Args)]
struct CatArgs {
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

fn parse_split(text: &str) -> Result<Split, String> {
    let found = Split::ALL.into_iter().find(|split| split.name() == text);
    found.ok_or_else(|| "expected `train` or `eval`".to_owned())
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    match args.command {
        Command::Build { mix, out } => units::build(&mix, out, ctx)?,
        Command::Unit { mix, id, out } => units::unit(&mix, &id, out, ctx)?,
        Command::Commit { mix, out } => units::commit(&mix, out, ctx)?,
        Command::Plan { mix, units: true, out: Some(out), .. } => units::plan(&mix, out, ctx)?,
        Command::Inspect { dir, tokens, html } => {
            let manifest = Manifest::open(&dir)?;
            let table = inspect(&manifest, tokens)?;
            if let Some(html) = html {
                html_report::write(&html, &manifest, &table)?;
            }
            print_inspection(&table, &manifest.contents().dedup, ctx)?;
        }
        Command::Verify { dir } => verify(&dir, ctx)?,
        Command::Cat(args) => cat(&args, ctx)?,
        Command::Trace(args) => trace::run(&args, ctx)?,
        Command::Simulate(args) => simulate::run(&args, ctx)?,
        Command::Convert(args) => convert::run(&args, ctx)?,
        Command::Plan { mix, tokens, .. } => {
            let run = read_mix(&mix, ctx)?;
            let table = match plan_from_mix(&run, tokens)? {
                Some(table) => table,
                None => plan(
                    &run,
                    &Tokenizer::from_file(&run.tokenizer)?,
                    tokens,
                    &mut PrepareProgress::new(ctx),
                )?,
            };
            print_inspection(&table, &[], ctx)?;
        }
    }
    Ok(ExitStatus::Done)
}

fn read_mix(mix: &Path, ctx: &Context) -> Result<PrepareRun, CliError> {
    let mut run = PrepareRun::from_file(mix)?;
    run.seed = ctx.seed.unwrap_or(run.seed);
    Ok(run)
}

fn print_inspection(table: &MixTable, dedup: &[DedupReport], ctx: &mut Context) -> Result<(), CliError> {
    print_mix(table, ctx)?;
    print_dedup(dedup, ctx)?;
    ctx.out.json(&InspectOutput { table, dedup })
}

/// Output of `inspect` and `plan`: the mix, and the deduplication report if there is one.
#[derive(serde::Serialize)]
struct InspectOutput<'a> {
    #[serde(flatten)]
    table: &'a MixTable,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dedup: &'a [DedupReport],
}

/// Prints the deduplication report: sources with findings per stage, and the largest duplicate groups.
fn print_dedup(reports: &[DedupReport], ctx: &mut Context) -> Result<(), CliError> {
    let rows: Vec<_> = reports.iter().flat_map(dedup_rows).collect();
    if rows.is_empty() {
        return Ok(());
    }
    ctx.out.text("")?;
    table::lines(&DEDUP_HEADER, &rows).iter().try_for_each(|line| ctx.out.text(line))?;
    reports.iter().filter_map(duplicate_groups_line).try_for_each(|line| ctx.out.text(line))
}

/// Header of the deduplication table.
const DEDUP_HEADER: [&str; 7] =
    ["stage", "source", "documents", "dropped", "tokens dropped", "edited", "tokens edited away"];

fn dedup_rows(report: &DedupReport) -> Vec<Vec<String>> {
    let found = report.sources.iter().filter(|source| source.dropped + source.edited > 0);
    let cells = |source: &DedupSourceReport| {
        vec![
            report.kind.name().to_owned(),
            source.name.clone(),
            table::count(source.documents),
            table::count(source.dropped),
            table::count(source.tokens_dropped),
            table::count(source.edited),
            source.tokens_edited_away.to_string(),
        ]
    };
    found.map(cells).collect()
}

/// Line with a stage's duplicate groups and the similarities of what it dropped.
fn duplicate_groups_line(report: &DedupReport) -> Option<String> {
    let mut parts = Vec::new();
    if report.groups > 0 {
        let largest: Vec<_> =
            report.largest.iter().map(|group| format!("{} ({})", group.id, group.documents)).collect();
        let groups = table::count(report.groups);
        parts.push(format!("{groups} groups, the largest: {}", largest.join(", ")));
    }
    let bins = report.similarities.iter().enumerate().filter(|(_, count)| **count > 0);
    let bins: Vec<_> = bins.map(|(bin, count)| format!("{:.2}+ {count}", bin as f64 / 20.0)).collect();
    if !bins.is_empty() {
        parts.push(format!("by similarity: {}", bins.join(", ")));
    }
    parts.extend(report.threshold.map(|threshold| format!("threshold {threshold:.4}")));
    (!parts.is_empty()).then(|| format!("{}: {}", report.kind.name(), parts.join("; ")))
}

/// Prints the mix, and below it the account of the tokens read.
fn print_mix(table: &MixTable, ctx: &mut Context) -> Result<(), CliError> {
    table::lines(&MIX_HEADER, &mix_rows(table)).iter().try_for_each(|line| ctx.out.text(line))?;
    if table.sources.iter().all(|row| row.account.tokens_read == 0) {
        // Nothing was read: the mix itself gave the token counts.
        return Ok(());
    }
    ctx.out.text("")?;
    table::lines(&ACCOUNT_HEADER, &account_rows(table)).iter().try_for_each(|line| ctx.out.text(line))
}

/// Header of the token account. Tokens read are the sum of the next three columns.
const ACCOUNT_HEADER: [&str; 6] =
    ["source", "tokens read", "= kept", "+ dropped", "+ edited away", "documents edited"];

fn account_rows(table: &MixTable) -> Vec<Vec<String>> {
    let cells = |row: &MixRow| {
        let account = &row.account;
        let away = account.tokens_edited_away;
        vec![
            row.source.clone(),
            table::count(account.tokens_read),
            table::count(account.tokens_kept),
            table::count(account.tokens_dropped),
            format!("{}{}", if away < 0 { "-" } else { "" }, table::count(away.unsigned_abs())),
            table::count(account.documents_edited),
        ]
    };
    table.sources.iter().map(cells).collect()
}

/// Header of the mix table.
pub(crate) const MIX_HEADER: [&str; 9] = [
    "source",
    "documents",
    "tokens",
    "held out",
    "asked",
    "obtained",
    "effective tokens",
    "epochs",
    "dropped",
];

/// Rows of the mix table, one per source.
pub(crate) fn mix_rows(table: &MixTable) -> Vec<Vec<String>> {
    let cells = |row: &MixRow| {
        let drops: Vec<_> =
            row.drops.iter().map(|(rule, count)| format!("{rule} {}", table::count(*count))).collect();
        vec![
            row.source.clone(),
            table::count(row.documents),
            table::count(row.tokens),
            table::count(row.eval_tokens),
            format!("{:.2} %", 100.0 * row.proportion),
            format!("{:.2} %", 100.0 * row.proportion_obtained),
            table::count(row.effective_tokens),
            format_epochs(row.epochs),
            if drops.is_empty() { "-".into() } else { drops.join(", ") },
        ]
    };
    table.sources.iter().map(cells).collect()
}

/// Epochs with two decimal places, below one with three: 8.21, 0.097.
fn format_epochs(epochs: f64) -> String {
    if epochs < 1.0 { format!("{epochs:.3}") } else { format!("{epochs:.2}") }
}

fn verify(dir: &Path, ctx: &mut Context) -> Result<(), CliError> {
    let manifest = Manifest::open(dir)?;
    let damage = manifest.find_damage(&mut PrepareProgress::new(ctx))?;
    ctx.out.json(&json!({ "manifest": manifest.root(), "ok": damage.is_empty(), "damaged": damage }))?;
    for found in &damage {
        ctx.out.text(found)?;
    }
    if damage.is_empty() {
        return ctx
            .out
            .text(format_args!("{}: every file and every row is as it was written", dir.display()));
    }
    ctx.out.flush()?;
    let message = format!("{}: {} damaged, the first: {}", dir.display(), damage.len(), damage[0]);
    Err(CliError::data(message).help("restore the files named, or delete the folder and build it again"))
}

fn cat(args: &CatArgs, ctx: &mut Context) -> Result<(), CliError> {
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

/// Progress bars of data preparation, which an interrupt ends.
pub(crate) struct PrepareProgress {
    log: Log,
    stop: &'static AtomicBool,
    bar: Option<ProgressBar>,
}

impl PrepareProgress {
    /// Progress without a bar.
    pub(crate) fn new(ctx: &Context) -> Self {
        Self { log: ctx.out.log().clone(), stop: ctx.stop(), bar: None }
    }
}

impl Progress for PrepareProgress {
    fn start(&mut self, stage: Phase, total: u64) {
        let unit = if stage.unit() == "bytes" { Unit::Bytes } else { Unit::Count(stage.unit()) };
        self.bar = Some(ProgressBar::start(&self.log, stage.name(), unit, Some(total)));
    }

    fn advance(&mut self, steps: u64) {
        if let Some(bar) = &mut self.bar {
            bar.advance(steps);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn note(&mut self, note: &Note) {
        self.log.info(note);
    }

    fn keep_going(&mut self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}
