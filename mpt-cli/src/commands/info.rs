//! `mpt info`: what a model folder holds.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::exit::{CliError, ExitStatus};
use crate::model;
use crate::settings::Context;
use crate::table;

/// Show what a model holds: configuration, tensors, sizes, tokenizer
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mpt info mpt-7b\n  mpt info run --json")]
pub(crate) struct Args {
    /// Model folder, or the run folder of `mpt train`
    path: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let weights = model::open(&args.path)?;
    let (config, tensors) = (weights.config(), weights.tensors());
    let tokenizer = model::tokenizer(&weights)?;
    let rows: Vec<_> = tensors
        .iter()
        .map(|tensor| vec![tensor.name.clone(), format!("{:?}", tensor.shape), tensor.dtype.clone()])
        .collect();
    let ids = tokenizer.as_ref().map(|tokenizer| tokenizer.num_ids());
    ctx.out.text(format_args!("{}", weights.path().display()))?;
    ctx.out.text(format_args!(
        "{} parameters: {} layers, d_model {}, {} heads, vocabulary {}, trained for {} tokens",
        table::count(config.num_parameters()),
        config.n_layers,
        config.d_model,
        config.n_heads,
        config.vocab_size,
        config.max_seq_len,
    ))?;
    ctx.out.text(ids.map_or("no tokenizer".into(), |ids| format!("tokenizer with {ids} ids")))?;
    for line in table::lines(&["tensor", "shape", "dtype"], &rows) {
        ctx.out.text(line)?;
    }
    let files: Vec<_> = weights
        .files()
        .map(|file| {
            let bytes = file.metadata().map(|data| data.len()).unwrap_or(0);
            json!({ "path": file, "bytes": bytes })
        })
        .collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|tensor| json!({ "name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype }))
        .collect();
    ctx.out.document(&json!({
        "path": weights.path(), "parameters": config.num_parameters(), "config": Value::from(config.clone()),
        "files": files, "tensors": tensors, "tokenizer": ids.map(|ids| json!({ "num_ids": ids })),
    }))?;
    Ok(ExitStatus::Done)
}
