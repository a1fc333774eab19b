//! `mpt data build`, and its steps for a scheduler: `plan --units`, `unit`, `commit`.

use std::path::{Path, PathBuf};

use mpt_data::{
    Embedder, Manifest, PrepareRun, Split, commit_units, inspect, plan_units, prepare_unit, prepare_with,
};
use mpt_tokenize::Tokenizer;
use serde_json::json;

use super::{PrepareProgress, print_dedup, print_mix, read_mix};
use crate::embed::ModelEmbedder;
use crate::exit::CliError;
use crate::output::path_text;
use crate::settings::Context;
use crate::table;

/// Inputs of preparation: the run, its tokenizer and its embedding model.
struct PrepareInputs {
    run: PrepareRun,
    tokenizer: Tokenizer,
    embedder: Option<ModelEmbedder>,
}

impl PrepareInputs {
    fn new(mix: &Path, out: PathBuf, ctx: &Context) -> Result<Self, CliError> {
        let mut run = read_mix(mix, ctx)?;
        run.out = out;
        let tokenizer = Tokenizer::from_file(&run.tokenizer)?;
        let embedder = ModelEmbedder::for_run(&run, &tokenizer)?;
        Ok(Self { run, tokenizer, embedder })
    }

    fn embedder(&self) -> Option<&dyn Embedder> {
        self.embedder.as_ref().map(|embedder| embedder as &dyn Embedder)
    }
}

pub(super) fn build(mix: &Path, out: PathBuf, ctx: &mut Context) -> Result<(), CliError> {
    let mut mix = PrepareInputs::new(mix, out, ctx)?;
    let embedder = mix.embedder.as_mut().map(|embedder| embedder as &mut dyn Embedder);
    let manifest = prepare_with(&mix.run, &mix.tokenizer, embedder, &mut PrepareProgress::new(ctx))?;
    print_build(&mix.run, &manifest, ctx)
}

pub(super) fn commit(mix: &Path, out: PathBuf, ctx: &mut Context) -> Result<(), CliError> {
    let mut mix = PrepareInputs::new(mix, out, ctx)?;
    let embedder = mix.embedder.as_mut().map(|embedder| embedder as &mut dyn Embedder);
    let manifest = commit_units(&mix.run, &mix.tokenizer, embedder, &mut PrepareProgress::new(ctx))?;
    print_build(&mix.run, &manifest, ctx)
}

pub(super) fn plan(mix: &Path, out: PathBuf, ctx: &mut Context) -> Result<(), CliError> {
    let mix = PrepareInputs::new(mix, out, ctx)?;
    let units = plan_units(&mix.run, &mix.tokenizer, mix.embedder(), &mut PrepareProgress::new(ctx))?;
    let row = |unit: &mpt_data::UnitStatus| {
        let done = if unit.done { "done" } else { "" };
        vec![unit.id.clone(), unit.source.clone(), table::count(unit.bytes), done.to_owned()]
    };
    let rows: Vec<_> = units.iter().map(row).collect();
    table::lines(&["unit", "source", "bytes", ""], &rows)
        .into_iter()
        .try_for_each(|line| ctx.out.text(line))?;
    ctx.out.json(&json!({ "dir": path_text(&mix.run.out), "units": units }))
}

pub(super) fn unit(mix: &Path, id: &str, out: PathBuf, ctx: &mut Context) -> Result<(), CliError> {
    let mix = PrepareInputs::new(mix, out, ctx)?;
    let unit = prepare_unit(&mix.run, &mix.tokenizer, mix.embedder(), id, &mut PrepareProgress::new(ctx))?;
    ctx.out.text(format_args!("{}: {} bytes of {} done", unit.id, unit.bytes, unit.source))?;
    ctx.out.json(&unit)
}

fn print_build(run: &PrepareRun, manifest: &Manifest, ctx: &mut Context) -> Result<(), CliError> {
    let table = inspect(manifest, None)?;
    print_mix(&table, ctx)?;
    print_dedup(&manifest.contents().dedup, ctx)?;
    ctx.out.text(format_args!("\n{}: manifest {}", run.out.display(), &manifest.root()[..16]))?;
    ctx.out.json(&json!({
        "dir": path_text(&run.out), "manifest": manifest.root(), "train_tokens": manifest.tokens(Split::Train),
        "eval_tokens": manifest.tokens(Split::Eval), "sources": table.sources,
        "dedup": manifest.contents().dedup,
    }))
}
