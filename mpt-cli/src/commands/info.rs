//! `mpt info`: content of a model folder or GGUF file.

use std::path::{Path, PathBuf};

use mpt_core::config::ConfigDefaults;
use mpt_core::weights::{GgufMetadata, GgufValue};
use mpt_core::{TensorInfo, Weights};
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
        "defaults": config_defaults(&weights)?.map(ConfigDefaults::name),
        "passed_over": weights.ignored_index().as_deref().map(path_text),
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
    print_config(weights, ctx)?;
    print_sizes(weights, tensors, ctx)?;
    match tokenizer {
        Ok(ids) => ctx.out.text(format_args!("tokenizer with {ids} ids"))?,
        Err(problem) => ctx.out.text(format_args!("no tokenizer: {problem}"))?,
    }
    let row =
        |tensor: &TensorInfo| vec![tensor.name.clone(), format!("{:?}", tensor.shape), tensor.dtype.clone()];
    ctx.out.table(&["tensor", "shape", "dtype"], &tensors.iter().map(row).collect::<Vec<_>>())
}

fn print_config(weights: &Weights, ctx: &mut Context) -> Result<(), CliError> {
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
    if let Some(defaults) = config_defaults(weights)? {
        let name = defaults.name();
        ctx.out.text(format_args!("keys that config.json leaves out have the defaults of {name}"))?;
    }
    Ok(())
}

fn print_sizes(weights: &Weights, tensors: &[TensorInfo], ctx: &mut Context) -> Result<(), CliError> {
    if let Some(index) = weights.ignored_index() {
        ctx.out.text(format_args!("{} is not used: one file has all tensors", index.display()))?;
    }
    let bytes: usize = tensors.iter().map(|tensor| tensor.bytes).sum();
    let dtype = weights.matrix_dtype().map_or("mixed".to_owned(), |format| format.to_string());
    ctx.out.text(format_args!("{} of {dtype} weights", format_amount(Unit::Bytes, bytes as u64)))
}

/// Library whose defaults apply to keys that config.json leaves out; `None` for GGUF, which has a single convention.
fn config_defaults(weights: &Weights) -> Result<Option<ConfigDefaults>, CliError> {
    match weights.metadata() {
        Some(_) => Ok(None),
        None => Ok(Some(ConfigDefaults::of_file(&weights.path().join("config.json"))?)),
    }
}

fn file_json(path: &Path) -> Value {
    json!({ "path": path_text(path), "bytes": path.metadata().map_or(0, |data| data.len()) })
}

/// Metadata of a GGUF file, with arrays reduced to their length.
fn metadata_json(metadata: &GgufMetadata) -> Map<String, Value> {
    let value = |value: &GgufValue| match value {
        GgufValue::Int(value) => json!(value),
        GgufValue::Float(value) => json!(value),
        GgufValue::Bool(value) => json!(value),
        GgufValue::Text(value) => json!(value),
        GgufValue::Array(array) => json!({ "len": array.len() }),
    };
    metadata.iter().map(|(key, found)| (key.to_owned(), value(found))).collect()
}
