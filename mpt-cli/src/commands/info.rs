//! `mpt info`: content of a model folder or GGUF file.

use std::path::{Path, PathBuf};

use mpt_core::{Defaults, MetaValue, Metadata, TensorInfo, Weights};
use mpt_infer::{TokenizerProblem, open_weights, tokenizer_of};
use serde_json::{Map, Value, json};

use crate::exit::{CliError, ExitStatus};
use crate::output::path_text;
use crate::progress::{Unit, format_amount};
use crate::settings::Context;
use crate::table;

/// Show what a model holds: configuration, tensors, sizes, tokenizer
///
/// Every header is checked; the weights themselves are not read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mpt info mpt-7b\n  mpt info mpt-7b.gguf\n  mpt info run --json")]
pub(crate) struct Args {
    /// Model folder, GGUF file, or run folder of `mpt train`
    path: PathBuf,
}

pub(crate) fn run(args: Args, ctx: &mut Context) -> Result<ExitStatus, CliError> {
    let weights = open_weights(&args.path)?;
    let tokenizer = tokenizer_of(&weights).map(|tokenizer| tokenizer.num_ids());
    let tensors = weights.tensors();
    print(&weights, &tensors, &tokenizer, ctx)?;
    let tensors: Vec<_> = tensors
        .iter()
        .map(|tensor| {
            json!({ "name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype, "bytes": tensor.bytes })
        })
        .collect();
    ctx.out.json(&json!({
        "path": path_text(weights.path()),
        "parameters": weights.config().num_parameters(),
        "config": Value::from(weights.config().clone()),
        "defaults": config_defaults(&weights)?.map(Defaults::name),
        "passed_over": weights.passed_over().as_deref().map(path_text),
        "files": weights.files().map(file_json).collect::<Vec<_>>(),
        "tensors": tensors,
        "tokenizer": tokenizer.as_ref().ok().map(|ids| json!({ "num_ids": ids })),
        "tokenizer_problem": tokenizer.err().map(|problem| problem.to_string()),
        "metadata": weights.metadata().map(metadata_json),
    }))?;
    Ok(ExitStatus::Done)
}

fn print(
    weights: &Weights,
    tensors: &[TensorInfo],
    tokenizer: &Result<usize, TokenizerProblem>,
    ctx: &mut Context,
) -> Result<(), CliError> {
    let config = weights.config();
    ctx.out.text(weights.path().display())?;
    ctx.out.text(format_args!(
        "{} parameters: {} layers, d_model {}, {} heads, vocabulary {}, trained for {} tokens",
        table::count(config.num_parameters()),
        config.n_layers,
        config.d_model,
        config.n_heads,
        config.vocab_size,
        config.max_seq_len,
    ))?;
    if let Some(config_defaults) = config_defaults(weights)? {
        ctx.out.text(format_args!(
            "keys that config.json leaves out have the defaults of {}",
            config_defaults.name()
        ))?;
    }
    if let Some(index) = weights.passed_over() {
        ctx.out.text(format_args!("{} is not used: one file has all tensors", index.display()))?;
    }
    let bytes: usize = tensors.iter().map(|tensor| tensor.bytes).sum();
    let dtype = weights.matrix_format().map_or("mixed".to_owned(), |format| format.to_string());
    ctx.out.text(format_args!("{} of {dtype} weights", format_amount(Unit::Bytes, bytes as u64)))?;
    match tokenizer {
        Ok(ids) => ctx.out.text(format_args!("tokenizer with {ids} ids"))?,
        Err(problem) => ctx.out.text(format_args!("no tokenizer: {problem}"))?,
    }
    let rows: Vec<_> = tensors
        .iter()
        .map(|tensor| vec![tensor.name.clone(), format!("{:?}", tensor.shape), tensor.dtype.clone()])
        .collect();
    for line in table::lines(&["tensor", "shape", "dtype"], &rows) {
        ctx.out.text(line)?;
    }
    Ok(())
}

/// Library whose defaults apply to keys that config.json leaves out; `None` for GGUF, which has a single convention.
fn config_defaults(weights: &Weights) -> Result<Option<Defaults>, CliError> {
    match weights.metadata() {
        Some(_) => Ok(None),
        None => Ok(Some(Defaults::of_file(&weights.path().join("config.json"))?)),
    }
}

fn file_json(path: &Path) -> Value {
    json!({ "path": path_text(path), "bytes": path.metadata().map_or(0, |data| data.len()) })
}

/// Metadata of a GGUF file, with arrays reduced to their length.
fn metadata_json(metadata: &Metadata) -> Map<String, Value> {
    let value = |value: &MetaValue| match value {
        MetaValue::Int(value) => json!(value),
        MetaValue::Float(value) => json!(value),
        MetaValue::Bool(value) => json!(value),
        MetaValue::Text(value) => json!(value),
        MetaValue::Array(array) => json!({ "len": array.len() }),
    };
    metadata.iter().map(|(key, found)| (key.to_owned(), value(found))).collect()
}
